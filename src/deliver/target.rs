//! What a worker is to do.

use std::{sync::Arc, time::Duration};

use super::{Client, RetryPolicy};

/// What a worker is to do. Readers see it whole or not at all.
#[derive(Clone, Debug)]
pub enum Assignment {
    /// Send.
    Deliver(Arc<Target>),
    /// Keep what comes, and send nothing; why.
    Hold(&'static str),
}

/// Where to send, and how.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub url: reqwest::Url,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// Attempts under way at one time.
    pub max_in_flight: usize,
    /// When a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// The client with the certificate that was asked for.
    pub client: Arc<Client>,
}
