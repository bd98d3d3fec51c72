//! Files of older schemas, kept as they were written. Each is opened with all that it holds.

use super::*;

/// The queue of a file that is kept here.
fn open(directory: &Path, file: &str) -> Embedded {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/embedded/tests");
    fs::copy(Path::new(tests).join(file), directory.join("queue.db")).unwrap();
    let queue = Embedded::open(directory).unwrap();
    check(directory);
    queue
}

/// Version 1: an event each that waits, that has failed once and that was given up, and one of another webhook.
#[tokio::test]
async fn version_1() {
    let directory = tempfile::tempdir().unwrap();
    let queue = open(directory.path(), "version-1.db");
    let page = queue.claim(&webhook("a"), at(i64::from(i32::MAX)), 10).await.unwrap();
    let found: Vec<_> =
        page.claims.iter().map(|claim| (&*claim.event.body, claim.failures, claim.failing_since)).collect();
    assert_eq!(found, [(&b"waits"[..], 0, None), (&b"failed"[..], 1, Some(at(2_000)))]);
    assert_eq!(page.claims[0].event.attributes["type"], "order.paid");
    let letter = queue.dead(&webhook("a"), Filter::default(), 0, 10).await.unwrap().remove(0);
    let cause = Cause { reason: "HTTPStatus".into(), message: "HTTP 400 Bad Request".into(), response: None };
    assert_eq!((&*letter.event.body, letter.cause), (&b"dead"[..], cause));
    assert_eq!(bodies(&queue, "b", 1_000).await, ["other"]);
    let counts = queue.counts(&webhook("a"));
    assert_eq!((counts.pending.events, counts.dead.events, counts.delivered), (2, 1, 0));
    assert_eq!(queue.replay(&webhook("a"), Filter::default(), at(1_000)).await.unwrap(), 1);
    check(directory.path());
}

/// Version 2: besides, two events with a key of one order, and a webhook that has gone.
#[tokio::test]
async fn version_2() {
    let directory = tempfile::tempdir().unwrap();
    let queue = open(directory.path(), "version-2.db");
    let counts = queue.counts(&webhook("a"));
    assert_eq!((counts.pending.events, counts.dead.events), (4, 1));
    let page = queue.claim(&webhook("a"), at(10_000), 10).await.unwrap();
    let found: Vec<_> = page.claims.iter().map(|claim| (&*claim.event.body, claim.failures)).collect();
    assert_eq!(found, [(&b"waits"[..], 0), (b"first", 0), (b"failed", 1)]);
    let delivered = (page.claims[1].sequence, Settlement::Delivered);
    queue.settle(&webhook("a"), vec![delivered]).await.unwrap();
    assert_eq!(bodies(&queue, "a", 10_000).await, ["second"]);
    // A new webhook has a number that none has had, whatever the file says of those that went.
    queue.append(vec![named("b", "1")]).await.unwrap();
    let expired = queue.expire(at(5_000), at(0)).await.unwrap();
    assert_eq!(expired.gone.len(), 1);
    queue.append(vec![named("c", "1")]).await.unwrap();
    assert_eq!((bodies(&queue, "b", 10_000).await.len(), bodies(&queue, "c", 10_000).await.len()), (1, 1));
    check(directory.path());
}
