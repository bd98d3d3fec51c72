//! Where events are taken: who is served over TLS, for how long, how it ends, and what is told of it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustix::process::Signal;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::json;
use tokio::{net::TcpStream, sync::watch, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    chart,
    cluster::Cluster,
    crowd::Crowd,
    eventually,
    load::Load,
    pki::{self, Certificate, Request, Validity},
    process::{Process, Program},
    receiver::{Receiver, TO_RECEIVERS},
    scene::{Dispatcher, Scene, active, start_controller},
};

tests![
    an_address_that_others_reach_is_refused_without_tls,
    health_is_told_on_an_address_of_its_own,
    one_right_to_one_secret_is_enough,
    a_certificate_is_replaced_under_load_and_no_request_is_dropped,
    what_is_wrong_with_a_certificate_is_told_and_the_last_good_one_goes_on,
    a_good_sender_goes_on_among_two_thousand_bad_ones,
    readiness_fails_first_and_requests_are_still_taken,
    nothing_that_was_acknowledged_is_lost_when_it_is_rolled_under_load,
];

/// The Secret of the serving certificate.
const SECRET: &str = "postrider-ingest-tls";

/// Of a dispatcher that serves over TLS too.
pub(crate) fn secure(namespace: &str) -> [String; 4] {
    [
        "--secure-listen=127.0.0.1:0".into(),
        format!("--pod-namespace={namespace}"),
        "--tls-secret".into(),
        SECRET.into(),
    ]
}

impl Scene {
    pub(crate) async fn serves_with(&self, certificate: &Certificate) {
        let (chain, key) = (certificate.chain_pem(), certificate.key_pem());
        self.namespace.serving_certificate(SECRET, &chain, &key).await;
    }

    pub(crate) async fn secure_dispatcher(&self, arguments: &[&str]) -> Dispatcher {
        let secure = secure(self.namespace.name());
        let mut all: Vec<_> = TO_RECEIVERS.iter().copied().chain(arguments.iter().copied()).collect();
        all.extend(secure.iter().map(String::as_str));
        self.dispatcher_with(&all).await
    }
}

pub(crate) async fn secure_address(process: &Process) -> SocketAddr {
    process.address("serves over TLS").await.parse().unwrap()
}

/// A page of its health.
async fn health(process: &Process, path: &str) -> (u16, String) {
    let url = format!("{}{path}", process.health().await);
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let response = client.get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Waits until the page of readiness has this text in it.
async fn readiness(process: &Process, text: &str) -> (u16, String) {
    eventually::polled(&format!("readiness to tell `{text}`"), || async {
        let (status, page) = health(process, "/readyz?verbose").await;
        if page.contains(text) { Ok((status, page)) } else { Err(page) }
    })
    .await
}

/// The serial number of the certificate that a new connection is shown, as openssl prints it.
async fn shown(address: SocketAddr) -> String {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pki::certificates(&pki::shared().await.server_authority.root));
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    pki::fingerprint(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

/// A client that trusts the shared authority, with HTTP/2 where it is offered, or HTTP/1.1 alone.
pub(crate) async fn client(http2: bool) -> reqwest::Client {
    let roots = pki::certificates(&pki::shared().await.server_authority.root);
    let roots = roots.iter().map(|root| reqwest::Certificate::from_der(root).unwrap());
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
    if http2 { builder } else { builder.http1_only() }.build().unwrap()
}

async fn an_address_that_others_reach_is_refused_without_tls(cluster: Arc<Cluster>) {
    let queue = tempfile::tempdir().unwrap();
    let dispatcher = Program::postrider("dispatcher")
        .args(["--listen", "0.0.0.0:0", "--queue"])
        .args([queue.path()])
        .env("KUBECONFIG", cluster.kubeconfig())
        .start();
    assert!(!dispatcher.ended().await.success());
    dispatcher.line_with("for senders elsewhere, give --secure-listen 0.0.0.0:0").await;
}

async fn health_is_told_on_an_address_of_its_own(cluster: Arc<Cluster>) {
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    let dispatcher = scene.dispatcher().await;
    let lines = "[+]webhooks ok\n[+]identities ok\n[+]queue ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(health(&dispatcher.process, "/readyz?verbose").await, (200, lines.to_owned()));
    assert_eq!(health(&dispatcher.process, "/readyz").await, (200, "ok".to_owned()));
    assert_eq!(health(&dispatcher.process, "/livez").await, (200, "ok".to_owned()));
    for path in ["healthz", "livez", "readyz"] {
        let url = format!("http://{}/{path}", dispatcher.address);
        assert_eq!(client(false).await.get(url).send().await.unwrap().status(), 404, "{path}");
    }
    let controller = start_controller(&cluster).await;
    let (status, page) = readiness(&controller, "[+]watches ok\n").await;
    assert_eq!((status, page.as_str()), (200, "[+]watches ok\nreadyz check passed\n"));
}

async fn one_right_to_one_secret_is_enough(cluster: Arc<Cluster>) {
    chart::kubeconfig(&cluster, "dispatcher", &json!({})).await;
    // One that has this Role and no other.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "only-tls", "namespace": "postrider" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "postrider-dispatcher-own" },
        "subjects": [{ "kind": "ServiceAccount", "name": "only-tls", "namespace": "postrider" }],
    });
    cluster.apply(&binding.to_string()).await.succeeded();
    let get = async |arguments: &[&str]| {
        let all = ["get", "secrets", "-n", "postrider", "--as", "system:serviceaccount:postrider:only-tls"];
        cluster.kubectl(all.iter().chain(arguments)).await
    };
    get(&["--field-selector", &format!("metadata.name={SECRET}")]).await.succeeded();
    get(&["--field-selector", "metadata.name=other"]).await.failed();
    get(&[]).await.failed();
}

async fn a_certificate_is_replaced_under_load_and_no_request_is_dropped(cluster: Arc<Cluster>) {
    const CERTIFICATES: usize = 4;
    let scene = Scene::without_controller(cluster).await;
    let authority = &pki::shared().await.server_authority;
    scene.serves_with(&authority.issue(&Request::server()).await).await;
    let dispatcher = scene.secure_dispatcher(&[]).await;
    let address = secure_address(&dispatcher.process).await;
    let url = format!("https://localhost:{}/v1/namespaces/x/outboundwebhooks/y/events", address.port());

    let done = CancellationToken::new();
    let mut senders = JoinSet::new();
    for http2 in [false, true] {
        let (client, url, done) = (client(http2).await, url.clone(), done.clone());
        let version = if http2 { reqwest::Version::HTTP_2 } else { reqwest::Version::HTTP_11 };
        senders.spawn(async move {
            let mut sent = 0_usize;
            while !done.is_cancelled() || sent < 100 {
                // Whatever the answer is: it comes, and whole.
                let response = client.post(&url).body("{}").send().await.unwrap();
                assert_eq!(response.version(), version);
                response.bytes().await.unwrap();
                sent += 1;
            }
            sent
        });
    }
    for _ in 0..CERTIFICATES {
        let next = authority.issue(&Request::server()).await;
        scene.serves_with(&next).await;
        dispatcher.process.line_with(&next.facts.fingerprint_sha256).await;
        for _ in 0..3 {
            assert_eq!(shown(address).await, next.facts.fingerprint_sha256);
        }
    }
    done.cancel();
    let sent = senders.join_all().await;
    println!(
        "requests over HTTP/1.1 and HTTP/2 while the certificate was replaced {CERTIFICATES} times: {sent:?}"
    );
}

async fn what_is_wrong_with_a_certificate_is_told_and_the_last_good_one_goes_on(cluster: Arc<Cluster>) {
    let scene = Scene::without_controller(cluster).await;
    let authority = &pki::shared().await.server_authority;
    let secure = secure(scene.namespace.name());
    let queue = tempfile::tempdir().unwrap();
    let process = Program::postrider("dispatcher")
        .args(["--namespace", scene.namespace.name(), "--listen=127.0.0.1:0", "--queue"])
        .args([queue.path()])
        .args(&secure)
        .env("KUBECONFIG", scene.cluster().kubeconfig())
        .start();
    let address = secure_address(&process).await;
    let (status, _) = readiness(&process, "[-]certificate failed: Secret").await;
    assert_eq!(status, 503);
    readiness(&process, "is not there\n").await;

    let (one, other) = (authority.issue(&Request::server()).await, authority.issue(&Request::server()).await);
    scene.serves_with(&one).await;
    assert_eq!(readiness(&process, "[+]certificate ok\n").await.0, 200);
    assert_eq!(shown(address).await, one.facts.fingerprint_sha256);

    let expired = authority.issue(&Request::server().validity(Validity::Expired)).await;
    let early = authority.issue(&Request::server().validity(Validity::NotYet)).await;
    for (chain, key, says) in [
        (other.chain_pem(), one.key_pem(), "tls.key is not the key of the first certificate in tls.crt"),
        (expired.chain_pem(), expired.key_pem(), "the certificate expired at"),
        (early.chain_pem(), early.key_pem(), "the certificate is not valid before"),
        ("nothing".to_owned(), one.key_pem(), "tls.crt: holds no PEM certificate"),
        (one.chain_pem(), "nothing".to_owned(), "tls.key: holds no PEM private key"),
    ] {
        scene.namespace.serving_certificate(SECRET, &chain, &key).await;
        // The log has it, and so has readiness, which does not fail: senders are served.
        let line = process.line_with(says).await;
        assert!(line.contains("goes on being shown"), "{line}");
        let (status, page) = readiness(&process, says).await;
        assert_eq!(status, 200, "{page}");
        assert!(page.contains("[+]certificate ok: goes on with CN=localhost"), "{page}");
        assert_eq!(shown(address).await, one.facts.fingerprint_sha256);
    }
    scene.namespace.kubectl(["delete", "secret", SECRET]).await.succeeded();
    readiness(&process, "is not there\n").await;
    assert_eq!(shown(address).await, one.facts.fingerprint_sha256);
    scene.serves_with(&other).await;
    readiness(&process, "[+]certificate ok\n").await;
    assert_eq!(shown(address).await, other.facts.fingerprint_sha256);
}

/// How long it takes is for `make bench` to say.
async fn a_good_sender_goes_on_among_two_thousand_bad_ones(cluster: Arc<Cluster>) {
    const BAD: usize = 2000;
    let scene = Scene::without_controller(cluster).await;
    scene.serves_with(&pki::shared().await.server).await;
    scene.webhook("shop", "https://localhost:1", json!({ "suspend": true })).await;
    let dispatcher = scene.secure_dispatcher(&[]).await;
    let secure = secure_address(&dispatcher.process).await;
    dispatcher.post("shop", "the webhook is known").await;
    let path = format!("/v1/namespaces/{}/outboundwebhooks/shop/events", scene.namespace.name());
    let crowd = Crowd::gather(dispatcher.address, secure, &path, BAD).await;
    for _ in 0..500 {
        assert_eq!(dispatcher.try_post("shop", "paid").await.unwrap().status(), 202);
    }
    // On new connections as well.
    for _ in 0..20 {
        let fresh = client(false).await;
        let url = format!("http://{}{path}", dispatcher.address);
        assert_eq!(fresh.post(url).body("paid").send().await.unwrap().status(), 202);
    }
    assert!(crowd.open() >= BAD / 2, "{} of {} are still there", crowd.open(), crowd.opened());
}

async fn readiness_fails_first_and_requests_are_still_taken(cluster: Arc<Cluster>) {
    let scene = Scene::without_controller(cluster).await;
    scene.webhook("shop", "https://localhost:1", json!({ "suspend": true })).await;
    let dispatcher = scene.dispatcher_with(&["--shutdown-delay=2s"]).await;
    dispatcher.post("shop", "before").await;
    dispatcher.process.signal(Signal::TERM);
    let (status, _) = readiness(&dispatcher.process, "[-]shutdown failed: the program ends\n").await;
    assert_eq!(status, 503);
    let id = dispatcher.post("shop", "meanwhile").await;
    assert!(dispatcher.process.ended().await.success());
    assert!(dispatcher.pending().contains(&id));
}

async fn nothing_that_was_acknowledged_is_lost_when_it_is_rolled_under_load(cluster: Arc<Cluster>) {
    const ROLLS: usize = 5;
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.webhook("shop", &receiver.url(), json!({ "mtls": { "active": active("shop", "PKCS12") } })).await;
    scene.ready("shop").await;
    let mut dispatcher = scene.dispatcher().await;
    let url = |dispatcher: &Dispatcher| {
        Some(format!("http://{}/v1/namespaces/{}", dispatcher.address, scene.namespace.name()))
    };
    let at = watch::Sender::new(url(&dispatcher));
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    let mut load = Load::new();
    for _ in 0..4 {
        let acknowledged = Arc::clone(&acknowledged);
        let note = move |id: uuid::Uuid| {
            acknowledged.lock().unwrap().insert(id.to_string());
        };
        load.post("shop", 200.0, note, &at.subscribe());
    }
    for _ in 0..ROLLS {
        let so_far = acknowledged.lock().unwrap().len();
        eventually::polled("a hundred more to be acknowledged", || async {
            let now = acknowledged.lock().unwrap().len();
            if now >= so_far + 100 { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
        dispatcher.process.terminate().await;
        dispatcher = scene.dispatcher_again(&dispatcher).await;
        at.send_replace(url(&dispatcher));
    }
    load.stop().await;
    dispatcher.process.terminate().await;
    let pending = dispatcher.pending();
    let requests = receiver.requests();
    let delivered: HashSet<_> =
        requests.iter().map(|request| request.header("webhook-id").to_owned()).collect();
    let acknowledged = acknowledged.lock().unwrap();
    let lost = acknowledged.iter().filter(|id| !delivered.contains(*id) && !pending.contains(*id)).count();
    println!(
        "rolled {ROLLS} times: {} acknowledged, {} delivered in {} requests, {} pending, {lost} lost",
        acknowledged.len(),
        delivered.len(),
        requests.len(),
        pending.len(),
    );
    assert_eq!(lost, 0);
}
