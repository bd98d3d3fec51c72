//! What a failed connection means: an error and what was seen before it → layer, reason and a message.
//!
//! Pure, and shared by the connection test and the deliveries. Two rules hold throughout. An alert that the
//! server sent is judged before anything is said of the server's own certificate: it may be about ours. And
//! nothing claims a cause that only the server knows: the same alert means different things on different
//! servers.

use std::{error::Error, io};

use hyper_util::client::legacy;

use super::{
    reason::{Alert, Layer, Reason},
    tls_error,
};
use crate::{causes::causes, egress};

/// What was seen of a connection before it failed.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// A client certificate was to be presented.
    pub presented: bool,
    /// The server asked for one; `None` where nobody looked.
    pub requested: Option<bool>,
    /// How far it came.
    pub stage: Stage,
}

/// How far a connection came. A failure tells the refusal of a certificate only between the handshake and
/// the first byte after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The host's address is looked for.
    Resolve,
    /// The TCP connection is made.
    Connect,
    /// TLS shakes hands.
    Handshake,
    /// The handshake is complete on this side, nothing was sent or received since.
    FirstRead,
    /// A request was sent, nothing came back on this connection yet.
    Request,
    /// The connection has carried an answer before.
    Answered,
}

/// Whether a failure is the refusal of the client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is not.
    No,
    /// Some servers refuse like this, and it may as well be something else.
    Possible,
    /// The server said so.
    Certain,
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Where.
    pub layer: Layer,
    /// The constant.
    pub reason: Reason,
    /// The alert that the server sent.
    pub alert: Option<Alert>,
    /// Whether another certificate may do better.
    pub refusal: Refusal,
    /// What was seen, which side, and what to do; never a secret or the URL.
    pub message: String,
}

impl Failure {
    pub(super) fn new(layer: Layer, reason: Reason, message: impl Into<String>) -> Self {
        Self { layer, reason, alert: None, refusal: Refusal::No, message: message.into() }
    }

    pub(super) fn refusal(self, refusal: Refusal) -> Self {
        Self { refusal, ..self }
    }
}

/// Judges an error and what stands behind it: one of rustls, of std, of tokio, of an HTTP client, or of the
/// dialling.
pub fn classify(error: &(dyn Error + 'static), context: Context) -> Failure {
    let causes: Vec<_> = causes(error).collect();
    // A client that makes its own connections does not tell how far it came, except so.
    let connecting = causes.iter().any(|cause| cause.downcast_ref().is_some_and(legacy::Error::is_connect));
    let stage = if connecting { context.stage.min(Stage::Handshake) } else { context.stage };
    let context = Context { stage, ..context };

    if let Some(error) = causes.iter().find_map(|cause| cause.downcast_ref::<egress::Error>()) {
        return not_dialled(error);
    }
    if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return tls_error::classify(tls, context);
    }
    if causes.iter().any(|cause| is_timeout(*cause)) {
        return if connecting { connect_timed_out() } else { timed_out(context) };
    }
    // The last cause is the system's word.
    let root = causes.last().map_or_else(|| "unknown error".to_owned(), ToString::to_string);
    if causes.iter().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse) {
        return Failure::new(
            Layer::Http,
            Reason::HttpFailed,
            "what the server answered is no HTTP/1.1 response: check the port and the path of endpoint.url",
        );
    }
    // The innermost: connectors wrap one error of I/O into another, whose kind says nothing.
    match causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(kind) if context.stage == Stage::Connect || no_connection(kind) => connect_failed(&root),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => {
            closed("reset", context)
        }
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted) => closed("closed", context),
        // hyper calls an end before the response "incomplete" or "canceled", without a cause.
        None if causes.iter().any(|cause| is_end(*cause)) => closed("closed", context),
        _ => Failure::new(Layer::Connect, Reason::ConnectionClosed, format!("the connection broke: {root}")),
    }
}

/// The time ran out.
pub fn timed_out(context: Context) -> Failure {
    let message = match context.stage {
        Stage::Resolve => "the host's name was not resolved in time: check the cluster's DNS",
        Stage::Connect => {
            "no TCP connection in time: a firewall or a NetworkPolicy may drop the packets, or the server is down"
        }
        Stage::Handshake => {
            "the server accepted the TCP connection and did not finish the TLS handshake in time: it is \
             overloaded, or what listens there does not speak TLS"
        }
        Stage::FirstRead | Stage::Request | Stage::Answered => {
            "TLS is up and no HTTP response came in time: the server is slow, or waits for something else"
        }
    };
    Failure::new(Layer::Timeout, Reason::TimedOut, message)
}

/// As above, where nobody knows whether TCP or TLS was to blame.
fn connect_timed_out() -> Failure {
    Failure::new(
        Layer::Timeout,
        Reason::TimedOut,
        "no connection in time, TLS handshake included: a firewall or a NetworkPolicy may drop the packets, or \
         the server is down or overloaded",
    )
}

/// There is no connection, and why is known.
fn not_dialled(error: &egress::Error) -> Failure {
    let stage = |stage| Context { presented: false, requested: None, stage };
    match error {
        egress::Error::NoAddress(why) => resolve_failed(why),
        egress::Error::NotResolved => timed_out(stage(Stage::Resolve)),
        egress::Error::NotConnected(why) => connect_failed(why),
        egress::Error::NoAnswer => timed_out(stage(Stage::Connect)),
        egress::Error::Refused(refused) => {
            Failure::new(Layer::Connect, Reason::AddressRefused, refused.to_string())
        }
        egress::Error::Proxy { .. } => {
            Failure::new(Layer::Connect, Reason::ProxyFailed, format!("no connection: {error}"))
        }
    }
}

pub(super) fn resolve_failed(why: &str) -> Failure {
    Failure::new(
        Layer::Dns,
        Reason::ResolveFailed,
        format!("the host's name has no address: {why}; check endpoint.url and the cluster's DNS"),
    )
}

fn connect_failed(why: &str) -> Failure {
    Failure::new(
        Layer::Connect,
        Reason::ConnectFailed,
        format!(
            "no TCP connection: {why}; check the port of endpoint.url, that the server runs, and firewalls"
        ),
    )
}

/// The connection ended without an alert. At least two TLS stacks refuse a certificate like this.
pub(super) fn closed(how: &str, context: Context) -> Failure {
    let shown = if context.presented { "had got ours" } else { "had got none" };
    let (message, refusal) = match (context.stage, context.requested) {
        (Stage::Handshake, Some(true)) => (
            format!(
                "the server {how} the connection during the handshake, without an alert, after it had asked for \
                 a client certificate and {shown}: some servers refuse a certificate like this; its log \
                 tells"
            ),
            Refusal::Possible,
        ),
        (Stage::FirstRead | Stage::Request, Some(true)) => (
            format!(
                "the server {how} the connection before any answer, without an alert, right after a handshake \
                 in which it asked for a client certificate and {shown}: some servers refuse a certificate \
                 like this; its log tells"
            ),
            Refusal::Possible,
        ),
        (Stage::FirstRead | Stage::Request, None) => (
            format!(
                "the server {how} a new connection before any answer: some servers refuse a client certificate \
                 like this; its log tells"
            ),
            Refusal::Possible,
        ),
        (Stage::FirstRead | Stage::Request, Some(false)) => (
            format!(
                "the server {how} the connection after the handshake and before any answer; it had not asked \
                 for a client certificate"
            ),
            Refusal::No,
        ),
        (Stage::Answered, _) => {
            (format!("the server {how} a connection that had carried answers before"), Refusal::No)
        }
        (_, _) => (
            format!(
                "the server {how} the connection before the TLS handshake was finished: check that TLS is spoken \
                 at this port, and that a proxy or load balancer before it has a server behind it"
            ),
            Refusal::No,
        ),
    };
    let refusal = if context.presented { refusal } else { Refusal::No };
    Failure::new(Layer::Connect, Reason::ConnectionClosed, message).refusal(refusal)
}

fn is_timeout(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<tokio::time::error::Elapsed>()
        || cause.downcast_ref().is_some_and(hyper::Error::is_timeout)
        || cause.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_end(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref().is_some_and(|error: &hyper::Error| {
        error.is_incomplete_message() || error.is_canceled() || error.is_closed()
    })
}

fn no_connection(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    )
}
