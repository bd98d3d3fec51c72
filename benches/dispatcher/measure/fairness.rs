//! A webhook with a crowd of events and a dead endpoint, beside one that works.

use std::sync::Arc;

use super::{Scale, delivered, ratio};
use crate::{
    harness::cluster::Cluster,
    receiver::Receiver,
    report::{Better, Row},
    sender,
    stage::{Dispatcher, Kind, Model, Stage},
};

const GOOD: &str = "good";
const DEAD: &str = "dead";

/// Senders that fill the queue.
const FILLERS: usize = 4;

pub(super) async fn run(
    cluster: &Arc<Cluster>,
    model: &Model,
    receiver: &Receiver,
    scale: &Scale,
) -> [Row; 1] {
    let kind = |name: &str| if name == DEAD { Kind::Dead } else { Kind::Good };
    let alone = Stage::new(cluster, model, [GOOD.to_owned()], kind).await;
    let beside = Stage::new(cluster, model, [GOOD, DEAD].map(str::to_owned), kind).await;
    // As many as one webhook may have bytes for.
    let events = scale.pending / 4 * 3;
    println!("{events} events wait for a dead endpoint");
    let dispatcher = beside.dispatcher().await;
    sender::fill(&dispatcher.paths_of(DEAD), events, FILLERS).await;
    dispatcher.process.terminate().await;
    let mut rounds = Vec::new();
    for n in 0..scale.rounds {
        println!("a dead endpoint, round {} of {}", n + 1, scale.rounds);
        let of_alone = delivered_to_good(&alone.dispatcher().await, receiver, scale).await;
        rounds.push((delivered_to_good(&beside.dispatcher().await, receiver, scale).await, of_alone));
    }
    [ratio(
        "delivered/s beside a dead endpoint with a crowd waiting / alone",
        Better::More,
        (0.9, 0.97),
        "/s",
        rounds,
    )]
}

/// Events a second, end to end; the dispatcher ends.
async fn delivered_to_good(dispatcher: &Dispatcher, receiver: &Receiver, scale: &Scale) -> f64 {
    let paths = dispatcher.paths_of(GOOD);
    // Its connections are opened.
    delivered(&paths, receiver, scale.slice / 4).await;
    let rate = delivered(&paths, receiver, scale.slice).await;
    dispatcher.process.terminate().await;
    rate
}
