//! The HTTP client of one identity: its TLS configuration, its connections, its sessions.
//!
//! It lives exactly as long as the identity is in use. A client for each request would connect each time;
//! one that outlived a rotation would go on with the old certificate.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    identity::{Facts, Identity, Recorder, TlsError, Trust, recorded_client_config},
    limits,
};

/// Sends requests with one identity, or with none.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    identity: Option<Facts>,
    recorder: Arc<Recorder>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client could not be made of it.
    #[error("the HTTP client cannot be made: {0}")]
    Http(reqwest::Error),
}

impl Client {
    /// A client that presents `identity` to servers that `trust` covers.
    pub fn new(identity: Option<&Arc<Identity>>, trust: &Trust) -> Result<Self, ClientError> {
        let recorder = Arc::new(Recorder::default());
        let config = recorded_client_config(identity.map(AsRef::as_ref), trust, &recorder)?;
        let http = http_client(config).build().map_err(ClientError::Http)?;
        Ok(Self { http, identity: identity.map(|identity| identity.facts().clone()), recorder })
    }

    /// The certificate that is presented.
    pub fn identity(&self) -> Option<&Facts> {
        self.identity.as_ref()
    }

    /// Whether its certificate may be presented at `now`; true without one.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.identity.as_ref().is_none_or(|facts| facts.is_valid_at(now))
    }

    /// Full handshakes so far.
    pub(super) fn handshakes(&self) -> usize {
        self.recorder.handshakes()
    }

    /// Whether the endpoint has ever asked for a client certificate.
    pub(super) fn certificate_requested(&self) -> bool {
        self.recorder.certificate_requested()
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }
}

/// What every client that leaves the cluster has in common.
pub(super) fn http_client(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy from the environment would be one more party that the webhook does not name.
        .no_proxy()
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .pool_idle_timeout(limits::IDLE_CONNECTION)
        .pool_max_idle_per_host(limits::IDLE_CONNECTIONS)
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
}
