//! Files of older schemas, kept as they were written. Each is opened with all that it holds.

use super::*;

/// Version 1: an event each that waits, that has failed once and that was given up, and one of another webhook.
#[tokio::test]
async fn version_1() {
    let directory = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/embedded/tests/version-1.db");
    fs::copy(file, directory.path().join("queue.db")).unwrap();
    let queue = Embedded::open(directory.path()).unwrap();
    check(directory.path());
    let page = queue.claim(&webhook("a"), at(i64::from(i32::MAX)), 10).await.unwrap();
    let found: Vec<_> = page
        .claims
        .iter()
        .map(|claim| (claim.event.body.as_slice(), claim.failures, claim.failing_since))
        .collect();
    assert_eq!(found, [(&b"waits"[..], 0, None), (&b"failed"[..], 1, Some(at(2_000)))]);
    assert_eq!(page.claims[0].event.attributes["type"], "order.paid");
    let letter = queue.dead(&webhook("a"), Filter::default(), 0, 10).await.unwrap().remove(0);
    let cause = Cause { reason: "HTTPStatus".into(), message: "HTTP 400 Bad Request".into(), response: None };
    assert_eq!((letter.event.body.as_slice(), letter.cause), (&b"dead"[..], cause));
    assert_eq!(bodies(&queue, "b", 1_000).await, ["other"]);
    let counts = queue.counts(&webhook("a"));
    assert_eq!((counts.pending.events, counts.dead.events, counts.delivered), (2, 1, 0));
    assert_eq!(queue.replay(&webhook("a"), Filter::default(), at(1_000)).await.unwrap(), 1);
    check(directory.path());
}
