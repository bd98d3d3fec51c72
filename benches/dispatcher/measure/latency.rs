//! From a post to its arrival.

use super::{SENDERS, Scale};
use crate::{
    receiver::Receiver,
    report::Row,
    sender::{self, Paths},
};

/// Events a second of a quiet day.
const QUIET: f64 = 100.0;

pub(super) async fn run(live: &Paths, receiver: &Receiver, saturation: f64, scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (rate, p50, p99) in [
        (QUIET, "end to end, p50 at 100 events/s", "end to end, p99 at 100 events/s"),
        (saturation / 2.0, "end to end, p50 at half of saturation", "end to end, p99 at half of saturation"),
    ] {
        println!("{p50}");
        receiver.forget().await;
        let sent = sender::pace(live, rate, SENDERS, scale.latency).await;
        receiver.wait_for(sent.events).await;
        let latency = receiver.latency().await;
        let row =
            |name, value| Row { name, value, unit: "ms", marks: None, numerator: None, denominator: None };
        rows.extend([row(p50, latency.p50), row(p99, latency.p99)]);
    }
    rows
}
