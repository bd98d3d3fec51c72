use axum::{
    body::Body,
    http::{
        HeaderMap, Request, StatusCode,
        header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
    },
    response::IntoResponse as _,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{
    access::{Options, Right, Unavailable, User},
    *,
};
use crate::{
    clock::SystemClock,
    queue::{Cause, Embedded, QueueError, Settlement},
};

/// Webhooks of namespace shop by name; `NotYet` before they have been read.
struct Fixed(Known<Vec<(&'static str, Takes)>>);

impl Webhooks for Fixed {
    fn knows(&self, webhook: &WebhookKey) -> Known<Takes> {
        match &self.0 {
            Known::Yes(webhooks) => {
                let found = webhooks.iter().find(|(name, _)| *webhook == self::webhook(name));
                found.map_or(Known::No, |(_, takes)| Known::Yes(takes.clone()))
            }
            Known::No => Known::No,
            Known::NotYet => Known::NotYet,
        }
    }

    fn of_namespace(&self, namespace: &str) -> Known<Vec<(WebhookKey, Takes)>> {
        assert_eq!(namespace, "shop");
        match &self.0 {
            Known::Yes(webhooks) => {
                Known::Yes(webhooks.iter().map(|(name, takes)| (webhook(name), takes.clone())).collect())
            }
            Known::No => Known::No,
            Known::NotYet => Known::NotYet,
        }
    }
}

struct May(bool);

impl Reviewer for May {
    async fn whose(&self, token: &str) -> Result<Option<User>, Unavailable> {
        Ok(Some(User { name: token.to_owned(), ..User::default() }))
    }
    async fn may(&self, _: &User, _: &Right) -> Result<bool, Unavailable> {
        Ok(self.0)
    }
}

fn takes(types: &[&str]) -> Takes {
    let types = types.iter().map(ToString::to_string).collect();
    Takes { events: Arc::new(Events { types }), ordered: false }
}

fn partner() -> Known<Vec<(&'static str, Takes)>> {
    Known::Yes(vec![("partner", Takes::default())])
}

const EVENTS: &str = "/v1/namespaces/shop/outboundwebhooks/partner/events";
const LETTERS: &str = "/v1/namespaces/shop/outboundwebhooks/partner/deadletters";

/// A queue of its own, and who takes events for it.
struct Scene {
    queue: Arc<Embedded>,
    router: Router,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(known: Known<Vec<(&'static str, Takes)>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = Arc::new(Embedded::open(directory.path()).unwrap());
        let webhooks = Arc::new(Fixed(known));
        let router = router(Arc::new(Ingest {
            queue: Arc::clone(&queue),
            webhooks,
            clock: SystemClock,
            metrics: crate::telemetry::metrics::Requests::default(),
        }));
        Self { queue, router, _directory: directory }
    }

    /// For senders that are all known, and may do this.
    fn guarded(known: Known<Vec<(&'static str, Takes)>>, may: bool) -> Self {
        let scene = Self::new(known);
        let options = Options { token_audience: "postrider".into(), sender_rate: limits::SENDER_RATE };
        let access = Arc::new(Access::new(May(may), SystemClock, &options));
        Self { router: super::guarded(scene.router.clone(), access), ..scene }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, body: Vec<u8>) -> (StatusCode, HeaderMap, String) {
        let batch = body.starts_with(b"[");
        let content_type = if batch { "application/cloudevents-batch+json" } else { "text/plain" };
        let request = Request::post(EVENTS).header("content-type", content_type);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn json(&self, method: &str, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (status, _, body) = self.send(request).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    fn pending(&self) -> i64 {
        self.queue.counts(&webhook("partner")).pending.events
    }
}

fn webhook(name: &str) -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: name.into() }
}

#[tokio::test]
async fn an_event_that_is_kept_is_answered_202_with_its_id() {
    let scene = Scene::new(partner());
    let (status, headers, body) = scene.post(b"paid".to_vec()).await;
    assert_eq!((status, scene.pending()), (StatusCode::ACCEPTED, 1));
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert!(body["ids"][0].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{body}");
}

#[tokio::test]
async fn what_cannot_be_kept_is_told() {
    let one = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let batch = format!("[{}]", vec![one; limits::BATCH_EVENTS + 1].join(",")).into_bytes();
    let large = vec![b'x'; limits::EVENT_BYTES + 1];
    for (known, body, status, says, retry_after) in [
        (Known::No, vec![], StatusCode::NOT_FOUND, "no OutboundWebhook shop/partner", false),
        (partner(), batch, StatusCode::BAD_REQUEST, "more than 1000 events", false),
        (Known::NotYet, vec![], StatusCode::SERVICE_UNAVAILABLE, "not been read", true),
        (partner(), large, StatusCode::PAYLOAD_TOO_LARGE, "larger than the limit of 1048576 bytes", false),
    ] {
        let scene = Scene::new(known);
        let (got, headers, body) = scene.post(body).await;
        assert_eq!((got, scene.pending()), (status, 0), "{body}");
        assert!(body.contains(says), "{body}");
        assert_eq!(headers.contains_key(RETRY_AFTER), retry_after, "{body}");
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{body}");
    }
}

#[tokio::test]
async fn a_queue_that_takes_nothing_is_no_202() {
    let scene = Scene::new(partner());
    scene.queue.close().await;
    let (status, headers, body) = scene.post(b"paid".to_vec()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(headers.contains_key(RETRY_AFTER));

    let storage = QueueError::Storage(Arc::new(rusqlite::Error::InvalidQuery));
    for (error, status, says) in [
        (QueueError::Full, StatusCode::TOO_MANY_REQUESTS, "the queue is full"),
        (QueueError::NoSpace, StatusCode::INSUFFICIENT_STORAGE, "send it again"),
        (storage, StatusCode::SERVICE_UNAVAILABLE, "send it again"),
    ] {
        let response = Refused::Queue(error).into_response();
        assert_eq!(response.status(), status);
        assert!(response.headers().contains_key(RETRY_AFTER));
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains(says), "{body:?}");
    }
}

#[tokio::test]
async fn events_have_a_key_where_their_webhook_asks_for_order() {
    for ordered in [false, true] {
        let scene = Scene::new(Known::Yes(vec![("partner", Takes { ordered, ..Takes::default() })]));
        let event = Request::post(EVENTS).header("ce-specversion", "1.0").header("ce-id", "1");
        let event =
            event.header("ce-source", "s").header("ce-type", "t").header("ce-partitionkey", "order-7");
        scene.send(event.body(Body::empty()).unwrap()).await;
        scene.post(b"without".to_vec()).await;
        let page = scene.queue.claim(&webhook("partner"), jiff::Timestamp::MAX, 2).await.unwrap();
        let keys: Vec<_> = page.claims.iter().map(|claim| claim.event.key.as_deref()).collect();
        assert_eq!(keys, [ordered.then_some("order-7"), None]);
    }
}

/// Gives up all that waits, for a reason each.
async fn give_up(scene: &Scene, reasons: &[&str]) {
    let page = scene.queue.claim(&webhook("partner"), jiff::Timestamp::MAX, 64).await.unwrap();
    for (claim, reason) in page.claims.into_iter().zip(reasons) {
        let response = Some(crate::queue::Response { status: 422, body: b"no such order".into() });
        let cause = Cause { reason: (*reason).into(), message: "HTTP 422".into(), response };
        let settlement = Settlement::Dead { at: jiff::Timestamp::UNIX_EPOCH, cause };
        scene.queue.settle(&webhook("partner"), vec![(claim.sequence, settlement)]).await.unwrap();
    }
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_removed() {
    let scene = Scene::new(partner());
    for body in ["one", "two", "three"] {
        scene.post(body.into()).await;
    }
    give_up(&scene, &["HTTPStatus", "HTTPStatus", "TimedOut"]).await;

    let (status, list) = scene.json("GET", &format!("{LETTERS}?reason=HTTPStatus&limit=1")).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let [item] = list["items"].as_array().unwrap().as_slice() else { panic!("not one: {list}") };
    assert_eq!(item["response"], json!({ "status": 422, "body": "no such order" }));
    assert_eq!((&item["message"], &item["dataBase64"]), (&json!("HTTP 422"), &json!("b25l")));
    let next = list["continue"].as_i64().unwrap();
    let (_, rest) = scene.json("GET", &format!("{LETTERS}?after={next}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);

    let id = item["id"].as_str().unwrap();
    let replay = |query: String| format!("{LETTERS}/replay?{query}");
    assert_eq!(
        scene.json("POST", &replay(format!("ids={id}"))).await,
        (StatusCode::OK, json!({ "count": 1 }))
    );
    let page = scene.queue.claim(&webhook("partner"), jiff::Timestamp::MAX, 2).await.unwrap();
    assert_eq!(page.claims[0].event.id.to_string(), id, "the same id, in a new attempt");
    let (_, removed) = scene.json("DELETE", &format!("{LETTERS}?reason=TimedOut")).await;
    assert_eq!(removed, json!({ "count": 1 }));
    let (_, replayed) = scene.json("POST", &replay("before=1970-01-01T00:00:00Z".into())).await;
    assert_eq!(replayed, json!({ "count": 0 }));
    let (_, replayed) = scene.json("POST", &replay("before=2000-01-01T00:00:00Z".into())).await;
    assert_eq!(replayed, json!({ "count": 1 }));
    assert_eq!(scene.queue.counts(&webhook("partner")).dead.events, 0);
}

#[tokio::test]
async fn a_filter_that_is_not_understood_changes_nothing() {
    let scene = Scene::new(partner());
    scene.post(b"one".to_vec()).await;
    give_up(&scene, &["HTTPStatus"]).await;
    let many = vec![uuid::Uuid::nil().to_string(); limits::DEAD_IDS + 1].join(",");
    for query in
        ["ids=1", &format!("ids={many}"), "before=yesterday", "raeson=HTTPStatus", "limit=1", "after=0"]
    {
        let (status, said) = scene.json("DELETE", &format!("{LETTERS}?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {said}");
    }
    assert_eq!(scene.queue.counts(&webhook("partner")).dead.events, 1);
    let (status, _) = Scene::new(Known::No).json("DELETE", LETTERS).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

fn cloud_event(to: &str, id: &str, event_type: &str) -> Request<Body> {
    let event = Request::post(to).header("ce-specversion", "1.0").header("ce-id", id);
    event.header("ce-source", "/shop").header("ce-type", event_type).body(Body::from("paid")).unwrap()
}

#[tokio::test]
async fn an_event_for_a_namespace_goes_to_the_webhooks_that_take_its_type() {
    const ALL: &str = "/v1/namespaces/shop/events";
    let webhooks =
        vec![("all", takes(&[])), ("orders", takes(&["order.*"])), ("refunds", takes(&["refund"]))];
    let scene = Scene::new(Known::Yes(webhooks));
    let (status, _, body) = scene.send(cloud_event(ALL, "1", "order.paid")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let first: Value = serde_json::from_str(&body).unwrap();
    let events = first["events"].as_array().unwrap();
    let names: Vec<_> = events.iter().map(|event| event["webhook"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "orders"]);
    assert_ne!(events[0]["id"], events[1]["id"]);
    // Again, it is the same.
    let (_, _, again) = scene.send(cloud_event(ALL, "1", "order.paid")).await;
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), first);
    let counts = ["all", "orders", "refunds"].map(|name| scene.queue.counts(&webhook(name)).pending.events);
    assert_eq!(counts, [1, 1, 0]);

    let only_refunds = Scene::new(Known::Yes(vec![("refunds", takes(&["refund"]))]));
    let (status, _, body) = only_refunds.send(cloud_event(ALL, "1", "order.paid")).await;
    assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, r#"{"events":[]}"#));
    let (status, ..) = Scene::new(Known::NotYet).send(cloud_event(ALL, "1", "order.paid")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_event_that_many_take_is_bounded_by_what_it_comes_to() {
    const NAMES: [&str; 40] = ["a"; 40];
    let scene = Scene::new(Known::Yes(NAMES.map(|name| (name, Takes::default())).to_vec()));
    let large = Body::from(vec![b'x'; limits::EVENT_BYTES]);
    let request = Request::post("/v1/namespaces/shop/events").body(large).unwrap();
    let (status, _, body) = scene.send(request).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("40 webhooks"), "{body}");
    // Attributes count as well.
    let event =
        json!({ "specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "x".repeat(16_000) });
    let request = Request::post("/v1/namespaces/shop/events");
    let request = request.header("content-type", "application/cloudevents-batch+json");
    let (status, ..) =
        scene.send(request.body(Body::from(json!(vec![event; 60]).to_string())).unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(scene.queue.counts(&webhook("a")).pending.events, 0);
}

#[tokio::test]
async fn a_webhook_refuses_events_of_other_types_and_all_of_their_batch() {
    let scene = Scene::new(Known::Yes(vec![("partner", takes(&["order.*"]))]));
    let (status, _, body) = scene.send(cloud_event(EVENTS, "1", "refund")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.contains("refund") && body.contains("spec.events.types"), "{body}");
    let event = |id, event_type| json!({ "specversion": "1.0", "id": id, "source": "s", "type": event_type });
    let batch = json!([event("2", "order.paid"), event("3", "refund")]);
    let (status, ..) = scene.post(batch.to_string().into_bytes()).await;
    assert_eq!((status, scene.pending()), (StatusCode::UNPROCESSABLE_ENTITY, 0));
}

#[tokio::test]
async fn an_event_that_comes_again_is_answered_as_the_first_time() {
    let scene = Scene::new(partner());
    let (_, _, first) = scene.send(cloud_event(EVENTS, "1", "order.paid")).await;
    let again = futures::future::join_all((0..8).map(|_| scene.send(cloud_event(EVENTS, "1", "order.paid"))));
    assert!(again.await.into_iter().all(|(status, _, body)| status == StatusCode::ACCEPTED && body == first));
    let (_, _, other) = scene.send(cloud_event(EVENTS, "2", "order.paid")).await;
    assert_ne!(other, first);
    assert_eq!(scene.pending(), 2);
}

#[tokio::test]
async fn a_sender_that_asks_whether_it_may_send_is_answered() {
    let scene = Scene::new(partner());
    for path in [EVENTS, "/v1/namespaces/shop/events"] {
        let ask = Request::options(path).header("webhook-request-origin", "eventemitter.example.com");
        let ask = ask.header("webhook-request-rate", "120").body(Body::empty()).unwrap();
        let (status, headers, _) = scene.send(ask).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&headers["webhook-allowed-origin"], &headers["webhook-allowed-rate"]),
            (&"*".parse().unwrap(), &"*".parse().unwrap())
        );
        let (_, headers, _) = scene.send(Request::options(path).body(Body::empty()).unwrap()).await;
        assert!(!headers.contains_key("webhook-allowed-origin") && headers["allow"] == "OPTIONS, POST");
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_is_a_problem() {
    let scene = Scene::new(partner());
    let never = || Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let blank = "about:blank";
    let not_understood = "urn:postrider:problem:not-understood";
    for (method, path, body, status, r#type, says) in [
        ("POST", "/v2", Body::empty(), 404, blank, "nothing at this path"),
        ("GET", EVENTS, Body::empty(), 405, blank, "other methods"),
        ("POST", EVENTS, never(), 408, blank, "did not come in"),
        ("GET", &format!("{LETTERS}?limit=x"), Body::empty(), 400, not_understood, "limit: invalid digit"),
        ("DELETE", &format!("{LETTERS}?limit=1"), Body::empty(), 400, not_understood, "are for lists"),
        (
            "POST",
            &EVENTS.replace("shop", "Shop"),
            Body::empty(),
            400,
            not_understood,
            "no namespace can have",
        ),
        ("POST", &EVENTS.replace("partner", "%ff"), Body::empty(), 400, not_understood, "not UTF-8"),
    ] {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let (got, headers, body) = scene.send(request).await;
        assert_eq!(
            (got.as_u16(), &headers[CONTENT_TYPE]),
            (status, &"application/problem+json".parse().unwrap())
        );
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!(r#type)), "{body}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{body}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{body}");
        assert_eq!(
            headers.get(ALLOW).map(|allow| allow.to_str().unwrap()),
            (status == 405).then_some("POST,OPTIONS")
        );
    }
}

#[tokio::test]
async fn who_lacks_the_right_cannot_tell_what_there_is() {
    let mut answers = Vec::new();
    for known in [partner(), Known::No, Known::NotYet] {
        let scene = Scene::guarded(known, false);
        let request = Request::post(EVENTS).header("authorization", "Bearer app");
        let answer = scene.send(request.body(Body::from("paid")).unwrap()).await;
        assert_eq!((answer.0, scene.pending()), (StatusCode::FORBIDDEN, 0), "{}", answer.2);
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    let scene = Scene::guarded(partner(), true);
    let request = Request::post(EVENTS).header("authorization", "Bearer app");
    let (status, _, body) = scene.send(request.body(Body::from("paid")).unwrap()).await;
    assert_eq!((status, scene.pending()), (StatusCode::ACCEPTED, 1), "{body}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(scene.json("GET", path).await.0, StatusCode::NOT_FOUND);
    }
}
