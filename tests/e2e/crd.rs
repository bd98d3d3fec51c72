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

    refused_headers(&namespace).await;
    refused_authorizations(&namespace).await;

    let long = "a".repeat(231);
    let said = namespace.apply(&manifest(&long, &endpoint("https://partner.example"))).await.failed();
    assert!(said.contains("must have at most 230 characters"), "{said}");

    let format = json!({ "endpoint": { "url": "https://partner.example" }, "mtls": { "active": {
        "secretRef": { "name": "s" }, "format": "PEM", "passwordSecretRef": { "name": "p", "key": "k" } } } });
    refused(&namespace, &format, r#"supported values: "PKCS12", "JKS""#).await;
    let timeout = json!({ "endpoint": { "url": "https://partner.example", "timeoutSeconds": 61 } });
    refused(&namespace, &timeout, "should be less than or equal to 60").await;
}

async fn refused_headers(namespace: &Namespace) {
    let of = |headers: Value| json!({ "endpoint": { "url": "https://partner.example", "headers": headers } });
    let named = |name: &str| of(json!([{ "name": name, "value": "x" }]));
    for name in [
        "Host",
        "content-length",
        "CONTENT-TYPE",
        "Transfer-Encoding",
        "Connection",
        "Webhook-Id",
        "Ce-Type",
        "Expect",
    ] {
        refused(namespace, &named(name), "is reserved: Host, Content-Length").await;
    }
    for name in ["X Tenant", "X-Tenant:", "ü"] {
        refused(namespace, &named(name), "must be the name of an HTTP header").await;
    }
    let twice = json!([{ "name": "X-Tenant", "value": "a" }, { "name": "x-tenant", "value": "b" }]);
    refused(namespace, &of(twice), "must not name a header twice").await;
    for value in ["a\nb", " a", "a ", "ü"] {
        let message = "must be printable ASCII without a space at either end";
        refused(namespace, &of(json!([{ "name": "X-Tenant", "value": value }])), message).await;
    }
    let source = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
    for header in [json!({ "name": "X-Key" }), json!({ "name": "X-Key", "value": "x", "valueFrom": source })]
    {
        refused(namespace, &of(json!([header])), "exactly one of value and valueFrom must be set").await;
    }
    let many: Vec<_> = (0..33).map(|n| json!({ "name": format!("X-{n}"), "value": "x" })).collect();
    refused(namespace, &of(many.into()), "must have at most 32 items").await;
    refused(
        namespace,
        &of(json!([{ "name": "X-Long", "value": "x".repeat(4097) }])),
        "may not be more than 4096",
    )
    .await;

    let taken = json!([
        { "name": "X-API-Key", "valueFrom": source }, { "name": "User-Agent", "value": "shop/1 (a\tb)" },
        { "name": "Authorization", "value": null, "valueFrom": source }, { "name": "X_odd.name~'", "value": "x" },
    ]);
    namespace.apply(&manifest("taken", &of(taken))).await.succeeded();
}

async fn refused_authorizations(namespace: &Namespace) {
    let at = json!({ "name": "s", "key": "k" });
    let of = |authorization: Value| json!({ "endpoint": { "url": "https://partner.example" }, "authorization": authorization });
    let bearer = json!({ "tokenSecretRef": at });
    let one = "exactly one of basic, bearer, header and oauth2ClientCredentials must be set";
    let header = |name: &str| json!({ "name": name, "valueSecretRef": at });
    refused(namespace, &of(json!({})), one).await;
    refused(namespace, &of(json!({ "bearer": bearer, "header": header("X-Key") })), one).await;
    refused(namespace, &of(json!({ "header": header("webhook-signature") })), "is reserved").await;
    refused(namespace, &of(json!({ "header": header("X Key") })), "must be the name of an HTTP header").await;
    namespace.apply(&manifest("taken", &of(json!({ "basic": null, "bearer": bearer })))).await.succeeded();
    for (authorization, name, message) in [
        (
            json!({ "bearer": bearer }),
            "AUTHORIZATION",
            "must not have Authorization beside spec.authorization",
        ),
        (
            json!({ "header": header("X-Key") }),
            "x-key",
            "authorization.header.name must not be in endpoint.headers",
        ),
    ] {
        let mut spec = of(authorization);
        spec["endpoint"]["headers"] = json!([{ "name": name, "value": "x" }]);
        refused(namespace, &spec, message).await;
    }
    let client = |change: Value| {
        let mut client = json!({
            "tokenURL": "https://login.example/token", "clientIDSecretRef": at, "clientSecretSecretRef": at,
        });
        client.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        of(json!({ "oauth2ClientCredentials": client }))
    };
    for (change, message) in [
        (json!({ "tokenURL": "http://login.example/token" }), "must be an https URL with a host"),
        (json!({ "tokenURL": "https://me:pw@login.example" }), "must not hold credentials"),
        (json!({ "tokenURL": "https://login.example/#x" }), "must not have a fragment"),
        (json!({ "scopes": ["a b"] }), "each scope must be printable ASCII without spaces"),
        (json!({ "scopes": ["a\"b"] }), "each scope must be printable ASCII without spaces"),
        (
            json!({ "tokenEndpointAuthMethod": "None" }),
            r#"supported values: "ClientSecretBasic", "ClientSecretPost""#,
        ),
    ] {
        refused(namespace, &client(change), message).await;
    }
    let taken = client(json!({ "scopes": ["https://graph.example/.default", "a[b]"], "audience": "x" }));
    namespace.apply(&manifest("taken", &taken)).await.succeeded();

    let signed = |refs: Value| json!({ "endpoint": { "url": "https://partner.example" }, "signature": { "secretRefs": refs } });
    refused(namespace, &signed(json!([])), "should have at least 1 items").await;
    refused(namespace, &signed(json!([at, at, at])), "must have at most 2 items").await;
}

async fn an_unknown_field_is_told(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let spec = json!({ "endpoint": { "url": "https://partner.example" }, "mtsl": {} });
    refused(&namespace, &spec, r#"unknown field "spec.mtsl""#).await;
}
