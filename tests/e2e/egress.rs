//! What is dialled and what is not, by the programs as they run, directly and through a proxy.

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;

use crate::harness::{
    cluster::Cluster,
    pki::{self, Authority, Request},
    process::{Process, Program},
    proxy::Proxy,
    receiver::{ClientAuth, Options, Receiver},
    scene::{Dispatcher, Scene, active, condition, start_controller_with},
};

tests![
    an_address_is_refused_by_default_and_allowed_by_an_administrator,
    an_address_is_refused_however_a_url_writes_it,
    a_name_of_this_machine_is_refused,
    deny_beats_allow,
    a_proxy_carries_the_client_certificate_to_the_address_that_was_checked,
    a_proxy_is_not_asked_for_what_is_refused,
    a_proxy_gets_its_credentials_and_nobody_else,
    a_proxy_that_is_away_is_told,
    a_proxy_over_tls_is_shown_no_certificate_of_a_webhook,
    the_controller_tests_connections_through_the_proxy,
    options_that_cannot_be_used_end_a_program_without_repeating_a_password,
];

/// A receiver at an address of this machine that the run's controller does not allow.
async fn receiver_elsewhere() -> Receiver {
    let shared = pki::shared().await;
    let certificate =
        shared.server_authority.issue(&Request::server().alt_names("DNS:localhost,IP:127.0.0.2")).await;
    let options = Options::new(&certificate, ClientAuth::Required(&shared.client_authority));
    options.address(SocketAddr::from(([127, 0, 0, 2], 0))).start().await
}

/// A webhook that is Ready and retries fast.
async fn webhook(scene: &Scene, url: &str) {
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let spec = json!({
        "mtls": { "active": active("shop", "PKCS12") },
        "delivery": { "retry": { "initialSeconds": 1, "maxSeconds": 1 } },
    });
    scene.webhook("shop", url, spec).await;
    scene.ready("shop").await;
}

/// What the run's controller has found; after that it dials no more.
async fn tested(scene: &Scene, status: &str, reason: &str) -> String {
    let webhook = scene.condition("shop", "Connected", status, Some(reason)).await;
    condition(&webhook, "Connected").unwrap().message.clone()
}

/// The line of an attempt that failed.
async fn failure(dispatcher: &Dispatcher, id: &str) -> String {
    let failed = |line: &str| (line.contains("not delivered") && line.contains(id)).then(|| line.to_owned());
    dispatcher.process.find_line("a failed attempt", failed).await
}

async fn arrives(receiver: &Receiver, id: &str) {
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!(request.header("webhook-id"), id);
    let expected = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(expected));
}

async fn an_address_is_refused_by_default_and_allowed_by_an_administrator(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, receiver_elsewhere().await);
    webhook(&scene, &format!("https://{}", receiver.address())).await;
    let message = tested(&scene, "False", "AddressRefused").await;
    for says in ["127.0.0.2 is a loopback address", "nothing was sent", "--egress-allow 127.0.0.2/32"] {
        assert!(message.contains(says), "{message}");
    }
    let status = scene.webhooks().get("shop").await.unwrap().status.unwrap();
    assert_eq!(status.test.unwrap().active.unwrap().layer.as_deref(), Some("Connect"));

    let dispatcher = scene.dispatcher_with(&[]).await;
    let id = dispatcher.post("shop", "x").await;
    let line = failure(&dispatcher, &id).await;
    assert!(line.contains("AddressRefused") && line.contains("--egress-allow 127.0.0.2/32"), "{line}");
    dispatcher.process.terminate().await;
    assert_eq!(receiver.dialled(), 0);

    let allowing = scene.dispatcher_again_with(&dispatcher, &["--egress-allow=10.0.0.0/8,127.0.0.0/8"]).await;
    arrives(&receiver, &id).await;
    allowing.process.terminate().await;
}

async fn an_address_is_refused_however_a_url_writes_it(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, receiver_elsewhere().await);
    let dispatcher = scene.dispatcher().await;
    for host in ["2130706434", "0x7f.2", "127.2", "[::ffff:127.0.0.2]"] {
        webhook(&scene, &format!("https://{host}:{}", receiver.address().port())).await;
        let message = tested(&scene, "False", "AddressRefused").await;
        assert!(message.contains("a loopback address"), "{host}: {message}");
        let id = dispatcher.post("shop", "x").await;
        let line = failure(&dispatcher, &id).await;
        assert!(line.contains("AddressRefused"), "{host}: {line}");
    }
    assert_eq!(receiver.dialled(), 0);
}

async fn a_name_of_this_machine_is_refused(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, &receiver.url()).await;
    tested(&scene, "True", "Succeeded").await;
    let dialled = receiver.dialled();
    let dispatcher = scene.dispatcher_with(&[]).await;
    let id = dispatcher.post("shop", "x").await;
    let line = failure(&dispatcher, &id).await;
    assert!(line.contains("AddressRefused") && line.contains("localhost has the address "), "{line}");
    assert_eq!(receiver.dialled(), dialled);
}

async fn deny_beats_allow(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, &format!("https://{}", receiver.address())).await;
    tested(&scene, "True", "Succeeded").await;
    let dialled = receiver.dialled();
    let options = ["--egress-allow=127.0.0.1,127.0.0.0/8", "--egress-deny=192.0.2.0/24,127.0.0.1"];
    let dispatcher = scene.dispatcher_with(&options).await;
    let id = dispatcher.post("shop", "x").await;
    let line = failure(&dispatcher, &id).await;
    assert!(line.contains("AddressRefused") && line.contains("--egress-deny 127.0.0.1/32"), "{line}");
    assert_eq!(receiver.dialled(), dialled);
}

/// The options of a program that goes through the proxy to the receivers.
fn through(url: &str) -> [String; 2] {
    ["--egress-allow=127.0.0.1".to_owned(), format!("--egress-proxy={url}")]
}

async fn dispatcher_through(scene: &Scene, url: &str) -> Dispatcher {
    let options = through(url);
    scene.dispatcher_with(&options.each_ref().map(String::as_str)).await
}

async fn a_proxy_carries_the_client_certificate_to_the_address_that_was_checked(cluster: Arc<Cluster>) {
    let (scene, receiver, proxy) = (Scene::new(cluster).await, Receiver::start().await, Proxy::open().await);
    webhook(&scene, &receiver.url()).await;
    tested(&scene, "True", "Succeeded").await;
    let dialled = receiver.dialled();
    let dispatcher = dispatcher_through(&scene, &proxy.url()).await;
    let id = dispatcher.post("shop", "x").await;
    arrives(&receiver, &id).await;
    let asked = proxy.asked();
    let targets: Vec<_> = asked.iter().map(|connect| connect.target.as_str()).collect();
    assert_eq!(targets, [receiver.address().to_string()]);
    assert!(
        !asked[0].head.contains("localhost") && !asked[0].head.contains("uthorization"),
        "{}",
        asked[0].head
    );
    // Under its own name, and there is no other way.
    let host = format!("localhost:{}", receiver.address().port());
    assert_eq!(receiver.requests()[0].header("host"), host);
    assert_eq!(receiver.dialled(), dialled + 1);
}

async fn a_proxy_is_not_asked_for_what_is_refused(cluster: Arc<Cluster>) {
    let (scene, receiver, proxy) =
        (Scene::new(cluster).await, receiver_elsewhere().await, Proxy::open().await);
    webhook(&scene, &format!("https://{}", receiver.address())).await;
    let dispatcher = dispatcher_through(&scene, &proxy.url()).await;
    let id = dispatcher.post("shop", "x").await;
    assert!(failure(&dispatcher, &id).await.contains("AddressRefused"));
    assert_eq!((proxy.asked().len(), receiver.dialled()), (0, 0));
}

async fn a_proxy_gets_its_credentials_and_nobody_else(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let proxy = Proxy::with_credentials("shop:correct-horse-battery").await;
    webhook(&scene, &receiver.url()).await;
    tested(&scene, "True", "Succeeded").await;
    let dialled = receiver.dialled();

    let without = dispatcher_through(&scene, &proxy.origin()).await;
    let id = without.post("shop", "x").await;
    let line = failure(&without, &id).await;
    let says = format!("the proxy {} wants credentials (HTTP 407)", proxy.origin());
    assert!(line.contains("ProxyFailed") && line.contains(&says), "{line}");
    without.process.terminate().await;
    assert_eq!(receiver.dialled(), dialled);

    // What is in the logs of both is looked through at the end.
    let options = through(&proxy.url());
    let with = scene.dispatcher_again_with(&without, &options.each_ref().map(String::as_str)).await;
    arrives(&receiver, &id).await;
    let headers = format!("{:?}", receiver.requests()[0].headers);
    assert!(!headers.contains("uthorization"), "{headers}");
    with.process.terminate().await;
}

async fn a_proxy_that_is_away_is_told(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, &receiver.url()).await;
    tested(&scene, "True", "Succeeded").await;
    let dialled = receiver.dialled();
    let away = Receiver::start().await;
    let url = format!("http://{}", away.address());
    away.stop().await;
    let dispatcher = dispatcher_through(&scene, &url).await;
    let id = dispatcher.post("shop", "x").await;
    let line = failure(&dispatcher, &id).await;
    assert!(line.contains("ProxyFailed") && line.contains("\"layer\":\"Connect\""), "{line}");
    assert!(line.contains(&format!("the proxy {url} cannot be reached: ")), "{line}");
    assert_eq!(receiver.dialled(), dialled);
}

async fn a_proxy_over_tls_is_shown_no_certificate_of_a_webhook(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let authority = Authority::root("Proxy root").await;
    let certificate = authority.issue(&Request::server()).await;
    let proxy = Proxy::tls(&certificate, &pki::shared().await.client_authority).await;
    webhook(&scene, &receiver.url()).await;
    let untrusting = dispatcher_through(&scene, &proxy.url()).await;
    let id = untrusting.post("shop", "x").await;
    let line = failure(&untrusting, &id).await;
    assert!(line.contains("ProxyFailed") && line.contains("invalid peer certificate"), "{line}");
    untrusting.process.terminate().await;
    assert!(proxy.asked().is_empty());

    let options = through(&proxy.url());
    let options = options.each_ref().map(String::as_str);
    let environment = [("SSL_CERT_FILE", authority.root.as_os_str())];
    let _trusting = scene.dispatcher_again_in(&untrusting, &options, &environment).await;
    arrives(&receiver, &id).await;
    let asked = proxy.asked();
    assert_eq!(asked[0].target, receiver.address().to_string());
    assert!(!asked[0].client_certificate);
}

async fn the_controller_tests_connections_through_the_proxy(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let (receiver, proxy) = (Receiver::start().await, Proxy::open().await);
    let options = through(&proxy.url());
    let controller = start_controller_with(&cluster, &options.each_ref().map(String::as_str)).await;
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    scene.enable(true).await;
    webhook(&scene, &receiver.url()).await;
    tested(&scene, "True", "Succeeded").await;
    assert_eq!(proxy.asked()[0].target, receiver.address().to_string());
    controller.terminate().await;

    drop(proxy);
    let _controller = start_controller_with(&cluster, &options.each_ref().map(String::as_str)).await;
    scene
        .namespace
        .kubectl(["annotate", "outboundwebhook", "shop", "postrider.dev/test=now"])
        .await
        .succeeded();
    let message = tested(&scene, "False", "ProxyFailed").await;
    assert!(message.contains("cannot be reached"), "{message}");
    assert_eq!(receiver.dialled(), 1);
}

async fn options_that_cannot_be_used_end_a_program_without_repeating_a_password(cluster: Arc<Cluster>) {
    // It is never in a log that is looked through.
    let _proxy = Proxy::with_credentials("shop:incorrect-horse-battery").await;
    let start = |program: &str, option: &str| -> Process {
        Program::postrider(program).args([option]).env("KUBECONFIG", cluster.kubeconfig()).start()
    };
    for program in ["controller", "dispatcher"] {
        for (option, says) in [
            ("--egress-proxy=socks5://shop:incorrect-horse-battery@localhost", "http:// or https://"),
            ("--egress-proxy=http://shop:incorrect-horse-battery@localhost:0x", "is no URL"),
            ("--egress-allow=10.0.0/8", "neither a CIDR"),
        ] {
            let process = start(program, option);
            assert!(!process.ended().await.success());
            process.line_with(says).await;
        }
    }
}
