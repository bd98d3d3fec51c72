use std::{collections::BTreeMap, path::Path};

use uuid::Uuid;

use super::{writer::Amount, *};

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
    queue.close().await;
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
    queue.settle(due.sequence, Settlement::Retry { at: at(2_000), due_at: at(5_000) }).await.unwrap();
    let page = queue.due(&webhook("a"), at(4_999), vec![]).await.unwrap();
    assert_eq!((page.due.len(), page.next_due_at), (0, Some(at(5_000))));
    let page = queue.due(&webhook("a"), at(5_000), vec![]).await.unwrap();
    assert_eq!((page.due[0].failures, page.next_due_at), (1, None));
    queue.settle(due.sequence, Settlement::Retry { at: at(5_500), due_at: at(6_000) }).await.unwrap();
    let page = queue.due(&webhook("a"), at(6_000), vec![]).await.unwrap();
    assert_eq!((page.due[0].failures, page.due[0].failing_since), (2, Some(at(2_000))));
}

#[tokio::test]
async fn a_dead_event_is_kept_and_not_due() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    queue.append(vec![event("a", "one")]).await.unwrap();
    let due = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due.remove(0);
    queue.settle(due.sequence, Settlement::Dead { at: at(1), reason: "HTTP 400".into() }).await.unwrap();
    assert_eq!(bodies(&queue, "a", i64::from(i32::MAX)).await, Vec::<String>::new());
    let connection = queue.reader.lock().unwrap();
    let dead: (String, Vec<u8>) = connection
        .query_row("SELECT dead_reason, body FROM event", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
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
    queue.close().await;
    assert!(matches!(queue.append(vec![event("a", "one")]).await, Err(QueueError::Closed)));
}

/// A queue with less room.
fn with_room(directory: &Path, room: Room) -> Embedded {
    let path = directory.join("queue.db");
    let writer = Writer::new(schema::open_writer(&path).unwrap(), Arc::default(), room).unwrap();
    let (requests, received) = mpsc::channel(8);
    Embedded {
        requests,
        reader: Arc::new(Mutex::new(schema::open_beside(&path).unwrap())),
        wakers: Arc::default(),
        threads: Mutex::new(writer.start(received, schema::open_beside(&path).unwrap())),
        _lock: File::create(directory.join("lock")).unwrap(),
    }
}

#[tokio::test]
async fn a_full_file_refuses_the_event_and_still_settles_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let queue = with_room(directory.path(), Room { file_bytes: 40 * 4096, ..Room::default() });
    queue.append(vec![event("a", "one"), event("a", "two")]).await.unwrap();
    let large = "x".repeat(limits::EVENT_BYTES);
    assert!(matches!(queue.append(vec![event("a", &large)]).await, Err(QueueError::Full)));
    let due = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due;
    queue.settle(due[0].sequence, Settlement::Dead { at: at(1), reason: "HTTP 400".into() }).await.unwrap();
    queue.settle(due[1].sequence, Settlement::Retry { at: at(1), due_at: at(2) }).await.unwrap();
    queue.append(vec![event("a", "after")]).await.unwrap();
    assert_eq!(bodies(&queue, "a", 1_000).await, ["two", "after"]);
}

#[tokio::test]
async fn a_webhook_has_its_bound_and_leaves_room_for_the_others() {
    for pending in [Amount { events: 2, bytes: 1_000 }, Amount { events: 100, bytes: 60 }] {
        let directory = tempfile::tempdir().unwrap();
        let queue = with_room(directory.path(), Room { pending, ..Room::default() });
        queue.append(vec![event("a", "one"), event("a", "two")]).await.unwrap();
        assert!(matches!(queue.append(vec![event("a", "three")]).await, Err(QueueError::Full)));
        // Neither is a batch taken in part.
        let batch = (0..3).map(|_| event("b", "x")).collect();
        assert!(matches!(queue.append(batch).await, Err(QueueError::Full)));
        queue.append(vec![event("b", "x")]).await.unwrap();
        let due = queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due.remove(0);
        queue.settle(due.sequence, Settlement::Delivered).await.unwrap();
        queue.append(vec![event("a", "three")]).await.unwrap();
        assert_eq!(bodies(&queue, "a", 1_000).await, ["two", "three"]);
    }
}

#[tokio::test]
async fn the_oldest_of_the_dead_makes_room_and_a_settlement_happens_once() {
    let directory = tempfile::tempdir().unwrap();
    let queue =
        with_room(directory.path(), Room { dead: Amount { events: 2, bytes: 1_000 }, ..Room::default() });
    queue.append(["one", "two", "three"].map(|body| event("a", body)).into()).await.unwrap();
    for due in queue.due(&webhook("a"), at(1_000), vec![]).await.unwrap().due {
        let dead = Settlement::Dead { at: at(1), reason: "HTTP 400".into() };
        for settlement in [dead.clone(), dead, Settlement::Delivered] {
            queue.settle(due.sequence, settlement).await.unwrap();
        }
    }
    let connection = queue.reader.lock().unwrap();
    let mut statement = connection.prepare("SELECT body FROM event ORDER BY sequence").unwrap();
    let left: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(left, [b"two".to_vec(), b"three".to_vec()]);
}
