//! Connections to endpoints, those of tests included.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::VariantArray as _;

use super::CountersBy;

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Handshake {
    /// As seen from here. In TLS 1.3 a server refuses a client certificate only after that.
    Completed,
    /// One side ended it.
    Failed,
    /// Nobody did in time.
    TimedOut,
}

/// Counts them.
#[derive(Clone, Debug)]
pub struct Connections {
    opened: Counter,
    failed: Counter,
    handshakes: CountersBy,
}

impl Default for Connections {
    fn default() -> Self {
        let handshakes = CountersBy::new("outcome", Handshake::VARIANTS.iter().map(Into::into));
        Self { opened: Counter::default(), failed: Counter::default(), handshakes }
    }
}

impl Connections {
    pub(super) fn register(&self, registry: &mut Registry) {
        let opened =
            "TCP connections to endpoints and token endpoints that were opened, through a proxy or not";
        registry.register("connections_opened", opened, self.opened.clone());
        let failed =
            "Connections that did not come about: no address, a refused one, nobody there, or no answer";
        registry.register("connections_failed", failed, self.failed.clone());
        let handshakes = "TLS handshakes on these connections, by how they ended";
        registry.register("tls_handshakes", handshakes, self.handshakes.family.clone());
    }

    /// There is a connection, or none.
    pub(crate) fn dialled(&self, opened: bool) {
        (if opened { &self.opened } else { &self.failed }).inc();
    }

    /// A handshake on a connection has ended.
    pub(crate) fn shook_hands(&self, outcome: Handshake) {
        self.handshakes.inc(outcome.into());
    }
}
