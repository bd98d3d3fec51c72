//! Postrider: outbound webhooks over mutual TLS as a Kubernetes resource.

pub mod api;
pub mod clock;
pub mod event;
pub mod identity;
pub mod keystore;
pub mod limits;
pub mod queue;
