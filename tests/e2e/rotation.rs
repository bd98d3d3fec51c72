//! One certificate replaces another: found, tested, promoted, kept, and fallen back to.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    events::v1::Event,
};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use postrider::api::v1alpha1::{MutualTlsStatus, OutboundWebhook};
use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    eventually,
    nginx::Nginx,
    pki::{self, Authority, Certificate, Request, Validity},
    receiver::{ClientAuth, Options, Receiver},
    scene::{Scene, active, condition, start_controller, story},
    tool::Tool,
};

tests![
    mtls_new_is_tested_promoted_and_moves_to_active_without_a_trace,
    a_secret_overwritten_in_place_is_one_rotation,
    a_new_that_the_endpoint_refuses_waits_and_the_active_goes_on,
    a_new_that_is_withdrawn_leaves_no_trace,
    manual_promotion_waits_for_its_annotation,
    an_active_that_expires_is_replaced_without_a_test,
    a_rotation_survives_a_restart_of_the_controller,
    what_is_restored_begins_with_its_manifest,
    of_an_expiry_is_reminded_in_time_and_once,
    a_test_is_made_when_asked_and_told_in_full,
    a_request_under_way_finishes_and_the_next_uses_the_new_certificate,
    a_receiver_that_knows_only_the_old_certificate_loses_nothing,
    nginx_that_knows_only_the_old_certificate_loses_nothing,
    openssl_and_nginx_trust_the_bundle_that_is_offered,
];

/// A webhook that delivers to a receiver with the shared certificate.
async fn delivering(scene: &Scene, url: &str) {
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", url, "PKCS12").await;
    connected(scene).await;
}

async fn connected(scene: &Scene) -> OutboundWebhook {
    scene.condition("shop", "Connected", "True", None).await
}

/// Another certificate of the same authority, in the Secrets `<name>-…`.
async fn successor(scene: &Scene, name: &str) -> Certificate {
    let request = Request::client(&format!("/O=Example/CN={name}"));
    let certificate = pki::shared().await.client_authority.issue(&request).await;
    scene.keystore(name, &certificate.pkcs12().await).await;
    certificate
}

async fn name_as_new(scene: &Scene, url: &str, name: &str, rotation: Value) {
    let mtls =
        json!({ "active": active("shop", "PKCS12"), "new": active(name, "PKCS12"), "rotation": rotation });
    scene.webhook("shop", url, json!({ "mtls": mtls })).await;
}

fn mtls(webhook: &OutboundWebhook) -> MutualTlsStatus {
    webhook.status.as_ref().and_then(|status| status.mtls.clone()).unwrap_or_default()
}

fn is_active(webhook: &OutboundWebhook, certificate: &Certificate) -> bool {
    mtls(webhook)
        .active
        .is_some_and(|active| active.fingerprint_sha256 == certificate.facts.fingerprint_sha256)
}

async fn promoted(scene: &Scene, certificate: &Certificate) -> OutboundWebhook {
    let what = format!("{} to be Active", certificate.facts.subject);
    eventually::object(&scene.webhooks(), "shop", &what, |webhook| is_active(webhook, certificate)).await
}

fn count(story: &[(String, String)], reason: &str) -> usize {
    story.iter().filter(|(told, _)| told == reason).count()
}

async fn mtls_new_is_tested_promoted_and_moves_to_active_without_a_trace(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let old = &pki::shared().await.client;
    delivering(&scene, &receiver.url()).await;
    let next = successor(&scene, "next").await;
    name_as_new(&scene, &receiver.url(), "next", json!({})).await;
    let webhook = promoted(&scene, &next).await;
    let status = mtls(&webhook);
    assert_eq!(status.previous.unwrap().fingerprint_sha256, old.facts.fingerprint_sha256);
    assert!(status.new.is_none());
    assert_eq!(status.active.unwrap().source.unwrap().secret, "next-keystore");

    let waits = condition(&webhook, "NewCertificateValid").unwrap();
    assert_eq!((waits.status.as_str(), waits.reason.as_str()), ("True", "Promoted"));
    let offered =
        scene.namespace.api::<ConfigMap>().get("shop-client-certificate").await.unwrap().data.unwrap();
    assert_eq!(offered.keys().collect::<Vec<_>>(), ["active.crt", "bundle.crt", "previous.crt"]);
    let secrets = scene.namespace.api::<Secret>();
    let kept = secrets.get("shop-identities").await.unwrap();
    let keys: Vec<_> = kept.data.as_ref().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["active.crt", "active.key", "ca.crt", "previous.crt", "previous.key"]);

    let told = story(&scene, "Promoted").await;
    let reasons: Vec<_> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["Accepted", "TestPassed", "NewCertificate", "TestPassed", "Promoted"], "{told:#?}");
    assert!(
        told[4].1.contains("CN=next,O=Example") && told[4].1.contains("its test has passed"),
        "{told:#?}"
    );

    // As a person tidies up: `new` moves to `active`, and nothing that is sent changes.
    scene
        .webhook(
            "shop",
            &receiver.url(),
            json!({ "mtls": { "active": active("next", "PKCS12"), "new": null } }),
        )
        .await;
    let patch = json!({ "spec": { "mtls": { "new": null, "rotation": null } } }).to_string();
    scene.namespace.kubectl(["patch", "owh", "shop", "--type=merge", "-p", &patch]).await.succeeded();
    let webhook = scene.ready("shop").await;
    assert!(is_active(&webhook, &next));
    assert_eq!(mtls(&webhook).previous.unwrap().fingerprint_sha256, old.facts.fingerprint_sha256);
    let after = secrets.get("shop-identities").await.unwrap();
    assert_eq!(after.data, kept.data);
    assert_eq!(count(&story(&scene, "Promoted").await, "Promoted"), 1);
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn a_secret_overwritten_in_place_is_one_rotation(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    delivering(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "before").await;
    receiver.wait_for(1).await;
    let next = pki::shared().await.client_authority.issue(&Request::client("/CN=renewed")).await;
    // As cert-manager does: one certificate in up to four encodings, one after the other; and the password
    // that opens them comes last.
    let password = pki::new_password();
    for _ in 0..4 {
        let keystore = next.pkcs12_with(&password, &[]).await;
        scene.secret("shop-keystore", &[("keystore.p12", &keystore.bytes())]).await;
    }
    scene.condition("shop", "CertificateValid", "False", Some("WrongPasswordOrCorrupt")).await;
    dispatcher.post("shop", "between").await;
    receiver.wait_for(2).await;
    scene.password("shop", &password).await;
    let webhook = promoted(&scene, &next).await;
    let old = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(&mtls(&webhook).previous.unwrap().fingerprint_sha256, old);
    let told = story(&scene, "Promoted").await;
    assert_eq!((count(&told, "NewCertificate"), count(&told, "Promoted")), (1, 1), "{told:#?}");
    dispatcher.process.line_with(&next.facts.fingerprint_sha256).await;
    dispatcher.post("shop", "after").await;
    let requests = receiver.wait_for(3).await;
    let shown: Vec<_> =
        requests.iter().map(|request| request.client_fingerprint_sha256.as_ref().unwrap()).collect();
    assert_eq!(shown, [old, old, &next.facts.fingerprint_sha256]);
}

async fn a_new_that_the_endpoint_refuses_waits_and_the_active_goes_on(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    delivering(&scene, &receiver.url()).await;
    let stranger =
        Authority::root("Unknown to the receiver").await.issue(&Request::client("/CN=stranger")).await;
    scene.keystore("stranger", &stranger.pkcs12().await).await;
    name_as_new(&scene, &receiver.url(), "stranger", json!({})).await;
    let what = "a failed test of the New";
    let webhook = eventually::object(&scene.webhooks(), "shop", what, |webhook| {
        let tests = webhook.status.as_ref().and_then(|status| status.test.as_ref());
        tests.and_then(|tests| tests.new.as_ref()).is_some_and(|test| !test.succeeded)
    })
    .await;
    let tests = webhook.status.clone().unwrap().test.unwrap();
    let test = tests.new.unwrap();
    assert_eq!(test.reason, "ClientCertificateRejected");
    assert_eq!(
        test.alert.as_ref().map(|alert| (alert.number, alert.name.as_str())),
        Some((48, "unknown_ca"))
    );
    assert_eq!((test.client_certificate_requested, test.issuer_accepted), (Some(true), Some(false)));
    assert!(tests.active.unwrap().succeeded);
    assert_eq!(condition(&webhook, "NewCertificateValid").unwrap().reason, "WaitsForTest");
    let told = story(&scene, "TestFailed").await;
    assert_eq!(count(&told, "Promoted"), 0, "{told:#?}");

    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    let expected = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(receiver.wait_for(1).await[0].client_fingerprint_sha256.as_ref(), Some(expected));
    // Tested again by itself, with backoff: the second time comes without anybody's doing.
    let first = test.time;
    eventually::object(&scene.webhooks(), "shop", "a second test of the New", |webhook| {
        let tests = webhook.status.as_ref().and_then(|status| status.test.as_ref());
        tests.and_then(|tests| tests.new.as_ref()).is_some_and(|test| test.time > first)
    })
    .await;
}

async fn a_new_that_is_withdrawn_leaves_no_trace(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let shared = pki::shared().await;
    delivering(&scene, &receiver.url()).await;
    successor(&scene, "next").await;
    // Whether or not the keystore behind `mtls.active` can be read at that moment.
    for password in [shared.pkcs12().await.password.as_str(), "not the password"] {
        name_as_new(&scene, &receiver.url(), "next", json!({ "promotion": "Manual" })).await;
        let waits = |webhook: &OutboundWebhook| mtls(webhook).new.is_some();
        eventually::object(&scene.webhooks(), "shop", "a New", waits).await;
        scene.password("shop", password).await;
        let readable = if password == "not the password" { "False" } else { "True" };
        scene.condition("shop", "CertificateValid", readable, None).await;
        let patch = json!({ "spec": { "mtls": { "new": null } } }).to_string();
        scene.namespace.kubectl(["patch", "owh", "shop", "--type=merge", "-p", &patch]).await.succeeded();
        let webhook =
            eventually::object(&scene.webhooks(), "shop", "no New", |webhook| mtls(webhook).new.is_none())
                .await;
        assert!(is_active(&webhook, &shared.client) && mtls(&webhook).previous.is_none());
        let kept = scene.namespace.api::<Secret>().get("shop-identities").await.unwrap().data.unwrap();
        assert!(!kept.contains_key("new.key"));
    }
}

async fn manual_promotion_waits_for_its_annotation(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    delivering(&scene, &receiver.url()).await;
    let next = successor(&scene, "next").await;
    name_as_new(&scene, &receiver.url(), "next", json!({ "promotion": "Manual" })).await;
    let webhook = scene.condition("shop", "NewCertificateValid", "True", Some("WaitsForPromotion")).await;
    let told = &condition(&webhook, "NewCertificateValid").unwrap().message;
    let annotation = format!("postrider.dev/promote={}", next.facts.fingerprint_sha256);
    assert!(told.ends_with(&annotation), "{told}");
    assert!(!is_active(&webhook, &next));
    scene.namespace.kubectl(["annotate", "owh", "shop", &annotation]).await.succeeded();
    promoted(&scene, &next).await;
}

async fn an_active_that_expires_is_replaced_without_a_test(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let authority = &pki::shared().await.client_authority;
    // It is never tested with success: nobody listens there.
    let url = "https://localhost:1/hooks";
    let short = Request::client("/CN=short").validity(Validity::ExpiresIn(Duration::from_secs(12)));
    let short = authority.issue(&short).await;
    scene.keystore("shop", &short.pkcs12().await).await;
    let next = successor(&scene, "next").await;
    name_as_new(&scene, url, "next", json!({ "promotion": "Manual" })).await;
    promoted(&scene, &next).await;
    let told = story(&scene, "Promoted").await;
    let because = &told.iter().find(|(reason, _)| reason == "Promoted").unwrap().1;
    assert!(because.contains("the Active is about to expire"), "{told:#?}");
    assert!(jiff::Timestamp::now() <= short.facts.not_after + Duration::from_secs(1), "it was in time");
}

async fn a_rotation_survives_a_restart_of_the_controller(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let controller = start_controller(&cluster).await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.enable(true).await;
    delivering(&scene, &receiver.url()).await;
    controller.kill().await;
    // Overwritten while nobody looks: the Active is in the controller's own Secret only.
    let next = pki::shared().await.client_authority.issue(&Request::client("/CN=meanwhile")).await;
    scene.keystore("shop", &next.pkcs12().await).await;
    let controller = start_controller(&cluster).await;
    let webhook = promoted(&scene, &next).await;
    let old = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(&mtls(&webhook).previous.unwrap().fingerprint_sha256, old);
    // What was tested is in the status: another start writes nothing, and tests nothing.
    let settled = scene.condition("shop", "Connected", "True", None).await;
    controller.terminate().await;
    let controller = start_controller(&cluster).await;
    scene.webhook("later", &receiver.url(), json!({})).await;
    scene.ready("later").await;
    controller.line_with("tested the connection").await;
    let after = scene.webhooks().get("shop").await.unwrap();
    assert_eq!(after.resource_version(), settled.resource_version());
}

/// As docs/backup.md has it: what is not in the manifest was of the webhook that is gone.
async fn what_is_restored_begins_with_its_manifest(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    delivering(&scene, &receiver.url()).await;
    let next = successor(&scene, "next").await;
    name_as_new(&scene, &receiver.url(), "next", json!({ "promotion": "Manual" })).await;
    scene.condition("shop", "NewCertificateValid", "True", Some("WaitsForPromotion")).await;
    let promote = format!("postrider.dev/promote={}", next.facts.fingerprint_sha256);
    scene.namespace.kubectl(["annotate", "owh", "shop", &promote]).await.succeeded();
    promoted(&scene, &next).await;

    let secrets = scene.namespace.api::<Secret>();
    let mut kept = secrets.get("shop-identities").await.unwrap();
    scene.namespace.kubectl(["delete", "owh", "shop", "--cascade=foreground"]).await.succeeded();
    // What was the controller's comes back with an owner that does not, until Kubernetes has collected it.
    kept.metadata.resource_version = None;
    secrets.create(&PostParams::default(), &kept).await.unwrap();
    let manifest = json!({
        "active": active("shop", "PKCS12"), "new": active("next", "PKCS12"), "rotation": { "promotion": "Manual" },
    });
    scene.webhook("shop", &receiver.url(), json!({ "mtls": manifest })).await;
    let webhook = scene.condition("shop", "NewCertificateValid", "True", Some("WaitsForPromotion")).await;
    let status = mtls(&webhook);
    let old = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(&status.active.unwrap().fingerprint_sha256, old);
    assert!(status.previous.is_none());
    scene.namespace.kubectl(["annotate", "owh", "shop", &promote]).await.succeeded();
    promoted(&scene, &next).await;
}

async fn of_an_expiry_is_reminded_in_time_and_once(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let controller = start_controller(&cluster).await;
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    scene.enable(true).await;
    // Of two days before the reminder has passed, and that of one day before is near.
    let left = Duration::from_hours(24) + Duration::from_secs(6);
    let ends = Request::client("/CN=ends").validity(Validity::NearItsEnd(left));
    let ends = pki::shared().await.client_authority.issue(&ends).await;
    scene.keystore("shop", &ends.pkcs12().await).await;
    let url = "https://localhost:1/hooks";
    scene.mtls_webhook("shop", url, "PKCS12").await;
    let events = scene.namespace.api::<Event>();
    let reminds = |events: &[Event]| {
        let reminders = events.iter().filter(|event| event.reason.as_deref() == Some("CertificateExpiring"));
        reminders.map(|event| event.note.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    let all = ListParams::default();
    let told =
        eventually::objects(&events, &all, "both reminders", |events: &[Event]| reminds(events).len() == 2);
    for note in reminds(&told.await) {
        assert!(note.contains("CN=ends (") && note.contains(" expires in 24 h; nothing waits"), "{note}");
    }
    controller.kill().await;
    let _controller = start_controller(&cluster).await;
    // It has looked at the webhook once it has said what is new of it.
    successor(&scene, "next").await;
    name_as_new(&scene, url, "next", json!({ "promotion": "Manual" })).await;
    let told = story(&scene, "NewCertificate").await;
    assert_eq!(count(&told, "CertificateExpiring"), 2, "{told:#?}");
}

async fn a_test_is_made_when_asked_and_told_in_full(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let receiver = Receiver::start().await;
    delivering(&scene, &receiver.url()).await;
    let test = |webhook: &OutboundWebhook| webhook.status.clone().and_then(|status| status.test?.active);
    let first = test(&scene.webhooks().get("shop").await.unwrap()).unwrap();
    assert_eq!(first.reason, "Succeeded");
    assert_eq!(first.fingerprint_sha256.as_ref(), Some(&shared.client.facts.fingerprint_sha256));
    assert_eq!(first.tls_version.as_deref(), Some("TLSv1.3"));
    assert_eq!((first.client_certificate_requested, first.issuer_accepted), (Some(true), Some(true)));
    assert_eq!(first.server_chain[0].fingerprint_sha256, shared.server.facts.fingerprint_sha256);
    assert_eq!(first.server_chain[0].valid_till.0, shared.server.facts.not_after);
    assert_eq!(receiver.requests().len(), 0, "no event and no request is sent");

    scene.namespace.kubectl(["annotate", "owh", "shop", "postrider.dev/test=now"]).await.succeeded();
    let asked = |webhook: &OutboundWebhook| test(webhook).is_some_and(|test| test.inputs != first.inputs);
    eventually::object(&scene.webhooks(), "shop", "another test", asked).await;

    // Another way to test, and another endpoint, too.
    let head = json!({ "endpoint": { "test": { "request": "Head" } }, "mtls": { "active": active("shop", "PKCS12") } });
    scene.webhook("shop", &receiver.url(), head).await;
    let answered = |webhook: &OutboundWebhook| test(webhook).is_some_and(|test| test.http_status.is_some());
    eventually::object(&scene.webhooks(), "shop", "a test by HEAD", answered).await;
    assert_eq!(receiver.requests()[0].method, "HEAD");

    // One that fails is repeated until it passes, without a word of anybody.
    let (url, address) = (receiver.url(), receiver.address());
    receiver.stop().await;
    scene.mtls_webhook("shop", &url, "PKCS12").await;
    scene.condition("shop", "Connected", "False", Some("ConnectFailed")).await;
    let server = Options::new(&shared.server, ClientAuth::Required(&shared.client_authority));
    let _back = server.address(address).start().await;
    scene.condition("shop", "Connected", "True", None).await;
}

async fn a_request_under_way_finishes_and_the_next_uses_the_new_certificate(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    delivering(&scene, &receiver.url()).await;
    let dispatcher = scene.dispatcher().await;
    let hold = receiver.hold();
    let under_way = dispatcher.post("shop", "under way").await;
    receiver.wait_for(1).await;
    let next = successor(&scene, "next").await;
    name_as_new(&scene, &receiver.url(), "next", json!({})).await;
    promoted(&scene, &next).await;
    dispatcher.process.line_with(&next.facts.fingerprint_sha256).await;
    drop(hold);
    let after = dispatcher.post("shop", "after").await;
    let requests = receiver.wait_for(2).await;
    let shown = |id: &str| {
        let request = requests.iter().find(|request| request.header("webhook-id") == id).unwrap();
        request.client_fingerprint_sha256.clone().unwrap()
    };
    assert_eq!(shown(&under_way), pki::shared().await.client.facts.fingerprint_sha256);
    assert_eq!(shown(&after), next.facts.fingerprint_sha256);
    // The first was finished, not repeated.
    receiver.assert_no_more(2, Duration::from_millis(1500)).await;
}

/// A certificate of an authority that only `Both` and the receiver after it know, promoted by a person's word.
async fn promoted_and_unknown(scene: &Scene, url: &str) -> Certificate {
    let stranger = Authority::root("Not known yet").await.issue(&Request::client("/CN=stranger")).await;
    scene.keystore("stranger", &stranger.pkcs12().await).await;
    name_as_new(scene, url, "stranger", json!({ "promotion": "Manual" })).await;
    let annotation = format!("postrider.dev/promote={}", stranger.facts.fingerprint_sha256);
    scene.namespace.kubectl(["annotate", "owh", "shop", &annotation]).await.succeeded();
    promoted(scene, &stranger).await;
    stranger
}

async fn a_receiver_that_knows_only_the_old_certificate_loses_nothing(cluster: Arc<Cluster>) {
    const EVENTS: usize = 30;
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    for versions in [Options::tls12_only, Options::tls13_only] {
        let receiver = versions(Options::new(&shared.server, ClientAuth::Required(&shared.client_authority)));
        let receiver = receiver.start().await;
        delivering(&scene, &receiver.url()).await;
        let stranger = promoted_and_unknown(&scene, &receiver.url()).await;
        let dispatcher = scene.dispatcher().await;
        let refused_before = receiver.failed_handshakes().len();
        for n in 1..=EVENTS {
            dispatcher.post("shop", "x").await;
            receiver.wait_for(n).await;
        }
        let old = &shared.client.facts.fingerprint_sha256;
        let requests = receiver.requests();
        assert!(requests.iter().all(|request| request.client_fingerprint_sha256.as_ref() == Some(old)));
        // The one that works is tried first after that: not an extra attempt an event.
        let refused = receiver.failed_handshakes().len() - refused_before;
        assert!((1..=5).contains(&refused), "{EVENTS} events, {refused} refused handshakes");
        // Not counted as a failure, and told.
        assert!(!dispatcher.process.lines().iter().any(|line| line.contains("not delivered")));
        let what = "the refusal in the status";
        let webhook = eventually::object(&scene.webhooks(), "shop", what, |webhook| {
            let delivery = webhook.status.as_ref().and_then(|status| status.delivery.as_ref());
            delivery
                .and_then(|delivery| delivery.client_certificate_refused.as_ref())
                .is_some_and(|refused| refused.fingerprint_sha256 == stranger.facts.fingerprint_sha256)
        })
        .await;
        let told = webhook.status.unwrap().delivery.unwrap().client_certificate_refused.unwrap();
        assert_eq!(told.taken_fingerprint_sha256.as_ref(), Some(old));
        story(&scene, "ClientCertificateRefused").await;
        scene.namespace.kubectl(["delete", "owh", "shop"]).await.succeeded();
    }
}

async fn nginx_that_knows_only_the_old_certificate_loses_nothing(cluster: Arc<Cluster>) {
    let (scene, nginx) = (Scene::new(cluster).await, Nginx::start().await);
    delivering(&scene, &nginx.url()).await;
    promoted_and_unknown(&scene, &nginx.url()).await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    let taken = nginx.request("the event", |access| access.webhook_id == id && access.status < 300).await;
    let old = &pki::shared().await.client.facts.fingerprint_sha256;
    assert_eq!(taken.client_fingerprint_sha256().as_ref(), Some(old));
    assert!(!dispatcher.process.lines().iter().any(|line| line.contains("not delivered")));
}

async fn openssl_and_nginx_trust_the_bundle_that_is_offered(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.mtls_webhook("shop", "https://localhost:1/", "PKCS12").await;
    scene.ready("shop").await;
    let offered = scene.namespace.api::<ConfigMap>().get("shop-client-certificate").await.unwrap();
    let bundle = &offered.data.unwrap()["bundle.crt"];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bundle.crt");
    std::fs::write(&file, bundle).unwrap();
    // As a receiver that checks the leaf alone does.
    Tool::new("openssl")
        .args(["verify", "-purpose", "sslclient", "-CAfile"])
        .args([&file, &shared.client.leaf])
        .succeed()
        .await;
    let nginx = Nginx::start_trusting(&shared.server, bundle).await;
    scene.mtls_webhook("shop", &nginx.url(), "PKCS12").await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    let access = nginx.request("the event", |access| access.webhook_id == id).await;
    assert_eq!((access.verify.as_str(), access.status / 100), ("SUCCESS", 2));
}
