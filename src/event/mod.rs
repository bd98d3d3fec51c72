//! The envelope of an event: which webhook it is for, its CloudEvents attributes, and its body.

pub mod http;
pub mod trace;

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
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
    pub body: Bytes,
    /// Where the webhook asks for order: events with the same key go out one at a time, as they came.
    pub key: Option<String>,
}

/// What a sender calls an event, in short: what has the same is the same event. Half of a SHA-256.
pub type SenderKey = [u8; 16];

impl Event {
    /// By CloudEvents, source and id name an event. `None` for one that its sender did not name.
    pub fn sender_key(&self) -> Option<SenderKey> {
        let (source, id) = (self.attributes.get("source")?, self.attributes.get("id")?);
        if *id == self.id.to_string() {
            return None;
        }
        let digest = Sha256::new().chain_update(source).chain_update([0]).chain_update(id).finalize();
        digest.first_chunk().copied()
    }
}
