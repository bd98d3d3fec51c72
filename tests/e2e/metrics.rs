//! What both programs tell Prometheus, after a real run.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{
    cluster::Cluster,
    directory, eventually,
    pki::{self, Certificate, Facts, Request},
    process::Process,
    receiver::{Answer, Receiver, free_port},
    scene::{Dispatcher, Scene, active, controller},
    secrets, servers,
    tool::Tool,
};

tests![both_programs_tell_what_has_happened, open_metrics_is_told_to_who_asks];

/// What a program told at one time.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
    /// Of the webhooks that a test is about.
    namespace: String,
}

impl Scrape {
    async fn new(process: &Process, scene: &Scene) -> Self {
        let url = format!("{}/metrics", process.health().await);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = http.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = response.text().await.unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self { samples: samples.collect(), text, namespace: scene.namespace.name().to_owned() }
    }

    /// By name and labels, as they are written.
    fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(&format!("postrider_{series}")).copied()
    }

    /// A series that has to be there.
    fn get(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    /// A series of a webhook; `more` are the labels that follow its name.
    fn find_of(&self, webhook: &str, name: &str, more: &str) -> Option<f64> {
        let namespace = &self.namespace;
        self.find(&format!("{name}{{namespace=\"{namespace}\",webhook=\"{webhook}\"{more}}}"))
    }

    fn get_of(&self, webhook: &str, name: &str, more: &str) -> f64 {
        self.find_of(webhook, name, more)
            .unwrap_or_else(|| panic!("no {name} of {webhook} in\n{}", self.text))
    }

    /// It is well formed, named as Prometheus wants it, and tells no secret.
    async fn check(&self) {
        let promtool = servers::debian("promtool", "prometheus").await;
        let checked = Tool::new(promtool).args(["check", "metrics"]).stdin(self.text.as_bytes()).run().await;
        assert!(checked.status.success(), "{}{}\n{}", checked.stdout, checked.stderr, self.text);
        assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("", ""));
        assert_eq!(secrets::findings(self.text.as_bytes()), Vec::<String>::new());
        // Looked through at the end again, with what is a secret by then.
        std::fs::write(directory::unique("metrics.log"), &self.text).unwrap();
        for never in ["http://", "https://", "CN="] {
            assert!(!self.text.contains(never), "{never} in\n{}", self.text);
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    f64::from(u32::try_from(at.as_second()).unwrap())
}

async fn both_programs_tell_what_has_happened(cluster: Arc<Cluster>) {
    let (scene, receiver, refusing) =
        (Scene::new(cluster).await, Receiver::start().await, Receiver::start().await);
    let before = Scrape::new(controller(), &scene).await;

    // One that delivers, one whose endpoint is away, one whose endpoint wants nothing of the kind.
    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", &receiver.url(), "PKCS12").await;
    scene.condition("shop", "Connected", "True", None).await;
    scene.webhook("away", &format!("https://127.0.0.1:{}/", free_port()), json!({})).await;
    refusing.always(Answer::status(422));
    let retry = json!({ "nonRetryableStatusCodes": [422] });
    let spec = json!({ "mtls": { "active": active("shop", "PKCS12") }, "delivery": { "retry": retry } });
    scene.webhook("dead", &refusing.url(), spec).await;
    for name in ["away", "dead"] {
        scene.ready(name).await;
    }
    let dispatcher = scene.dispatcher().await;
    for webhook in ["shop", "shop", "shop", "shop", "shop", "away", "dead"] {
        dispatcher.post(webhook, "{\"order\":1}").await;
    }
    let posted_at = Timestamp::now();
    assert_eq!(dispatcher.try_post("nobody", "x").await.unwrap().status(), 404);
    receiver.wait_for(5).await;
    let next = rotated(&scene, &receiver.url()).await;

    check_dispatcher(&dispatcher, &scene, posted_at).await;
    check_controller(&before, &scene, &next.facts).await;

    // The series of a webhook go with it.
    scene.webhooks().delete("shop", &DeleteParams::default()).await.unwrap();
    eventually::polled("the series of the webhook to go", || async {
        for process in [controller(), &dispatcher.process] {
            let scrape = Scrape::new(process, &scene).await;
            let series = format!("namespace=\"{}\",webhook=\"shop\"", scrape.namespace);
            if scrape.text.contains(&series) {
                return Err(scrape.text);
            }
        }
        Ok(())
    })
    .await;
}

/// Another certificate is the Active one.
async fn rotated(scene: &Scene, url: &str) -> Certificate {
    let next = pki::shared().await.client_authority.issue(&Request::client("/O=Example/CN=next")).await;
    scene.keystore("next", &next.pkcs12().await).await;
    let mtls = json!({ "active": active("shop", "PKCS12"), "new": active("next", "PKCS12") });
    scene.webhook("shop", url, json!({ "mtls": mtls })).await;
    eventually::object(&scene.webhooks(), "shop", "the next to be Active", |webhook| {
        let mtls = webhook.status.as_ref().and_then(|status| status.mtls.clone()).unwrap_or_default();
        mtls.active.is_some_and(|active| active.fingerprint_sha256 == next.facts.fingerprint_sha256)
    })
    .await;
    next
}

#[allow(clippy::float_cmp)] // Whole numbers, all of them.
async fn check_dispatcher(dispatcher: &Dispatcher, scene: &Scene, posted_at: Timestamp) {
    let oldest = "events_oldest_pending_timestamp_seconds";
    let scrape =
        eventually::polled("the dispatcher to have settled all, and looked at what is old", || async {
            let scrape = Scrape::new(&dispatcher.process, scene).await;
            let settled = scrape.get_of("shop", "events_pending", "") == 0.0
                && scrape.get_of("dead", "dead_letters", "") == 1.0
                && scrape.find_of("away", oldest, "").is_some()
                && scrape.get("attempts_failed_total{layer=\"Connect\"}") > 0.0;
            if settled { Ok(scrape) } else { Err(scrape.text) }
        })
        .await;
    scrape.check().await;
    let equal = [
        ("events_accepted_total", 7.0),
        ("ingest_requests_total{code=\"202\"}", 7.0),
        ("events_dead_total", 1.0),
        ("attempts_failed_total{layer=\"HTTP\"}", 1.0),
        ("attempt_duration_seconds_count{outcome=\"delivered\"}", 5.0),
        ("event_delivery_seconds_count", 5.0),
        ("event_delivery_seconds_bucket{le=\"+Inf\"}", 5.0),
    ];
    for (series, value) in equal {
        assert_eq!(scrape.get(series), value, "{series}");
    }
    let at_least = [
        ("ingest_requests_total{code=\"404\"}", 1.0),
        ("connections_opened_total", 2.0),
        ("tls_handshakes_total{outcome=\"completed\"}", 2.0),
        ("connections_failed_total", 1.0),
        ("queue_commit_duration_seconds_count", 7.0),
        ("kubernetes_requests_total{code=\"200\"}", 2.0),
        ("queue_file_bytes", 4096.0),
        ("queue_used_bytes", 4096.0),
        ("queue_capacity_bytes", 4096.0),
        ("queue_volume_size_bytes", 4096.0),
        ("queue_volume_available_bytes", 4096.0),
    ];
    for (series, value) in at_least {
        assert!(scrape.get(series) >= value, "{series}: {}", scrape.get(series));
    }
    assert_eq!(scrape.get_of("shop", "events_delivered_total", ""), 5.0);
    assert_eq!(scrape.get_of("shop", "client_certificate_refusals_total", ",taken=\"false\""), 0.0);
    assert_eq!(scrape.find_of("shop", oldest, ""), None);
    assert_eq!(scrape.get_of("away", "events_pending", ""), 1.0);
    let oldest = scrape.get_of("away", oldest, "");
    assert!((oldest - seconds(posted_at)).abs() <= 5.0, "{oldest} {posted_at}");
}

/// The controller is that of other tests, too: what it has counted is at least ours.
#[allow(clippy::float_cmp)] // Whole numbers, all of them.
async fn check_controller(before: &Scrape, scene: &Scene, next: &Facts) {
    let not_after = "certificate_not_after_timestamp_seconds";
    let scrape = eventually::polled("the controller to have told of the rotation", || async {
        let scrape = Scrape::new(controller(), scene).await;
        let told = scrape.find_of("shop", "certificate_not_after_timestamp_seconds", ",slot=\"active\"");
        if told == Some(seconds(next.not_after)) { Ok(scrape) } else { Err(scrape.text) }
    })
    .await;
    scrape.check().await;
    for (slot, facts) in [("active", next), ("previous", &pki::shared().await.client.facts)] {
        let slot = format!(",slot=\"{slot}\"");
        let not_before = "certificate_not_before_timestamp_seconds";
        assert_eq!(scrape.get_of("shop", not_after, &slot), seconds(facts.not_after));
        assert_eq!(scrape.get_of("shop", not_before, &slot), seconds(facts.not_before));
    }
    assert_eq!(scrape.find_of("shop", not_after, ",slot=\"new\""), None);
    assert_eq!(scrape.get_of("shop", "keystore_usable", ",slot=\"active\""), 1.0);
    assert_eq!(scrape.get_of("shop", "connection_test_succeeded", ",slot=\"active\""), 1.0);
    assert_eq!(scrape.get_of("shop", "webhook_ready", ""), 1.0);
    assert_eq!(scrape.get("controller_leader"), 1.0);
    assert!(scrape.find("reconcile_errors_total").is_some());
    // The first certificate has passed its test, and the second.
    let more = [
        ("promotions_total{because=\"TestPassed\"}", 1.0),
        ("connection_tests_total{outcome=\"passed\",reason=\"Succeeded\"}", 2.0),
        ("reconcile_duration_seconds_count", 3.0),
    ];
    for (series, by) in more {
        let before = before.find(series).unwrap_or_default();
        assert!(scrape.get(series) >= before + by, "{series}: {} after {before}", scrape.get(series));
    }
}

async fn open_metrics_is_told_to_who_asks(cluster: Arc<Cluster>) {
    let dispatcher = Scene::new(cluster).await.dispatcher().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.get(format!("{}/metrics", dispatcher.process.health().await));
    let response =
        request.header("accept", "application/openmetrics-text; version=1.0.0").send().await.unwrap();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.headers()["content-type"], content_type);
    let text = response.text().await.unwrap();
    assert!(
        text.ends_with("# EOF\n") && text.contains("# UNIT postrider_attempt_duration_seconds seconds\n")
    );
}
