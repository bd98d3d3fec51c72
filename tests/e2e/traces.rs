//! Traces: from a sender through the queue to the receiver, and what a collector is told of it.

use std::{collections::HashMap, ffi::OsStr, sync::Arc, time::Duration};

use axum::http::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    collector::{self, Collector, Span},
    pki::{self, new_password},
    process::Program,
    receiver::{Answer, ClientAuth, Options, Received, Receiver, TO_RECEIVERS, free_port},
    scene::{Dispatcher, Scene, active, start_controller_with},
    secrets,
};

tests![
    one_trace_leads_from_the_sender_to_the_receiver,
    what_the_sender_says_arrives_unchanged_where_no_spans_are_wanted,
    what_is_not_valid_is_no_trace_and_no_error,
    the_header_of_a_webhook_goes_first,
    a_trace_that_is_not_kept_is_told_to_the_receiver,
    the_controller_tells_of_reconciles_and_tests,
    a_collector_is_spoken_to_over_tls,
    a_collector_that_is_away_costs_spans_and_is_told_once,
    a_collector_that_is_no_url_is_told_with_the_flag,
];

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

/// A server that asks for no certificate.
async fn receiver() -> Receiver {
    Options::new(&pki::shared().await.server, ClientAuth::None).start().await
}

async fn ready(scene: &Scene, url: &str, mut spec: Value) {
    spec["delivery"] = json!({ "retry": { "initialSeconds": 1, "maxSeconds": 1 } });
    scene.webhook("shop", url, spec).await;
    scene.ready("shop").await;
}

/// Posts an event with these headers; it has to be taken.
async fn post(dispatcher: &Dispatcher, headers: &[(&str, &str)]) {
    let request =
        reqwest::Client::builder().no_proxy().build().unwrap().post(dispatcher.url_of("shop").await);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    assert_eq!(request.body("x").send().await.unwrap().status(), StatusCode::ACCEPTED);
}

fn said<'a>(request: &'a Received, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

fn with<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&TO_RECEIVERS[..], arguments].concat()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name() == name).collect()
}

async fn one_trace_leads_from_the_sender_to_the_receiver(cluster: Arc<Cluster>) {
    let (scene, receiver, collector) =
        (Scene::new(cluster).await, Receiver::start().await, Collector::start().await);
    let [token, path, body] = ["token", "path", "body"].map(|_| new_password());
    secrets::password("the token of a webhook that is traced", &token);
    scene.secret("token", &[("token", token.as_bytes())]).await;
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    let spec = json!({
        "mtls": { "active": active("shop", "PKCS12") },
        "authorization": { "bearer": { "tokenSecretRef": { "name": "token", "key": "token" } } },
    });
    ready(&scene, &format!("{}/{path}?{path}", receiver.url()), spec).await;
    receiver.first([Answer::status(503).body(body.clone())]);
    let endpoint = collector.endpoint();
    let dispatcher = scene.dispatcher_with(&with(&[&endpoint])).await;
    post(
        &dispatcher,
        &[("traceparent", SENDER), ("tracestate", STATE), ("postrider-event-type", "order.paid")],
    )
    .await;
    let requests = receiver.wait_for(2).await;
    // The last of them go out at its end.
    dispatcher.process.terminate().await;

    let spans = collector.spans();
    assert!(
        spans.iter().all(|span| span.trace() == TRACE && span.service == "postrider-dispatcher"),
        "{spans:?}"
    );
    let accepted = named(&spans, "POST /v1/namespaces/{namespace}/outboundwebhooks/{name}/events");
    let [accepted] = accepted[..] else { panic!("{spans:?}") };
    assert_eq!(accepted.parent(), SENDER[36..52]);
    let attempts: HashMap<_, _> =
        named(&spans, "deliver").into_iter().map(|span| (span.traceparent(), span)).collect();
    assert_eq!(attempts.len(), 2);
    for (request, status) in requests.iter().zip(["503", "200"]) {
        let attempt = attempts[request.header("traceparent")];
        assert_eq!(accepted.traceparent()[36..52], attempt.parent());
        assert_eq!(request.header("tracestate"), STATE);
        assert_eq!(attempt.otlp.trace_state, STATE);
        assert_eq!(request.header("ce-traceparent"), accepted.traceparent());
        for (name, value) in [
            ("http.request.method", "POST"),
            ("http.response.status_code", status),
            ("server.address", "localhost"),
            ("server.port", &receiver.address().port().to_string()),
            ("messaging.message.id", request.header("webhook-id")),
            ("cloudevents.event_id", request.header("ce-id")),
            ("cloudevents.event_type", "order.paid"),
            ("postrider.webhook.namespace", scene.namespace.name()),
            ("postrider.webhook.name", "shop"),
            ("error.type", if status == "200" { "" } else { "HTTPStatus" }),
        ] {
            assert_eq!(attempt.attribute(name), value, "{name}");
        }
        assert_eq!(attempt.otlp.status.as_ref().is_some_and(|status| status.code == 2), status != "200");
    }
    assert_eq!(accepted.attribute("http.response.status_code"), "202");
    let bytes = collector.bytes();
    assert_eq!(secrets::findings(&bytes), Vec::<String>::new());
    for secret in [path, body] {
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "a secret is in a span");
    }
}

async fn what_the_sender_says_arrives_unchanged_where_no_spans_are_wanted(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    ready(&scene, &receiver.url(), json!({})).await;
    receiver.first([Answer::status(503)]);
    let before = scene.dispatcher().await;
    post(&before, &[("traceparent", SENDER), ("tracestate", STATE)]).await;
    receiver.wait_for(1).await;
    before.process.kill().await;
    // It is kept with the event.
    let _after = scene.dispatcher_again(&before).await;
    for request in receiver.wait_for(2).await {
        assert_eq!(
            (said(&request, "traceparent"), said(&request, "tracestate")),
            (Some(SENDER), Some(STATE))
        );
        assert_eq!(said(&request, "ce-traceparent"), Some(SENDER));
    }
}

async fn what_is_not_valid_is_no_trace_and_no_error(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::not_enabled(cluster).await, receiver().await);
    ready(&scene, &receiver.url(), json!({})).await;
    let dispatcher = scene.dispatcher().await;
    let event =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "order.paid")];
    post(&dispatcher, &[&event[..], &[("traceparent", "00-0-0-01"), ("tracestate", STATE)]].concat()).await;
    let request = receiver.wait_for(1).await.remove(0);
    for name in ["traceparent", "tracestate", "ce-traceparent", "ce-tracestate"] {
        assert_eq!(said(&request, name), None, "{name}");
    }
    // An event that names a trace of its own belongs there.
    let own = SENDER.replace("b7ad", "0001");
    let named = [("ce-id", "2"), ("ce-traceparent", own.as_str()), ("traceparent", SENDER)];
    post(&dispatcher, &[&event[..1], &event[2..], &named].concat()).await;
    let request = receiver.wait_for(2).await.remove(1);
    assert_eq!((said(&request, "traceparent"), said(&request, "ce-traceparent")), (Some(&*own), Some(&*own)));
}

async fn the_header_of_a_webhook_goes_first(cluster: Arc<Cluster>) {
    let (scene, receiver, collector) =
        (Scene::not_enabled(cluster).await, receiver().await, Collector::start().await);
    let headers = json!([{ "name": "Traceparent", "value": "as the partner wants it" }]);
    ready(&scene, &receiver.url(), json!({ "endpoint": { "headers": headers } })).await;
    let endpoint = collector.endpoint();
    let dispatcher = scene.dispatcher_with(&with(&[&endpoint])).await;
    post(&dispatcher, &[("traceparent", SENDER), ("tracestate", STATE)]).await;
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!(request.header("traceparent"), "as the partner wants it");
    assert_eq!(said(&request, "tracestate"), None);
}

async fn a_trace_that_is_not_kept_is_told_to_the_receiver(cluster: Arc<Cluster>) {
    let (scene, receiver, collector) =
        (Scene::not_enabled(cluster).await, receiver().await, Collector::start().await);
    ready(&scene, &receiver.url(), json!({})).await;
    let endpoint = collector.endpoint();
    let dispatcher = scene.dispatcher_with(&with(&[&endpoint, "--trace-ratio=0"])).await;
    post(&dispatcher, &[]).await;
    let begun = receiver.wait_for(1).await.remove(0);
    assert!(begun.header("traceparent").ends_with("-00"), "{:?}", begun.headers);
    let not_kept = SENDER.replace("-01", "-00");
    post(&dispatcher, &[("traceparent", &not_kept), ("tracestate", STATE)]).await;
    let unchanged = receiver.wait_for(2).await.remove(1);
    assert_eq!((unchanged.header("traceparent"), unchanged.header("tracestate")), (&*not_kept, STATE));
    // What its sender keeps is kept.
    post(&dispatcher, &[("traceparent", SENDER)]).await;
    receiver.wait_for(3).await;
    dispatcher.process.terminate().await;
    let spans = collector.spans();
    assert_eq!((spans.len(), spans.iter().all(|span| span.trace() == TRACE)), (2, true), "{spans:?}");
}

async fn the_controller_tells_of_reconciles_and_tests(_: Arc<Cluster>) {
    let (cluster, collector) = (Cluster::start_own().await, Collector::start().await);
    let endpoint = collector.endpoint();
    let controller = start_controller_with(&cluster, &with(&[&endpoint])).await;
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    scene.enable(true).await;
    let port = free_port();
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", &format!("https://localhost:{port}/hooks"), "PKCS12").await;
    scene.condition("shop", "Connected", "False", Some("ConnectFailed")).await;
    controller.terminate().await;
    let spans = collector.spans();
    let test = named(&spans, "test connection")[0];
    for (name, value) in [
        ("server.address", "localhost"),
        ("server.port", &port.to_string()),
        ("error.type", "ConnectFailed"),
        ("postrider.webhook.namespace", scene.namespace.name()),
        ("postrider.webhook.name", "shop"),
    ] {
        assert_eq!(test.attribute(name), value, "{name}");
    }
    let reconcile = named(&spans, "reconcile")[0];
    assert_eq!(
        (reconcile.service.as_str(), &*reconcile.attribute("postrider.webhook.name")),
        ("postrider-controller", "shop")
    );
    assert_eq!(secrets::findings(&collector.bytes()), Vec::<String>::new());
}

async fn a_collector_is_spoken_to_over_tls(cluster: Arc<Cluster>) {
    let (scene, receiver, collector) =
        (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    ready(&scene, &receiver.url(), json!({})).await;
    let key = new_password();
    secrets::password("the key for a collector", &key);
    let (endpoint, headers) = (format!("{}/otel", collector.url()), format!("x-api-key={key}"));
    let environment = [
        ("SSL_CERT_FILE", pki::shared().await.server_authority.root.as_os_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", OsStr::new(&endpoint)),
        ("OTEL_EXPORTER_OTLP_HEADERS", OsStr::new(&headers)),
        ("OTEL_SERVICE_NAME", OsStr::new("hooks")),
    ];
    let dispatcher = scene.dispatcher_in(&TO_RECEIVERS, &environment).await;
    post(&dispatcher, &[]).await;
    receiver.wait_for(1).await;
    dispatcher.process.terminate().await;
    let requests = collector.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        assert_eq!((request.path.as_str(), request.header("x-api-key")), ("/otel/v1/traces", key.as_str()));
        assert!(collector::spans(&request.body).iter().all(|span| span.service == "hooks"));
    }
}

async fn a_collector_that_is_away_costs_spans_and_is_told_once(cluster: Arc<Cluster>) {
    const TOLD: &str = "spans do not reach the collector";
    let (scene, receiver, collector) =
        (Scene::not_enabled(cluster).await, receiver().await, receiver().await);
    ready(&scene, &receiver.url(), json!({})).await;
    collector.always(Answer::status(503));
    let endpoint = format!("--otlp-endpoint={}", collector.url());
    let environment = [("SSL_CERT_FILE", pki::shared().await.server_authority.root.as_os_str())];
    let dispatcher = scene.dispatcher_in(&with(&[&endpoint]), &environment).await;
    for n in 1..=3 {
        post(&dispatcher, &[]).await;
        receiver.wait_for(n).await;
        // Tried, and tried again.
        collector.wait_for(2 * n).await;
    }
    let told = || dispatcher.process.lines().iter().filter(|line| line.contains(TOLD)).count();
    assert_eq!(told(), 1);
    collector.always(Answer::status(200));
    post(&dispatcher, &[]).await;
    dispatcher.process.line_with("spans reach the collector again").await;
    // It hangs: the end of the program does not wait for it.
    let _held = collector.hold();
    post(&dispatcher, &[]).await;
    receiver.wait_for(5).await;
    let from = std::time::Instant::now();
    dispatcher.process.signal(Signal::TERM);
    assert!(dispatcher.process.ended().await.success());
    assert!(from.elapsed() < Duration::from_secs(10), "{:?}", from.elapsed());
    dispatcher.process.line_with("the last spans could not be exported").await;
}

async fn a_collector_that_is_no_url_is_told_with_the_flag(_: Arc<Cluster>) {
    for program in ["controller", "dispatcher"] {
        let process = Program::postrider(program).args(["--otlp-endpoint", "collector:4317"]).start();
        process.line_with("--otlp-endpoint").await;
        assert!(!process.ended().await.success());
    }
}
