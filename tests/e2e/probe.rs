//! The connection test against real servers: what each does with a client certificate that it takes, with
//! one that it does not take, and without one.

use std::{sync::Arc, time::Duration};

use hyper_rustls::HttpsConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use postrider::{
    egress::{self, Egress},
    identity::{Identity, Recorder, Trust, recorded_client_config},
    probe::{Context, Endpoint, Layer, Outcome, Reason, Refusal, Request, Stage, classify::classify, probe},
};
use zeroize::Zeroizing;

use crate::harness::{
    cluster::Cluster,
    nginx::Nginx,
    pki::{self, Authority, Certificate, Key, Shared},
    receiver::{ClientAuth, Options, Receiver},
    servers::TlsServer,
};

tests![
    a_certificate_that_is_taken,
    rustls_refuses_a_stranger_in_both_versions,
    openssl_refuses_a_stranger_in_both_versions,
    the_jdk_refuses_a_stranger_in_both_versions,
    nginx_refuses_a_stranger_in_http_only,
    without_a_certificate_it_is_said_to_be_required,
    an_optional_certificate_may_be_missing,
    a_server_that_does_not_ask_is_a_pass_with_a_warning,
    an_expired_client_certificate_is_never_presented,
    an_issuer_that_is_not_named_is_a_hint_beside_success,
    a_server_that_names_no_authority_gives_no_hint,
    nothing_is_sent_where_the_key_cannot_sign_what_the_server_takes,
    a_refused_delivery_is_judged_from_the_error_of_its_http_client,
];

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn identity(certificate: &Certificate) -> Identity {
    let key = Zeroizing::new(certificate.key_der().secret_der().to_vec());
    Identity::new(certificate.chain_der(), key, None).unwrap()
}

/// To the receivers, which are on this machine.
pub(crate) fn to_receivers() -> Egress {
    let egress_allow = vec!["127.0.0.1".parse().unwrap()];
    Egress::new(&egress::Options { egress_allow, ..egress::Options::default() }).unwrap()
}

pub(crate) fn trust(authority: &Authority) -> Trust {
    Trust { certificates: pki::certificates(&authority.root), system_roots: false }
}

/// Tests an endpoint that the shared authority's server is to be behind.
pub(crate) async fn tested(url: &str, client: Option<&Certificate>, request: Request) -> Outcome {
    let trust = trust(&pki::shared().await.server_authority);
    tested_with(url, &trust, client, request, TIMEOUT).await
}

pub(crate) async fn tested_with(
    url: &str,
    trust: &Trust,
    client: Option<&Certificate>,
    request: Request,
    timeout: Duration,
) -> Outcome {
    let url = url.parse().unwrap();
    let identity = client.map(identity);
    let egress = to_receivers();
    let endpoint =
        Endpoint { url: &url, trust, request, credentials_left_out: false, timeout, egress: &egress };
    let outcome = probe(&endpoint, identity.as_ref()).await;
    assert!(outcome.duration < timeout + Duration::from_secs(1), "{outcome:#?}");
    assert_eq!(outcome.layer.is_none(), outcome.succeeded(), "{outcome:#?}");
    outcome
}

/// A certificate of an authority that no server here trusts.
async fn stranger() -> Certificate {
    Authority::root("Stranger").await.issue(&pki::Request::client("/CN=stranger")).await
}

fn options<'a>(shared: &'a Shared, version: &str) -> Options<'a> {
    let options = Options::new(&shared.server, ClientAuth::Required(&shared.client_authority));
    if version == "TLSv1.2" { options.tls12_only() } else { options.tls13_only() }
}

fn version_of(outcome: &Outcome) -> Option<&'static str> {
    outcome.tls.as_ref().unwrap().version
}

fn is_rejected(outcome: &Outcome, version: &str, alerts: &[u8]) {
    assert_eq!(outcome.reason, Reason::ClientCertificateRejected, "{outcome:#?}");
    assert_eq!((outcome.layer, outcome.refusal), (Some(Layer::TlsClient), Refusal::Certain));
    assert_eq!(version_of(outcome), Some(version));
    let alert = outcome.alert.unwrap();
    assert!(alerts.contains(&alert.number), "{outcome:#?}");
    assert!(outcome.message.contains(&alert.to_string()));
    assert!(outcome.tls.as_ref().unwrap().certificate_requested);
}

async fn a_certificate_that_is_taken(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let receiver = options(shared, version).start().await;
        let silent = tested(&receiver.url(), Some(&shared.client), Request::None).await;
        assert!(silent.succeeded() && silent.hint.is_none(), "{silent:#?}");
        assert_eq!((silent.reason, silent.http_status), (Reason::Succeeded, None));
        assert!(receiver.requests().is_empty(), "a test without a request sends none");

        let tls = silent.tls.unwrap();
        assert_eq!(tls.version, Some(version));
        let suite = tls.cipher_suite.unwrap();
        let of_tls13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        assert_eq!(of_tls13.contains(&suite.as_str()), version == "TLSv1.3", "{suite}");
        assert!(tls.certificate_requested);
        assert_eq!(tls.accepted_authorities, ["CN=Client root,O=Postrider tests"]);
        assert_eq!(tls.issuer_accepted, Some(true));
        let (presented, expected) = (&tls.server_chain[0], &shared.server.facts);
        assert_eq!(tls.server_chain.len(), 1);
        assert_eq!(presented.subject, expected.subject);
        assert_eq!(presented.issuer, expected.issuer);
        assert_eq!(presented.valid_till, expected.not_after);
        assert_eq!(presented.fingerprint_sha256, expected.fingerprint_sha256);

        for (request, method) in [(Request::Head, "HEAD"), (Request::Options, "OPTIONS")] {
            let url = format!("{}/hooks?source=shop", receiver.url());
            let asked = tested(&url, Some(&shared.client), request).await;
            assert_eq!((asked.reason, asked.http_status), (Reason::Succeeded, Some(200)), "{asked:#?}");
            let request = receiver.requests().pop().unwrap();
            assert_eq!((request.method.as_str(), request.path.as_str()), (method, "/hooks?source=shop"));
            assert_eq!(request.header("host"), format!("localhost:{}", receiver.address().port()));
            assert_eq!(
                request.client_fingerprint_sha256.as_ref(),
                Some(&shared.client.facts.fingerprint_sha256)
            );
        }
        assert_eq!(receiver.requests().len(), 2);
    }
}

async fn rustls_refuses_a_stranger_in_both_versions(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, stranger().await);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let receiver = options(shared, version).start().await;
        for request in [Request::None, Request::Head] {
            let outcome = tested(&receiver.url(), Some(&stranger), request).await;
            is_rejected(&outcome, version, &[48]);
            let hint = outcome.hint.unwrap();
            assert_eq!(hint.reason, Reason::IssuerNotAccepted);
            assert!(hint.message.contains("Client root") && hint.message.contains("CN=Stranger"));
        }
        assert!(receiver.requests().is_empty());
    }
}

async fn openssl_refuses_a_stranger_in_both_versions(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, stranger().await);
    for (version, option) in [("TLSv1.2", "-tls1_2"), ("TLSv1.3", "-tls1_3")] {
        let server = TlsServer::openssl_demanding(&shared.server, &shared.client_authority, &[option]).await;
        let taken = tested(&server.url(), Some(&shared.client), Request::None).await;
        assert_eq!((taken.reason, version_of(&taken)), (Reason::Succeeded, Some(version)), "{taken:#?}");
        let refused = tested(&server.url(), Some(&stranger), Request::None).await;
        is_rejected(&refused, version, &[48]);
        let missing = tested(&server.url(), None, Request::None).await;
        assert_eq!(missing.reason, Reason::ClientCertificateRequired, "{missing:#?}");
        assert!([40, 116].contains(&missing.alert.unwrap().number));
    }
}

async fn the_jdk_refuses_a_stranger_in_both_versions(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, stranger().await);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let server = TlsServer::java(&shared.server, &shared.client_authority, version).await;
        let taken = tested(&server.url(), Some(&shared.client), Request::Head).await;
        assert_eq!((taken.reason, taken.http_status), (Reason::Succeeded, Some(200)), "{taken:#?}");
        assert_eq!(version_of(&taken), Some(version));

        // It sends no alert; the end of the connection is all that there is to see.
        for (client, refusal) in [(Some(&stranger), Refusal::Possible), (None, Refusal::No)] {
            let outcome = tested(&server.url(), client, Request::None).await;
            assert_eq!(
                (outcome.reason, outcome.refusal),
                (Reason::ConnectionClosed, refusal),
                "{outcome:#?}"
            );
            assert!(outcome.message.contains("asked for a client certificate"), "{}", outcome.message);
        }
        let heads = server.process().lines().iter().filter(|line| line.starts_with("request")).count();
        assert_eq!(heads, 1, "{:?}", server.process().lines());
    }
}

async fn nginx_refuses_a_stranger_in_http_only(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, stranger().await);
    let nginx = Nginx::start().await;
    let url = nginx.url();
    let taken = tested(&url, Some(&shared.client), Request::Head).await;
    assert_eq!((taken.reason, taken.http_status), (Reason::Succeeded, Some(200)), "{taken:#?}");

    let silent = tested(&url, Some(&stranger), Request::None).await;
    assert_eq!(silent.reason, Reason::Succeeded, "TLS alone does not show it: {silent:#?}");
    assert_eq!(silent.hint.map(|hint| hint.reason), Some(Reason::IssuerNotAccepted));

    for request in [Request::Head, Request::Options] {
        let refused = tested(&url, Some(&stranger), request).await;
        assert_eq!(refused.reason, Reason::ClientCertificateRejected, "{refused:#?}");
        assert_eq!((refused.http_status, refused.refusal), (Some(400), Refusal::Certain));
        assert!(refused.message.contains("The SSL certificate error"), "{}", refused.message);
        let missing = tested(&url, None, request).await;
        assert_eq!(missing.reason, Reason::ClientCertificateRequired, "{missing:#?}");
        assert!(missing.message.contains("No required SSL certificate was sent"), "{}", missing.message);
    }
}

async fn without_a_certificate_it_is_said_to_be_required(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let receiver = options(shared, version).start().await;
        let outcome = tested(&receiver.url(), None, Request::Head).await;
        assert_eq!(outcome.reason, Reason::ClientCertificateRequired, "{outcome:#?}");
        assert_eq!((outcome.layer, outcome.refusal), (Some(Layer::TlsClient), Refusal::No));
    }
}

async fn an_optional_certificate_may_be_missing(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let auth = ClientAuth::Optional(&shared.client_authority);
    let receiver = Options::new(&shared.server, auth).start().await;
    let outcome = tested(&receiver.url(), None, Request::Head).await;
    assert_eq!((outcome.reason, outcome.http_status), (Reason::Succeeded, Some(200)), "{outcome:#?}");
    let tls = outcome.tls.unwrap();
    assert!(tls.certificate_requested && tls.issuer_accepted.is_none());
}

async fn a_server_that_does_not_ask_is_a_pass_with_a_warning(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    for options in [
        Options::new(&shared.server, ClientAuth::None).tls12_only(),
        Options::new(&shared.server, ClientAuth::None).tls13_only(),
    ] {
        let receiver: Receiver = options.start().await;
        let outcome = tested(&receiver.url(), Some(&shared.client), Request::Head).await;
        assert_eq!(outcome.reason, Reason::ClientCertificateNotRequested, "{outcome:#?}");
        assert!(outcome.succeeded() && outcome.message.contains("did not ask"));
        let by_address = format!("https://{}", receiver.address());
        let plain = tested(&by_address, None, Request::None).await;
        assert_eq!(
            (plain.reason, plain.address),
            (Reason::Succeeded, Some(receiver.address())),
            "{plain:#?}"
        );
    }
}

async fn an_expired_client_certificate_is_never_presented(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let request = pki::Request::client("/CN=expired").validity(pki::Validity::Expired);
    let expired = shared.client_authority.issue(&request).await;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let receiver = options(shared, version).start().await;
        let outcome = tested(&receiver.url(), Some(&expired), Request::Head).await;
        assert_eq!(outcome.reason, Reason::CertificateUnusable, "{outcome:#?}");
        assert!(outcome.message.contains("not valid now"), "{}", outcome.message);
        assert_eq!((receiver.connections(), receiver.requests().len()), (0, 0), "{version}");
    }
}

async fn an_issuer_that_is_not_named_is_a_hint_beside_success(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, stranger().await);
    let root = shared.client_authority.root.to_string_lossy().into_owned();
    // It names an authority, and takes whatever comes.
    let server = TlsServer::openssl(&shared.server, &["-www", "-verify", "4", "-CAfile", &root]).await;
    let outcome = tested(&server.url(), Some(&stranger), Request::None).await;
    assert_eq!(outcome.reason, Reason::Succeeded, "{outcome:#?}");
    assert_eq!(outcome.tls.unwrap().issuer_accepted, Some(false));
    let hint = outcome.hint.unwrap();
    assert_eq!(hint.reason, Reason::IssuerNotAccepted);
    assert!(hint.message.contains("CN=Client root,O=Postrider tests"), "{}", hint.message);
}

async fn a_server_that_names_no_authority_gives_no_hint(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let nobody = ["-www", "-verify", "4", "-no-CAfile", "-no-CApath", "-no-CAstore"];
    let server = TlsServer::openssl(&shared.server, &nobody).await;
    let outcome = tested(&server.url(), Some(&shared.client), Request::None).await;
    assert_eq!((outcome.reason, outcome.hint), (Reason::Succeeded, None));
    let tls = outcome.tls.unwrap();
    assert!(tls.certificate_requested && tls.accepted_authorities.is_empty());
    assert_eq!(tls.issuer_accepted, None);
}

async fn nothing_is_sent_where_the_key_cannot_sign_what_the_server_takes(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let request = pki::Request::client("/CN=rsa").key(Key::Rsa2048);
    let client = shared.client_authority.issue(&request).await;
    for version in ["-tls1_2", "-tls1_3"] {
        // The certificate is optional: going on without it would be easy.
        let takes = ["-rev", version, "-verify", "4", "-client_sigalgs", "ECDSA+SHA256"];
        let server = TlsServer::openssl(&shared.server, &takes).await;
        let outcome = tested(&server.url(), Some(&client), Request::Head).await;
        assert_eq!(outcome.reason, Reason::CertificateUnusable, "{outcome:#?}");
        assert_eq!(outcome.layer, Some(Layer::TlsClient));
        assert_eq!(outcome.http_status, None);
        server.process().line_with("CONNECTION FAILURE").await;
        let said = server.process().lines().join("\n");
        assert!(!said.contains("CONNECTION ESTABLISHED"), "the handshake was finished: {said}");
    }
}

/// Who writes at once may lose the alert to a reset: then a refusal is possible, and never ruled out.
async fn a_refused_delivery_is_judged_from_the_error_of_its_http_client(_: Arc<Cluster>) {
    let (shared, stranger) = (pki::shared().await, identity(&stranger().await));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let receiver = options(shared, version).start().await;
        let java = TlsServer::java(&shared.server, &shared.client_authority, version).await;
        for (url, reasons) in [
            (receiver.url(), &[Reason::ClientCertificateRejected, Reason::ConnectionClosed][..]),
            (java.url(), &[Reason::ConnectionClosed][..]),
        ] {
            for _ in 0..10 {
                let recorder = Arc::new(Recorder::default());
                let trust = trust(&shared.server_authority);
                let config = recorded_client_config(Some(&stranger), &trust, &recorder).unwrap();
                let connector = HttpsConnector::from((to_receivers(), config));
                let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
                let request = http::Request::post(&url).body("0".repeat(100_000)).unwrap();
                let sent = client.request(request).await;
                let requested = Some(recorder.certificate_requested());
                let context = Context { presented: true, requested, stage: Stage::Request };
                let failure = classify(&sent.unwrap_err(), context);
                assert!(reasons.contains(&failure.reason), "{failure:#?}");
                assert_ne!(failure.refusal, Refusal::No, "{failure:#?}");
            }
        }
        assert!(receiver.requests().is_empty());
    }
}
