use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;

fn webhook(name: &str) -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: name.into() }
}

fn event(webhook_name: &str, body: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        webhook: webhook(webhook_name),
        accepted_at: Timestamp::from_millisecond(1_000).unwrap(),
        attributes: BTreeMap::from([("type".into(), "order.paid".into())]),
        body: body.into(),
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

async fn bodies(queue: &Embedded, name: &str, now: i64) -> Vec<String> {
    let page = queue.due(&webhook(name), at(now), vec![]).await.unwrap();
    page.due.into_iter().map(|due| String::from_utf8(due.event.body).unwrap()).collect()
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening_and_what_was_delivered_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let sent = vec![event("a", "one"), event("a", "two"), event("b", "three")];
    queue.append(sent.clone()).await.unwrap();
    let page = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap();
    assert_eq!(page.due.iter().map(|d| &d.event).collect::<Vec<_>>(), [&sent[0], &sent[1]]);
    queue.settle(page.due[0].sequence, Settlement::Delivered).await.unwrap();
    queue.close(Duration::from_secs(5)).await;
    drop(queue);

    let queue = Embedded::open(directory.path()).unwrap();
    assert_eq!(bodies(&queue, "a", 1_000).await, ["two"]);
    assert_eq!(bodies(&queue, "b", 1_000).await, ["three"]);
}

#[tokio::test]
async fn a_retry_is_due_at_its_time_and_the_page_says_when() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    queue.append(vec![event("a", "one")]).await.unwrap();
    let due = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due.remove(0);
    queue.settle(due.sequence, Settlement::Retry { due_at: at(5_000) }).await.unwrap();
    let page = queue.due(&webhook("a"), at(4_999), vec![]).await.unwrap();
    assert_eq!((page.due.len(), page.next_due_at), (0, Some(at(5_000))));
    let page = queue.due(&webhook("a"), at(5_000), vec![]).await.unwrap();
    assert_eq!((page.due[0].failures, page.next_due_at), (1, None));
}

#[tokio::test]
async fn a_dead_event_is_kept_and_not_due() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    queue.append(vec![event("a", "one")]).await.unwrap();
    let due = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due.remove(0);
    queue.settle(due.sequence, Settlement::Dead { reason: "HTTP 400".into() }).await.unwrap();
    assert_eq!(bodies(&queue, "a", i64::from(i32::MAX)).await, Vec::<String>::new());
    let connection = queue.reader.lock().unwrap();
    let dead: (String, Vec<u8>) =
        connection.query_row("SELECT reason, body FROM dead", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert_eq!(dead, ("HTTP 400".into(), b"one".to_vec()));
}

#[tokio::test]
async fn a_page_is_bounded_and_leaves_out_what_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let many = (0..limits::READ_AHEAD_EVENTS + 2).map(|i| event("a", &i.to_string())).collect();
    queue.append(many).await.unwrap();
    let page = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap();
    assert_eq!((page.due.len(), page.next_due_at), (limits::READ_AHEAD_EVENTS, Some(at(1_000))));
    let under_way = page.due.iter().map(|due| due.sequence).collect();
    let page = queue.due(&webhook("a"), at(1_000), under_way).await.unwrap();
    assert_eq!((page.due.len(), page.next_due_at), (2, None));
}

#[tokio::test]
async fn a_second_dispatcher_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _queue = Embedded::open(directory.path()).unwrap();
    let error = Embedded::open(directory.path()).unwrap_err();
    assert!(matches!(error, QueueError::InUse(_)), "{error}");
}

#[tokio::test]
async fn a_closed_queue_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    queue.close(Duration::from_secs(5)).await;
    assert!(matches!(queue.append(vec![event("a", "one")]).await, Err(QueueError::Closed)));
}

#[tokio::test]
async fn a_full_file_refuses_the_event_and_keeps_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let connection = schema::open_writer(&directory.path().join("queue.db")).unwrap();
    connection.pragma_update(None, "max_page_count", 40).unwrap();
    let writer = Writer::new(connection, Arc::default()).unwrap();
    let (requests, received) = mpsc::channel(8);
    let checkpointer = schema::open_beside(&directory.path().join("queue.db")).unwrap();
    let reader = schema::open_beside(&directory.path().join("queue.db")).unwrap();
    let queue = Embedded {
        requests,
        reader: Arc::new(Mutex::new(reader)),
        wakers: Arc::default(),
        threads: Mutex::new(writer.start(received, checkpointer)),
        _lock: File::create(directory.path().join("lock")).unwrap(),
    };
    queue.append(vec![event("a", "small")]).await.unwrap();
    let large = "x".repeat(limits::EVENT_BYTES);
    assert!(matches!(queue.append(vec![event("a", &large)]).await, Err(QueueError::Full)));
    queue.append(vec![event("a", "after")]).await.unwrap();
    assert_eq!(bodies(&queue, "a", 1_000).await, ["small", "after"]);
}
