//! The envelope of an event: which webhook it is for, its CloudEvents attributes, and its body.

pub mod http;

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

/// A webhook by name: what ingest, queue and deliveries know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for WebhookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An event on its way to one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same in every attempt; receivers see it as `webhook-id`. Version 7, so ids sort by time.
    pub id: Uuid,
    /// Where it goes.
    pub webhook: WebhookKey,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The CloudEvents context attributes by name, `specversion` and `datacontenttype` included.
    pub attributes: BTreeMap<String, String>,
    /// The data, as it came.
    pub body: Vec<u8>,
    /// Where the webhook asks for order: events with the same key go out one at a time, as they came.
    pub key: Option<String>,
}
