//! A good sender among thousands of bad ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Scale, ratio};
use crate::{
    harness::{cluster::Cluster, crowd::Crowd},
    report::{Better, Row},
    sender::{Paths, Sender},
    stage::{Kind, Model, Stage},
};

const HELD: &str = "held";

/// Bad senders.
const BAD: usize = 2000;

pub(super) async fn run(cluster: &Arc<Cluster>, model: &Model, scale: &Scale) -> [Row; 1] {
    let stage = Stage::new(cluster, model, [HELD.to_owned()], |_| Kind::Suspended).await;
    let (dispatcher, secure) = stage.secure_dispatcher().await;
    let paths = dispatcher.paths_of(HELD);
    let mut rounds = Vec::new();
    for n in 0..scale.rounds {
        let alone = p99(&paths, scale.slice).await;
        let crowd = Crowd::gather(paths.address, secure, &paths.paths[0], BAD).await;
        let among = p99(&paths, scale.slice).await;
        println!("{} bad senders, round {} of {}", crowd.open(), n + 1, scale.rounds);
        rounds.push((among, alone));
    }
    [ratio("p99 of an accept among 2,000 bad connections / alone", Better::Less, (2.0, 1.25), "us", rounds)]
}

/// Waiting time of one sender for a 202 that 99 of 100 do not exceed, microseconds.
async fn p99(paths: &Paths, time: Duration) -> f64 {
    let mut sender = Sender::connect(paths.address).await;
    let till = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < till {
        times.push(sender.post(&paths.paths[0]).await);
    }
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}
