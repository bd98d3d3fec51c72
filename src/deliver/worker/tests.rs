use std::{
    collections::BTreeMap,
    sync::{atomic::AtomicI64, atomic::Ordering},
};

use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::{
    deliver::{Activity, Client, Clients, Hold, RetryPolicy},
    egress::tests::loopback,
    event::Event,
    identity::{Identity, Trust, tests::identity_valid},
    queue::{Embedded, Filter},
};

/// A clock that is set by hand, seconds.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn at(second: i64) -> Self {
        Self(Arc::new(AtomicI64::new(second)))
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// A server that counts who dials it and answers nobody.
struct Scene {
    listener: TcpListener,
    clock: Hand,
    assignment: watch::Sender<Assignment>,
    queue: Arc<Embedded>,
    webhook: WebhookKey,
    activity: Arc<Activity>,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

const VALID: (i64, i64) = (1_000, 2_000);

async fn scene(now: i64, failing_since: Option<i64>) -> Scene {
    let webhook = WebhookKey { namespace: "shop".into(), name: "partner".into() };
    let event = Event {
        id: uuid::Uuid::now_v7(),
        webhook: webhook.clone(),
        accepted_at: second(0),
        attributes: BTreeMap::new(),
        body: bytes::Bytes::new(),
        key: None,
    };
    let directory = tempfile::tempdir().unwrap();
    let queue = Arc::new(Embedded::open(directory.path()).unwrap());
    queue.append(vec![event]).await.unwrap();
    if let Some(since) = failing_since {
        let claim = queue.claim(&webhook, second(0), 1).await.unwrap().claims.remove(0);
        let settlement = Settlement::Retry { since: second(since), due_at: second(0) };
        queue.settle(&webhook, vec![(claim.sequence, settlement)]).await.unwrap();
    }
    let (assignment, receiver) = watch::channel(Assignment::Hold(Hold::Starting));
    let (clock, stop, activity) = (Hand::at(now), CancellationToken::new(), Arc::<Activity>::default());
    let worker = Worker::new(
        webhook.clone(),
        Arc::clone(&queue),
        receiver,
        clock.clone(),
        stop.clone(),
        mpsc::channel(1).0,
        Arc::clone(&activity),
    );
    let worker = tokio::spawn(worker.run());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Scene { listener, clock, assignment, queue, webhook, activity, stop, worker, _directory: directory }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Scene {
    fn deliver(&self, identity: Option<Identity>) {
        let trust = Trust {
            certificates: identity_valid("CN=authority", 0, 9_999).chain().into(),
            system_roots: false,
        };
        let target = Target {
            url: format!("https://{}", self.listener.local_addr().unwrap()).parse().unwrap(),
            timeout: Duration::from_millis(200),
            max_in_flight: 4,
            rate: None,
            non_retryable: Vec::new(),
            generation: 1,
            retry: RetryPolicy {
                initial: Duration::from_secs(1),
                max: Duration::from_secs(1),
                max_age: Duration::from_mins(10),
            },
            authorizer: Arc::default(),
            clients: Arc::new(Clients::new(
                Arc::new(Client::new(identity.map(Arc::new).as_ref(), &trust, &loopback()).unwrap()),
                None,
                None,
            )),
        };
        self.assignment.send_replace(Assignment::Deliver(Arc::new(target)));
    }

    /// Waits for an attempt that fails, and for what becomes of the event.
    async fn ends(self) -> Embedded {
        while self.activity.snapshot().last_failure.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.cancel();
        self.worker.await.unwrap();
        Arc::into_inner(self.queue).unwrap()
    }

    async fn is_dialled(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.listener.accept()).await.is_ok()
    }
}

#[tokio::test]
async fn a_certificate_dials_only_while_it_is_valid() {
    for (now, dials) in [(VALID.0 - 5, false), (VALID.0, true), (VALID.1, true), (VALID.1 + 1, false)] {
        let scene = scene(now, None).await;
        scene.deliver(Some(identity_valid("CN=shop", VALID.0, VALID.1)));
        assert_eq!(scene.is_dialled().await, dials, "at {now}");
        scene.stop.cancel();
    }
}

#[tokio::test]
async fn a_valid_certificate_sends_what_waited_for_one() {
    let scene = scene(VALID.1 + 1, None).await;
    scene.deliver(Some(identity_valid("CN=shop", VALID.0, VALID.1)));
    assert!(!scene.is_dialled().await);
    scene.deliver(Some(identity_valid("CN=next", VALID.0, VALID.1 * 2)));
    assert!(scene.is_dialled().await);
}

#[tokio::test]
async fn a_certificate_that_becomes_valid_sends_by_itself() {
    let scene = scene(VALID.0 - 1, None).await;
    scene.deliver(Some(identity_valid("CN=shop", VALID.0, VALID.1)));
    scene.clock.0.store(VALID.0, Ordering::Relaxed);
    let dialled = tokio::time::timeout(Duration::from_secs(5), scene.listener.accept()).await;
    assert!(dialled.is_ok());
}

#[tokio::test]
async fn nothing_is_dialled_on_hold() {
    let scene = scene(1_500, None).await;
    scene.assignment.send_replace(Assignment::Hold(Hold::NotReady));
    assert!(!scene.is_dialled().await);
}

#[tokio::test]
async fn a_failure_is_due_again_and_its_time_begins_with_it() {
    // Accepted long ago, held ever since: it has all of its time.
    let scene = scene(1_000_000, None).await;
    scene.deliver(None);
    let webhook = scene.webhook.clone();
    let queue = scene.ends().await;
    let claim = queue.claim(&webhook, second(1_000_001), 1).await.unwrap().claims.remove(0);
    assert_eq!((claim.failures, claim.failing_since), (1, Some(second(1_000_000))));
}

#[tokio::test]
async fn an_event_that_has_failed_for_too_long_is_given_up_with_its_reason() {
    let scene = scene(1_000, Some(400)).await;
    scene.deliver(None);
    let webhook = scene.webhook.clone();
    let queue = scene.ends().await;
    let letter = queue.dead(&webhook, Filter::default(), 0, 1).await.unwrap().remove(0);
    assert_eq!((letter.cause.reason.as_str(), letter.failures), ("TimedOut", 2));
}

#[tokio::test]
async fn what_is_claimed_and_not_sent_is_given_back_at_the_end() {
    let scene = scene(1_500, None).await;
    // A webhook that fails all the time claims nothing, and one that ends keeps nothing.
    scene.deliver(Some(identity_valid("CN=shop", VALID.0, VALID.1)));
    assert!(scene.is_dialled().await);
    let webhook = scene.webhook.clone();
    let queue = scene.ends().await;
    let page = queue.claim(&webhook, second(9_000), 1).await.unwrap();
    assert_eq!(page.claims.len(), 1);
}
