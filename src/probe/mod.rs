//! The connection test: whether an endpoint can be reached, is who it should be, and takes a certificate.
//!
//! It makes the connection that a delivery makes, with the endpoint's trust and one identity, and then reads
//! before it writes: a TLS 1.3 server refuses a client certificate only after the client's handshake is
//! complete, and a client that writes at once may lose the alert to a reset. By choice it also sends a HEAD
//! or OPTIONS request, for servers that refuse in HTTP. It never sends an event or a credential other than
//! the certificate, and follows no redirect. A server that wants another credential answers 401 or 403 to that,
//! which says nothing of the certificate. Where the identity cannot be used it sends nothing.
//!
//! [`classify`] and [`http`] are pure, and judge deliveries as well.

pub mod classify;
mod connect;
pub mod http;
mod reason;
mod report;
mod tls_error;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use classify::{Context, Failure, Refusal, Stage};
pub use reason::{Alert, Layer, Reason};
pub use report::{ServerCertificate, Tls};

use crate::{
    egress::Egress,
    identity::{Identity, Trust},
};
use connect::Connection;

/// What is tested.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Its https URL.
    pub url: &'a url::Url,
    /// Who it may be.
    pub trust: &'a Trust,
    /// What is sent once TLS is up.
    pub request: Request,
    /// Whether deliveries carry headers, authorization or a signature, which the test leaves out.
    pub credentials_left_out: bool,
    /// Time for all of it.
    pub timeout: Duration,
    /// What may be dialled, and how.
    pub egress: &'a Egress,
}

/// What a test sends once TLS is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// Nothing: the handshake and a first read.
    #[default]
    None,
    /// A HEAD request.
    Head,
    /// An OPTIONS request.
    Options,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The constant.
    pub reason: Reason,
    /// Where it failed; `None` where it passed.
    pub layer: Option<Layer>,
    /// What was seen, and what to do about it.
    pub message: String,
    /// The alert that the server sent.
    pub alert: Option<Alert>,
    /// Whether another certificate may do better.
    pub refusal: Refusal,
    /// What may explain a failure, or deserves a look beside success.
    pub hint: Option<Hint>,
    /// What the handshake showed, also where it failed.
    pub tls: Option<Tls>,
    /// The status of the response.
    pub http_status: Option<u16>,
    /// The address that was connected to, by whomever.
    pub address: Option<SocketAddr>,
    /// How long it took.
    pub duration: Duration,
}

/// Something beside the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The constant.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
}

impl Outcome {
    /// Whether deliveries may be expected to arrive. A server that did not ask for the certificate passes,
    /// with a warning.
    pub fn succeeded(&self) -> bool {
        matches!(self.reason, Reason::Succeeded | Reason::ClientCertificateNotRequested)
    }
}

/// Tests an endpoint with an identity, or without one. It returns within the endpoint's timeout.
pub async fn probe(endpoint: &Endpoint<'_>, identity: Option<&Identity>) -> Outcome {
    let started = Instant::now();
    let mut connection = Connection::new(endpoint, identity);
    let result = match tokio::time::timeout(endpoint.timeout, connection.test()).await {
        Ok(result) => result,
        Err(_) => Err(classify::timed_out(connection.context())),
    };
    let tls = report::report(&connection.recorder.handshake(), connection.cipher_suite, identity);
    let hint = hint(tls.as_ref(), identity);
    let (http_status, address) = (connection.http_status, connection.address);
    let outcome = Outcome {
        reason: Reason::Succeeded,
        layer: None,
        message: String::new(),
        alert: None,
        refusal: Refusal::No,
        hint,
        tls,
        http_status,
        address,
        duration: started.elapsed(),
    };
    match result {
        Ok(()) => passed(outcome, identity.is_some(), endpoint.credentials_left_out),
        Err(failure) => failed(outcome, failure),
    }
}

fn passed(outcome: Outcome, presented: bool, credentials_left_out: bool) -> Outcome {
    let tls = outcome.tls.as_ref();
    let version = tls.and_then(|tls| tls.version).unwrap_or("TLS");
    let requested = tls.is_some_and(|tls| tls.certificate_requested);
    let answer = match outcome.http_status {
        Some(status @ (401 | 403)) if credentials_left_out => {
            format!("; it answered HTTP {status} to a test, which carries no headers and no authorization")
        }
        Some(status) => format!("; it answered HTTP {status}"),
        None => String::new(),
    };
    let (reason, what) = match (requested, presented) {
        (true, true) => {
            (Reason::Succeeded, "the server asked for the client certificate and did not refuse it")
        }
        (true, false) => (
            Reason::Succeeded,
            "the server asked for a client certificate, has got none (none is configured), and went on",
        ),
        (false, true) => (
            Reason::ClientCertificateNotRequested,
            "the connection works, but the server did not ask for the client certificate: it does not know the \
             client by it",
        ),
        (false, false) => (Reason::Succeeded, "the server is trusted, and asks for no client certificate"),
    };
    Outcome { reason, message: format!("{version}: {what}{answer}"), ..outcome }
}

fn failed(outcome: Outcome, failure: Failure) -> Outcome {
    let presented = match (failure.layer, outcome.tls.as_ref().and_then(|tls| tls.server_chain.first())) {
        // Who does not trust a server wants to know which one answered.
        (Layer::TlsServer, Some(leaf)) => {
            format!("; it is {}, issued by {}", leaf.subject, leaf.issuer)
        }
        _ => String::new(),
    };
    Outcome {
        reason: failure.reason,
        layer: Some(failure.layer),
        message: failure.message + &presented,
        alert: failure.alert,
        refusal: failure.refusal,
        ..outcome
    }
}

fn hint(tls: Option<&Tls>, identity: Option<&Identity>) -> Option<Hint> {
    let (tls, identity) = (tls.filter(|tls| tls.issuer_accepted == Some(false))?, identity?);
    Some(Hint {
        reason: Reason::IssuerNotAccepted,
        message: format!(
            "the authorities that the server names ({}) do not include the certificate's issuer {}; such a list \
             is often wrong, and the certificate is presented all the same",
            tls_error::told(&tls.accepted_authorities, tls.accepted_authorities_count),
            identity.facts().issuer
        ),
    })
}
