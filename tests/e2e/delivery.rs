//! From a posted event to the server that demands a certificate.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::mpsc;

use crate::harness::{
    cluster::Cluster,
    eventually,
    nginx::Nginx,
    pki::{self, Request, Validity},
    receiver::{Answer, ClientAuth, Options, Received, Receiver},
    scene::{Poster, Scene, active, id_of, start_controller, story},
    tool::Tool,
};

tests![
    an_event_arrives_with_exactly_the_certificate_of_the_p12,
    an_event_arrives_with_exactly_the_certificate_of_the_jks,
    nginx_sees_exactly_the_certificate,
    connections_are_reused,
    a_plain_webhook_goes_over_https_without_a_certificate,
    a_server_of_a_private_authority_is_refused_without_its_bundle,
    a_trust_store_by_keytool_says_who_the_server_may_be,
    nothing_is_sent_until_mtls_is_enabled_and_then_all_of_it,
    nothing_is_sent_without_a_certificate_and_then_all_of_it,
    an_expired_certificate_sends_nothing_more,
    a_replaced_certificate_is_used_and_the_old_one_no_more,
    a_failure_is_repeated_with_the_same_id,
    a_redirect_is_not_followed,
    a_suspended_webhook_keeps_its_events,
    what_cannot_be_taken_is_told,
    acknowledged_events_survive_sigkill,
    a_dispatcher_ends_in_order,
    deliveries_go_on_while_the_api_server_is_away,
    a_deleted_webhook_is_sent_to_no_more,
    an_endpoint_that_moved_gets_no_certificate_of_the_one_before,
];

async fn ready_mtls(scene: &Scene, receiver_url: &str) {
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", &format!("{receiver_url}/hooks?source=shop"), "PKCS12").await;
    scene.ready("shop").await;
}

async fn ready_mtls_that_retries_fast(scene: &Scene, receiver_url: &str) {
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let mut spec = fast_retry();
    spec["mtls"] = json!({ "active": active("shop", "PKCS12") });
    scene.webhook("shop", receiver_url, spec).await;
    scene.ready("shop").await;
}

fn fast_retry() -> serde_json::Value {
    json!({ "delivery": { "retry": { "initialSeconds": 1, "maxSeconds": 1 } } })
}

async fn an_event_arrives_with_exactly_the_certificate_of_the_p12(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    ready_mtls(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "{\"order\":1}").await;
    let request = receiver.wait_for(1).await.remove(0);
    let expected = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(expected));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks?source=shop"));
    assert_eq!(request.body.as_ref(), b"{\"order\":1}");
    assert_eq!((request.header("webhook-id"), request.header("ce-id")), (id.as_str(), id.as_str()));
    assert_eq!((request.header("ce-specversion"), request.header("ce-type")), ("1.0", "order.paid"));
    assert!(request.header("webhook-timestamp").parse::<i64>().is_ok());
    assert!(request.header("user-agent").starts_with("postrider/"));
}

async fn an_event_arrives_with_exactly_the_certificate_of_the_jks(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    // Both versions of TLS: the certificate is presented in different messages.
    for (name, receiver) in [
        (
            "tls12",
            Options::new(&shared.server, ClientAuth::Required(&shared.client_authority))
                .tls12_only()
                .start()
                .await,
        ),
        (
            "tls13",
            Options::new(&shared.server, ClientAuth::Required(&shared.client_authority))
                .tls13_only()
                .start()
                .await,
        ),
    ] {
        scene.keystore(name, shared.jks().await).await;
        scene.mtls_webhook(name, &receiver.url(), "JKS").await;
        scene.ready(name).await;
        let dispatcher = scene.dispatcher().await;
        dispatcher.post(name, "x").await;
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(&shared.client.facts.fingerprint_sha256));
    }
}

async fn nginx_sees_exactly_the_certificate(cluster: Arc<Cluster>) {
    let (scene, nginx) = (Scene::new(cluster).await, Nginx::start().await);
    ready_mtls(&scene, &nginx.url()).await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "paid").await;
    let access = nginx.request("the event", |access| access.webhook_id == id).await;
    assert_eq!((access.verify.as_str(), access.body.as_str()), ("SUCCESS", "paid"));
    let expected = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(access.client_fingerprint_sha256().as_ref(), Some(expected));
}

async fn connections_are_reused(cluster: Arc<Cluster>) {
    const EVENTS: usize = 50;
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let active = active("shop", "PKCS12");
    let spec = json!({ "mtls": { "active": active }, "delivery": { "maxInFlight": 1 } });
    scene.webhook("shop", &receiver.url(), spec).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    for _ in 0..EVENTS {
        dispatcher.post("shop", "x").await;
    }
    receiver.wait_for(EVENTS).await;
    // A request may begin before the connection of the one before is back in the pool.
    assert!(receiver.connections() <= 5, "{EVENTS} events took {} connections", receiver.connections());
}

async fn a_plain_webhook_goes_over_https_without_a_certificate(cluster: Arc<Cluster>) {
    let scene = Scene::not_enabled(cluster).await;
    let shared = pki::shared().await;
    let receiver = Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).start().await;
    scene.webhook("plain", &receiver.url(), json!({})).await;
    scene.ready("plain").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("plain", "x").await;
    assert_eq!(receiver.wait_for(1).await[0].client_fingerprint_sha256, None);
}

async fn a_server_of_a_private_authority_is_refused_without_its_bundle(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let receiver = Options::new(&shared.server, ClientAuth::None).start().await;
    let system = json!({ "endpoint": { "trust": { "caBundleRef": null, "includeSystemRoots": true } } });
    scene.webhook("shop", &receiver.url(), system).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    let line = dispatcher.process.line_with("not delivered").await;
    assert!(line.contains("ServerUntrusted") && line.contains("endpoint.trust"), "{line}");
    assert_eq!(receiver.requests().len(), 0);
    scene.webhook("shop", &receiver.url(), fast_retry()).await;
    receiver.wait_for(1).await;
}

async fn a_trust_store_by_keytool_says_who_the_server_may_be(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let receiver = Options::new(&shared.server, ClientAuth::None).start().await;
    let directory = tempfile::tempdir().unwrap();
    let password = pki::new_password();
    crate::harness::secrets::password("trust store", &password);
    let dispatcher = scene.dispatcher().await;
    for (n, (format, key)) in
        [("JKS", "truststore.jks"), ("PKCS12", "truststore.p12")].into_iter().enumerate()
    {
        let path = directory.path().join(key);
        Tool::new("keytool")
            .args(["-importcert", "-noprompt", "-alias", "partner", "-storetype", format])
            .arg("-file", &shared.server_authority.root)
            .arg("-keystore", &path)
            .arg("-storepass", &password)
            .succeed()
            .await;
        let name = format.to_lowercase();
        scene.secret(&name, &[(key, &std::fs::read(&path).unwrap())]).await;
        scene.password(&name, "not the password").await;
        let password_ref = json!({ "name": format!("{name}-password"), "key": "password" });
        let store = json!({ "kind": "Secret", "name": name, "passwordSecretRef": password_ref });
        let trust = json!({ "caBundleRef": null, "trustStoreRef": store });
        scene.webhook("shop", &receiver.url(), json!({ "endpoint": { "trust": trust } })).await;
        scene.not_ready("shop", "WrongPasswordOrCorrupt").await;
        scene.password(&name, &password).await;
        scene.ready("shop").await;
        dispatcher.post("shop", "x").await;
        receiver.wait_for(n + 1).await;
    }
}

async fn nothing_is_sent_until_mtls_is_enabled_and_then_all_of_it(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, Receiver::start().await);
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", &receiver.url(), "PKCS12").await;
    scene.not_ready("shop", "MTLSNotEnabled").await;
    let dispatcher = scene.dispatcher().await;
    let first = dispatcher.post("shop", "before").await;
    receiver.assert_no_more(0, Duration::from_millis(500)).await;
    assert_eq!(
        (receiver.connections(), receiver.failed_handshakes().len()),
        (0, 0),
        "it was not even dialled"
    );

    scene.enable(true).await;
    assert_eq!(receiver.wait_for(1).await[0].header("webhook-id"), first);
    // And off again: what comes now waits.
    scene.enable(false).await;
    scene.not_ready("shop", "MTLSNotEnabled").await;
    eventually::polled("the dispatcher to hold", || async {
        let lines = dispatcher.process.lines();
        let last = lines.iter().rfind(|line| line.contains("\"holds\"") || line.contains("\"delivers\""));
        if last.is_some_and(|line| line.contains("\"holds\"")) { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
    dispatcher.post("shop", "after").await;
    receiver.assert_no_more(1, Duration::from_millis(500)).await;
}

async fn nothing_is_sent_without_a_certificate_and_then_all_of_it(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    // A server to which the certificate is optional would take an event without it.
    let receiver = Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).start().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.password("shop", "not the password").await;
    scene.mtls_webhook("shop", &receiver.url(), "PKCS12").await;
    scene.not_ready("shop", "WrongPasswordOrCorrupt").await;
    let dispatcher = scene.dispatcher().await;
    let mut ids = HashSet::new();
    for _ in 0..20 {
        ids.insert(dispatcher.post("shop", "x").await);
    }
    receiver.assert_no_more(0, Duration::from_millis(500)).await;
    scene.password("shop", &shared.pkcs12().await.password).await;
    let requests = receiver.wait_for(20).await;
    assert_eq!(
        requests.iter().map(|request| request.header("webhook-id").to_owned()).collect::<HashSet<_>>(),
        ids
    );
    let expected = &shared.client.facts.fingerprint_sha256;
    assert!(requests.iter().all(|request| request.client_fingerprint_sha256.as_ref() == Some(expected)));
}

async fn an_expired_certificate_sends_nothing_more(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    // It checks no dates: only the sender can keep the expired certificate back.
    let receiver = Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).start().await;
    let short = Request::client("/CN=short").validity(Validity::ExpiresIn(Duration::from_secs(15)));
    let certificate = shared.client_authority.issue(&short).await;
    scene.keystore("shop", &certificate.pkcs12().await).await;
    scene.mtls_webhook("shop", &receiver.url(), "PKCS12").await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "valid").await;
    let first = receiver.wait_for(1).await.remove(0);
    assert_eq!(first.client_fingerprint_sha256.as_ref(), Some(&certificate.facts.fingerprint_sha256));
    scene.not_ready("shop", "Expired").await;
    story(&scene, "ActiveExpired").await;
    let kept = dispatcher.post("shop", "kept").await;
    receiver.assert_no_more(1, Duration::from_millis(500)).await;
    scene.keystore("shop", shared.pkcs12().await).await;
    let second = receiver.wait_for(2).await.remove(1);
    assert_eq!(second.header("webhook-id"), kept);
    assert_eq!(second.client_fingerprint_sha256.as_ref(), Some(&shared.client.facts.fingerprint_sha256));
}

async fn a_replaced_certificate_is_used_and_the_old_one_no_more(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let shared = pki::shared().await;
    ready_mtls(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    receiver.wait_for(1).await;
    let next = shared.client_authority.issue(&Request::client("/CN=next")).await;
    scene.keystore("shop", &next.pkcs12().await).await;
    // The dispatcher says it once it delivers with it; from then on nothing goes with the old one.
    dispatcher.process.line_with(&next.facts.fingerprint_sha256).await;
    for n in 2..=6 {
        dispatcher.post("shop", "x").await;
        let request = receiver.wait_for(n).await.remove(n - 1);
        assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(&next.facts.fingerprint_sha256));
    }
}

async fn a_failure_is_repeated_with_the_same_id(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    ready_mtls_that_retries_fast(&scene, &receiver.url()).await;
    receiver.first([Answer::status(500), Answer::status(404)]);
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    let requests = receiver.wait_for(3).await;
    assert!(requests.iter().all(|request| request.header("webhook-id") == id));
    let line = dispatcher.process.line_with("HTTP 404").await;
    assert!(line.contains("\"failures\":2"), "{line}");
    receiver.assert_no_more(3, Duration::from_millis(1500)).await;
}

async fn a_redirect_is_not_followed(cluster: Arc<Cluster>) {
    let (scene, receiver, elsewhere) =
        (Scene::new(cluster).await, Receiver::start().await, Receiver::start().await);
    ready_mtls(&scene, &receiver.url()).await;
    receiver.always(Answer::status(307).header("location", &elsewhere.url()));
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    dispatcher.process.line_with("HTTP 307").await;
    assert_eq!(elsewhere.connections(), 0);
}

async fn a_suspended_webhook_keeps_its_events(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let spec = |suspend: bool| json!({ "suspend": suspend, "mtls": { "active": active("shop", "PKCS12") } });
    scene.webhook("shop", &receiver.url(), spec(true)).await;
    scene.not_ready("shop", "Suspended").await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    receiver.assert_no_more(0, Duration::from_millis(500)).await;
    scene.webhook("shop", &receiver.url(), spec(false)).await;
    assert_eq!(receiver.wait_for(1).await[0].header("webhook-id"), id);
}

async fn what_cannot_be_taken_is_told(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let dispatcher = scene.dispatcher().await;
    let response = dispatcher.try_post("nobody", "x").await.unwrap();
    assert_eq!(response.status(), 404);
    let told = response.text().await.unwrap();
    assert!(told.contains(&format!("no OutboundWebhook {}/nobody", scene.namespace.name())), "{told}");
}

async fn acknowledged_events_survive_sigkill(cluster: Arc<Cluster>) {
    const EVENTS: usize = 500;
    const SENDERS: usize = 8;
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    ready_mtls(&scene, &receiver.url()).await;
    let mut dispatcher = scene.dispatcher().await;
    let mut acknowledged = HashSet::from([dispatcher.post("shop", "first").await]);
    // Nothing is answered until the last start: what is delivered then was on disk at each kill.
    let hold = receiver.hold();
    for kills_at in [EVENTS / 3, 2 * EVENTS / 3, EVENTS] {
        let (sender, mut ids) = mpsc::channel(SENDERS);
        for _ in 0..SENDERS {
            tokio::spawn(post_until_it_is_gone(dispatcher.poster(), sender.clone()));
        }
        drop(sender);
        while acknowledged.len() < kills_at {
            acknowledged.insert(ids.recv().await.expect("the dispatcher takes events"));
        }
        // In the midst of requests; what was acknowledged until the very end counts.
        dispatcher.process.kill().await;
        while let Some(id) = ids.recv().await {
            acknowledged.insert(id);
        }
        dispatcher = scene.dispatcher_again(&dispatcher).await;
    }
    drop(hold);
    let arrived = |requests: &[Received]| -> HashSet<String> {
        requests.iter().map(|request| request.header("webhook-id").to_owned()).collect()
    };
    assert!(acknowledged.len() >= EVENTS);
    receiver
        .wait_until("every acknowledged event", |requests| arrived(requests).is_superset(&acknowledged))
        .await;
}

async fn post_until_it_is_gone(poster: Poster, acknowledged: mpsc::Sender<String>) {
    while let Ok(response) = poster.post("shop", "x").await {
        assert_eq!(response.status(), 202);
        // Killed between the head and the body of its answer: not acknowledged.
        let Ok(id) = id_of(response).await else { return };
        if acknowledged.send(id).await.is_err() {
            return;
        }
    }
}

async fn a_dispatcher_ends_in_order(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    ready_mtls(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    let hold = receiver.hold();
    dispatcher.post("shop", "under way").await;
    receiver.wait_for(1).await;
    dispatcher.process.signal(rustix::process::Signal::TERM);
    dispatcher.process.line_with("ends once what is under way is done").await;
    drop(hold);
    assert!(dispatcher.process.ended().await.success());
    // What was under way was finished and settled: it is not sent again.
    let _again = scene.dispatcher_again(&dispatcher).await;
    receiver.assert_no_more(1, Duration::from_millis(500)).await;
}

async fn deliveries_go_on_while_the_api_server_is_away(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let controller = start_controller(&cluster).await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.enable(true).await;
    ready_mtls(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "before").await;
    receiver.wait_for(1).await;

    cluster.stop_api_server().await;
    controller.terminate().await;
    for n in 2..=11 {
        dispatcher.post("shop", "meanwhile").await;
        receiver.wait_for(n).await;
    }
    cluster.start_api_server().await;
    let _controller = start_controller(&cluster).await;
    let next = pki::shared().await.client_authority.issue(&Request::client("/CN=next")).await;
    scene.keystore("shop", &next.pkcs12().await).await;
    dispatcher.process.line_with(&next.facts.fingerprint_sha256).await;
    // Within a second it is the one that new requests use.
    let since = Instant::now();
    for n in 12.. {
        dispatcher.post("shop", "after").await;
        let last = receiver.wait_for(n).await.remove(n - 1);
        if last.client_fingerprint_sha256.as_ref() == Some(&next.facts.fingerprint_sha256) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(1), "it goes on with {last:?}");
    }
}

async fn a_deleted_webhook_is_sent_to_no_more(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    ready_mtls_that_retries_fast(&scene, &receiver.url()).await;
    receiver.always(Answer::status(500));
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    receiver.wait_for(1).await;
    scene.namespace.kubectl(["delete", "owh", "shop"]).await.succeeded();
    dispatcher.process.line_with("gone").await;
    assert_eq!(dispatcher.try_post("shop", "x").await.unwrap().status(), 404);
    let sent = receiver.requests().len();
    // The worker may have been in an attempt when it was stopped.
    receiver.assert_no_more(sent + 1, Duration::from_millis(2500)).await;
}

async fn an_endpoint_that_moved_gets_no_certificate_of_the_one_before(cluster: Arc<Cluster>) {
    let (scene, before, after) =
        (Scene::new(cluster).await, Receiver::start().await, Receiver::start().await);
    let shared = pki::shared().await;
    ready_mtls(&scene, &before.url()).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    before.wait_for(1).await;
    // Another partner, with another certificate that cannot be used yet.
    let other = shared.client_authority.issue(&Request::client("/CN=other")).await;
    let keystore = other.pkcs12().await;
    scene.keystore("other", &keystore).await;
    scene.password("other", "not the password").await;
    let active = active("other", "PKCS12");
    scene.webhook("shop", &after.url(), json!({ "mtls": { "active": active } })).await;
    scene.not_ready("shop", "WrongPasswordOrCorrupt").await;
    let kept = dispatcher.post("shop", "y").await;
    after.assert_no_more(0, Duration::from_millis(500)).await;
    assert_eq!((after.connections(), after.failed_handshakes().len()), (0, 0), "it was not even dialled");
    scene.password("other", &keystore.password).await;
    let request = after.wait_for(1).await.remove(0);
    assert_eq!(request.header("webhook-id"), kept);
    assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(&other.facts.fingerprint_sha256));
    assert_eq!(before.requests().len(), 1);
}
