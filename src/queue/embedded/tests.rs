use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    super::{Amount, Claim, Response},
    *,
};

pub(super) mod crash;
mod upgrade;

fn webhook(name: &str) -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: name.into() }
}

pub(super) fn event(webhook_name: &str, body: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        webhook: webhook(webhook_name),
        accepted_at: at(1_000),
        attributes: BTreeMap::from([("type".into(), "order.paid".into())]),
        body: body.to_owned().into(),
        key: None,
    }
}

/// One that its sender has given a name.
fn named(webhook_name: &str, id: &str) -> Event {
    let mut event = event(webhook_name, id);
    event.attributes.extend([("source".into(), "/shop".into()), ("id".into(), id.into())]);
    event
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn dead(reason: &str) -> Settlement {
    let response = Some(Response { status: 400, body: b"no such order".into() });
    Settlement::Dead {
        at: at(1),
        cause: Cause { reason: reason.into(), message: "HTTP 400".into(), response },
    }
}

/// Bodies of what is due, without keeping it.
async fn bodies(queue: &Embedded, name: &str, now: i64) -> Vec<String> {
    let page = queue.claim(&webhook(name), at(now), 100).await.unwrap();
    queue.release(&webhook(name), &page.claims.iter().map(|claim| claim.sequence).collect::<Vec<_>>());
    page.claims.into_iter().map(|claim| String::from_utf8(claim.event.body.to_vec()).unwrap()).collect()
}

/// Whether what is kept of the webhooks is what their events come to.
fn check(directory: &Path) {
    let connection = rusqlite::Connection::open(directory.join("queue.db")).unwrap();
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let differ: i64 = connection
        .query_row(
            "SELECT count(*) FROM webhook WHERE (pending_events, pending_bytes, dead_events, dead_bytes) <> (
                 SELECT count(*) FILTER (WHERE dead_ms IS NULL),
                        coalesce(sum(octet_length(attributes) + octet_length(body)) FILTER (WHERE dead_ms IS NULL), 0),
                        count(dead_ms),
                        coalesce(sum(octet_length(attributes) + octet_length(body)) FILTER (WHERE dead_ms IS NOT NULL), 0)
                 FROM event WHERE event.webhook = webhook.id)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(differ, 0, "the amounts of a webhook are not those of its events");
    let stuck: i64 = connection
        .query_row(
            "SELECT count(*) FROM event WHERE dead_ms IS NULL AND blocked <> (key IS NOT NULL AND EXISTS (
                 SELECT 1 FROM event AS earlier WHERE earlier.webhook = event.webhook AND earlier.key = event.key
                 AND earlier.dead_ms IS NULL AND earlier.sequence < event.sequence))",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(stuck, 0, "an event is blocked by none, or free though another is before it");
}

#[tokio::test]
async fn a_page_is_bounded_and_what_is_claimed_is_nobody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let many = (0..limits::CLAIM_EVENTS + 2).map(|i| event("a", &i.to_string())).collect();
    queue.append(many).await.unwrap();
    let page = queue.claim(&webhook("a"), at(1_000), usize::MAX).await.unwrap();
    assert_eq!((page.claims.len(), page.next_due_at), (limits::CLAIM_EVENTS, Some(at(1_000))));
    let page = queue.claim(&webhook("a"), at(1_000), usize::MAX).await.unwrap();
    assert_eq!((page.claims.len(), page.next_due_at), (2, None));
    let large = "x".repeat(limits::CLAIM_BYTES + 1);
    queue.append(vec![event("b", &large), event("b", "y")]).await.unwrap();
    let page = queue.claim(&webhook("b"), at(1_000), usize::MAX).await.unwrap();
    assert_eq!((page.claims.len(), page.next_due_at), (1, Some(at(1_000))));
}

#[tokio::test]
async fn who_looked_for_an_event_while_it_was_settled_is_told_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let told = queue.appended(&webhook("a"));
    queue.append(vec![event("a", "one")]).await.unwrap();
    told.notified().await;
    let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
    let retry = Settlement::Retry { since: at(1), due_at: at(1_000) };
    queue.settle(&webhook("a"), vec![(claim.sequence, retry)]).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), told.notified()).await.unwrap();
}

#[tokio::test]
async fn the_oldest_is_found_when_it_is_due_last() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let oldest = async || queue.oldest(&webhook("a")).await.unwrap();
    assert_eq!(oldest().await, None);
    queue.append(vec![event("a", "old")]).await.unwrap();
    let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
    let retry = Settlement::Retry { since: at(1), due_at: at(900_000) };
    queue.settle(&webhook("a"), vec![(claim.sequence, retry)]).await.unwrap();
    let young = Event { accepted_at: at(2_000), ..event("a", "young") };
    queue.append(vec![young]).await.unwrap();
    assert_eq!(oldest().await, Some(at(1_000)));
    let claim = queue.claim(&webhook("a"), at(900_000), 2).await.unwrap().claims.remove(1);
    queue.settle(&webhook("a"), vec![(claim.sequence, dead("HTTPStatus"))]).await.unwrap();
    assert_eq!(oldest().await, Some(at(2_000)), "a dead one does not wait");
}

#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    queue.append(vec![event("a", "one")]).await.unwrap();
    let (reply, answer) = oneshot::channel();
    drop(answer);
    let asked = Read::Claim(WantedClaim { webhook: webhook("a"), now: at(1_000), at_most: 1, reply });
    queue.reads.send(asked).await.unwrap();
    assert_eq!(bodies(&queue, "a", 1_000).await, ["one"]);
}

#[tokio::test]
async fn two_dispatchers_on_one_directory_the_second_is_refused() {
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
    assert!(matches!(queue.claim(&webhook("a"), at(1), 1).await, Err(QueueError::Closed)));
}

#[test]
fn a_file_that_is_damaged_or_something_else_is_refused_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    fs::write(&path, "no database".repeat(1000)).unwrap();
    let error = Embedded::open(directory.path()).unwrap_err();
    assert!(matches!(error, QueueError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), 11_000, "it is left as it was");
}

#[tokio::test]
async fn that_something_can_be_written_is_shown_by_writing_it() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let log = || fs::metadata(directory.path().join("queue.db-wal")).unwrap().len();
    let before = log();
    queue.writable().await.unwrap();
    let shown = log();
    assert!(shown > before, "nothing was written");
    queue.writable().await.unwrap();
    assert_eq!(log(), shown, "it was shown a moment ago");
    queue.books.wrote(false);
    queue.writable().await.unwrap();
    assert!(log() > shown, "what has failed has to be shown anew");
    // What writes nothing shows nothing.
    queue.books.wrote(false);
    queue.present(None, Vec::new(), at(0)).await.unwrap();
    assert!(!queue.books.has_written());
    queue.append(vec![event("a", "x")]).await.unwrap();
    assert!(queue.books.has_written());
    queue.close().await;
    queue.books.wrote(false);
    assert!(matches!(queue.writable().await, Err(QueueError::Closed)));
}

#[tokio::test]
async fn a_full_file_refuses_the_event_and_still_settles_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room { file_bytes: 40 * 4096, ..Room::default() };
    let queue = Embedded::open_with(directory.path(), room).unwrap();
    queue.append(vec![event("a", "one"), event("a", "two")]).await.unwrap();
    let large = "x".repeat(limits::EVENT_BYTES);
    assert!(matches!(queue.append(vec![event("a", &large)]).await, Err(QueueError::Full)));
    let claims = queue.claim(&webhook("a"), at(1_000), 10).await.unwrap().claims;
    queue.settle(&webhook("a"), vec![(claims[0].sequence, dead("HTTPStatus"))]).await.unwrap();
    let retry = Settlement::Retry { since: at(1), due_at: at(2) };
    queue.settle(&webhook("a"), vec![(claims[1].sequence, retry)]).await.unwrap();
    queue.append(vec![event("a", "after")]).await.unwrap();
    assert_eq!(bodies(&queue, "a", 1_000).await, ["two", "after"]);
}

#[tokio::test]
async fn a_webhook_has_its_bound_and_leaves_room_for_the_others() {
    for pending in [Amount { events: 2, bytes: 1_000 }, Amount { events: 100, bytes: 60 }] {
        let directory = tempfile::tempdir().unwrap();
        let queue = Embedded::open_with(directory.path(), Room { pending, ..Room::default() }).unwrap();
        queue.append(vec![event("a", "one"), event("a", "two")]).await.unwrap();
        assert!(matches!(queue.append(vec![event("a", "three")]).await, Err(QueueError::Full)));
        // Neither is a batch taken in part.
        let batch = (0..3).map(|_| event("b", "x")).collect();
        assert!(matches!(queue.append(batch).await, Err(QueueError::Full)));
        queue.append(vec![event("b", "x")]).await.unwrap();
        let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
        queue.settle(&webhook("a"), vec![(claim.sequence, Settlement::Delivered)]).await.unwrap();
        queue.append(vec![event("a", "three")]).await.unwrap();
        assert_eq!(bodies(&queue, "a", 1_000).await, ["two", "three"]);
    }
}

#[tokio::test]
async fn all_webhooks_together_have_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room { pending_in_all: Amount { events: 2, bytes: 1_000 }, ..Room::default() };
    let queue = Embedded::open_with(directory.path(), room).unwrap();
    queue.append(vec![event("a", "one"), event("b", "two")]).await.unwrap();
    assert!(matches!(queue.append(vec![event("c", "three")]).await, Err(QueueError::Full)));
    let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
    queue.settle(&webhook("a"), vec![(claim.sequence, dead("HTTPStatus"))]).await.unwrap();
    queue.append(vec![event("c", "three")]).await.unwrap();
    // Neither is a dead letter replayed where there is no room.
    queue.close().await;
    let room = Room { pending: Amount { events: 0, bytes: 0 }, ..Room::default() };
    drop(queue);
    let queue = Embedded::open_with(directory.path(), room).unwrap();
    assert_eq!(queue.replay(&webhook("a"), Filter::default(), at(1)).await.unwrap(), 0);
    assert_eq!(queue.counts(&webhook("a")).dead.events, 1);
}

#[tokio::test]
async fn the_oldest_of_the_dead_makes_room_and_a_settlement_happens_once() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room { dead: Amount { events: 2, bytes: 1_000 }, ..Room::default() };
    let queue = Embedded::open_with(directory.path(), room).unwrap();
    queue.append(["one", "two", "three"].map(|body| event("a", body)).into()).await.unwrap();
    for claim in queue.claim(&webhook("a"), at(1_000), 10).await.unwrap().claims {
        for settlement in [dead("HTTPStatus"), dead("HTTPStatus"), Settlement::Delivered] {
            queue.settle(&webhook("a"), vec![(claim.sequence, settlement)]).await.unwrap();
        }
    }
    let left = queue.dead(&webhook("a"), Filter::default(), 0, 10).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|letter| letter.event.body).collect();
    assert_eq!(left, [b"two".to_vec(), b"three".to_vec()]);
    check(directory.path());
}

#[tokio::test]
async fn the_log_does_not_grow_for_as_long_as_commits_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let (body, mut most) = ("x".repeat(100_000), 0);
    // Ten times as much as calls for a checkpoint.
    for _ in 0..limits::WAL_PAGES * 10 / 250 {
        queue.append((0..10).map(|_| event("a", &body)).collect()).await.unwrap();
        let page = queue.claim(&webhook("a"), at(1_000), 10).await.unwrap();
        let delivered = |claim: Claim| (claim.sequence, Settlement::Delivered);
        queue.settle(&webhook("a"), page.claims.into_iter().map(delivered).collect()).await.unwrap();
        most = most.max(fs::metadata(directory.path().join("queue.db-wal")).unwrap().len());
    }
    let pages = i64::try_from(most / 4096).unwrap();
    assert!(pages < limits::WAL_PAGES * 4, "{pages} pages");
}

#[tokio::test]
async fn a_dead_letter_keeps_its_cause_and_the_last_response() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let sent = event("a", "one");
    queue.append(vec![sent.clone()]).await.unwrap();
    let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
    queue.settle(&webhook("a"), vec![(claim.sequence, dead("HTTPStatus"))]).await.unwrap();
    assert_eq!(bodies(&queue, "a", i64::from(i32::MAX)).await, Vec::<String>::new());
    let letter = queue.dead(&webhook("a"), Filter::default(), 0, 10).await.unwrap().remove(0);
    assert_eq!((&letter.event, letter.failures, letter.dead_at), (&sent, 1, at(1)));
    let Settlement::Dead { cause, .. } = dead("HTTPStatus") else { unreachable!() };
    assert_eq!(letter.cause, cause);
}

#[tokio::test]
async fn what_waits_for_a_deleted_webhook_goes_after_a_while_a_bounded_number_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let many = limits::EXPIRED_AT_ONCE + 1;
    let keyed = |_| Event { key: Some("order-7".into()), ..event("gone", "x") };
    queue.append((0..many).map(keyed).collect()).await.unwrap();
    queue.append(vec![event("here", "y")]).await.unwrap();
    queue.present(None, vec![webhook("here")], at(10)).await.unwrap();
    // It is the first time that counts, also after a restart.
    queue.present(None, vec![webhook("here")], at(20)).await.unwrap();
    queue.close().await;
    drop(queue);
    let queue = Embedded::open(directory.path()).unwrap();
    assert_eq!(queue.expire(at(10), at(0)).await.unwrap(), Expired::default());
    let first = queue.expire(at(11), at(0)).await.unwrap();
    // Should it come back now, what is left goes on.
    check(directory.path());
    let expired = [first, queue.expire(at(11), at(0)).await.unwrap()];
    let events = expired.map(|expired| expired.gone[0].1.pending.events);
    assert_eq!(events, [i64::try_from(limits::EXPIRED_AT_ONCE).unwrap(), 1]);
    assert_eq!(queue.counts(&webhook("gone")), Counts::default());
    assert_eq!(bodies(&queue, "here", 1_000).await, ["y"]);
    check(directory.path());
    // One that comes back under the name begins anew.
    queue.append(vec![event("gone", "z")]).await.unwrap();
    assert_eq!(bodies(&queue, "gone", 1_000).await, ["z"]);
}

#[tokio::test]
async fn what_was_taken_lately_is_taken_once_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    let (first, again, other) = (named("a", "1"), named("a", "1"), named("a", "2"));
    let in_one = queue.append(vec![first.clone(), again.clone(), other.clone()]).await.unwrap();
    assert_eq!(in_one, [first.id, first.id, other.id]);
    assert_eq!(queue.append(vec![again.clone()]).await.unwrap(), [first.id]);
    // Another webhook, and another sender, may use the same id.
    let mut elsewhere = named("a", "1");
    elsewhere.attributes.insert("source".into(), "/elsewhere".into());
    assert_eq!(queue.append(vec![elsewhere.clone(), named("b", "1")]).await.unwrap()[0], elsewhere.id);
    assert_eq!(queue.counts(&webhook("a")).pending.events, 3);
    queue.close().await;
    drop(queue);

    let queue = Embedded::open(directory.path()).unwrap();
    assert_eq!(queue.append(vec![again.clone()]).await.unwrap(), [first.id]);
    let later = 1_000 + i64::try_from(limits::SEEN.as_millis()).unwrap();
    let at_the_end = Event { accepted_at: at(later), ..again.clone() };
    assert_eq!(queue.append(vec![at_the_end]).await.unwrap(), [first.id]);
    let after = Event { accepted_at: at(later + 1), ..again.clone() };
    assert_eq!(queue.append(vec![after.clone()]).await.unwrap(), [after.id]);
    // What is too old is forgotten on the way.
    let connection = rusqlite::Connection::open(directory.path().join("queue.db")).unwrap();
    let kept = || connection.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = kept();
    for id in 10..16 {
        let event = Event { accepted_at: at(later + 1), ..named("a", &id.to_string()) };
        queue.append(vec![event]).await.unwrap();
    }
    assert!(kept() < before + 6 && kept() == 7, "{} of {before}", kept());
}

#[tokio::test]
async fn an_event_that_comes_again_needs_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room { pending: Amount { events: 1, bytes: i64::MAX }, ..Room::default() };
    let queue = Embedded::open_with(directory.path(), room).unwrap();
    let first = named("a", "1");
    queue.append(vec![first.clone()]).await.unwrap();
    assert!(matches!(queue.append(vec![named("a", "2")]).await, Err(QueueError::Full)));
    assert_eq!(queue.append(vec![named("a", "1")]).await.unwrap(), [first.id]);
    // Refused, it was not taken: it may come again when there is room.
    let page = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap();
    let delivered = (page.claims[0].sequence, Settlement::Delivered);
    queue.settle(&webhook("a"), vec![delivered]).await.unwrap();
    let second = named("a", "2");
    assert_eq!(queue.append(vec![second.clone()]).await.unwrap(), [second.id]);
}

#[tokio::test]
async fn what_is_taken_and_forgotten_in_one_commit_is_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    // The clock jumps within the commit: the first one is too old at its end.
    let later = at(2_000 + 2 * i64::try_from(limits::SEEN.as_millis()).unwrap());
    let (first, jumped) = (named("a", "1"), Event { accepted_at: later, ..named("a", "2") });
    queue.append(vec![first.clone(), jumped.clone()]).await.unwrap();
    let again = Event { accepted_at: later, ..named("a", "1") };
    assert_eq!(queue.append(vec![again.clone()]).await.unwrap(), [again.id]);
    let twice = Event { accepted_at: later, ..named("a", "1") };
    assert_eq!(queue.append(vec![twice]).await.unwrap(), [again.id]);
}
