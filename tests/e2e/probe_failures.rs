//! The connection test where the server is not the right one, not there, or answers what it should not.

use std::{sync::Arc, time::Duration};

use postrider::{
    identity::{Identity, Trust},
    probe::{Endpoint, Layer, Outcome, Reason, Request, probe},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use zeroize::Zeroizing;

use crate::{
    harness::{
        cluster::Cluster,
        pki::{self, Authority, Validity},
        receiver::{Answer, ClientAuth, Options, Receiver},
        servers::TlsServer,
    },
    probe::{TIMEOUT, identity, tested, tested_with, to_receivers, trust},
};

tests![
    a_server_of_another_authority_is_untrusted,
    a_server_with_another_name_is_told_with_its_names,
    a_server_whose_certificate_is_over_or_not_begun,
    trusting_nobody_sends_nothing,
    an_identity_that_cannot_be_used_sends_nothing,
    a_closed_port,
    a_name_that_does_not_exist,
    a_server_that_says_nothing,
    a_server_that_closes_at_once,
    a_server_that_closes_right_after_the_handshake,
    a_server_without_tls,
    a_server_with_an_old_tls,
    a_server_that_does_not_answer,
    a_server_that_speaks_first,
    a_server_without_http,
    a_server_that_forbids,
    a_server_that_redirects_is_not_followed,
    a_server_that_fails_in_http_is_reached,
];

/// A server that does `what` with its connections.
async fn listener<F>(what: impl Fn(TcpStream) -> F + Send + 'static) -> (String, Scripted)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            what(stream).await;
        }
    });
    (url, Scripted(server))
}

struct Scripted(JoinHandle<()>);

impl Drop for Scripted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(outcome: &Outcome, reason: Reason, layer: Layer) {
    assert_eq!((outcome.reason, outcome.layer), (reason, Some(layer)), "{outcome:#?}");
    assert!(!outcome.succeeded());
}

async fn a_server_of_another_authority_is_untrusted(_: Arc<Cluster>) {
    let receiver = Receiver::start().await;
    let trust = trust(&Authority::root("Somebody else").await);
    let client = &pki::shared().await.client;
    let outcome = tested_with(&receiver.url(), &trust, Some(client), Request::Head, TIMEOUT).await;
    failed(&outcome, Reason::ServerUntrusted, Layer::TlsServer);
    assert!(outcome.message.contains("CN=localhost, issued by CN=Server root"), "{}", outcome.message);
    assert_eq!(outcome.tls.unwrap().server_chain.len(), 1);
    assert!(receiver.requests().is_empty());
}

async fn a_server_with_another_name_is_told_with_its_names(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let request = pki::Request::server().alt_names("DNS:shop.example,DNS:www.shop.example");
    let certificate = shared.server_authority.issue(&request).await;
    let receiver = Options::new(&certificate, ClientAuth::None).start().await;
    let outcome = tested(&receiver.url(), None, Request::None).await;
    failed(&outcome, Reason::ServerNameMismatch, Layer::TlsServer);
    assert!(outcome.message.contains("is for shop.example, www.shop.example, and"), "{}", outcome.message);
    assert!(outcome.message.contains("says localhost"), "{}", outcome.message);
}

async fn a_server_whose_certificate_is_over_or_not_begun(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for (validity, reason) in [
        (Validity::Expired, Reason::ServerCertificateExpired),
        (Validity::NotYet, Reason::ServerCertificateNotYetValid),
    ] {
        let request = pki::Request::server().validity(validity);
        let certificate = shared.server_authority.issue(&request).await;
        let auth = ClientAuth::Required(&shared.client_authority);
        let receiver = Options::new(&certificate, auth).start().await;
        let outcome = tested(&receiver.url(), Some(&shared.client), Request::None).await;
        failed(&outcome, reason, Layer::TlsServer);
        let facts = &certificate.facts;
        let moment =
            if facts.not_after < jiff::Timestamp::now() { facts.not_after } else { facts.not_before };
        assert!(outcome.message.contains(&moment.to_string()), "{}", outcome.message);
    }
}

async fn trusting_nobody_sends_nothing(_: Arc<Cluster>) {
    let receiver = Receiver::start().await;
    let nobody = Trust { certificates: Vec::new(), system_roots: false };
    let outcome = tested_with(&receiver.url(), &nobody, None, Request::Head, TIMEOUT).await;
    failed(&outcome, Reason::TrustUnusable, Layer::TlsServer);
    assert_eq!((outcome.address, receiver.failed_handshakes().len()), (None, 0));
}

async fn an_identity_that_cannot_be_used_sends_nothing(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let auth = ClientAuth::Optional(&shared.client_authority);
    let receiver = Options::new(&shared.server, auth).start().await;
    let other = shared.client_authority.issue(&pki::Request::client("/CN=other")).await;
    let key = Zeroizing::new(other.key_der().secret_der().to_vec());
    let mixed = Identity::new(shared.client.chain_der(), key, None).unwrap();
    let (url, trust) = (receiver.url().parse().unwrap(), trust(&shared.server_authority));
    let egress = to_receivers();
    let endpoint = Endpoint {
        url: &url,
        trust: &trust,
        request: Request::Head,
        credentials_left_out: false,
        timeout: TIMEOUT,
        egress: &egress,
    };
    let outcome = probe(&endpoint, Some(&mixed)).await;
    failed(&outcome, Reason::CertificateUnusable, Layer::TlsClient);
    assert_eq!((outcome.address, outcome.tls), (None, None));
    // The same server takes a request without a certificate, and got none.
    assert!(probe(&endpoint, Some(&identity(&shared.client))).await.succeeded());
    assert_eq!((receiver.requests().len(), receiver.connections()), (1, 1));
}

async fn a_closed_port(_: Arc<Cluster>) {
    let (url, server) = listener(|_| async {}).await;
    server.0.abort();
    // The port is free once the task is gone.
    let mut server = server;
    let _ = (&mut server.0).await;
    let outcome = tested(&url, None, Request::None).await;
    failed(&outcome, Reason::ConnectFailed, Layer::Connect);
    assert!(
        outcome.message.contains("127.0.0.1:") && outcome.message.contains("refused"),
        "{}",
        outcome.message
    );
}

async fn a_name_that_does_not_exist(_: Arc<Cluster>) {
    let outcome = tested("https://nowhere.invalid/hooks", None, Request::None).await;
    failed(&outcome, Reason::ResolveFailed, Layer::Dns);
}

async fn a_server_that_says_nothing(_: Arc<Cluster>) {
    let (url, _server) = listener(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let trust = trust(&pki::shared().await.server_authority);
    let outcome = tested_with(&url, &trust, None, Request::None, Duration::from_secs(1)).await;
    failed(&outcome, Reason::TimedOut, Layer::Timeout);
    assert!(outcome.message.contains("TLS handshake") && outcome.address.is_some(), "{outcome:#?}");
    assert_eq!(outcome.tls, None);
}

async fn a_server_that_closes_at_once(_: Arc<Cluster>) {
    let (url, _server) = listener(|stream| async { drop(stream) }).await;
    let outcome = tested(&url, Some(&pki::shared().await.client), Request::None).await;
    failed(&outcome, Reason::ConnectionClosed, Layer::Connect);
    assert!(outcome.message.contains("before the TLS handshake was finished"), "{}", outcome.message);
}

/// As Node does with a bad certificate: no alert, and the handshake was fine.
async fn a_server_that_closes_right_after_the_handshake(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for options in [
        Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).tls12_only(),
        Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).tls13_only(),
    ] {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(options.tls()));
        let (url, _server) = listener(move |stream| {
            let accepted = acceptor.accept(stream);
            async move { drop(accepted.await) }
        })
        .await;
        let outcome = tested(&url, Some(&shared.client), Request::None).await;
        failed(&outcome, Reason::ConnectionClosed, Layer::Connect);
        assert_eq!(outcome.refusal, postrider::probe::Refusal::Possible);
        assert!(outcome.message.contains("right after a handshake in which it asked"), "{}", outcome.message);
    }
}

async fn a_server_without_tls(_: Arc<Cluster>) {
    let (url, _server) = listener(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let outcome = tested(&url, None, Request::None).await;
    failed(&outcome, Reason::TlsFailed, Layer::Tls);
    assert!(outcome.message.contains("not TLS"), "{}", outcome.message);
}

async fn a_server_with_an_old_tls(_: Arc<Cluster>) {
    let old = ["-www", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let server = TlsServer::openssl(&pki::shared().await.server, &old).await;
    let outcome = tested(&server.url(), None, Request::None).await;
    failed(&outcome, Reason::TlsVersion, Layer::Tls);
    assert_eq!(outcome.alert.map(|alert| alert.name), Some("protocol_version"));
}

async fn a_server_that_does_not_answer(_: Arc<Cluster>) {
    let (receiver, shared) = (Receiver::start().await, pki::shared().await);
    let _hold = receiver.hold();
    let (trust, time) = (trust(&shared.server_authority), Duration::from_secs(2));
    let outcome = tested_with(&receiver.url(), &trust, Some(&shared.client), Request::Head, time).await;
    failed(&outcome, Reason::TimedOut, Layer::Timeout);
    assert!(outcome.message.contains("no HTTP response"), "{}", outcome.message);
    assert_eq!(outcome.tls.unwrap().version, Some("TLSv1.3"));
}

async fn a_server_that_speaks_first(_: Arc<Cluster>) {
    let options = Options::new(&pki::shared().await.server, ClientAuth::None);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(options.tls()));
    let (url, _server) = listener(move |stream| {
        let accepted = acceptor.accept(stream);
        async move {
            let mut stream = accepted.await.unwrap();
            stream.write_all(b"220 mail.example\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
    assert!(tested(&url, None, Request::None).await.succeeded());
    failed(&tested(&url, None, Request::Head).await, Reason::HttpFailed, Layer::Http);
}

async fn a_server_without_http(_: Arc<Cluster>) {
    // It sends each line back, its end first.
    let server = TlsServer::openssl(&pki::shared().await.server, &["-rev"]).await;
    let silent = tested(&server.url(), None, Request::None).await;
    assert!(silent.succeeded(), "{silent:#?}");
    let outcome = tested(&server.url(), None, Request::Options).await;
    failed(&outcome, Reason::HttpFailed, Layer::Http);
}

async fn a_server_that_forbids(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for (auth, says) in [
        (ClientAuth::Optional(&shared.client_authority), "asks for a client certificate"),
        (ClientAuth::None, "did not ask for a client certificate in the handshake"),
    ] {
        let receiver = Options::new(&shared.server, auth).start().await;
        receiver.always(Answer::status(403));
        let outcome = tested(&receiver.url(), Some(&shared.client), Request::Head).await;
        failed(&outcome, Reason::HttpStatus, Layer::Http);
        assert_eq!(outcome.http_status, Some(403));
        assert!(outcome.message.contains(says), "{}", outcome.message);
    }
}

async fn a_server_that_redirects_is_not_followed(_: Arc<Cluster>) {
    let (receiver, shared) = (Receiver::start().await, pki::shared().await);
    receiver.always(Answer::status(302).header("location", "/elsewhere"));
    let outcome = tested(&receiver.url(), Some(&shared.client), Request::Options).await;
    assert_eq!((outcome.reason, outcome.http_status), (Reason::Succeeded, Some(302)), "{outcome:#?}");
    assert_eq!(receiver.requests().len(), 1);
}

async fn a_server_that_fails_in_http_is_reached(_: Arc<Cluster>) {
    let (receiver, shared) = (Receiver::start().await, pki::shared().await);
    for status in [400, 401, 405, 500, 503] {
        receiver.always(Answer::status(status));
        let outcome = tested(&receiver.url(), Some(&shared.client), Request::Head).await;
        assert_eq!((outcome.reason, outcome.http_status), (Reason::Succeeded, Some(status)), "{outcome:#?}");
    }
}
