use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{assign as assign_with, *};
use crate::{api::v1alpha1::OutboundWebhook, egress::tests::loopback, identity::tests::identity};

fn webhook(spec: &Value) -> OutboundWebhook {
    let mut full = json!({ "endpoint": { "url": "https://partner.example/hooks" } });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
        "metadata": { "name": "partner", "namespace": "shop", "uid": "u1", "generation": 2 },
        "spec": full,
        "status": { "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 2,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] },
    }))
    .unwrap()
}

fn mtls() -> OutboundWebhook {
    webhook(&json!({ "mtls": { "active": {
        "secretRef": { "name": "s" }, "format": "PKCS12", "passwordSecretRef": { "name": "p", "key": "password" },
    } } }))
}

fn secret(webhook: &OutboundWebhook, slots: &Slots) -> Secret {
    let made_for: BTreeMap<_, _> = made_for(webhook).unwrap().into_iter().collect();
    let metadata = serde_json::from_value(json!({
        "name": "partner-identities", "namespace": "shop",
        "annotations": made_for,
        "ownerReferences": [{ "apiVersion": "v", "kind": "k", "name": "n", "uid": "u1", "controller": true }],
    }))
    .unwrap();
    let data = slots.to_pem().unwrap().into_iter();
    let data = data.map(|(key, value)| (key.to_owned(), k8s_openapi::ByteString(value.to_vec()))).collect();
    Secret { metadata, data: Some(data), ..Secret::default() }
}

fn assign(webhook: &OutboundWebhook, secret: Option<&Secret>, built: &mut Option<Built>) -> Assignment {
    assign_with(webhook, secret, &loopback(), built)
}

fn accepted(name: &str) -> Slots {
    Slots { active: Some(Arc::new(identity(name))), ..Slots::default() }
}

fn held(assignment: &Assignment) -> Hold {
    match assignment {
        Assignment::Hold(why) => *why,
        Assignment::Deliver(_) => panic!("it delivers"),
    }
}

fn client(assignment: Assignment) -> Arc<Client> {
    match assignment {
        Assignment::Deliver(target) => Arc::clone(target.clients.active()),
        Assignment::Hold(why) => panic!("it holds: {why}"),
    }
}

#[test]
fn mtls_delivers_with_exactly_the_accepted_certificate() {
    let slots = accepted("CN=shop");
    let client = client(assign(&mtls(), Some(&secret(&mtls(), &slots)), &mut None));
    assert_eq!(client.identity(), Some(slots.active.unwrap().facts()));
}

/// A change to a webhook that delivers, or to its Secret.
type Change = (&'static str, fn(&mut OutboundWebhook, &mut Secret));

fn set(secret: &mut Secret, key: &str, value: &[u8]) {
    secret.data.as_mut().unwrap().insert(key.to_owned(), k8s_openapi::ByteString(value.to_vec()));
}

const HOLDS: [Change; 13] = [
    ("a secret for another endpoint", |w, _| w.spec.endpoint.url = "https://other.example/hooks".into()),
    ("a secret for another port", |w, _| w.spec.endpoint.url = "https://partner.example:444/hooks".into()),
    ("a secret for another trust", |w, _| w.spec.endpoint.trust = Some(trust())),
    ("a secret that does not say for what", |_, s| s.metadata.annotations = None),
    ("a secret of another owner", |_, s| s.metadata.owner_references.as_mut().unwrap()[0].uid = "u0".into()),
    ("a secret of nobody", |_, s| s.metadata.owner_references = None),
    ("an empty secret", |_, s| s.data = None),
    ("a secret without the key", |_, s| drop(s.data.as_mut().unwrap().remove("active.key"))),
    ("a garbled certificate", |_, s| set(s, "active.crt", b"x")),
    ("the key of another certificate", |_, s| {
        let other = accepted("CN=other").to_pem().unwrap();
        set(s, "active.key", &other["active.key"]);
    }),
    ("not ready", |w, _| w.status.as_mut().unwrap().conditions[0].status = "False".into()),
    ("no status", |w, _| w.status = None),
    ("suspended", |w, _| w.spec.suspend = true),
];

#[test]
fn mtls_without_its_certificate_holds_in_every_way() {
    let slots = accepted("CN=shop");
    assert!(matches!(assign(&mtls(), None, &mut None), Assignment::Hold(_)), "it delivers without a secret");
    for (case, change) in HOLDS {
        let (mut webhook, mut secret) = (mtls(), secret(&mtls(), &slots));
        change(&mut webhook, &mut secret);
        let assignment = assign(&webhook, Some(&secret), &mut None);
        assert!(matches!(assignment, Assignment::Hold(_)), "{case}: it delivers");
    }
}

fn trust() -> crate::api::v1alpha1::Trust {
    crate::api::v1alpha1::Trust { ca_bundle_ref: None, trust_store_ref: None, include_system_roots: true }
}

#[test]
fn an_edit_that_nobody_has_seen_yet_goes_on_with_what_was_accepted_for_the_endpoint() {
    let slots = accepted("CN=shop");
    let mut edited = mtls();
    edited.metadata.generation = Some(3);
    edited.spec.endpoint.url = "https://partner.example/another/path".into();
    let client = client(assign(&edited, Some(&secret(&mtls(), &slots)), &mut None));
    assert_eq!(client.identity(), Some(slots.active.unwrap().facts()));
}

#[test]
fn plain_https_needs_no_secret_and_uses_none() {
    let plain = webhook(&json!({}));
    assert_eq!(client(assign(&plain, None, &mut None)).identity(), None);
    let left_over = secret(&mtls(), &accepted("CN=shop"));
    assert_eq!(client(assign(&plain, Some(&left_over), &mut None)).identity(), None);
}

#[test]
fn a_bundle_that_is_asked_for_and_not_there_trusts_nobody() {
    let private = webhook(&json!({ "endpoint": {
        "url": "https://partner.example", "trust": { "caBundleRef": { "name": "ca" } },
    } }));
    assert_eq!(held(&assign(&private, None, &mut None)), Hold::NotThere);
}

#[test]
fn a_client_is_kept_while_nothing_changes_and_replaced_with_its_certificate() {
    let (slots, mut built) = (accepted("CN=shop"), None);
    let first = client(assign(&mtls(), Some(&secret(&mtls(), &slots)), &mut built));
    let mut faster = mtls();
    faster.spec.endpoint.timeout_seconds = 1;
    let same = client(assign(&faster, Some(&secret(&mtls(), &slots)), &mut built));
    assert!(Arc::ptr_eq(&first, &same));
    let renewed = client(assign(&mtls(), Some(&secret(&mtls(), &accepted("CN=shop"))), &mut built));
    assert!(!Arc::ptr_eq(&first, &renewed));
}

fn authorized() -> OutboundWebhook {
    let at = |key: &str| json!({ "name": "s", "key": key });
    webhook(&json!({
        "endpoint": { "url": "https://partner.example/hooks", "headers": [{ "name": "X-Tenant", "value": "shop" }] },
        "authorization": { "bearer": { "tokenSecretRef": at("token") } },
        "signature": { "secretRefs": [at("signing")] },
    }))
}

fn credentials_of(token: &str) -> Credentials {
    let header = |name: &str, value: &[u8]| {
        (crate::credentials::name(name).unwrap(), crate::credentials::value(value).unwrap())
    };
    Credentials {
        headers: vec![header("x-tenant", b"shop"), header("authorization", token.as_bytes())],
        signing_secrets: vec![
            crate::credentials::SigningSecret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        ],
        ..Credentials::default()
    }
}

fn secret_with(webhook: &OutboundWebhook, credentials: &Credentials) -> Secret {
    let mut secret = secret(webhook, &Slots::default());
    set(&mut secret, CREDENTIALS, &credentials.to_json().unwrap());
    secret
}

fn authorizer_of(assignment: Assignment) -> Arc<Authorizer> {
    match assignment {
        Assignment::Deliver(target) => Arc::clone(&target.authorizer),
        Assignment::Hold(why) => panic!("it holds: {why}"),
    }
}

#[test]
fn credentials_go_with_the_webhook_that_asks_for_them_and_no_other() {
    let asked = secret_with(&authorized(), &credentials_of("Bearer a"));
    let of = authorizer_of(assign(&authorized(), Some(&asked), &mut None));
    assert_eq!(of.credentials(), &credentials_of("Bearer a"));
    let plain = authorizer_of(assign(&webhook(&json!({})), Some(&asked), &mut None));
    assert_eq!(plain.credentials(), &Credentials::default());
}

const HOLDS_WITHOUT_CREDENTIALS: [Change; 9] = [
    ("another endpoint", |w, _| w.spec.endpoint.url = "https://other.example/hooks".into()),
    ("another header", |w, _| w.spec.endpoint.headers[0].value = Some("other".into())),
    ("no authorization any more", |w, _| w.spec.authorization = None),
    ("another signature", |w, _| w.spec.signature.as_mut().unwrap().secret_refs[0].key = "next".into()),
    ("no credentials", |_, s| drop(s.data.as_mut().unwrap().remove(CREDENTIALS))),
    ("garbled credentials", |_, s| set(s, CREDENTIALS, b"{")),
    ("no signing secret", |_, s| {
        let credentials = Credentials { signing_secrets: Vec::new(), ..credentials_of("Bearer a") };
        set(s, CREDENTIALS, &credentials.to_json().unwrap());
    }),
    ("a header too few", |_, s| {
        let mut credentials = credentials_of("Bearer a");
        credentials.headers.pop();
        set(s, CREDENTIALS, &credentials.to_json().unwrap());
    }),
    ("a secret that does not say for which credentials", |_, s| {
        let annotations = s.metadata.annotations.as_mut().unwrap();
        annotations.remove(crate::api::v1alpha1::CREDENTIALS_ANNOTATION).unwrap();
    }),
];

#[test]
fn without_all_that_is_asked_for_it_holds_in_every_way() {
    assert!(matches!(assign(&authorized(), None, &mut None), Assignment::Hold(_)));
    for (case, change) in HOLDS_WITHOUT_CREDENTIALS {
        let mut webhook = authorized();
        let mut secret = secret_with(&webhook, &credentials_of("Bearer a"));
        change(&mut webhook, &mut secret);
        let assignment = assign(&webhook, Some(&secret), &mut None);
        assert!(matches!(assignment, Assignment::Hold(_)), "{case}: it delivers");
    }
}

#[test]
fn another_token_keeps_the_connections_and_the_same_one_everything() {
    let mut built = None;
    let mut with = |token: &str| {
        let secret = secret_with(&authorized(), &credentials_of(token));
        let assignment = assign(&authorized(), Some(&secret), &mut built);
        let Assignment::Deliver(target) = assignment else { panic!("it holds") };
        (Arc::clone(&target.authorizer), Arc::clone(&target.clients))
    };
    let (first, again, other) = (with("Bearer a"), with("Bearer a"), with("Bearer b"));
    assert!(Arc::ptr_eq(&first.0, &again.0) && Arc::ptr_eq(&first.1, &again.1));
    assert!(!Arc::ptr_eq(&first.0, &other.0) && Arc::ptr_eq(&first.1, &other.1));
}
