//! Headers, authorization and signature: what arrives, and that nothing does without them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::body::Bytes;
use data_encoding::BASE64;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    eventually,
    pki::{self, new_password},
    receiver::{Answer, ClientAuth, Options, Received, Receiver},
    scene::{Dispatcher, Scene, active, condition, start_controller, story},
    secrets,
};

tests![
    headers_arrive_from_the_manifest_and_from_secrets,
    each_kind_of_authorization_arrives,
    a_changed_secret_reaches_the_next_events_over_the_same_connection,
    nothing_is_sent_without_its_token_and_then_all_of_it,
    what_cannot_be_sent_is_told_and_never_quoted,
    an_edit_that_nobody_has_seen_sends_nothing,
    an_endpoint_that_moved_gets_no_token_of_the_one_before,
    a_signing_secret_rotates_with_overlap,
    a_test_sends_no_credentials_and_takes_a_403_for_an_answer,
    a_token_is_fetched_once_for_many_events,
    id_and_secret_go_in_the_body_where_that_is_asked_for,
    a_token_is_fetched_anew_before_it_expires,
    a_401_leads_to_one_new_token,
    a_token_endpoint_that_refuses_is_told_and_left_alone,
    a_token_endpoint_that_is_away_is_told_and_asked_again,
];

/// A server that asks for no certificate.
async fn receiver() -> Receiver {
    Options::new(&pki::shared().await.server, ClientAuth::None).start().await
}

/// A value that must be in no log of the run.
fn secret_value(what: &str) -> String {
    let value = new_password();
    secrets::password(what, &value);
    value
}

fn at(name: &str, key: &str) -> Value {
    json!({ "name": name, "key": key })
}

/// With retries that come within the time of a test.
fn spec(mut of: Value) -> Value {
    of["delivery"] = json!({ "retry": { "initialSeconds": 1, "maxSeconds": 1 } });
    of
}

fn bearer() -> Value {
    spec(json!({ "authorization": { "bearer": { "tokenSecretRef": at("token", "token") } } }))
}

async fn set_token(scene: &Scene, token: &str) {
    scene.secret("token", &[("token", token.as_bytes())]).await;
}

/// Whether the dispatcher holds now, by its last word.
async fn holds(dispatcher: &Dispatcher) {
    eventually::polled("the dispatcher to hold", || async {
        let lines = dispatcher.process.lines();
        let last = lines.iter().rfind(|line| line.contains("\"holds\"") || line.contains("\"delivers\""));
        if last.is_some_and(|line| line.contains("\"holds\"")) { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
}

async fn headers_arrive_from_the_manifest_and_from_secrets(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    let key = secret_value("header");
    scene.secret("key", &[("key", format!("{key}\n").as_bytes())]).await;
    let headers = json!([
        { "name": "X-Tenant", "value": "shop \"one\"" },
        { "name": "X-API-Key", "valueFrom": { "secretKeyRef": at("key", "key") } },
        { "name": "User-Agent", "value": "shop/1" },
    ]);
    scene.webhook("shop", &receiver.url(), json!({ "endpoint": { "headers": headers } })).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!((request.header("x-tenant"), request.header("x-api-key")), ("shop \"one\"", key.as_str()));
    assert_eq!((request.header("user-agent"), request.header("webhook-id")), ("shop/1", id.as_str()));
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn each_kind_of_authorization_arrives(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let shared = pki::shared().await;
    let receiver = Receiver::start().await;
    let [password, token, whole] = ["password", "token", "header"].map(secret_value);
    scene.secret("user", &[("username", b"shop"), ("password", password.as_bytes())]).await;
    set_token(&scene, &token).await;
    scene.secret("whole", &[("value", format!("ApiKey {whole}").as_bytes())]).await;
    scene.keystore("shop", shared.pkcs12().await).await;
    let dispatcher = scene.dispatcher().await;
    let pair = BASE64.encode(format!("shop:{password}").as_bytes());
    let user =
        json!({ "usernameSecretRef": at("user", "username"), "passwordSecretRef": at("user", "password") });
    let kinds = [
        (json!({ "basic": user }), "authorization", format!("Basic {pair}")),
        (
            json!({ "bearer": { "tokenSecretRef": at("token", "token") } }),
            "authorization",
            format!("Bearer {token}"),
        ),
        (
            json!({ "header": { "name": "Authorization", "valueSecretRef": at("whole", "value") } }),
            "authorization",
            format!("ApiKey {whole}"),
        ),
        (
            json!({ "header": { "name": "X-Partner-Key", "valueSecretRef": at("token", "token") } }),
            "x-partner-key",
            token.clone(),
        ),
    ];
    for (n, (kind, header, value)) in kinds.into_iter().enumerate() {
        let name = format!("kind-{n}");
        // Beside the certificate, and not instead of it.
        let spec = json!({ "authorization": kind, "mtls": { "active": active("shop", "PKCS12") } });
        scene.webhook(&name, &receiver.url(), spec).await;
        scene.ready(&name).await;
        dispatcher.post(&name, "x").await;
        let request = receiver.wait_for(n + 1).await.remove(n);
        assert_eq!(request.header(header), value, "{kind}");
        assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(&shared.client.facts.fingerprint_sha256));
    }
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn a_changed_secret_reaches_the_next_events_over_the_same_connection(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    let [first, second] = ["first token", "second token"].map(secret_value);
    set_token(&scene, &first).await;
    scene.webhook("shop", &receiver.url(), bearer()).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    let before = receiver.wait_for(1).await.remove(0);
    assert_eq!(before.header("authorization"), format!("Bearer {first}"));
    set_token(&scene, &second).await;
    dispatcher.process.line_with("has other headers, authorization or signing secrets").await;
    dispatcher.post("shop", "x").await;
    let after = receiver.wait_for(2).await.remove(1);
    assert_eq!(after.header("authorization"), format!("Bearer {second}"));
    assert_eq!(after.connection, before.connection);
}

async fn nothing_is_sent_without_its_token_and_then_all_of_it(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    let token = secret_value("token");
    scene.webhook("shop", &receiver.url(), bearer()).await;
    let webhook = scene.not_ready("shop", "SecretNotFound").await;
    let message = &condition(&webhook, "Ready").unwrap().message;
    assert!(
        message.starts_with("authorization.bearer.tokenSecretRef: there is no Secret \"token\""),
        "{message}"
    );
    let dispatcher = scene.dispatcher().await;
    let mut ids = HashSet::new();
    for _ in 0..10 {
        ids.insert(dispatcher.post("shop", "x").await);
    }
    scene.secret("token", &[("another", token.as_bytes())]).await;
    let webhook = scene.not_ready("shop", "KeyNotFound").await;
    let message = &condition(&webhook, "Ready").unwrap().message;
    assert!(message.contains("Secret \"token\" has no key token; it has another"), "{message}");
    receiver.assert_no_more(0, Duration::from_millis(500)).await;
    // The connection test of a webhook without mTLS is all that was there.
    assert!(receiver.connections() <= 1, "{}", receiver.connections());
    set_token(&scene, &token).await;
    let requests = receiver.wait_for(10).await;
    let arrived: HashSet<_> =
        requests.iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(arrived, ids);
    assert!(requests.iter().all(|request| request.header("authorization") == format!("Bearer {token}")));

    // And gone again.
    scene.secret("token", &[("another", token.as_bytes())]).await;
    scene.not_ready("shop", "KeyNotFound").await;
    holds(&dispatcher).await;
    let identities = scene.namespace.api::<Secret>().get("shop-identities").await.unwrap();
    assert!(
        !identities.data.unwrap_or_default().contains_key("credentials.json"),
        "the old token is still there"
    );
    let kept = dispatcher.post("shop", "kept").await;
    receiver.assert_no_more(10, Duration::from_millis(500)).await;
    set_token(&scene, &token).await;
    assert_eq!(receiver.wait_for(11).await[10].header("webhook-id"), kept);
}

async fn what_cannot_be_sent_is_told_and_never_quoted(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    let [lines, token] = ["lines", "bearer"].map(secret_value);
    let short = secret_value("short signing secret");
    scene
        .secret(
            "bad",
            &[
                ("lines", format!("{lines}\n{lines}").as_bytes()),
                ("bearer", format!("Bearer {token}").as_bytes()),
                ("short", format!("whsec_{}", BASE64.encode(short.as_bytes())).as_bytes()),
            ],
        )
        .await;
    let header = json!([{ "name": "X-Key", "valueFrom": { "secretKeyRef": at("bad", "lines") } }]);
    for (spec, reason, place) in [
        (
            json!({ "endpoint": { "headers": header } }),
            "InvalidHeader",
            "endpoint.headers[0].valueFrom.secretKeyRef: Secret \"bad\", key lines: it holds a line break",
        ),
        (
            json!({ "endpoint": { "headers": null },
                "authorization": { "bearer": { "tokenSecretRef": at("bad", "bearer") } } }),
            "InvalidAuthorization",
            "authorization.bearer.tokenSecretRef: Secret \"bad\", key bearer: it holds a space; the token stands there \
             without the word Bearer",
        ),
        (
            json!({ "signature": { "secretRefs": [at("bad", "short")] } }),
            "InvalidSigningSecret",
            "signature.secretRefs[0]: Secret \"bad\", key short: it is no secret of Standard Webhooks",
        ),
    ] {
        scene.webhook("shop", &receiver.url(), spec).await;
        let webhook = scene.not_ready("shop", reason).await;
        let message = &condition(&webhook, "Ready").unwrap().message;
        assert!(message.contains(place), "{message}");
    }
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn an_edit_that_nobody_has_seen_sends_nothing(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let controller = start_controller(&cluster).await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, receiver().await);
    let token = secret_value("token");
    set_token(&scene, &token).await;
    let header = |value: &str| json!({ "endpoint": { "headers": [{ "name": "X-Tenant", "value": value }] } });
    scene.webhook("shop", &receiver.url(), header("one")).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    assert_eq!(receiver.wait_for(1).await[0].header("x-tenant"), "one");
    controller.terminate().await;

    scene.webhook("shop", &receiver.url(), header("two")).await;
    holds(&dispatcher).await;
    dispatcher.post("shop", "x").await;
    receiver.assert_no_more(1, Duration::from_millis(500)).await;
    // Nobody else is there to tell it.
    let told = story(&scene, "OnHold").await;
    let (_, note) = told.iter().find(|(reason, _)| reason == "OnHold").unwrap();
    assert!(note.ends_with("the identities for this endpoint are not there yet"), "{note}");
    let controller = start_controller(&cluster).await;
    assert_eq!(receiver.wait_for(2).await[1].header("x-tenant"), "two");
    story(&scene, "Mended").await;
    controller.terminate().await;

    // Authorization where there was none.
    scene.webhook("shop", &receiver.url(), bearer()).await;
    holds(&dispatcher).await;
    dispatcher.post("shop", "x").await;
    receiver.assert_no_more(2, Duration::from_millis(500)).await;
    let _controller = start_controller(&cluster).await;
    assert_eq!(receiver.wait_for(3).await[2].header("authorization"), format!("Bearer {token}"));
}

async fn an_endpoint_that_moved_gets_no_token_of_the_one_before(cluster: Arc<Cluster>) {
    let (scene, before, after) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    set_token(&scene, &secret_value("token of the one before")).await;
    scene.webhook("shop", &before.url(), bearer()).await;
    scene.ready("shop").await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    before.wait_for(1).await;
    // Another partner, whose token is not there yet.
    let mut moved = bearer();
    moved["authorization"]["bearer"]["tokenSecretRef"] = at("other", "token");
    scene.webhook("shop", &after.url(), moved).await;
    scene.not_ready("shop", "SecretNotFound").await;
    let kept = dispatcher.post("shop", "y").await;
    after.assert_no_more(0, Duration::from_millis(500)).await;
    let other = secret_value("token of the other");
    scene.secret("other", &[("token", other.as_bytes())]).await;
    let request = after.wait_for(1).await.remove(0);
    assert_eq!(request.header("webhook-id"), kept);
    assert_eq!(request.header("authorization"), format!("Bearer {other}"));
    assert_eq!(before.requests().len(), 1);
}

fn signing_secret(what: &str) -> String {
    let bytes: [u8; 32] = rand::random();
    let encoded = BASE64.encode(&bytes);
    secrets::password(what, &encoded);
    format!("whsec_{encoded}")
}

/// Whether the specification's own verifier takes the request.
fn verifies(secret: &str, request: &Received) -> bool {
    standardwebhooks::Webhook::new(secret).unwrap().verify(&request.body, &request.headers).is_ok()
}

async fn a_signing_secret_rotates_with_overlap(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    let [old, new] = ["old signing secret", "new signing secret"].map(signing_secret);
    scene.secret("signing", &[("old", old.as_bytes()), ("new", format!("{new}\n").as_bytes())]).await;
    let dispatcher = scene.dispatcher().await;
    let steps: [(&[&str], [bool; 2]); 3] =
        [(&["old"], [true, false]), (&["new", "old"], [true, true]), (&["new"], [false, true])];
    for (n, (keys, taken)) in steps.into_iter().enumerate() {
        let refs: Vec<_> = keys.iter().map(|key| at("signing", key)).collect();
        scene.webhook("shop", &receiver.url(), spec(json!({ "signature": { "secretRefs": refs } }))).await;
        scene.ready("shop").await;
        // Signed for itself, in each attempt: the first fails.
        receiver.first([Answer::status(500)]);
        dispatcher.post("shop", "{\"order\":1}").await;
        let requests = receiver.wait_for(2 * (n + 1)).await;
        for request in &requests[2 * n..] {
            assert_eq!([verifies(&old, request), verifies(&new, request)], taken, "{keys:?}");
            assert_eq!(request.header("webhook-signature").split(' ').count(), keys.len());
        }
        let [first, second] = [&requests[2 * n], &requests[2 * n + 1]];
        assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    }
}

async fn a_test_sends_no_credentials_and_takes_a_403_for_an_answer(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::status(403));
    set_token(&scene, &secret_value("token")).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let mut with = bearer();
    with["endpoint"] =
        json!({ "test": { "request": "Head" }, "headers": [{ "name": "X-Tenant", "value": "shop" }] });
    with["mtls"] = json!({ "active": active("shop", "PKCS12") });
    scene.webhook("shop", &receiver.url(), with).await;
    let webhook = scene.condition("shop", "Connected", "True", Some("Succeeded")).await;
    let message = &condition(&webhook, "Connected").unwrap().message;
    assert!(
        message.contains("HTTP 403 to a test, which carries no headers and no authorization"),
        "{message}"
    );
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!(request.method, "HEAD");
    assert!(!request.headers.contains_key("authorization") && !request.headers.contains_key("x-tenant"));
}

// --- OAuth2: a receiver answers as an authorization server ----------------------------------------

/// A webhook with a client of an authorization server, and what the two are called there.
struct Client {
    id: String,
    secret: String,
}

async fn oauth2(scene: &Scene, endpoint: &Receiver, token_url: &str, more: Value) -> Client {
    // As they may be: both are to be escaped.
    let [id, secret] = ["client id", "client secret"].map(|what| format!("{}+&%", secret_value(what)));
    scene.secret("client", &[("id", id.as_bytes()), ("secret", secret.as_bytes())]).await;
    let mut client = json!({
        "tokenURL": token_url,
        "clientIDSecretRef": at("client", "id"),
        "clientSecretSecretRef": at("client", "secret"),
    });
    client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    scene
        .webhook(
            "shop",
            &endpoint.url(),
            spec(json!({ "authorization": { "oauth2ClientCredentials": client } })),
        )
        .await;
    scene.ready("shop").await;
    Client { id, secret }
}

fn token_url(server: &Receiver) -> String {
    format!("{}/oauth2/token", server.url())
}

fn grant(token: &str, expires_in: u64) -> Answer {
    let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in });
    Answer::status(200).header("content-type", "application/json").body(Bytes::from(body.to_string()))
}

/// The parameters of a request for a token.
fn form(request: &Received) -> Vec<(String, String)> {
    let body = std::str::from_utf8(&request.body).unwrap();
    let pairs = reqwest::Url::parse(&format!("https://form.example/?{body}")).unwrap();
    pairs.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn a_token_is_fetched_once_for_many_events(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    let token = secret_value("access token");
    server.always(grant(&token, 3600));
    let more = json!({ "scopes": ["events:write", "orders"], "audience": "https://partner.example" });
    let client = oauth2(&scene, &endpoint, &token_url(&server), more).await;
    let dispatcher = scene.dispatcher().await;
    // The first of them wait for one token together.
    let hold = server.hold();
    for _ in 0..30 {
        dispatcher.post("shop", "x").await;
    }
    drop(hold);
    let requests = endpoint.wait_for(30).await;
    assert!(requests.iter().all(|request| request.header("authorization") == format!("Bearer {token}")));
    let grants = server.requests();
    assert_eq!(grants.len(), 1);
    assert_eq!((grants[0].method.as_str(), grants[0].path.as_str()), ("POST", "/oauth2/token"));
    assert_eq!(
        form(&grants[0]),
        pairs(&[
            ("grant_type", "client_credentials"),
            ("scope", "events:write orders"),
            ("audience", "https://partner.example"),
        ])
    );
    // RFC 6749, 2.3.1: each escaped before they are put together.
    let escaped = |text: &str| text.replace('%', "%25").replace('+', "%2B").replace('&', "%26");
    let pair = BASE64.encode(format!("{}:{}", escaped(&client.id), escaped(&client.secret)).as_bytes());
    assert_eq!(grants[0].header("authorization"), format!("Basic {pair}"));
    scene.namespace.assert_no_secret_in("outboundwebhooks,configmaps,events").await;
}

async fn id_and_secret_go_in_the_body_where_that_is_asked_for(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    server.always(grant(&secret_value("access token"), 3600));
    let more = json!({ "tokenEndpointAuthMethod": "ClientSecretPost" });
    let client = oauth2(&scene, &endpoint, &token_url(&server), more).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    let asked = server.wait_for(1).await.remove(0);
    assert!(!asked.headers.contains_key("authorization"));
    assert_eq!(
        form(&asked),
        pairs(&[
            ("grant_type", "client_credentials"),
            ("client_id", &client.id),
            ("client_secret", &client.secret),
        ])
    );
}

async fn a_token_is_fetched_anew_before_it_expires(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    let [first, second] = ["first token", "second token"].map(secret_value);
    server.always(grant(&second, 3600));
    server.first([grant(&first, 5)]);
    oauth2(&scene, &endpoint, &token_url(&server), json!({})).await;
    let dispatcher = scene.dispatcher().await;
    // Events all the time, each with a token; no attempt fails when one follows the other.
    let mut n = 0;
    let last = eventually::polled("the second token", || {
        n += 1;
        let (dispatcher, endpoint, second) = (&dispatcher, &endpoint, &second);
        async move {
            dispatcher.post("shop", "x").await;
            let last = endpoint.wait_for(n).await.remove(n - 1);
            let is = last.header("authorization") == format!("Bearer {second}");
            if is { Ok(last) } else { Err("still the first".to_owned()) }
        }
    })
    .await;
    let grants = server.requests();
    assert_eq!(grants.len(), 2);
    let life = last.at.duration_since(grants[0].at);
    assert!(life > Duration::from_millis(3500), "the first was given up after {life:?}");
    assert!(!dispatcher.process.lines().iter().any(|line| line.contains("not delivered")));
}

async fn a_401_leads_to_one_new_token(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    let [first, second, third] = ["first token", "second token", "third token"].map(secret_value);
    server.always(grant(&third, 3600));
    server.first([grant(&first, 3600), grant(&second, 3600)]);
    oauth2(&scene, &endpoint, &token_url(&server), json!({})).await;
    let dispatcher = scene.dispatcher().await;
    endpoint.first([Answer::status(401)]);
    dispatcher.post("shop", "x").await;
    let requests = endpoint.wait_for(2).await;
    let sent: Vec<_> = requests.iter().map(|request| request.header("authorization").to_owned()).collect();
    assert_eq!(sent, [format!("Bearer {first}"), format!("Bearer {second}")]);
    dispatcher.process.line_with("\"delivered\"").await;
    assert!(!dispatcher.process.lines().iter().any(|line| line.contains("not delivered")));

    // An endpoint that takes no token at all: one more, and no other for each attempt.
    endpoint.always(Answer::status(401));
    dispatcher.post("shop", "y").await;
    let requests = endpoint.wait_for(6).await;
    assert!(requests[3..].iter().all(|request| request.header("authorization") == format!("Bearer {third}")));
    assert_eq!(server.requests().len(), 3);
    let line = dispatcher.process.line_with("not delivered").await;
    assert!(line.contains("HTTP 401"), "{line}");
}

async fn a_token_endpoint_that_refuses_is_told_and_left_alone(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    let token = secret_value("access token");
    let said = secret_value("error description");
    let body = json!({ "error": "invalid_client", "error_description": said }).to_string();
    server.always(Answer::status(401).header("content-type", "application/json").body(Bytes::from(body)));
    oauth2(&scene, &endpoint, &token_url(&server), json!({})).await;
    let dispatcher = scene.dispatcher().await;
    let mut ids = HashSet::new();
    for _ in 0..50 {
        ids.insert(dispatcher.post("shop", "x").await);
    }
    let line = dispatcher.process.line_with("not delivered").await;
    for part in ["\"Authorization\"", "\"TokenRefused\"", "HTTP 401, invalid_client"] {
        assert!(line.contains(part), "{line}");
    }
    // Asked after 1 s and 2 s more, and not for each of 50 events every second.
    server.wait_for(3).await;
    assert!(server.requests().len() <= 4, "{}", server.requests().len());
    assert_eq!(endpoint.requests().len(), 0);
    server.always(grant(&token, 3600));
    let arrived = |requests: &[Received]| -> HashSet<String> {
        requests.iter().map(|request| request.header("webhook-id").to_owned()).collect()
    };
    endpoint.wait_until("every event", |requests| arrived(requests) == ids).await;
}

async fn a_token_endpoint_that_is_away_is_told_and_asked_again(cluster: Arc<Cluster>) {
    let (scene, endpoint, server) = (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    let (url, address) = (token_url(&server), server.address());
    server.stop().await;
    oauth2(&scene, &endpoint, &url, json!({})).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "x").await;
    let line = dispatcher.process.line_with("not delivered").await;
    assert!(line.contains("\"TokenEndpointUnreachable\"") && line.contains("ConnectFailed"), "{line}");
    assert_eq!(endpoint.requests().len(), 0);
    let shared = pki::shared().await;
    let server = Options::new(&shared.server, ClientAuth::None).address(address).start().await;
    let token = secret_value("access token");
    server.always(grant(&token, 3600));
    let request = endpoint.wait_for(1).await.remove(0);
    assert_eq!(request.header("authorization"), format!("Bearer {token}"));
}
