//! Postrider: outbound webhooks over mutual TLS as a Kubernetes resource.

pub mod api;
mod backoff;
mod causes;
pub mod clock;
pub mod controller;
pub mod credentials;
pub mod deliver;
pub mod dispatcher;
#[cfg(test)]
mod docs;
pub mod egress;
pub mod event;
pub mod identity;
pub mod ingest;
pub mod inspect;
pub mod keystore;
mod kubernetes;
pub mod limits;
pub mod plugin;
pub mod probe;
pub mod queue;
pub mod rotation;
mod server;
pub mod telemetry;
mod text;

/// How requests call themselves.
const USER_AGENT: &str = concat!("postrider/", env!("CARGO_PKG_VERSION"));
