//! What the API server itself refuses, with the message that a person sees.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, Namespace};

tests![
    the_definition_is_structural_and_explains_itself,
    defaults_are_filled_in,
    each_rule_refuses_with_its_message,
    an_unknown_field_is_told,
];

fn manifest(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook", "metadata": { "name": name }, "spec": spec,
    })
    .to_string()
}

async fn refused(namespace: &Namespace, spec: &Value, message: &str) {
    let said = namespace.apply(&manifest("partner", spec)).await.failed();
    assert!(said.contains(message), "{spec}\nis refused without `{message}`:\n{said}");
}

async fn the_definition_is_structural_and_explains_itself(cluster: Arc<Cluster>) {
    let crd =
        cluster.kubectl(["get", "crd", "outboundwebhooks.postrider.dev", "-o", "json"]).await.succeeded();
    let crd: Value = serde_json::from_str(&crd).unwrap();
    let conditions = crd["status"]["conditions"].as_array().unwrap();
    let status_of = |type_: &str| conditions.iter().find(|c| c["type"] == type_).map(|c| c["status"].clone());
    assert_eq!(status_of("NamesAccepted"), Some("True".into()), "{conditions:?}");
    assert_eq!(status_of("Established"), Some("True".into()), "{conditions:?}");
    assert_eq!(status_of("NonStructuralSchema"), None, "{conditions:?}");

    let explained = cluster.kubectl(["explain", "owh.spec.mtls.active.secretRef.key"]).await.succeeded();
    assert!(explained.contains("keystore.p12"), "{explained}");
    // Nothing in the schema that this API server would warn of.
    let again = cluster.kubectl(["replace", "--dry-run=server", "-f", "crds/"]).await;
    assert_eq!(again.stderr, "");
}

async fn defaults_are_filled_in(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let spec = json!({ "endpoint": { "url": "https://partner.example/hooks?a=1" }, "delivery": {} });
    namespace.apply(&manifest("partner", &spec)).await.succeeded();
    let object = namespace.kubectl(["get", "owh", "partner", "-o", "json"]).await.succeeded();
    let object: Value = serde_json::from_str(&object).unwrap();
    assert_eq!(
        object["spec"],
        json!({
            "endpoint": { "url": "https://partner.example/hooks?a=1", "timeoutSeconds": 10 },
            "delivery": {
                "maxInFlight": 16,
                "ordering": "None",
                "retry": { "initialSeconds": 1, "maxSeconds": 600, "maxAgeSeconds": 259_200 },
            },
            "suspend": false,
        })
    );
}

async fn each_rule_refuses_with_its_message(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let endpoint = |url: &str| json!({ "endpoint": { "url": url } });
    for url in ["http://partner.example", "partner.example", "https://", "https:///hooks"] {
        refused(&namespace, &endpoint(url), "must be an https URL with a host").await;
    }
    refused(&namespace, &endpoint("https://me:pw@partner.example"), "must not hold credentials").await;
    refused(&namespace, &endpoint("https://partner.example/#there"), "must not have a fragment").await;

    let trust = |trust: Value| json!({ "endpoint": { "url": "https://partner.example", "trust": trust } });
    refused(
        &namespace,
        &trust(json!({})),
        "trusts nobody: set caBundleRef, trustStoreRef or includeSystemRoots",
    )
    .await;
    refused(&namespace, &trust(json!({ "includeSystemRoots": false })), "trusts nobody").await;

    let retry = |retry: Value| json!({ "endpoint": { "url": "https://partner.example" }, "delivery": { "retry": retry } });
    let initial = retry(json!({ "initialSeconds": 60, "maxSeconds": 10 }));
    refused(&namespace, &initial, "initialSeconds must not be above maxSeconds").await;
    let age = retry(json!({ "maxSeconds": 600, "maxAgeSeconds": 60 }));
    refused(&namespace, &age, "maxSeconds must not be above maxAgeSeconds").await;

    let gone = retry(json!({ "nonRetryableStatusCodes": [400, 410] }));
    refused(&namespace, &gone, "must not hold 410").await;
    let success = retry(json!({ "nonRetryableStatusCodes": [204] }));
    refused(&namespace, &success, "should be greater than or equal to 400").await;

    let long = "a".repeat(231);
    let said = namespace.apply(&manifest(&long, &endpoint("https://partner.example"))).await.failed();
    assert!(said.contains("must have at most 230 characters"), "{said}");

    let format = json!({ "endpoint": { "url": "https://partner.example" }, "mtls": { "active": {
        "secretRef": { "name": "s" }, "format": "PEM", "passwordSecretRef": { "name": "p", "key": "k" } } } });
    refused(&namespace, &format, r#"supported values: "PKCS12", "JKS""#).await;
    let timeout = json!({ "endpoint": { "url": "https://partner.example", "timeoutSeconds": 61 } });
    refused(&namespace, &timeout, "should be less than or equal to 60").await;
}

async fn an_unknown_field_is_told(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let spec = json!({ "endpoint": { "url": "https://partner.example" }, "mtsl": {} });
    refused(&namespace, &spec, r#"unknown field "spec.mtsl""#).await;
}
