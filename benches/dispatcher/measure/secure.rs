//! Accepts over TLS from a sender whose right is known, beside plain ones.

use std::sync::Arc;

use super::{SENDERS, Scale, ratio};
use crate::{
    harness::cluster::Cluster,
    report::{Better, Row},
    sender::{self, Paths},
    stage::{Kind, Model, Stage},
};

const HELD: &str = "held";

pub(super) async fn run(cluster: &Arc<Cluster>, model: &Model, scale: &Scale) -> [Row; 1] {
    let stage = Stage::new(cluster, model, [HELD.to_owned()], |_| Kind::Suspended).await;
    // One sender that sends all.
    let (dispatcher, address) = stage.secure_dispatcher(&["--sender-rate=1000000"]).await;
    let plain = dispatcher.paths_of(HELD);
    let secure = Paths { address, door: Some(stage.door().await), ..plain.clone() };
    let mut rounds = Vec::new();
    for n in 0..scale.rounds {
        println!("over TLS, round {} of {}", n + 1, scale.rounds);
        let over_tls = accepted(&secure, scale).await;
        rounds.push((over_tls, accepted(&plain, scale).await));
    }
    let row = ratio("accepts/s over TLS with a known right / plain", Better::More, (0.0, 0.0), "/s", rounds);
    [Row { marks: None, ..row }]
}

/// Events a second.
async fn accepted(paths: &Paths, scale: &Scale) -> f64 {
    let sent = sender::saturate(paths, SENDERS, scale.slice).await;
    f64::from(sent.events) / scale.slice.as_secs_f64()
}
