//! Many webhooks at once, beside one of them.

use std::sync::Arc;

use super::{Scale, delivered, ratio};
use crate::{
    harness::cluster::Cluster,
    receiver::Receiver,
    report::{Better, Row},
    stage::{Kind, Model, Stage},
};

pub(super) async fn run(
    cluster: &Arc<Cluster>,
    model: &Model,
    receiver: &Receiver,
    scale: &Scale,
) -> [Row; 1] {
    let names: Vec<_> = (0..scale.webhooks).map(|n| format!("webhook-{n}")).collect();
    println!("{} webhooks are made", names.len());
    let stage = Stage::new(cluster, model, names.iter().cloned(), |_| Kind::Good).await;
    let dispatcher = stage.dispatcher().await;
    let (one, all) = (dispatcher.paths_of(&names[0]), dispatcher.paths(names));
    // Their connections are opened.
    delivered(&all, receiver, scale.slice).await;
    let mut rounds = Vec::new();
    for n in 0..scale.rounds {
        println!("many webhooks, round {} of {}", n + 1, scale.rounds);
        let of_one = delivered(&one, receiver, scale.slice).await;
        rounds.push((delivered(&all, receiver, scale.slice).await, of_one));
    }
    [ratio("delivered/s of 1,000 webhooks at once / of one", Better::More, (0.7, 0.9), "/s", rounds)]
}
