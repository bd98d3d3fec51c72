use serde_json::{Value, json};

use super::*;
use crate::{
    api::v1alpha1::OutboundWebhook,
    identity::{Slot, tests::identity},
};

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

fn secret(generation: &str, slots: &Slots) -> Secret {
    let metadata = serde_json::from_value(json!({
        "name": "partner-identities", "namespace": "shop",
        "annotations": { GENERATION_ANNOTATION: generation },
        "ownerReferences": [{ "apiVersion": "v", "kind": "k", "name": "n", "uid": "u1", "controller": true }],
    }))
    .unwrap();
    let data = slots.to_pem().unwrap().into_iter();
    let data = data.map(|(key, value)| (key.to_owned(), k8s_openapi::ByteString(value.to_vec()))).collect();
    Secret { metadata, data: Some(data), ..Secret::default() }
}

fn accepted(name: &str) -> Slots {
    Slots { active: Some(Arc::new(identity(name))), ..Slots::default() }
}

fn held(assignment: &Assignment) -> &'static str {
    match assignment {
        Assignment::Hold(reason) => reason,
        Assignment::Deliver(_) => panic!("it delivers"),
    }
}

fn client(assignment: Assignment) -> Arc<Client> {
    match assignment {
        Assignment::Deliver(target) => Arc::clone(target.clients.active()),
        Assignment::Hold(reason) => panic!("it holds: {reason}"),
    }
}

#[test]
fn mtls_delivers_with_exactly_the_accepted_certificate() {
    let slots = accepted("CN=shop");
    let client = client(assign(&mtls(), Some(&secret("2", &slots)), &mut None));
    assert_eq!(client.identity(), Some(slots.active.unwrap().facts()));
}

#[test]
fn mtls_without_its_certificate_holds_in_every_way() {
    let slots = accepted("CN=shop");
    let good = secret("2", &slots);
    let cases: Vec<(&str, OutboundWebhook, Option<Secret>)> = vec![
        ("no secret", mtls(), None),
        ("a secret for another generation", mtls(), Some(secret("1", &slots))),
        (
            "a secret of another owner",
            mtls(),
            Some({
                let mut s = good.clone();
                s.metadata.owner_references.as_mut().unwrap()[0].uid = "u0".into();
                s
            }),
        ),
        (
            "a secret without generation",
            mtls(),
            Some({
                let mut s = good.clone();
                s.metadata.annotations = None;
                s
            }),
        ),
        ("an empty secret", mtls(), Some(secret("2", &Slots::default()))),
        (
            "a secret without the key",
            mtls(),
            Some({
                let mut s = good.clone();
                s.data.as_mut().unwrap().remove(Slot::Active.private_key_key());
                s
            }),
        ),
        (
            "a garbled certificate",
            mtls(),
            Some({
                let mut s = good.clone();
                s.data
                    .as_mut()
                    .unwrap()
                    .insert(Slot::Active.certificate_key().into(), k8s_openapi::ByteString(b"x".to_vec()));
                s
            }),
        ),
        (
            "the key of another certificate",
            mtls(),
            Some({
                let mut s = good.clone();
                let other = secret("2", &accepted("CN=other"));
                s.data.as_mut().unwrap().insert(
                    Slot::Active.private_key_key().into(),
                    other.data.unwrap()[Slot::Active.private_key_key()].clone(),
                );
                s
            }),
        ),
        (
            "not ready",
            {
                let mut w = mtls();
                w.status.as_mut().unwrap().conditions[0].status = "False".into();
                w
            },
            Some(good.clone()),
        ),
        (
            "ready for an earlier generation",
            {
                let mut w = mtls();
                w.status.as_mut().unwrap().conditions[0].observed_generation = Some(1);
                w
            },
            Some(good.clone()),
        ),
        (
            "no status",
            {
                let mut w = mtls();
                w.status = None;
                w
            },
            Some(good.clone()),
        ),
    ];
    for (case, webhook, secret) in cases {
        let assignment = assign(&webhook, secret.as_ref(), &mut None);
        assert!(matches!(assignment, Assignment::Hold(_)), "{case}: it delivers");
    }
}

#[test]
fn plain_https_needs_no_secret_and_uses_none() {
    let plain = webhook(&json!({}));
    assert_eq!(client(assign(&plain, None, &mut None)).identity(), None);
    let left_over = secret("2", &accepted("CN=shop"));
    assert_eq!(client(assign(&plain, Some(&left_over), &mut None)).identity(), None);
}

#[test]
fn a_bundle_that_is_asked_for_and_not_there_trusts_nobody() {
    let private = webhook(&json!({ "endpoint": {
        "url": "https://partner.example", "trust": { "caBundleRef": { "name": "ca" } },
    } }));
    assert_eq!(
        held(&assign(&private, None, &mut None)),
        "the identities for this generation are not there yet"
    );
}

#[test]
fn a_client_is_kept_while_nothing_changes_and_replaced_with_its_certificate() {
    let (slots, mut built) = (accepted("CN=shop"), None);
    let first = client(assign(&mtls(), Some(&secret("2", &slots)), &mut built));
    let mut faster = mtls();
    faster.spec.endpoint.timeout_seconds = 1;
    let same = client(assign(&faster, Some(&secret("2", &slots)), &mut built));
    assert!(Arc::ptr_eq(&first, &same));
    let renewed = client(assign(&mtls(), Some(&secret("2", &accepted("CN=shop"))), &mut built));
    assert!(!Arc::ptr_eq(&first, &renewed));
}
