//! CPU time and waiting time of one event, beside those of the parts alone.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{SENDERS, Scale, latency, median, rate, ratio};
use crate::{
    harness::{cluster::Cluster, process::Process, usage},
    parts::{self, Cost},
    receiver::Receiver,
    report::{Better, Figure, Row},
    sender::{self, Paths, Sender},
    stage::{Dispatcher, Kind, Model, Stage},
};

/// Takes events and sends them.
const LIVE: &str = "live";

/// Requests of the bare pool at one time: what a webhook has by default.
const IN_FLIGHT: u32 = 16;

/// For what is still to be written once the last event has arrived: nothing tells when it is.
const SETTLE: Duration = Duration::from_millis(200);

/// What one round found. CPU times and waiting times are microseconds.
struct Round {
    parts: Parts,
    /// CPU of an event that is taken and delivered.
    end_to_end: f64,
    /// CPU of an event that is taken.
    accept: f64,
    /// CPU of an event that is delivered.
    delivery: f64,
    /// Waiting time of one sender for a 202, the middle one.
    accept_p50: f64,
    /// Events a second, end to end.
    delivered_per_second: f64,
    requests: u64,
    connections: u64,
}

struct Parts {
    /// CPU of a plain HTTP request at its server.
    accept: f64,
    /// CPU of a row that is put in.
    append: f64,
    /// CPU of a row that is taken out.
    removal: f64,
    /// CPU of an mTLS request at its client.
    request: f64,
    /// Waiting time of one sender for a plain 202, the middle one.
    round_trip_p50: f64,
    /// Waiting time for 4 KiB to be on disk, the middle one.
    sync_p50: f64,
}

pub(super) async fn run(
    cluster: &Arc<Cluster>,
    model: &Model,
    receiver: &Receiver,
    scale: &Scale,
) -> Vec<Row> {
    let held = |round| format!("held-{round}");
    let names = (0..scale.rounds).map(held).chain([LIVE.to_owned()]);
    let stage =
        Stage::new(cluster, model, names, |name| if name == LIVE { Kind::Good } else { Kind::Suspended })
            .await;
    let dispatcher = stage.dispatcher().await;
    let plain = parts::accepts::start().await;
    let mut rounds = Vec::new();
    for n in 0..scale.rounds {
        println!("costs, round {} of {}", n + 1, scale.rounds);
        rounds.push(round(&stage, &dispatcher, receiver, &plain, &held(n), scale.slice).await);
    }
    let mut rows = rows(&rounds);
    let saturation = median(rounds.iter().map(|round| round.delivered_per_second).collect());
    rows.extend(latency::run(&dispatcher.paths_of(LIVE), receiver, saturation, scale).await);
    rows
}

async fn round(
    stage: &Stage,
    dispatcher: &Dispatcher,
    receiver: &Receiver,
    (plain, plain_paths): &(Process, Paths),
    held: &str,
    slice: Duration,
) -> Round {
    let paths = dispatcher.paths_of(held);
    let process = &dispatcher.process;

    let waits = waits(&paths, plain_paths, stage.queue(), slice).await;
    let (accept, accepted) =
        cost(process, sender::saturate(&paths, SENDERS, slice), |sent| sent.events).await;
    let (plain_accept, _) =
        cost(plain, sender::saturate(plain_paths, SENDERS, slice), |sent| sent.events).await;
    let rows = parts::appends::costs(stage.queue(), slice).await;

    receiver.forget().await;
    let waiting = waits.events + accepted.events;
    let delivered = async {
        stage.resume(held).await;
        let arrived = receiver.wait_for(waiting).await;
        tokio::time::sleep(SETTLE).await;
        arrived
    };
    let (delivery, drained) = cost(process, delivered, |_| waiting).await;
    let request = parts::pool::cost(&receiver.url(), IN_FLIGHT, slice).await;

    receiver.forget().await;
    let live = dispatcher.paths_of(LIVE);
    let delivered = async {
        let sent = sender::saturate(&live, SENDERS, slice).await;
        let arrived = receiver.wait_for(sent.events).await;
        tokio::time::sleep(SETTLE).await;
        (sent, arrived)
    };
    let (end_to_end, (sent, arrived)) = cost(process, delivered, |(sent, _)| sent.events).await;

    Round {
        end_to_end: end_to_end.each(),
        accept: accept.each(),
        delivery: delivery.each(),
        accept_p50: waits.accept,
        delivered_per_second: rate(sent.events, sent.from, arrived.last),
        requests: drained.requests + arrived.requests,
        connections: drained.connections + arrived.connections,
        parts: Parts {
            accept: plain_accept.each(),
            append: rows.append.each(),
            removal: rows.removal.each(),
            request: request.each(),
            round_trip_p50: waits.round_trip,
            sync_p50: waits.sync,
        },
    }
}

/// CPU time that a process uses for `work`.
async fn cost<T>(process: &Process, work: impl Future<Output = T>, times: impl Fn(&T) -> u32) -> (Cost, T) {
    let before = usage::cpu(process.pid());
    let done = work.await;
    (Cost { times: times(&done), cpu: usage::cpu(process.pid()).saturating_sub(before) }, done)
}

/// How long one sender waits, the middle times in microseconds.
struct Waits {
    events: u32,
    accept: f64,
    round_trip: f64,
    sync: f64,
}

/// One event, one plain request and one page in turns: a disk that others write to is slow for seconds.
async fn waits(paths: &Paths, plain: &Paths, directory: &Path, time: Duration) -> Waits {
    let (mut sender, mut plain_sender) =
        (Sender::connect(paths.address).await, Sender::connect(plain.address).await);
    let mut page = Page::new(directory);
    let (mut accept, mut round_trip, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    let till = Instant::now() + time;
    while Instant::now() < till {
        accept.push(microseconds(sender.post(&paths.paths[0]).await));
        round_trip.push(microseconds(plain_sender.post(&plain.paths[0]).await));
        sync.push(microseconds(page.write()));
    }
    Waits {
        events: u32::try_from(accept.len()).unwrap_or(u32::MAX),
        accept: median(accept),
        round_trip: median(round_trip),
        sync: median(sync),
    }
}

/// A page that is written over and over in a file that has its place on disk, as a log is that starts anew.
struct Page {
    file: File,
    written: u64,
}

impl Page {
    const BYTES: usize = 4096;
    const PLACES: u64 = 1000;

    fn new(directory: &Path) -> Self {
        let file = tempfile::tempfile_in(directory).expect("a file beside the queue");
        let mut page = Self { file, written: 0 };
        while page.written < Self::PLACES {
            page.put();
        }
        page.file.sync_all().expect("it can be written to disk");
        page
    }

    fn put(&mut self) {
        let place = self.written % Self::PLACES * Self::BYTES as u64;
        self.file.write_all_at(&[1; Self::BYTES], place).expect("there is room on the disk");
        self.written += 1;
    }

    /// Returns how long it took to be on disk.
    fn write(&mut self) -> Duration {
        let from = Instant::now();
        self.put();
        self.file.sync_data().expect("it can be written to disk");
        from.elapsed()
    }
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let of = |figures: fn(&Round) -> (f64, f64)| rounds.iter().map(figures).collect::<Vec<_>>();
    let requests: u64 = rounds.iter().map(|round| round.requests).sum();
    let connections: u64 = rounds.iter().map(|round| round.connections).sum();
    #[allow(clippy::cast_precision_loss)]
    let reused = (requests.saturating_sub(connections)) as f64 / requests.max(1) as f64;
    let info = |name, unit, figure: fn(&Round) -> f64| Row {
        name,
        value: median(rounds.iter().map(figure).collect()),
        unit,
        marks: None,
        numerator: None,
        denominator: None,
    };
    vec![
        ratio(
            "CPU of an event, end to end / the sum of its parts alone",
            Better::Less,
            (2.3, 1.6),
            "us",
            of(|Round { parts, end_to_end, .. }| (*end_to_end, parts.accept + parts.append + parts.request)),
        ),
        ratio(
            "delivered/s per core / bare pool over mTLS",
            Better::More,
            (0.25, 0.35),
            "/s per core",
            of(|round| (1e6 / round.delivery, 1e6 / round.parts.request)),
        ),
        ratio(
            "durable accepts/s per core / raw appends at batch 64",
            Better::More,
            (0.12, 0.2),
            "/s per core",
            of(|round| (1e6 / round.accept, 1e6 / round.parts.append)),
        ),
        ratio(
            "p50 of an accept by one sender / (round trip + fdatasync)",
            Better::Less,
            (2.5, 1.75),
            "us",
            of(|round| (round.accept_p50, round.parts.round_trip_p50 + round.parts.sync_p50)),
        ),
        Row {
            name: "requests on a reused connection",
            value: 100.0 * reused,
            unit: "%",
            marks: Some((Better::More, 99.0, 99.9)),
            #[allow(clippy::cast_precision_loss)]
            numerator: Some(Figure { value: requests.saturating_sub(connections) as f64, unit: "requests" }),
            #[allow(clippy::cast_precision_loss)]
            denominator: Some(Figure { value: requests as f64, unit: "requests" }),
        },
        info("  part: CPU of a plain HTTP accept", "us", |round| round.parts.accept),
        info("  part: CPU of an append at batch 64", "us", |round| round.parts.append),
        info("  part: CPU of a removal at batch 64", "us", |round| round.parts.removal),
        info("  part: CPU of an mTLS request by a bare pool", "us", |round| round.parts.request),
        info("  part: p50 of a plain HTTP round trip", "us", |round| round.parts.round_trip_p50),
        info("  part: p50 of an fdatasync of 4 KiB", "us", |round| round.parts.sync_p50),
        info("delivered end to end at saturation", "/s", |round| round.delivered_per_second),
    ]
}
