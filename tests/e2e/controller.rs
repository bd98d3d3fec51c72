//! From an applied webhook to its status and the objects that it owns.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use postrider::api::v1alpha1::OutboundWebhook;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    eventually,
    pki::{self, Keystore, Request, Validity},
    scene::{Scene, active, condition, story},
};

tests![
    the_status_says_what_openssl_says_of_a_p12,
    the_status_says_what_keytool_says_of_a_jks,
    get_shows_valid_till_and_identifier,
    mtls_is_refused_until_an_administrator_enables_it,
    a_missing_secret_is_told_and_found_when_it_comes,
    a_missing_key_is_told_and_found_when_it_comes,
    a_wrong_password_is_told_and_corrected,
    each_problem_is_an_event_once_and_so_is_its_end,
    what_is_no_keystore_is_told_and_replaced,
    a_store_of_trusted_certificates_is_told_and_replaced,
    an_expired_certificate_is_told_and_replaced,
    a_certificate_that_is_not_valid_yet_is_told,
    a_bundle_that_cannot_be_read_is_told_and_corrected,
    a_replaced_keystore_shows_in_the_status,
    what_was_accepted_goes_on_while_its_keystore_is_broken,
    a_certificate_expires_at_its_very_moment,
    reconciling_the_same_again_writes_nothing,
    what_somebody_changes_in_the_identities_is_mended,
    a_url_that_cannot_be_dialled_is_told,
    a_name_that_is_taken_is_told,
    owned_objects_are_made_again_and_go_with_the_webhook,
    the_offered_certificate_is_the_public_chain,
];

const URL: &str = "https://localhost:1/hooks";

fn message(webhook: &OutboundWebhook) -> &str {
    &condition(webhook, "Ready").unwrap().message
}

fn status_entry(webhook: &OutboundWebhook) -> Value {
    serde_json::to_value(webhook.status.as_ref().unwrap().mtls.as_ref().unwrap().active.as_ref().unwrap())
        .unwrap()
}

/// A fresh certificate in a `.p12`.
async fn fresh(request: Request) -> (pki::Certificate, Keystore) {
    let certificate = pki::shared().await.client_authority.issue(&request).await;
    let keystore = certificate.pkcs12().await;
    (certificate, keystore)
}

async fn the_status_says_what_openssl_says_of_a_p12(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.ready("shop").await;

    let openssl = &shared.client.facts;
    let resource_version =
        scene.namespace.api::<Secret>().get("shop-keystore").await.unwrap().resource_version();
    assert_eq!(
        status_entry(&webhook),
        json!({
            "identifier": openssl.subject,
            "validFrom": openssl.not_before.to_string(),
            "validTill": openssl.not_after.to_string(),
            "serialNumber": openssl.serial.trim_start_matches('0'),
            "issuer": openssl.issuer,
            "fingerprintSHA256": openssl.fingerprint_sha256,
            "alias": pki::ALIAS,
            "keyAlgorithm": "EC P-256",
            "chainLength": 3,
            "source": { "secret": "shop-keystore", "key": "keystore.p12", "resourceVersion": resource_version },
        })
    );
    let valid = condition(&webhook, "CertificateValid").unwrap();
    assert_eq!((valid.status.as_str(), valid.reason.as_str()), ("True", "Valid"));
    assert_eq!(valid.message, format!("{}, valid till {}", openssl.subject, openssl.not_after));
    assert_eq!(message(&webhook), format!("delivers with {}", valid.message));
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn the_status_says_what_keytool_says_of_a_jks(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let keystore = pki::shared().await.jks().await;
    scene.keystore("shop", keystore).await;
    scene.mtls_webhook("shop", URL, "JKS").await;
    let found = status_entry(&scene.ready("shop").await);

    let keytool = &keystore.entries().await[0];
    assert_eq!(found["alias"], json!(keytool.alias));
    assert_eq!(found["identifier"], json!(keytool.owner.replace(", ", ",")));
    assert_eq!(found["serialNumber"], json!(keytool.serial.to_uppercase().trim_start_matches('0')));
    assert_eq!(found["validFrom"], json!(keytool.not_before.to_string()));
    assert_eq!(found["validTill"], json!(keytool.not_after.to_string()));
    assert_eq!(found["fingerprintSHA256"], json!(keytool.fingerprint_sha256));
    assert_eq!(found["chainLength"], json!(keytool.chain_length));
    assert_eq!(found["source"]["key"], json!("keystore.jks"));
}

async fn get_shows_valid_till_and_identifier(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.ready("shop").await;
    let shown = scene.namespace.kubectl(["get", "outboundwebhooks"]).await.succeeded();
    let mut lines = shown.lines();
    let names: Vec<_> = lines.next().unwrap().split("  ").filter(|c| !c.is_empty()).map(str::trim).collect();
    assert_eq!(names, ["NAME", "URL", "READY", "REASON", "IDENTIFIER", "VALID TILL", "AGE"]);
    let cells: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let (subject, till) = (&shared.client.facts.subject, shared.client.facts.not_after.to_string());
    assert_eq!(cells[..6], ["shop", URL, "True", "Ready", subject, &till]);
}

async fn mtls_is_refused_until_an_administrator_enables_it(cluster: Arc<Cluster>) {
    let scene = Scene::not_enabled(cluster).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "MTLSNotEnabled").await;
    let name = scene.namespace.name();
    let way_out = format!("kubectl label namespace {name} postrider.dev/mtls=enabled");
    assert!(message(&webhook).contains(&way_out), "{}", message(&webhook));
    assert!(webhook.status.unwrap().mtls.is_none(), "a tenant's keystore is not opened before");

    scene.enable(true).await;
    scene.ready("shop").await;
    scene.enable(false).await;
    scene.not_ready("shop", "MTLSNotEnabled").await;
}

async fn a_missing_secret_is_told_and_found_when_it_comes(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let keystore = pki::shared().await.pkcs12().await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "SecretNotFound").await;
    assert_eq!(
        message(&webhook),
        r#"mtls.active.secretRef: there is no Secret "shop-keystore" in this namespace"#
    );
    scene.secret("shop-keystore", &[("keystore.p12", &keystore.bytes())]).await;
    let what = "the password to be missed";
    let webhook =
        eventually::object(&scene.webhooks(), "shop", what, |w| message(w).contains("password")).await;
    assert_eq!(
        message(&webhook),
        r#"mtls.active.passwordSecretRef: there is no Secret "shop-password" in this namespace"#
    );
    scene.password("shop", &keystore.password).await;
    scene.ready("shop").await;
}

async fn a_missing_key_is_told_and_found_when_it_comes(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let keystore = pki::shared().await.pkcs12().await;
    scene.keystore("shop", keystore).await;
    scene.secret("shop-keystore", &[("tls.crt", b"x"), ("store.p12", &keystore.bytes())]).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "KeyNotFound").await;
    assert_eq!(
        message(&webhook),
        "mtls.active.secretRef: Secret \"shop-keystore\" has no key keystore.p12, keystore.jks, user.p12; \
         it has store.p12, tls.crt"
    );
    // Either end mends it: the key is named, or it gets its usual name.
    let mut named = active("shop", "PKCS12");
    named["secretRef"]["key"] = "store.p12".into();
    scene.webhook("shop", URL, json!({ "mtls": { "active": named } })).await;
    scene.ready("shop").await;
}

async fn a_wrong_password_is_told_and_corrected(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    for (name, keystore) in [("p12", shared.pkcs12().await), ("jks", shared.jks().await)] {
        scene.keystore(name, keystore).await;
        scene.password(name, "not the password").await;
        scene.mtls_webhook(name, URL, keystore.format.name()).await;
        let webhook = scene.not_ready(name, "WrongPasswordOrCorrupt").await;
        assert!(message(&webhook).contains("password is wrong"), "{}", message(&webhook));
        assert!(!message(&webhook).contains("not the password"), "{}", message(&webhook));
        scene.password(name, &keystore.password).await;
        scene.ready(name).await;
    }
}

async fn each_problem_is_an_event_once_and_so_is_its_end(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let keystore = pki::shared().await.pkcs12().await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.not_ready("shop", "SecretNotFound").await;
    // The reason stays the same, of another Secret.
    scene.secret("shop-keystore", &[("keystore.p12", &keystore.bytes())]).await;
    eventually::object(&scene.webhooks(), "shop", "the Secret of the password to be missed", |webhook| {
        message(webhook).contains("shop-password")
    })
    .await;
    scene.password("shop", "not the password").await;
    scene.not_ready("shop", "WrongPasswordOrCorrupt").await;
    scene.namespace.kubectl(["annotate", "owh", "shop", "touched=1"]).await.succeeded();
    scene.password("shop", &keystore.password).await;
    scene.ready("shop").await;
    // What was accepted goes on.
    scene.password("shop", "not the password").await;
    scene.condition("shop", "Ready", "True", Some("ActiveKept")).await;
    let new = json!({ "mtls": { "active": active("shop", "PKCS12"), "new": active("next", "PKCS12") } });
    scene.webhook("shop", URL, new).await;

    let told = story(&scene, "NewCertificateInvalid").await;
    // Nobody listens there, which the tests tell.
    let told: Vec<_> = told.iter().filter(|(reason, _)| reason != "TestFailed").collect();
    let reasons: Vec<_> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    let expected =
        ["NotReady", "NotReady", "Accepted", "Mended", "CertificateInvalid", "NewCertificateInvalid"];
    assert_eq!(reasons, expected, "{told:#?}");
    let wrong = "WrongPasswordOrCorrupt: Secret \"shop-keystore\": keystore.p12: the store password is wrong, or the \
                 file was changed after it was written";
    let notes: Vec<_> = told.iter().map(|(_, note)| note.as_str()).collect();
    assert_eq!(
        notes[0],
        r#"SecretNotFound: mtls.active.secretRef: there is no Secret "shop-keystore" in this namespace"#
    );
    assert_eq!((notes[1], notes[4]), (wrong, wrong));
    assert!(notes[3].starts_with("Ready: delivers with "), "{told:#?}");
    assert!(notes[5].starts_with("SecretNotFound: mtls.new.secretRef: "), "{told:#?}");
    let events = scene.namespace.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let again = |event: &&Event| event.series.is_some() && event.reason.as_deref() != Some("TestFailed");
    assert_eq!(events.iter().find(again), None);
    scene.namespace.assert_no_secret_in("events").await;
}

async fn what_is_no_keystore_is_told_and_replaced(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let keystore = shared.pkcs12().await;
    scene.keystore("shop", keystore).await;
    scene.secret("shop-keystore", &[("keystore.p12", shared.client.leaf_pem().as_bytes())]).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "NotAKeystore").await;
    assert!(message(&webhook).contains("PEM"), "{}", message(&webhook));

    // The first bytes of a BouncyCastle store, version 2.
    scene
        .secret(
            "shop-keystore",
            &[("keystore.p12", b"\0\0\0\x02\0\0\0\x14aaaaaaaaaaaaaaaaaaaa\0\0\x04\0\x01\0\x03key")],
        )
        .await;
    let webhook = scene.not_ready("shop", "UnsupportedFormat").await;
    assert!(message(&webhook).contains("BKS"), "{}", message(&webhook));

    scene.keystore("shop", keystore).await;
    scene.ready("shop").await;
}

async fn a_store_of_trusted_certificates_is_told_and_replaced(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let authority = shared.client_authority.certificate();
    let password = pki::new_password();
    let trust_store = authority.pkcs12_with(&password, &["-nokeys"]).await;
    scene.keystore("shop", &trust_store).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "NoPrivateKey").await;
    assert!(message(&webhook).contains("certificate"), "{}", message(&webhook));
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.ready("shop").await;
}

async fn an_expired_certificate_is_told_and_replaced(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let (certificate, keystore) = fresh(Request::client("/CN=old").validity(Validity::Expired)).await;
    scene.keystore("shop", &keystore).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "Expired").await;
    assert!(message(&webhook).contains(&certificate.facts.not_after.to_string()), "{}", message(&webhook));
    assert_eq!(status_entry(&webhook)["validTill"], json!(certificate.facts.not_after.to_string()));
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.ready("shop").await;
}

async fn a_certificate_that_is_not_valid_yet_is_told(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let (certificate, keystore) = fresh(Request::client("/CN=early").validity(Validity::NotYet)).await;
    scene.keystore("shop", &keystore).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "NotYetValid").await;
    assert!(message(&webhook).contains(&certificate.facts.not_before.to_string()), "{}", message(&webhook));
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.ready("shop").await;
}

async fn a_bundle_that_cannot_be_read_is_told_and_corrected(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let good = pki::shared().await.server_authority.root_pem();
    let trusting = |name: &str, kind: &str| json!({ "endpoint": { "trust": { "caBundleRef": { "name": name, "kind": kind } } } });
    scene.webhook("shop", URL, trusting("other-ca", "ConfigMap")).await;
    scene.not_ready("shop", "ConfigMapNotFound").await;
    scene.config_map("other-ca", &[("ca.pem", &good)]).await;
    let webhook = scene.not_ready("shop", "KeyNotFound").await;
    assert_eq!(
        message(&webhook),
        r#"endpoint.trust.caBundleRef: ConfigMap "other-ca" has no key ca.crt; it has ca.pem"#
    );
    scene.config_map("other-ca", &[("ca.crt", "hello")]).await;
    let webhook = scene.not_ready("shop", "InvalidCABundle").await;
    assert!(message(&webhook).contains("other-ca/ca.crt holds no PEM certificate"), "{}", message(&webhook));
    scene.config_map("other-ca", &[("ca.crt", &good)]).await;
    scene.ready("shop").await;

    scene.webhook("shop", URL, trusting("other-ca", "Secret")).await;
    scene.not_ready("shop", "SecretNotFound").await;
    scene.secret("other-ca", &[("ca.crt", good.as_bytes())]).await;
    scene.ready("shop").await;
}

async fn a_replaced_keystore_shows_in_the_status(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let before = status_entry(&scene.ready("shop").await);
    let (certificate, keystore) = fresh(Request::client("/O=Example/CN=next")).await;
    scene.keystore("shop", &keystore).await;
    let what = "the next certificate in the status";
    let webhook = eventually::object(&scene.webhooks(), "shop", what, |webhook| {
        let new = webhook.status.as_ref().and_then(|status| status.mtls.as_ref()?.new.as_ref());
        new.is_some_and(|new| new.fingerprint_sha256 == certificate.facts.fingerprint_sha256)
    })
    .await;
    // Nobody listens at the endpoint: it waits for its test, and the one before goes on.
    assert_eq!(condition(&webhook, "NewCertificateValid").unwrap().reason, "WaitsForTest");
    assert_eq!(status_entry(&webhook)["fingerprintSHA256"], before["fingerprintSHA256"]);
    assert_eq!(webhook.status.unwrap().mtls.unwrap().new.unwrap().identifier, "CN=next,O=Example");
}

async fn what_was_accepted_goes_on_while_its_keystore_is_broken(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let before = status_entry(&scene.ready("shop").await);
    scene.password("shop", "not the password").await;
    let webhook = scene.condition("shop", "CertificateValid", "False", Some("WrongPasswordOrCorrupt")).await;
    let ready = condition(&webhook, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "ActiveKept"));
    assert!(ready.message.contains("password is wrong"), "{}", ready.message);
    assert_eq!(status_entry(&webhook), before);
}

async fn a_certificate_expires_at_its_very_moment(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let short = Validity::ExpiresIn(Duration::from_secs(10));
    let (certificate, keystore) = fresh(Request::client("/CN=short").validity(short)).await;
    scene.keystore("shop", &keystore).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.ready("shop").await;
    let webhook = scene.not_ready("shop", "Expired").await;
    // Nothing else wakes the controller here.
    let at = condition(&webhook, "Ready").unwrap().last_transition_time.0.as_second();
    let end = certificate.facts.not_after.as_second();
    assert!((end..=end + 2).contains(&at), "notAfter was {end}, not Ready since {at}");
}

async fn reconciling_the_same_again_writes_nothing(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.ready("shop").await;
    let secrets = scene.namespace.api::<Secret>();
    let owned = async || {
        let certificates = scene.namespace.api::<ConfigMap>().get("shop-client-certificate").await.unwrap();
        let identities = secrets.get("shop-identities").await.unwrap();
        (identities.resource_version(), certificates.resource_version())
    };
    let before = owned().await;
    // A label on the keystore's Secret is no news but for the Secret's version, which is in the status.
    scene.namespace.kubectl(["label", "secret", "shop-keystore", "touched=1"]).await.succeeded();
    let version = json!(secrets.get("shop-keystore").await.unwrap().resource_version());
    eventually::object(&scene.webhooks(), "shop", "the touched Secret in the status", |webhook| {
        status_entry(webhook)["source"]["resourceVersion"] == version
    })
    .await;
    assert_eq!(owned().await, before);

    // An annotation reconciles, and its own write stays the last. There is no event for what does not happen.
    let annotate = ["annotate", "owh", "shop", "touched=1", "-o", "jsonpath={.metadata.resourceVersion}"];
    let annotated = scene.namespace.kubectl(annotate).await.succeeded();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.webhooks().get("shop").await.unwrap().resource_version().unwrap(), annotated);
    assert_eq!(owned().await, before);
}

async fn what_somebody_changes_in_the_identities_is_mended(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    let trust = json!({ "caBundleRef": null, "includeSystemRoots": true });
    let spec = json!({ "endpoint": { "trust": trust }, "mtls": { "active": active("shop", "PKCS12") } });
    scene.webhook("shop", URL, spec).await;
    scene.ready("shop").await;
    let secrets = scene.namespace.api::<Secret>();
    let good = secrets.get("shop-identities").await.unwrap().data.unwrap();
    assert_eq!(good.keys().collect::<Vec<_>>(), ["active.crt", "active.key"]);
    let another = shared.client_authority.issue(&Request::client("/CN=another")).await;
    for (key, value) in [("ca.crt", shared.server_authority.root_pem()), ("active.key", another.key_pem())] {
        let patch = json!({ "stringData": { key: value } }).to_string();
        let arguments = ["patch", "secret", "shop-identities", "--type=merge", "-p", &patch];
        let patched = scene.namespace.kubectl(arguments).await;
        assert!(patched.status.success(), "{}", patched.stderr);
        let what = format!("{key} to be as it was");
        eventually::object(&secrets, "shop-identities", &what, |secret| secret.data.as_ref() == Some(&good))
            .await;
    }
}

async fn a_url_that_cannot_be_dialled_is_told(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    // A URL to the API server, and not to those who dial.
    scene.webhook("shop", "https://300.1.1.1/hooks", json!({})).await;
    let webhook = scene.not_ready("shop", "InvalidURL").await;
    assert!(message(&webhook).starts_with("endpoint.url cannot be dialled"), "{}", message(&webhook));
    scene.webhook("shop", URL, json!({})).await;
    scene.ready("shop").await;
}

async fn a_name_that_is_taken_is_told(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.secret("shop-identities", &[("mine", b"precious")]).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.not_ready("shop", "NotOwned").await;
    assert!(
        message(&webhook).contains(r#"Secret "shop-identities" belongs to somebody else"#),
        "{}",
        message(&webhook)
    );
    let secrets = scene.namespace.api::<Secret>();
    let theirs = secrets.get("shop-identities").await.unwrap();
    assert_eq!(theirs.data.unwrap().keys().collect::<Vec<_>>(), ["mine"]);
    secrets.delete("shop-identities", &DeleteParams::default()).await.unwrap();
    scene.ready("shop").await;
}

async fn owned_objects_are_made_again_and_go_with_the_webhook(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.ready("shop").await;
    let secrets: Api<Secret> = scene.namespace.api();
    let config_maps: Api<ConfigMap> = scene.namespace.api();
    let uid = secrets.get("shop-identities").await.unwrap().uid();
    secrets.delete("shop-identities", &DeleteParams::default()).await.unwrap();
    eventually::object(&secrets, "shop-identities", "another one", |secret| secret.uid() != uid).await;
    let uid = config_maps.get("shop-client-certificate").await.unwrap().uid();
    config_maps.delete("shop-client-certificate", &DeleteParams::default()).await.unwrap();
    eventually::object(&config_maps, "shop-client-certificate", "another one", |map| map.uid() != uid).await;

    // Whoever no longer asks for a certificate keeps none.
    scene.webhook("shop", URL, json!({})).await;
    eventually::gone(&config_maps, "shop-client-certificate").await;
    let without = |secret: &Secret| secret.data.iter().flatten().all(|(key, _)| key == "ca.crt");
    eventually::object(&secrets, "shop-identities", "no identity in it", without).await;

    scene.mtls_webhook("shop", URL, "PKCS12").await;
    scene.ready("shop").await;
    scene.namespace.kubectl(["delete", "owh", "shop"]).await.succeeded();
    eventually::gone(&secrets, "shop-identities").await;
    eventually::gone(&config_maps, "shop-client-certificate").await;
}

async fn the_offered_certificate_is_the_public_chain(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    scene.keystore("shop", shared.pkcs12().await).await;
    scene.mtls_webhook("shop", URL, "PKCS12").await;
    let webhook = scene.ready("shop").await;
    let reference = webhook.status.unwrap().mtls.unwrap().client_certificate_ref.unwrap().name;
    let offered = scene.namespace.api::<ConfigMap>().get(&reference).await.unwrap();
    let data = offered.data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["active.crt", "bundle.crt"]);
    let chain = |pem: &str| {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
        certificates.map(|certificate| pki::fingerprint(&certificate.unwrap())).collect::<Vec<_>>()
    };
    // As it stands in the keystore: leaf, intermediate, root.
    let root = pki::certificates(&shared.client_authority.root).remove(0);
    let mut expected = chain(&shared.client.chain_pem());
    expected.push(pki::fingerprint(&root));
    assert_eq!(expected.len(), 3);
    assert_eq!(chain(&data["active.crt"]), expected);
    assert_eq!(chain(&data["bundle.crt"]), expected);
    assert!(!data.values().any(|text| text.contains("PRIVATE KEY")), "a key is offered for download");
    assert_eq!(offered.metadata.owner_references.unwrap()[0].kind, "OutboundWebhook");
}
