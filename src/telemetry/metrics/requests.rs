//! Requests: those of senders to ingest, and ours to the API server.

use http::StatusCode;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counts what senders send.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    accepted: Counter,
    answers: Family<[(&'static str, u16); 1], Counter>,
}

impl Requests {
    pub(super) fn register(&self, registry: &mut Registry) {
        let accepted =
            "Events that were answered 202, those of each webhook; one that was sent again counts again";
        registry.register("events_accepted", accepted, self.accepted.clone());
        let answers = "Answers of ingest to requests, by HTTP status";
        registry.register("ingest_requests", answers, self.answers.clone());
    }

    /// Events are on disk, and answered 202.
    pub(crate) fn accepted(&self, events: usize) {
        self.accepted.inc_by(events as u64);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.answers.get_or_create(&[("code", status.as_u16())]).inc();
    }
}

/// Counts what is asked of the API server.
#[derive(Clone, Debug, Default)]
pub struct ApiRequests(Family<[(&'static str, String); 1], Counter>);

impl ApiRequests {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests to the API server but those of the Lease, by the status of the answer; none where there \
                    was no answer";
        registry.register("kubernetes_requests", help, self.0.clone());
    }

    /// An answer, or none.
    pub(crate) fn answered(&self, status: Option<StatusCode>) {
        let code = status.map_or_else(|| "none".to_owned(), |status| status.as_u16().to_string());
        self.0.get_or_create(&[("code", code)]).inc();
    }
}
