use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicI64, atomic::Ordering},
};

use jiff::SignedDuration;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};

use super::*;
use crate::{
    deliver::{Client, Clients, RetryPolicy},
    event::Event,
    identity::{Identity, Trust, tests::identity_valid},
    queue::{Page, QueueError},
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

/// One event that stays due until it is settled; tells each settlement.
struct One {
    due: Mutex<Option<Due>>,
    settled: mpsc::UnboundedSender<Settlement>,
}

impl Queue for One {
    async fn append(&self, _: Vec<Event>) -> Result<(), QueueError> {
        Ok(())
    }
    async fn due(&self, _: &WebhookKey, _: Timestamp, except: Vec<Sequence>) -> Result<Page, QueueError> {
        let due = self.due.lock().unwrap().clone().filter(|due| !except.contains(&due.sequence));
        Ok(Page { due: due.into_iter().collect(), next_due_at: None })
    }
    async fn settle(&self, _: Sequence, settlement: Settlement) -> Result<(), QueueError> {
        *self.due.lock().unwrap() = None;
        let _ = self.settled.send(settlement);
        Ok(())
    }
    fn appended(&self, _: &WebhookKey) -> Arc<Notify> {
        Arc::default()
    }
    async fn close(&self) {}
}

/// A server that counts who dials it and answers nobody.
struct Scene {
    listener: TcpListener,
    clock: Hand,
    assignment: watch::Sender<Assignment>,
    settled: mpsc::UnboundedReceiver<Settlement>,
    stop: CancellationToken,
}

const VALID: (i64, i64) = (1_000, 2_000);

async fn scene(now: i64, failing_since: Option<i64>) -> Scene {
    let webhook = WebhookKey { namespace: "shop".into(), name: "partner".into() };
    let event = Event {
        id: uuid::Uuid::now_v7(),
        webhook: webhook.clone(),
        accepted_at: Timestamp::from_second(0).unwrap(),
        attributes: BTreeMap::new(),
        body: Vec::new(),
    };
    let failing_since = failing_since.map(|second| Timestamp::from_second(second).unwrap());
    let due = Mutex::new(Some(Due { sequence: 1, failures: 0, failing_since, event }));
    let (settled, settlements) = mpsc::unbounded_channel();
    let (assignment, receiver) = watch::channel(Assignment::Hold("starting"));
    let (clock, stop) = (Hand::at(now), CancellationToken::new());
    let queue = Arc::new(One { due, settled });
    tokio::spawn(
        Worker::new(webhook, queue, receiver, clock.clone(), stop.clone(), mpsc::channel(1).0).run(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Scene { listener, clock, assignment, settled: settlements, stop }
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
            retry: RetryPolicy {
                initial: Duration::from_secs(1),
                max: Duration::from_secs(1),
                max_age: Duration::from_mins(10),
            },
            authorizer: Arc::default(),
            clients: Arc::new(Clients::new(
                Arc::new(Client::new(identity.map(Arc::new).as_ref(), &trust).unwrap()),
                None,
                None,
            )),
        };
        self.assignment.send_replace(Assignment::Deliver(Arc::new(target)));
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
    scene.assignment.send_replace(Assignment::Hold("not ready"));
    assert!(!scene.is_dialled().await);
}

#[tokio::test]
async fn a_failure_is_due_again_and_its_time_begins_with_it() {
    // Accepted long ago, held ever since: it has all of its time.
    let mut scene = scene(1_000_000, None).await;
    scene.deliver(None);
    let Some(Settlement::Retry { at, due_at }) = scene.settled.recv().await else { panic!("not a retry") };
    let delay = due_at.duration_since(at);
    assert!(delay >= SignedDuration::from_millis(500) && delay <= SignedDuration::from_secs(1), "{delay:?}");
}

#[tokio::test]
async fn an_event_that_has_failed_for_too_long_is_given_up_with_its_reason() {
    let mut scene = scene(1_000, Some(400)).await;
    scene.deliver(None);
    let Some(Settlement::Dead { reason, .. }) = scene.settled.recv().await else { panic!("not given up") };
    assert!(reason.starts_with("TimedOut: "), "{reason}");
}
