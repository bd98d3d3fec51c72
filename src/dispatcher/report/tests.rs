use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::deliver::{Hold, LastFailure, Snapshot};

/// A webhook of the board, with what stands in its status.
struct Scene {
    entry: Entry,
}

impl Scene {
    fn new() -> Self {
        Self::of(false, &json!({}))
    }

    fn of(suspend: bool, status: &Value) -> Self {
        let webhook = serde_json::from_value(json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook", "metadata": { "name": "orders" },
            "spec": { "endpoint": { "url": "https://partner.example/hooks" }, "suspend": suspend },
            "status": status,
        }));
        Self { entry: Entry::new(&key(), &webhook.unwrap(), Deliveries::default()) }
    }

    /// As a dispatcher that starts again sees it; meanwhile the webhook and its `Ready` may have changed.
    fn restarted(&self, suspend: bool, ready: &str) -> Self {
        let Told { delivery, delivering, .. } = self.entry.told.as_ref().unwrap();
        let ready = json!({
            "type": "Ready", "status": ready, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        Self::of(suspend, &json!({ "delivery": delivery, "conditions": [ready, delivering] }))
    }

    /// The reason of what is told of this state and what the note says, once it stands in the status.
    fn at(&mut self, state: State, change: impl FnOnce(&mut Snapshot)) -> Option<(String, String)> {
        let mut snapshot = Snapshot { state, ..self.entry.activity.snapshot() };
        change(&mut snapshot);
        self.entry.activity = Arc::new(Activity::new(snapshot, Deliveries::default()));
        let news = self.entry.news(&key(), Counts::default(), Timestamp::UNIX_EPOCH)?;
        self.entry.note(news.told);
        news.event.map(|event| (event.reason, event.note.unwrap()))
    }

    fn reason(&mut self, state: State) -> Option<String> {
        self.at(state, |_| {}).map(|(reason, _)| reason)
    }

    fn condition(&self) -> &str {
        &self.entry.told.as_ref().unwrap().delivering.reason
    }
}

fn key() -> WebhookKey {
    WebhookKey { namespace: "shop".to_owned(), name: "orders".to_owned() }
}

const FAILING: State = State::Failing { since: Timestamp::UNIX_EPOCH };

fn failed(snapshot: &mut Snapshot) {
    snapshot.last_failure = Some(LastFailure {
        at: Timestamp::UNIX_EPOCH,
        layer: "HTTP".to_owned(),
        reason: "HTTPStatus".to_owned(),
        message: "HTTP 500 Internal Server Error".to_owned(),
    });
}

fn delivered(snapshot: &mut Snapshot) {
    snapshot.last_success = Some(Timestamp::from_second(1).unwrap());
}

#[tokio::test]
async fn an_endpoint_that_fails_is_told_once_and_once_that_it_is_mended() {
    let mut scene = Scene::new();
    assert_eq!(scene.reason(State::Delivering), None);
    let (reason, note) = scene.at(FAILING, failed).unwrap();
    assert_eq!(reason, "EndpointFailing");
    assert!(note.ends_with("until it works; HTTP: HTTPStatus: HTTP 500 Internal Server Error"), "{note}");
    assert_eq!(scene.at(FAILING, delivered), None);
    assert_eq!(scene.reason(State::Gone).unwrap(), "EndpointGone");
    let mended = scene.at(State::Delivering, |_| {}).unwrap();
    assert_eq!(mended, ("Mended".to_owned(), "Delivering: events go out as they come".to_owned()));
    assert_eq!(scene.reason(State::Delivering), None);
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_told_once_it_lasts() {
    let hold = State::Holding(Hold::NotThere);
    let mut scene = Scene::new();
    advance(Duration::from_mins(1)).await;
    scene.reason(State::Delivering);
    for _ in 0..2 {
        assert_eq!(scene.reason(hold.clone()), None);
        assert_eq!(scene.condition(), "Delivering");
        // It was for a moment.
        scene.reason(State::Delivering);
        advance(limits::HOLD_TOLD).await;
    }
    assert_eq!(scene.reason(hold.clone()), None);
    advance(limits::HOLD_TOLD).await;
    assert_eq!(scene.reason(hold.clone()).unwrap(), "OnHold");
    assert_eq!(scene.reason(hold), None);
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");
}

#[tokio::test]
async fn what_was_asked_for_and_what_the_controller_tells_is_no_news() {
    let mut scene = Scene::new();
    for why in [Hold::Suspended, Hold::NotReady] {
        assert_eq!(scene.reason(State::Holding(why)), None);
        assert_eq!(scene.condition(), "OnHold");
        assert_eq!(scene.reason(State::Delivering), None);
    }
    scene.reason(FAILING).unwrap();
    assert_eq!(scene.reason(State::Holding(Hold::Suspended)), None);
}

#[tokio::test]
async fn a_restart_mends_nothing() {
    let mut before = Scene::new();
    before.at(FAILING, failed).unwrap();
    let mut scene = before.restarted(false, "True");
    assert_eq!(scene.reason(State::Delivering), None);
    assert_eq!(scene.condition(), "EndpointFailing");
    assert_eq!(scene.at(State::Delivering, delivered).unwrap().0, "Mended");

    let mut scene = before.restarted(false, "True");
    assert_eq!(scene.at(FAILING, |_| {}), None);
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_told_once_also_over_a_restart() {
    let hold = State::Holding(Hold::NotThere);
    let mut before = Scene::new();
    advance(Duration::from_mins(1)).await;
    before.reason(hold.clone());
    advance(limits::HOLD_TOLD).await;
    assert_eq!(before.reason(hold.clone()).unwrap(), "OnHold");
    let mut scene = before.restarted(false, "True");
    scene.reason(hold.clone());
    advance(limits::HOLD_TOLD).await;
    assert_eq!(scene.reason(hold), None);
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");

    // What the status says is the same where the controller tells, or it was asked for.
    for (suspend, ready, why) in
        [(true, "False", Hold::Suspended), (true, "True", Hold::Suspended), (false, "False", Hold::NotReady)]
    {
        let mut before = Scene::new();
        before.reason(State::Holding(why));
        assert_eq!(before.condition(), "OnHold");
        assert_eq!(before.restarted(suspend, ready).reason(State::Delivering), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_again_and_again_is_told_once_in_a_while() {
    let mut scene = Scene::new();
    assert_eq!(scene.reason(FAILING).unwrap(), "EndpointFailing");
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");
    for _ in 0..3 {
        advance(limits::STATUS_WRITTEN).await;
        assert_eq!(scene.reason(FAILING), None);
        assert_eq!(scene.condition(), "EndpointFailing");
        assert_eq!(scene.reason(State::Delivering), None);
        assert_eq!(scene.condition(), "Delivering");
    }
    // What lasts is told in the end.
    assert_eq!(scene.reason(FAILING), None);
    advance(limits::FAILING_TOLD).await;
    assert_eq!(scene.reason(FAILING).unwrap(), "EndpointFailing");
    assert_eq!(scene.reason(FAILING), None);
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");
    // And what did not is not, nor does it hold anything else up.
    assert_eq!(scene.reason(FAILING), None);
    assert_eq!(scene.reason(State::Delivering), None);
    assert_eq!(scene.reason(State::Gone).unwrap(), "EndpointGone");
    assert_eq!(scene.reason(State::Delivering).unwrap(), "Mended");
    advance(limits::FAILING_TOLD).await;
    assert_eq!(scene.reason(State::Delivering), None);
}
