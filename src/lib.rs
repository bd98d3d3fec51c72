//! Postrider: outbound webhooks over mutual TLS as a Kubernetes resource.

pub mod clock;
pub mod identity;
pub mod inspect;
pub mod keystore;
pub mod limits;
