//! The classification as a table: what was seen, and what is made of it.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
    pki_types::{ServerName, UnixTime},
};

use hyper_rustls::HttpsConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{Alert, Context, Failure, Layer, Reason, Refusal, Stage, classify::classify};
use crate::{
    egress::tests::loopback,
    identity::{Trust, Unpresentable, client_config, tests::identity},
};

const ASKED: Option<bool> = Some(true);
const NOT_ASKED: Option<bool> = Some(false);

fn seen(requested: Option<bool>, stage: Stage) -> Context {
    Context { presented: true, requested, stage }
}

fn tls(error: Error, context: Context) -> Failure {
    // As tokio-rustls hands it on, below an error of somebody else.
    classify(&Outer(io::Error::new(io::ErrorKind::InvalidData, error)), context)
}

fn alert(number: u8, context: Context) -> Failure {
    tls(Error::AlertReceived(AlertDescription::from(number)), context)
}

fn broken(kind: io::ErrorKind, context: Context) -> Failure {
    classify(&io::Error::from(kind), context)
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] io::Error);

#[test]
fn alerts_about_certificates_are_refusals_wherever_they_arrive() {
    for number in [40, 42, 43, 44, 45, 46, 48, 49, 114, 116] {
        for stage in [Stage::Handshake, Stage::FirstRead, Stage::Request] {
            let failure = alert(number, seen(ASKED, stage));
            assert_eq!(failure.reason, Reason::ClientCertificateRejected, "{number} {stage:?}");
            assert_eq!(failure.layer, Layer::TlsClient);
            assert_eq!(failure.refusal, Refusal::Certain);
            assert_eq!(failure.alert.map(|alert| alert.number), Some(number));
            assert!(failure.message.contains(&format!("alert {number} (")), "{failure}");
        }
    }
}

#[test]
fn an_expired_certificate_in_an_alert_is_ours_and_not_the_servers() {
    let failure = alert(45, seen(ASKED, Stage::Handshake));
    assert_eq!(failure.reason, Reason::ClientCertificateRejected);
    assert_eq!(failure.alert, Some(Alert { number: 45, name: "certificate_expired" }));
}

#[test]
fn without_a_certificate_it_is_required() {
    let without = Context { presented: false, ..seen(ASKED, Stage::FirstRead) };
    for number in [40, 42, 116] {
        let failure = alert(number, without);
        assert_eq!((failure.reason, failure.refusal), (Reason::ClientCertificateRequired, Refusal::No));
    }
}

#[test]
fn alerts_that_nobody_asked_for_are_not_about_our_certificate() {
    for number in [40, 42, 46, 48] {
        let failure = alert(number, seen(NOT_ASKED, Stage::Handshake));
        assert_eq!((failure.reason, failure.refusal), (Reason::TlsFailed, Refusal::No), "{number}");
    }
}

#[test]
fn a_handshake_failure_refuses_only_after_the_request_for_a_certificate() {
    let unknown = alert(40, seen(None, Stage::Request));
    assert_eq!((unknown.reason, unknown.refusal), (Reason::TlsFailed, Refusal::Possible));
    assert_eq!(alert(48, seen(None, Stage::Request)).refusal, Refusal::Certain);
}

#[test]
fn other_alerts_after_the_request_may_be_refusals() {
    for (number, requested, stage, refusal) in [
        (80, ASKED, Stage::FirstRead, Refusal::Possible),
        (51, ASKED, Stage::Handshake, Refusal::Possible),
        (80, ASKED, Stage::Answered, Refusal::No),
        (80, NOT_ASKED, Stage::Handshake, Refusal::No),
        (80, None, Stage::Request, Refusal::No),
    ] {
        let failure = alert(number, seen(requested, stage));
        assert_eq!((failure.reason, failure.refusal), (Reason::TlsFailed, refusal), "{number} {stage:?}");
    }
}

#[test]
fn versions_of_tls() {
    let incompatible = Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);
    let context = seen(NOT_ASKED, Stage::Handshake);
    for failure in [alert(70, context), tls(incompatible, context)] {
        assert_eq!((failure.reason, failure.layer), (Reason::TlsVersion, Layer::Tls));
    }
}

#[test]
fn what_is_wrong_with_the_server() {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let expired = CertificateError::ExpiredContext { time: at(2000), not_after: at(1000) };
    let mismatch = CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("shop.example").unwrap(),
        presented: (1..=20).map(|n| format!("host-{n}.example")).collect(),
    };
    for (error, reason, says) in [
        (expired, Reason::ServerCertificateExpired, "1970-01-01T00:16:40Z"),
        (CertificateError::Expired, Reason::ServerCertificateExpired, "renewed"),
        (CertificateError::NotValidYet, Reason::ServerCertificateNotYetValid, "clocks"),
        (CertificateError::UnknownIssuer, Reason::ServerUntrusted, "endpoint.trust"),
        (CertificateError::BadSignature, Reason::ServerUntrusted, "BadSignature"),
        (CertificateError::NotValidForName, Reason::ServerNameMismatch, "endpoint.url"),
        (
            mismatch,
            Reason::ServerNameMismatch,
            "host-5.example, and 15 more, and endpoint.url says shop.example",
        ),
    ] {
        let failure = tls(Error::InvalidCertificate(error), seen(ASKED, Stage::Handshake));
        assert_eq!((failure.reason, failure.layer), (reason, Layer::TlsServer));
        assert!(failure.message.contains(says), "{failure}");
        assert_eq!(failure.refusal, Refusal::No);
    }
}

#[test]
fn an_identity_that_cannot_sign_is_told_as_such() {
    let signature = Error::Other(OtherError(Arc::new(Unpresentable::NoCommonSignature)));
    let none = Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon);
    for error in [signature, none] {
        let failure = tls(error, seen(ASKED, Stage::Handshake));
        assert_eq!((failure.reason, failure.layer), (Reason::CertificateUnusable, Layer::TlsClient));
    }
}

#[test]
fn what_is_not_tls() {
    let failure =
        tls(Error::InvalidMessage(InvalidMessage::InvalidContentType), seen(NOT_ASKED, Stage::Handshake));
    assert_eq!(failure.reason, Reason::TlsFailed);
    assert!(failure.message.contains("not TLS"), "{failure}");
}

#[test]
fn an_end_without_an_alert_may_be_a_refusal_once_a_certificate_was_asked_for() {
    use Refusal::{No, Possible};
    for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
        for (requested, stage, refusal) in [
            (ASKED, Stage::Handshake, Possible),
            (ASKED, Stage::FirstRead, Possible),
            (ASKED, Stage::Request, Possible),
            (None, Stage::Request, Possible),
            (None, Stage::Handshake, No),
            (NOT_ASKED, Stage::FirstRead, No),
            (ASKED, Stage::Answered, No),
        ] {
            let failure = broken(kind, seen(requested, stage));
            assert_eq!((failure.reason, failure.refusal), (Reason::ConnectionClosed, refusal), "{stage:?}");
            let without = Context { presented: false, ..seen(requested, stage) };
            assert_eq!(broken(kind, without).refusal, No);
        }
    }
    let failure = broken(io::ErrorKind::UnexpectedEof, seen(ASKED, Stage::FirstRead));
    assert!(failure.message.contains("right after a handshake in which it asked for a client certificate"));
}

#[test]
fn the_innermost_error_of_io_counts() {
    let inner = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
    let failure = classify(&Outer(io::Error::other(inner)), seen(ASKED, Stage::Handshake));
    assert_eq!((failure.reason, failure.refusal), (Reason::ConnectionClosed, Refusal::Possible));
}

#[test]
fn below_tls() {
    for (kind, stage, reason, layer) in [
        (io::ErrorKind::ConnectionRefused, Stage::Connect, Reason::ConnectFailed, Layer::Connect),
        (io::ErrorKind::ConnectionReset, Stage::Connect, Reason::ConnectFailed, Layer::Connect),
        (io::ErrorKind::HostUnreachable, Stage::Request, Reason::ConnectFailed, Layer::Connect),
        (io::ErrorKind::TimedOut, Stage::Connect, Reason::TimedOut, Layer::Timeout),
    ] {
        let failure = broken(kind, seen(None, stage));
        assert_eq!((failure.reason, failure.layer), (reason, layer), "{kind:?} {stage:?}");
    }
}

#[tokio::test]
async fn errors_of_an_http_client_are_read_to_their_causes_and_never_show_the_url() {
    let trust = Trust { certificates: identity("CN=a").chain().to_vec(), system_roots: false };
    // That of deliveries, but for plain HTTP as well.
    let connector = HttpsConnector::from((loopback(), client_config(None, &trust).unwrap()));
    let client: legacy::Client<_, String> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = closing.local_addr().unwrap();
    let context = seen(None, Stage::Request);
    let fail = async |url: String| {
        let error = client.get(url.parse().unwrap()).await.unwrap_err();
        classify(&error as &(dyn StdError + 'static), context)
    };

    let server = tokio::spawn(async move {
        let accepted = closing.accept().await;
        drop(accepted);
        // The next connection is answered with something else than HTTP.
        let (mut stream, _) = closing.accept().await.unwrap();
        // What is left unread would turn the end into a reset, and the answer would be lost.
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"220 mail.example\r\n\r\n").await.unwrap();
    });
    let closed = fail(format!("http://{free}/secret")).await;
    assert_eq!((closed.reason, closed.refusal), (Reason::ConnectionClosed, Refusal::Possible));
    let not_http = fail(format!("http://{free}/secret")).await;
    assert_eq!(not_http.reason, Reason::HttpFailed, "{not_http}");
    server.await.unwrap();

    let refused = fail(format!("http://{free}/secret")).await;
    assert_eq!((refused.reason, refused.layer), (Reason::ConnectFailed, Layer::Connect));
    let nowhere = fail("http://nowhere.invalid/secret".to_owned()).await;
    assert_eq!((nowhere.reason, nowhere.layer), (Reason::ResolveFailed, Layer::Dns), "{nowhere}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/secret", silent.local_addr().unwrap());
    let late = timeout(Duration::from_millis(50), client.get(url.parse().unwrap())).await.unwrap_err();
    let slow = classify(&late, context);
    assert_eq!((slow.reason, slow.layer), (Reason::TimedOut, Layer::Timeout));
    assert!(slow.message.contains("no HTTP response"), "{slow}");
    let elsewhere = fail("http://[::ffff:169.254.169.254]/secret".to_owned()).await;
    assert_eq!((elsewhere.reason, elsewhere.layer), (Reason::AddressRefused, Layer::Connect), "{elsewhere}");
    assert!(elsewhere.message.contains("--egress-allow 169.254.169.254/32"), "{elsewhere}");
    for failure in [elsewhere, closed, not_http, refused, nowhere, slow] {
        assert!(!failure.message.contains("secret"), "{failure}");
    }
}
