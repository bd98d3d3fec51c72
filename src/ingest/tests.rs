use axum::{body::Body, http::Request};
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::{
    clock::SystemClock,
    queue::{Cause, Embedded, Settlement},
};

struct Only(Known);

impl Webhooks for Only {
    fn knows(&self, _: &WebhookKey) -> Known {
        self.0
    }
}

const KNOWN: Known = Known::Yes { ordered: false };
const EVENTS: &str = "/v1/namespaces/shop/outboundwebhooks/partner/events";
const LETTERS: &str = "/v1/namespaces/shop/outboundwebhooks/partner/deadletters";

/// A queue of its own, and who takes events for it.
struct Scene {
    queue: Arc<Embedded>,
    router: Router,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(known: Known) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = Arc::new(Embedded::open(directory.path()).unwrap());
        let webhooks = Arc::new(Only(known));
        let router = router(Arc::new(Ingest { queue: Arc::clone(&queue), webhooks, clock: SystemClock }));
        Self { queue, router, _directory: directory }
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
        self.queue.counts(&webhook()).pending.events
    }
}

fn webhook() -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: "partner".into() }
}

#[tokio::test]
async fn an_event_that_is_kept_is_answered_202_with_its_id() {
    let scene = Scene::new(KNOWN);
    let (status, _, body) = scene.post(b"paid".to_vec()).await;
    assert_eq!((status, scene.pending()), (StatusCode::ACCEPTED, 1));
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
        (KNOWN, batch, StatusCode::BAD_REQUEST, "more than 1000 events", false),
        (Known::NotYet, vec![], StatusCode::SERVICE_UNAVAILABLE, "not been read", true),
        (KNOWN, large, StatusCode::PAYLOAD_TOO_LARGE, "larger than the limit of 1048576 bytes", false),
    ] {
        let scene = Scene::new(known);
        let (got, headers, body) = scene.post(body).await;
        assert_eq!((got, scene.pending()), (status, 0), "{body}");
        assert!(body.contains(says), "{body}");
        assert_eq!(headers.contains_key(RETRY_AFTER), retry_after, "{body}");
    }
}

#[tokio::test]
async fn a_queue_that_takes_nothing_is_no_202() {
    let scene = Scene::new(KNOWN);
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
        let scene = Scene::new(Known::Yes { ordered });
        let event = Request::post(EVENTS).header("ce-specversion", "1.0").header("ce-id", "1");
        let event =
            event.header("ce-source", "s").header("ce-type", "t").header("ce-partitionkey", "order-7");
        scene.send(event.body(Body::empty()).unwrap()).await;
        scene.post(b"without".to_vec()).await;
        let page = scene.queue.claim(&webhook(), jiff::Timestamp::MAX, 2).await.unwrap();
        let keys: Vec<_> = page.claims.iter().map(|claim| claim.event.key.as_deref()).collect();
        assert_eq!(keys, [ordered.then_some("order-7"), None]);
    }
}

/// Gives up all that waits, for a reason each.
async fn give_up(scene: &Scene, reasons: &[&str]) {
    let page = scene.queue.claim(&webhook(), jiff::Timestamp::MAX, 64).await.unwrap();
    for (claim, reason) in page.claims.into_iter().zip(reasons) {
        let response = Some(crate::queue::Response { status: 422, body: b"no such order".into() });
        let cause = Cause { reason: (*reason).into(), message: "HTTP 422".into(), response };
        let settlement = Settlement::Dead { at: jiff::Timestamp::UNIX_EPOCH, cause };
        scene.queue.settle(&webhook(), vec![(claim.sequence, settlement)]).await.unwrap();
    }
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_removed() {
    let scene = Scene::new(KNOWN);
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
    let page = scene.queue.claim(&webhook(), jiff::Timestamp::MAX, 2).await.unwrap();
    assert_eq!(page.claims[0].event.id.to_string(), id, "the same id, in a new attempt");
    let (_, removed) = scene.json("DELETE", &format!("{LETTERS}?reason=TimedOut")).await;
    assert_eq!(removed, json!({ "count": 1 }));
    let (_, replayed) = scene.json("POST", &replay("before=1970-01-01T00:00:00Z".into())).await;
    assert_eq!(replayed, json!({ "count": 0 }));
    let (_, replayed) = scene.json("POST", &replay("before=2000-01-01T00:00:00Z".into())).await;
    assert_eq!(replayed, json!({ "count": 1 }));
    assert_eq!(scene.queue.counts(&webhook()).dead.events, 0);
}

#[tokio::test]
async fn a_filter_that_is_not_understood_changes_nothing() {
    let scene = Scene::new(KNOWN);
    scene.post(b"one".to_vec()).await;
    give_up(&scene, &["HTTPStatus"]).await;
    let many = vec![uuid::Uuid::nil().to_string(); limits::DEAD_IDS + 1].join(",");
    for query in
        ["ids=1", &format!("ids={many}"), "before=yesterday", "raeson=HTTPStatus", "limit=1", "after=0"]
    {
        let (status, said) = scene.json("DELETE", &format!("{LETTERS}?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {said}");
    }
    assert_eq!(scene.queue.counts(&webhook()).dead.events, 1);
    let (status, _) = Scene::new(Known::No).json("DELETE", LETTERS).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
