use std::sync::Mutex;

use axum::{body::Body, http::Request};
use jiff::Timestamp;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::{
    clock::SystemClock,
    event::Event,
    queue::{Page, Sequence, Settlement},
};

/// Keeps events in memory, or refuses them.
#[derive(Default)]
struct Scripted {
    taken: Mutex<Vec<Event>>,
    refuses_with: Option<QueueError>,
}

impl Queue for Scripted {
    async fn append(&self, events: Vec<Event>) -> Result<(), QueueError> {
        if let Some(error) = &self.refuses_with {
            return Err(error.clone());
        }
        self.taken.lock().unwrap().extend(events);
        Ok(())
    }
    async fn due(&self, _: &WebhookKey, _: Timestamp, _: Vec<Sequence>) -> Result<Page, QueueError> {
        Ok(Page::default())
    }
    async fn settle(&self, _: Sequence, _: Settlement) -> Result<(), QueueError> {
        Ok(())
    }
    fn appended(&self, _: &WebhookKey) -> Arc<Notify> {
        Arc::default()
    }
    async fn close(&self) {}
}

struct Only(Known);

impl Webhooks for Only {
    fn knows(&self, _: &WebhookKey) -> Known {
        self.0
    }
    fn is_ready(&self) -> bool {
        self.0 != Known::NotYet
    }
}

async fn post_to(
    known: Known,
    refuses_with: Option<QueueError>,
    body: Vec<u8>,
) -> (StatusCode, HeaderMap, String, usize) {
    let queue = Arc::new(Scripted { refuses_with, ..Scripted::default() });
    let ingest = Ingest { queue: Arc::clone(&queue), webhooks: Arc::new(Only(known)), clock: SystemClock };
    let content_type =
        if body.starts_with(b"[") { "application/cloudevents-batch+json" } else { "text/plain" };
    let request = Request::post("/v1/namespaces/shop/outboundwebhooks/partner/events")
        .header("content-type", content_type)
        .body(Body::from(body))
        .unwrap();
    let response = router(Arc::new(ingest)).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    let taken = queue.taken.lock().unwrap().len();
    (status, headers, String::from_utf8(body.to_vec()).unwrap(), taken)
}

#[tokio::test]
async fn an_event_that_is_kept_is_answered_202_with_its_id() {
    let (status, _, body, taken) = post_to(Known::Yes, None, b"paid".to_vec()).await;
    assert_eq!((status, taken), (StatusCode::ACCEPTED, 1));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(body["ids"][0].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{body}");
}

#[tokio::test]
async fn what_is_not_kept_is_told() {
    let one = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let batch = format!("[{}]", vec![one; limits::BATCH_EVENTS + 1].join(",")).into_bytes();
    let large = vec![b'x'; limits::EVENT_BYTES + 1];
    let storage = QueueError::Storage(Arc::new(rusqlite::Error::InvalidQuery));
    for (known, refusal, body, status, says, retry_after) in [
        (Known::No, None, vec![], StatusCode::NOT_FOUND, "no OutboundWebhook shop/partner", false),
        (Known::Yes, None, batch, StatusCode::BAD_REQUEST, "more than 1000 events", false),
        (Known::NotYet, None, vec![], StatusCode::SERVICE_UNAVAILABLE, "not been read", true),
        (
            Known::Yes,
            None,
            large,
            StatusCode::PAYLOAD_TOO_LARGE,
            "larger than the limit of 1048576 bytes",
            false,
        ),
        (
            Known::Yes,
            Some(QueueError::Full),
            vec![],
            StatusCode::TOO_MANY_REQUESTS,
            "the queue is full",
            true,
        ),
        (Known::Yes, Some(QueueError::Closed), vec![], StatusCode::SERVICE_UNAVAILABLE, "closed", true),
        (Known::Yes, Some(storage), vec![], StatusCode::INTERNAL_SERVER_ERROR, "send it again", false),
    ] {
        let (got, headers, body, taken) = post_to(known, refusal, body).await;
        assert_eq!((got, taken), (status, 0), "{body}");
        assert!(body.contains(says), "{body}");
        assert_eq!(headers.contains_key(RETRY_AFTER), retry_after, "{body}");
    }
}
