//! The soak: receivers that are good, slow, failing, refusing and vanishing, a dispatcher that is killed again and
//! again, and at the end the books: every event that was acknowledged is delivered, pending or dead, exactly one
//! of them. Meanwhile memory and the queue's file level off.
//!
//! ```sh
//! make soak MINUTES=30
//! cargo test --test soak -- --minutes 30 --seed 7
//! ```
//!
//! The seed decides who does what for how long; how it falls together in time is the machine's affair.

// What cannot go on says so by panicking; the harness turns that into a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant as Timer, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

mod books;
mod growth;
#[macro_use]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod receivers;
mod report;

use books::{Books, Doubts, Kept};
use growth::Growth;
use harness::{
    cluster::Cluster,
    load::Load,
    pki,
    programs::Programs,
    scene::{Scene, active},
};
use receivers::{Kind, Receiver};
use report::Report;

/// Between two looks at memory and file.
const LOOK: Duration = Duration::from_secs(10);

/// Looks between two lines for who watches.
const LOOKS_A_LINE: usize = 6;

/// How long the dispatcher lives between two kills, seconds: long enough for its memory to show.
const LIFE_SECONDS: std::ops::Range<u64> = 5..60;

/// How long it is down, milliseconds.
const DOWN_MILLIS: std::ops::Range<u64> = 0..3000;

/// After the last disturbance, for what is on its way: attempts back off four seconds at most.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(2);

/// Show that nothing is lost, nothing is sent twice without need, and nothing grows.
#[derive(Parser)]
struct Arguments {
    /// How long to disturb
    #[arg(long, default_value_t = 30, value_name = "N")]
    minutes: u64,
    /// Repeats the order of an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Events a second, for each webhook but the refusing one
    #[arg(long, default_value_t = 25, value_name = "N")]
    rate: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    harness::run_alone("soak", |cluster| async move { soak(cluster, &arguments).await })
}

async fn soak(cluster: Arc<Cluster>, arguments: &Arguments) -> bool {
    let seed = arguments.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let time = Duration::from_mins(arguments.minutes);
    println!("{} min, seed {seed} (--seed {seed} repeats it)", arguments.minutes);

    let doubts = Arc::new(Doubts::default());
    let (receivers, programs, _namespace) = start(&cluster, &doubts).await;
    let mut load = Load::new();
    for receiver in &receivers {
        let (kind, books) = (receiver.kind(), Arc::clone(receiver.books()));
        let rate = kind.rate(f64::from(arguments.rate), time);
        load.post(kind.name(), rate, move |id| books.acknowledged(id), &programs.url());
    }

    let stop = CancellationToken::new();
    for (n, receiver) in (1..).zip(&receivers) {
        tokio::spawn(
            Arc::clone(receiver).change_moods(StdRng::seed_from_u64(seed.wrapping_add(n)), stop.clone()),
        );
    }
    let started = Instant::now();
    let mut growth = Growth::new(programs.queue());
    {
        // The second half is one life, so that its memory can be seen to level off.
        let mut disturbed = std::pin::pin!(async {
            kill(&programs, &doubts, StdRng::seed_from_u64(seed), started + time / 2).await;
            sleep_until((started + time).into()).await;
        });
        let mut looks = interval_at(Timer::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = &mut disturbed => break,
                _ = looks.tick() => {
                    growth.look(programs.dispatcher_pid());
                    if growth.looks().is_multiple_of(LOOKS_A_LINE) {
                        println!("{}", report::progress(started, &receivers, &programs, &growth));
                    }
                }
            }
        }
    }
    load.stop().await;
    stop.cancel();
    let mut failures = settle(&receivers).await;
    programs.end_dispatcher().await;
    let kept = Kept::read(programs.queue());
    let report = Report::new(&receivers, &kept, &growth, programs.kills(), seed, started.elapsed());
    failures.extend(report.failures());
    report.print(&failures)
}

/// Everything runs, and every webhook is ready.
async fn start(cluster: &Arc<Cluster>, doubts: &Arc<Doubts>) -> (Vec<Arc<Receiver>>, Programs, Scene) {
    let scene = Scene::without_controller(Arc::clone(cluster)).await;
    scene.enable(true).await;
    let mut receivers = Vec::new();
    for kind in Kind::ALL {
        let books = Arc::new(Books::new(Arc::clone(doubts)));
        let receiver = Receiver::start(kind, books).await;
        scene.keystore(kind.name(), pki::shared().await.pkcs12().await).await;
        let mut retry = json!({ "initialSeconds": 1, "maxSeconds": 4 });
        if let Some(seconds) = kind.max_age_seconds() {
            retry["maxAgeSeconds"] = json!(seconds);
        }
        let active = active(kind.name(), "PKCS12");
        let spec = json!({ "mtls": { "active": active }, "delivery": { "retry": retry } });
        scene.webhook(kind.name(), &receiver.url(), spec).await;
        receivers.push(receiver);
    }
    let programs = Programs::start(cluster, scene.namespace.name()).await;
    for kind in Kind::ALL {
        scene.ready(kind.name()).await;
    }
    (receivers, programs, scene)
}

/// Kills the dispatcher again and again until a time.
async fn kill(programs: &Programs, doubts: &Doubts, mut random: StdRng, till: Instant) {
    loop {
        let life = Duration::from_secs(random.random_range(LIFE_SECONDS));
        if life >= till.saturating_duration_since(Instant::now()) {
            return;
        }
        sleep(life).await;
        let down = Duration::from_millis(random.random_range(DOWN_MILLIS));
        doubts.during(programs.kill_dispatcher(down)).await;
    }
}

/// Waits until all is delivered that can be: every receiver but the refusing one is good by now.
async fn settle(receivers: &[Arc<Receiver>]) -> Vec<String> {
    let deadline = Timer::now() + SETTLE_TIMEOUT;
    let mut failures = Vec::new();
    for receiver in receivers.iter().filter(|receiver| receiver.kind() != Kind::Refusing) {
        let settled = timeout(deadline - Timer::now(), receiver.books().settled()).await;
        if settled.is_err() {
            failures.push(format!(
                "{}: not all that was acknowledged arrived within {SETTLE_TIMEOUT:?} after the end",
                receiver.kind().name()
            ));
        }
    }
    failures
}
