//! What an error of TLS means. A part of [`super::classify`].

use jiff::Timestamp;
use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible,
    pki_types::{ServerName, UnixTime},
};

use super::{
    classify::{Context, Failure, Refusal, Stage},
    reason::{Alert, Layer, Reason},
};
use crate::{identity::Unpresentable, limits};

pub(super) fn classify(error: &Error, context: Context) -> Failure {
    match error {
        Error::AlertReceived(description) => of_alert(*description, context),
        Error::InvalidCertificate(error) => of_server_certificate(error),
        Error::NoCertificatesPresented => {
            Failure::new(Layer::TlsServer, Reason::ServerUntrusted, "the server presented no certificate")
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => version(None),
        Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon)
            if context.presented =>
        {
            unusable(&Unpresentable::NoCommonSignature.to_string())
        }
        Error::Other(other) if other.0.is::<Unpresentable>() => unusable(&other.0.to_string()),
        Error::InconsistentKeys(_) => unusable(&error.to_string()),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) if context.stage <= Stage::Handshake => {
            failed("what the server answered is not TLS: check the port of endpoint.url".to_owned())
        }
        _ => failed(format!("TLS failed on this side: {error}")),
    }
}

fn failed(message: String) -> Failure {
    Failure::new(Layer::Tls, Reason::TlsFailed, message)
}

fn unusable(why: &str) -> Failure {
    Failure::new(
        Layer::TlsClient,
        Reason::CertificateUnusable,
        format!("the client certificate cannot be used with this server, and nothing was sent: {why}"),
    )
}

fn version(alert: Option<Alert>) -> Failure {
    let said = alert.map_or_else(String::new, |alert| format!(" (alert {alert})"));
    Failure {
        alert,
        ..Failure::new(
            Layer::Tls,
            Reason::TlsVersion,
            format!(
                "the server takes no version of TLS that is offered{said}: it must enable TLS 1.2 or TLS 1.3"
            ),
        )
    }
}

/// In TLS 1.2 an alert comes during the handshake, in TLS 1.3 with a read after it.
fn of_alert(description: AlertDescription, context: Context) -> Failure {
    let alert = Alert::from(description);
    let about_certificate = match alert.number {
        116 => true,
        42..=46 | 48 | 49 | 114 => context.requested != Some(false),
        // It also means that there is no cipher suite in common; not so after the request.
        40 => context.requested == Some(true),
        _ => false,
    };
    if about_certificate {
        return refused(alert, context);
    }
    if matches!(alert.number, 70 | 86) {
        return version(Some(alert));
    }
    let hint = match alert.number {
        40 | 71 => "client and server seem to have no cipher suite, group or signature in common",
        112 => "the server does not serve this host name: check the host of endpoint.url",
        120 => "the server does not speak HTTP/1.1",
        42..=46 | 48 | 49 | 114 => "it is about a certificate, and the server did not ask for one",
        _ => "the server's log tells why",
    };
    // Another alert after the request may be about the certificate as well: a stack that fails over it says
    // internal_error.
    let refusal = match context.requested {
        Some(true) if context.presented && context.stage != Stage::Answered => Refusal::Possible,
        None if context.presented && alert.number == 40 => Refusal::Possible,
        _ => Refusal::No,
    };
    let failure = failed(format!("the server ended the connection with TLS alert {alert}: {hint}"));
    Failure { alert: Some(alert), ..failure }.refusal(refusal)
}

fn refused(alert: Alert, context: Context) -> Failure {
    let when = match context.stage {
        Stage::Resolve | Stage::Connect | Stage::Handshake => "during the handshake",
        Stage::FirstRead => "right after the handshake",
        Stage::Request | Stage::Answered => "instead of an answer",
    };
    let (reason, refusal, message) = if context.presented {
        (
            Reason::ClientCertificateRejected,
            Refusal::Certain,
            format!(
                "the server refused the client certificate {when} with TLS alert {alert}. Servers choose among \
                 these alerts freely: only the server's log tells why. See that it trusts the certificate's \
                 issuer (or the certificate itself) and takes it for clients"
            ),
        )
    } else {
        (
            Reason::ClientCertificateRequired,
            Refusal::No,
            format!(
                "the server ended the connection {when} with TLS alert {alert}: it wants a client certificate, \
                 and none is configured; set mtls.active"
            ),
        )
    };
    Failure { alert: Some(alert), ..Failure::new(Layer::TlsClient, reason, message).refusal(refusal) }
}

fn of_server_certificate(error: &CertificateError) -> Failure {
    let (reason, message) = match error {
        CertificateError::Expired => {
            (Reason::ServerCertificateExpired, "the server's certificate has expired: it has to be renewed there".to_owned())
        }
        CertificateError::ExpiredContext { not_after, .. } => (
            Reason::ServerCertificateExpired,
            format!("a certificate of the server's chain expired at {}: it has to be renewed there", time(*not_after)),
        ),
        CertificateError::NotValidYet => (
            Reason::ServerCertificateNotYetValid,
            "the server's certificate is not valid yet: check the clocks".to_owned(),
        ),
        CertificateError::NotValidYetContext { not_before, .. } => (
            Reason::ServerCertificateNotYetValid,
            format!("a certificate of the server's chain is valid only from {}: check the clocks", time(*not_before)),
        ),
        CertificateError::NotValidForName => (
            Reason::ServerNameMismatch,
            "the server's certificate is not for the host of endpoint.url".to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            (Reason::ServerNameMismatch, mismatch(expected, presented))
        }
        CertificateError::UnknownIssuer => (
            Reason::ServerUntrusted,
            "the server's certificate leads to no authority that endpoint.trust names: name its root there, or \
             have the server send the intermediates that are missing"
                .to_owned(),
        ),
        other => (
            Reason::ServerUntrusted,
            format!("the server's certificate cannot be trusted: {}", Error::InvalidCertificate(other.clone())),
        ),
    };
    Failure::new(Layer::TlsServer, reason, message)
}

fn mismatch(expected: &ServerName<'_>, presented: &[String]) -> String {
    let presented: Vec<String> = presented.iter().map(|name| plain(name).to_owned()).collect();
    let names = if presented.is_empty() { "no name".to_owned() } else { told(&presented, presented.len()) };
    format!(
        "the server's certificate is for {names}, and endpoint.url says {}: use a name that it is for, or have \
         the server's certificate include this one",
        expected.to_str()
    )
}

/// rustls writes names as its own types print: `DnsName("shop.example")`, `IpAddress(192.0.2.1)`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// Names that a server sent, for a message: a few of so many, each bounded, on one line.
pub(super) fn told(names: &[String], of: usize) -> String {
    let mut told: Vec<String> = names
        .iter()
        .take(limits::PROBE_NAMES_TOLD)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(limits::PROBE_NAME_CHARACTERS).collect())
        .collect();
    if of > told.len() {
        told.push(format!("and {} more", of - told.len()));
    }
    told.join(", ")
}

fn time(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(Timestamp::MAX.as_second());
    Timestamp::from_second(seconds).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}
