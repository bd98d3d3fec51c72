//! What is measured, and how often.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    harness::cluster::Cluster,
    receiver::Receiver,
    report::{Better, Figure, Row},
    sender::{self, Paths},
    stage::Model,
};

mod costs;
mod crowd;
mod fairness;
mod full;
mod latency;
mod many;

/// Senders that saturate the dispatcher.
const SENDERS: usize = 64;

/// How much is measured.
pub(crate) struct Scale {
    /// Of numerators and denominators in turns; the middle one counts.
    rounds: usize,
    /// Of one figure in a round.
    slice: Duration,
    /// At once.
    webhooks: usize,
    /// Events of a full queue.
    pending: usize,
    /// With a full queue.
    starts: usize,
    /// At one rate.
    latency: Duration,
    /// Where the figures are written, beside what Cargo builds.
    pub(crate) file: &'static str,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        slice: Duration::from_secs(3),
        webhooks: 1000,
        pending: 1_000_000,
        starts: 5,
        latency: Duration::from_secs(15),
        file: "bench.json",
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        slice: Duration::from_secs(1),
        webhooks: 100,
        pending: 100_000,
        starts: 1,
        latency: Duration::from_secs(5),
        file: "bench-quick.json",
    };
}

impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, slice, webhooks, pending, .. } = self;
        write!(
            formatter,
            "{rounds} rounds of {slice:?} a figure, {webhooks} webhooks, {pending} pending events"
        )
    }
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Section {
    Costs,
    Crowd,
    Many,
    Fairness,
    Full,
}

/// Measures everything, or one section of it.
pub(crate) async fn run(cluster: &Arc<Cluster>, scale: &Scale, only: Option<Section>) -> Vec<Row> {
    let receiver = Receiver::start().await;
    let model = Box::pin(Model::new(cluster, &receiver)).await;
    let is_wanted = |section| only.is_none_or(|only| only == section);
    let mut rows = Vec::new();
    if is_wanted(Section::Costs) {
        rows.extend(costs::run(cluster, &model, &receiver, scale).await);
    }
    if is_wanted(Section::Crowd) {
        rows.extend(crowd::run(cluster, &model, scale).await);
    }
    if is_wanted(Section::Many) {
        rows.extend(many::run(cluster, &model, &receiver, scale).await);
    }
    if is_wanted(Section::Fairness) {
        rows.extend(fairness::run(cluster, &model, &receiver, scale).await);
    }
    if is_wanted(Section::Full) {
        // Last: the disk has to do with so much for a while.
        rows.extend(full::run(cluster, &model, &receiver, scale).await);
    }
    rows
}

/// A ratio of two figures for each round: the round whose ratio is the middle one.
fn ratio(
    name: &'static str,
    better: Better,
    (must, aim): (f64, f64),
    unit: &'static str,
    mut rounds: Vec<(f64, f64)>,
) -> Row {
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (numerator, denominator) = rounds[rounds.len() / 2];
    let figure = |value| Some(Figure { value, unit });
    Row {
        name,
        value: numerator / denominator,
        unit: "ratio",
        marks: Some((better, must, aim)),
        numerator: figure(numerator),
        denominator: figure(denominator),
    }
}

/// Events a second, end to end, at saturation.
async fn delivered(paths: &Paths, receiver: &Receiver, time: Duration) -> f64 {
    receiver.forget().await;
    let sent = sender::saturate(paths, SENDERS, time).await;
    let arrived = receiver.wait_for(sent.events).await;
    rate(sent.events, sent.from, arrived.last)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Events a second, by the clock that all processes share.
fn rate(events: u32, from: u64, till: u64) -> f64 {
    f64::from(events) / Duration::from_nanos(till.saturating_sub(from)).as_secs_f64()
}
