//! A queue with a million events that wait.

use std::{sync::Arc, time::Duration};

use super::{Scale, median};
use crate::{
    event,
    harness::{cluster::Cluster, usage},
    receiver::Receiver,
    report::{Better, Row},
    sender,
    stage::{Kind, Model, Stage},
};

/// Webhooks that the events are of: one alone may not have as many bytes.
const WEBHOOKS: usize = 4;

/// Senders that fill the queue.
const FILLERS: usize = 4;

/// Deliveries go on for so long before memory is looked at.
const DELIVERIES: Duration = Duration::from_secs(3);

pub(super) async fn run(
    cluster: &Arc<Cluster>,
    model: &Model,
    receiver: &Receiver,
    scale: &Scale,
) -> [Row; 3] {
    let names: Vec<_> = (0..WEBHOOKS).map(|n| format!("full-{n}")).collect();
    let stage = Stage::new(cluster, model, names.iter().cloned(), |_| Kind::Suspended).await;
    let dispatcher = stage.dispatcher().await;
    println!("{} events are put in the queue", scale.pending);
    sender::fill(&dispatcher.paths(names.iter().cloned()), scale.pending, FILLERS).await;
    dispatcher.process.terminate().await;

    let dispatcher = stage.dispatcher().await;
    let at_rest = usage::memory(dispatcher.process.pid()).now_mib;
    dispatcher.process.terminate().await;

    for name in &names {
        stage.resume(name).await;
    }
    let (mut starts, mut peaks) = (Vec::new(), Vec::new());
    for n in 0..scale.starts {
        println!("a full queue, start {} of {}", n + 1, scale.starts);
        receiver.forget().await;
        let from = event::now();
        let dispatcher = stage.dispatcher().await;
        let first = receiver.wait_for(1_u32).await.first;
        starts.push(Duration::from_nanos(first.saturating_sub(from)).as_secs_f64());
        tokio::time::sleep(DELIVERIES).await;
        peaks.push(usage::memory(dispatcher.process.pid()).peak_mib);
        dispatcher.process.terminate().await;
    }
    let row = |name, value, unit, marks| Row { name, value, unit, marks, numerator: None, denominator: None };
    [
        row(
            "resident memory with a million pending, at most",
            peaks.into_iter().fold(at_rest, f64::max),
            "MiB",
            Some((Better::Less, 96.0, 64.0)),
        ),
        row("  of it before anything is delivered", at_rest, "MiB", None),
        row(
            "start with a million pending, to the first delivery",
            median(starts),
            "s",
            Some((Better::Less, 2.0, 0.5)),
        ),
    ]
}
