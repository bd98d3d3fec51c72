//! Metrics, in the notation of Prometheus: `/metrics`, beside health.
//!
//! Whoever counts keeps instruments of its own, and a program puts those of its parts together: nothing is looked up
//! by its name while events go by. What can be known by looking is looked at only when somebody asks.
//!
//! The number of series is bounded. A label has a few known values, but for `namespace` and `webhook`: only gauges and
//! counters have these, no histogram, the series of a webhook go with it, and so many webhooks have series of their
//! own at most ([`limits::METRICS_WEBHOOKS`](crate::limits::METRICS_WEBHOOKS)). `docs/metrics.md` tells of each metric;
//! a test compares. No label holds a URL, a name out of a certificate, or anything of a Secret.

mod connections;
mod controller;
mod dispatcher;
mod page;
mod queue;
mod requests;

#[cfg(test)]
mod tests;

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use crate::event::WebhookKey;
pub use connections::{Connections, Handshake};
pub use controller::{Certificate, ControllerMetrics, Keystore, Observed, Term, Tested};
pub use dispatcher::{Amounts, Deliveries, DispatcherMetrics, Flow, Parts};
pub use page::Page;
pub(super) use page::tell;
pub use queue::QueueMetrics;
pub use requests::{ApiRequests, Requests};

/// What every name begins with.
const PREFIX: &str = "postrider";

/// Stands for all webhooks together that have no series of their own, as namespace and as name. Neither can be called
/// so in Kubernetes.
const OTHER: &str = "_other";

/// A label and its value, both known beforehand.
type Label = [(&'static str, &'static str); 1];

/// Of which webhook something is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    webhook: String,
}

impl Labels {
    fn of(WebhookKey { namespace, name: webhook }: WebhookKey) -> Self {
        Self { namespace, webhook }
    }

    fn other() -> Self {
        Self { namespace: OTHER.to_owned(), webhook: OTHER.to_owned() }
    }
}

/// A counter for each value of a label.
#[derive(Clone, Debug)]
pub(crate) struct CountersBy {
    label: &'static str,
    family: Family<Label, Counter>,
}

impl CountersBy {
    /// Those with known values are told from the beginning: a counter that appears with its first event has not
    /// increased in the eyes of Prometheus.
    fn new(label: &'static str, values: impl IntoIterator<Item = &'static str>) -> Self {
        let family = Family::<Label, Counter>::default();
        for value in values {
            drop(family.get_or_create(&[(label, value)]));
        }
        Self { label, family }
    }

    /// One more.
    pub(crate) fn inc(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }
}

/// Tells a value that is looked at only when somebody asks.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

/// Tells several of them, each with its labels; where there is none, nothing is told of the metric.
fn family<L: EncodeLabelSet, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    values.try_for_each(|(labels, value)| value.encode(family.encode_family(&labels)?))
}

/// A registry that says which program and version it is of.
fn registry(program: &'static str) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let build = Info::new([("program", program), ("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Which program this is, and of which version; always 1", build);
    registry
}
