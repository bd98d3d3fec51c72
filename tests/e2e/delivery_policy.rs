//! How deliveries are paced, ordered, held and given up, and what is told of it.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use postrider::api::v1alpha1::{DeliveryStatus, OutboundWebhook};
use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    eventually, pki,
    receiver::{Answer, Received, Receiver, TO_RECEIVERS},
    scene::{Scene, active, condition, story},
};

tests![
    a_rate_is_kept,
    events_of_one_key_go_out_one_at_a_time,
    a_failing_key_keeps_its_order_and_holds_no_other,
    a_status_that_would_come_again_ends_an_event_and_a_replay_sends_it_again,
    an_endpoint_that_is_gone_holds_its_events_until_the_spec_changes,
    an_endpoint_that_fails_is_left_alone_but_for_trials_and_recovers_at_once,
    a_server_that_asks_for_time_gets_it,
    a_webhook_that_comes_back_gets_its_events,
    the_events_of_a_webhook_that_stays_away_are_dropped_and_told,
    the_status_tells_what_is_pending_delivered_and_dead_also_after_a_restart,
];

/// A tenant with a receiver, and a webhook `shop` that is Ready.
async fn scene(cluster: Arc<Cluster>, delivery: Value) -> (Scene, Receiver) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    apply(&scene, &receiver, delivery, json!({})).await;
    scene.ready("shop").await;
    (scene, receiver)
}

async fn apply(scene: &Scene, receiver: &Receiver, delivery: Value, more: Value) {
    let mut spec = json!({ "mtls": { "active": active("shop", "PKCS12") }, "delivery": delivery });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    scene.webhook("shop", &receiver.url(), spec).await;
}

fn fast() -> Value {
    json!({ "retry": { "initialSeconds": 1, "maxSeconds": 1 } })
}

fn bodies(requests: &[Received]) -> Vec<String> {
    requests.iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect()
}

/// Waits until the dispatcher says this of its deliveries.
async fn delivering(scene: &Scene, status: &str, reason: &str) -> OutboundWebhook {
    let what = format!("Delivering={status}, {reason}");
    eventually::object(&scene.webhooks(), "shop", &what, |webhook| {
        condition(webhook, "Delivering")
            .is_some_and(|condition| condition.status == status && condition.reason == reason)
    })
    .await
}

/// Reasons and notes of the Events about deliveries, once what was wrong is mended.
async fn told_of_deliveries(scene: &Scene) -> Vec<(String, String)> {
    let of_deliveries = ["OnHold", "EndpointFailing", "EndpointGone", "Mended"];
    let mut told = story(scene, "Mended").await;
    told.retain(|(reason, _)| of_deliveries.contains(&reason.as_str()));
    told
}

/// Waits until the status of its deliveries is as wanted.
async fn delivery(scene: &Scene, what: &str, wanted: impl Fn(&DeliveryStatus) -> bool) -> DeliveryStatus {
    let told = |webhook: &OutboundWebhook| webhook.status.as_ref().and_then(|status| status.delivery.clone());
    let webhook = eventually::object(&scene.webhooks(), "shop", what, |webhook| {
        told(webhook).is_some_and(|delivery| wanted(&delivery))
    })
    .await;
    told(&webhook).unwrap()
}

async fn a_rate_is_kept(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, json!({ "rateLimitPerSecond": 4 })).await;
    let dispatcher = scene.dispatcher().await;
    for n in 0..12 {
        dispatcher.post("shop", &n.to_string()).await;
    }
    let requests = receiver.wait_for(12).await;
    // Four at once, and the other eight a quarter of a second apart.
    let took = requests[11].at.duration_since(requests[0].at);
    assert!(took >= Duration::from_millis(1900), "{took:?}");
}

async fn events_of_one_key_go_out_one_at_a_time(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, json!({ "ordering": "ByKey" })).await;
    let dispatcher = scene.dispatcher().await;
    let hold = receiver.hold();
    for (key, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        dispatcher.poster().post_with_key("shop", key, body).await;
    }
    let under_way: HashSet<_> = bodies(&receiver.wait_for(2).await).into_iter().collect();
    assert_eq!(under_way, HashSet::from(["a1".to_owned(), "b1".to_owned()]));
    receiver.assert_no_more(2, Duration::from_millis(500)).await;
    drop(hold);
    assert_eq!(bodies(&receiver.wait_for(4).await)[2..], ["a2", "a3"]);
}

async fn a_failing_key_keeps_its_order_and_holds_no_other(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, json!({ "ordering": "ByKey", "retry": fast()["retry"] })).await;
    let dispatcher = scene.dispatcher().await;
    receiver.first([Answer::status(500), Answer::status(200), Answer::status(500)]);
    for (key, body) in [("a", "a1"), ("a", "a2")] {
        dispatcher.poster().post_with_key("shop", key, body).await;
    }
    receiver.wait_for(1).await;
    dispatcher.poster().post_with_key("shop", "b", "b1").await;
    let all = bodies(&receiver.wait_for(5).await);
    let of_a: Vec<_> = all.iter().filter(|body| body.starts_with('a')).collect();
    // Whichever got the second 500, a2 never goes before a1 is delivered.
    assert!(of_a.windows(2).all(|pair| pair[0] <= pair[1]), "{all:?}");
    assert!(all.contains(&"b1".to_owned()), "{all:?}");
    delivery(&scene, "all delivered", |told| told.pending == 0 && told.delivered == 3).await;
}

async fn a_status_that_would_come_again_ends_an_event_and_a_replay_sends_it_again(cluster: Arc<Cluster>) {
    let retry = json!({ "retry": { "nonRetryableStatusCodes": [422] } });
    let (scene, receiver) = scene(cluster, retry).await;
    receiver.first([Answer::status(422).body("no such order")]);
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    dispatcher.process.line_with("given up").await;
    let letters = eventually::polled("a dead letter", || async {
        let letters = dispatcher.poster().dead_letters("GET", "shop", "").await;
        if letters["items"][0].is_null() { Err(letters.to_string()) } else { Ok(letters) }
    })
    .await;
    let letter = &letters["items"][0];
    assert_eq!((letter["id"].as_str(), letter["reason"].as_str()), (Some(id.as_str()), Some("HTTPStatus")));
    assert_eq!(letter["response"], json!({ "status": 422, "body": "no such order" }));
    let replayed = dispatcher.poster().dead_letters("POST", "shop", &format!("/replay?ids={id}")).await;
    assert_eq!(replayed, json!({ "count": 1 }));
    let requests = receiver.wait_for(2).await;
    assert!(requests.iter().all(|request| request.header("webhook-id") == id));
}

async fn an_endpoint_that_is_gone_holds_its_events_until_the_spec_changes(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, fast()).await;
    receiver.always(Answer::status(410));
    let dispatcher = scene.dispatcher().await;
    let first = dispatcher.post("shop", "x").await;
    let webhook = delivering(&scene, "False", "EndpointGone").await;
    let message = &condition(&webhook, "Delivering").unwrap().message;
    assert!(message.contains("until the spec changes"), "{message}");
    let second = dispatcher.post("shop", "y").await;
    receiver.assert_no_more(1, Duration::from_millis(1500)).await;
    receiver.always(Answer::status(200));
    apply(&scene, &receiver, fast(), json!({ "endpoint": { "timeoutSeconds": 9 } })).await;
    let requests = receiver.wait_for(3).await;
    let ids: HashSet<_> = requests[1..].iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(ids, HashSet::from([first.as_str(), second.as_str()]));
    delivering(&scene, "True", "Delivering").await;
    let told = told_of_deliveries(&scene).await;
    assert!(told[0].1.contains("until the spec changes"), "{told:?}");
    assert_eq!(
        told.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>(),
        ["EndpointGone", "Mended"]
    );
}

async fn an_endpoint_that_fails_is_left_alone_but_for_trials_and_recovers_at_once(cluster: Arc<Cluster>) {
    // By itself each event would come back after minutes.
    let retry = json!({ "maxInFlight": 4, "retry": { "initialSeconds": 4, "maxSeconds": 3600 } });
    let (scene, receiver) = scene(cluster, retry).await;
    receiver.always(Answer::status(500));
    let dispatcher = scene.dispatcher().await;
    let mut sent = HashSet::new();
    for n in 0..40 {
        sent.insert(dispatcher.post("shop", &n.to_string()).await);
    }
    let webhook = delivering(&scene, "False", "EndpointFailing").await;
    let failure = webhook.status.unwrap().delivery.unwrap().last_failure.unwrap();
    assert_eq!((failure.layer.as_str(), failure.reason.as_str()), ("HTTP", "HTTPStatus"));
    let tried = receiver.requests().len();
    assert!((10..40).contains(&tried), "{tried} attempts, though the first ten told all");
    receiver.always(Answer::status(200));
    dispatcher.process.line_with("the endpoint works again").await;
    receiver
        .wait_until("all events", |requests| {
            let taken = requests.iter().skip(tried).map(|request| request.header("webhook-id").to_owned());
            let taken: HashSet<_> = taken.collect();
            sent.iter().all(|id| taken.contains(id))
        })
        .await;
    delivering(&scene, "True", "Delivering").await;
    let told = told_of_deliveries(&scene).await;
    assert!(told[0].1.ends_with("HTTP: HTTPStatus: HTTP 500 Internal Server Error"), "{told:?}");
    assert_eq!(told[1].1, "Delivering: events go out as they come");
    let reasons: Vec<_> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["EndpointFailing", "Mended"]);
}

async fn a_server_that_asks_for_time_gets_it(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, fast()).await;
    let dispatcher = scene.dispatcher().await;
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(4));
    receiver.first([Answer::status(503).header("retry-after", &date)]);
    dispatcher.post("shop", "x").await;
    let asked = receiver.wait_for(1).await[0].at;
    dispatcher.process.line_with("the endpoint fails").await;
    // Neither is another event sent before.
    dispatcher.post("shop", "y").await;
    let next = receiver.wait_for(3).await[1].at;
    // A date has whole seconds; by itself the event would be back within one.
    assert!(next.duration_since(asked) >= Duration::from_secs(2), "{:?}", next.duration_since(asked));
}

async fn a_webhook_that_comes_back_gets_its_events(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, fast()).await;
    apply(&scene, &receiver, fast(), json!({ "suspend": true })).await;
    scene.not_ready("shop", "Suspended").await;
    let dispatcher = scene.dispatcher().await;
    let id = dispatcher.post("shop", "x").await;
    scene.namespace.kubectl(["delete", "owh", "shop"]).await.succeeded();
    dispatcher.process.line_with("gone").await;
    apply(&scene, &receiver, fast(), json!({})).await;
    assert_eq!(receiver.wait_for(1).await[0].header("webhook-id"), id);
}

async fn the_events_of_a_webhook_that_stays_away_are_dropped_and_told(cluster: Arc<Cluster>) {
    let (scene, receiver) = scene(cluster, fast()).await;
    apply(&scene, &receiver, fast(), json!({ "suspend": true })).await;
    scene.not_ready("shop", "Suspended").await;
    let dispatcher = scene.dispatcher_with(&[TO_RECEIVERS[0], "--deleted-retention", "1s"]).await;
    dispatcher.post("shop", "x").await;
    scene.namespace.kubectl(["delete", "owh", "shop"]).await.succeeded();
    let line = dispatcher.process.line_with("are dropped").await;
    assert!(line.contains("\"pending\":1"), "{line}");
    apply(&scene, &receiver, fast(), json!({})).await;
    let id = dispatcher.post("shop", "after").await;
    let requests = receiver.wait_for(1).await;
    assert_eq!(requests[0].header("webhook-id"), id);
}

async fn the_status_tells_what_is_pending_delivered_and_dead_also_after_a_restart(cluster: Arc<Cluster>) {
    let retry = json!({ "retry": { "nonRetryableStatusCodes": [422] } });
    let (scene, receiver) = scene(cluster, retry.clone()).await;
    receiver.first([Answer::status(422)]);
    let dispatcher = scene.dispatcher().await;
    dispatcher.post("shop", "dead").await;
    receiver.wait_for(1).await;
    dispatcher.post("shop", "one").await;
    let told =
        delivery(&scene, "one delivered, one dead", |told| told.delivered == 1 && told.dead == 1).await;
    assert_eq!(told.pending, 0);
    let failure = told.last_failure.clone().unwrap();
    assert_eq!((failure.layer.as_str(), failure.message.as_str()), ("HTTP", "HTTP 422 Unprocessable Entity"));
    assert!(told.last_success.is_some());
    dispatcher.process.kill().await;

    let dispatcher = scene.dispatcher_again(&dispatcher).await;
    dispatcher.post("shop", "two").await;
    let again = delivery(&scene, "two delivered", |told| told.delivered == 2).await;
    assert_eq!((again.dead, again.last_failure), (1, told.last_failure));
    // What waits shows as well, and why.
    apply(&scene, &receiver, retry, json!({ "suspend": true })).await;
    scene.not_ready("shop", "Suspended").await;
    let webhook = delivering(&scene, "False", "OnHold").await;
    assert!(condition(&webhook, "Delivering").unwrap().message.contains("suspended"));
    dispatcher.post("shop", "three").await;
    delivery(&scene, "one pending", |told| told.pending == 1).await;
    let told = story(&scene, "Accepted").await;
    assert!(told.iter().all(|(reason, _)| reason != "OnHold"), "it was asked for: {told:?}");
}
