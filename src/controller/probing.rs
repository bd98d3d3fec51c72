//! Connection tests beside the reconciles: one at a time for a webhook, a bounded number over all. A test that
//! ends makes its webhook be reconciled; what it found is an input there.
//!
//! A result counts for the inputs that it was made with: the endpoint, its trust, and the wish for a test. It
//! is kept in the status, so that a restart repeats none that has passed; one that has failed is repeated until it passes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use data_encoding::HEXLOWER;
use futures::{Stream, channel::mpsc};
use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::sync::Semaphore;
use url::Url;

use super::status::test_status;
use crate::{
    api::v1alpha1::{OutboundWebhook, TEST_ANNOTATION, TestRequest, TestStatus},
    backoff::backoff,
    clock::Clock,
    egress::Egress,
    event::WebhookKey,
    identity::{Identity, Slots, Trust},
    kubernetes::key,
    limits,
    probe::{Endpoint, Outcome, Request, probe},
    telemetry::{metrics::ControllerMetrics, traces::Span},
};

/// What a test depends on beside the certificate.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    url: Url,
    trust: Trust,
    request: Request,
    credentials_left_out: bool,
    timeout: Duration,
    /// Changes with any of them, and with the wish for a test.
    hash: [u8; 32],
}

impl Inputs {
    pub(super) fn new(webhook: &OutboundWebhook, url: &Url, trust: Trust) -> Self {
        let endpoint = &webhook.spec.endpoint;
        let request = match endpoint.test.as_ref().map(|test| test.request).unwrap_or_default() {
            TestRequest::None => Request::None,
            TestRequest::Head => Request::Head,
            TestRequest::Options => Request::Options,
        };
        let wish = webhook.annotations().get(TEST_ANNOTATION).map(String::as_str).unwrap_or_default();
        let mut digest = Digest::new(&SHA256);
        let settings = format!("{url}\n{request:?}\n{}\n{wish}\n", trust.system_roots);
        digest.update(settings.as_bytes());
        // By it a 403 is judged, and nothing else.
        let credentials_left_out = webhook.spec.asks_for_credentials();
        if credentials_left_out && request != Request::None {
            digest.update(b"credentials left out\n");
        }
        trust.certificates.iter().for_each(|certificate| digest.update(certificate));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.finish().as_ref());
        let (url, timeout) = (url.clone(), endpoint.timeout());
        Self { url, trust, request, credentials_left_out, timeout, hash }
    }

    /// With the chain that is presented: a server may refuse one and take another behind the same leaf.
    fn of(&self, identity: Option<&Identity>) -> String {
        let mut digest = Digest::new(&SHA256);
        digest.update(&self.hash);
        digest.update(identity.map(Identity::chain_fingerprint).unwrap_or_default().as_bytes());
        HEXLOWER.encode(&digest.finish().as_ref()[..8])
    }
}

/// A result, and how many before it have failed in a row.
#[derive(Clone, Debug)]
pub(super) struct Tested {
    pub(super) status: TestStatus,
    failures: u32,
    pub(super) ended_at: Timestamp,
    /// Not told as an event yet.
    news: bool,
}

#[derive(Default)]
struct OfWebhook {
    /// Another webhook of the same name knows nothing of this one's tests.
    uid: Option<String>,
    running: bool,
    results: HashMap<Option<String>, Tested>,
}

/// The tests of all webhooks.
pub(super) struct Tests<C> {
    places: Arc<Semaphore>,
    webhooks: Arc<Mutex<HashMap<WebhookKey, OfWebhook>>>,
    ended: mpsc::UnboundedSender<ObjectRef<OutboundWebhook>>,
    clock: C,
    egress: Egress,
    metrics: ControllerMetrics,
}

impl<C: Clock + Clone> Tests<C> {
    /// The stream names a webhook each time that tests of it have ended.
    pub(super) fn new(
        clock: C,
        egress: Egress,
        metrics: ControllerMetrics,
    ) -> (Self, impl Stream<Item = ObjectRef<OutboundWebhook>> + Send + 'static) {
        let (ended, stream) = mpsc::unbounded();
        let places = Arc::new(Semaphore::new(limits::TESTS_AT_ONCE));
        (Self { places, webhooks: Arc::default(), ended, clock, egress, metrics }, stream)
    }

    /// The last result for a certificate with these inputs.
    pub(super) fn result(
        &self,
        webhook: &OutboundWebhook,
        identity: Option<&Identity>,
        inputs: &Inputs,
    ) -> Option<Tested> {
        let fingerprint = identity.map(|identity| identity.facts().fingerprint_sha256.clone());
        let kept = {
            let webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
            let of_webhook = key(webhook).and_then(|key| webhooks.get(&key));
            let of_webhook = of_webhook.filter(|of| of.uid == webhook.uid());
            of_webhook.and_then(|of| of.results.get(&fingerprint)).cloned()
        };
        let told = || {
            let tests = webhook.status.as_ref()?.test.as_ref()?;
            let told =
                tests.active.iter().chain(&tests.new).find(|test| test.fingerprint_sha256 == fingerprint)?;
            Some(Tested { status: told.clone(), failures: 1, ended_at: told.time.0, news: false })
        };
        kept.or_else(told).filter(|tested| tested.status.inputs == inputs.of(identity))
    }

    /// Starts the tests that are due, and returns when the next one is: of the Active and of a New that waits, each
    /// with its inputs until it passes.
    pub(super) fn start_due(
        &self,
        webhook: &OutboundWebhook,
        slots: &Slots,
        asks_for_mtls: bool,
        inputs: &Inputs,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let mut next = None;
        let mut due = Vec::new();
        let active = (slots.active.is_some() || !asks_for_mtls).then(|| slots.active.clone());
        for identity in active.into_iter().chain(slots.new.clone().map(Some)) {
            match self.result(webhook, identity.as_deref(), inputs) {
                Some(tested) if tested.status.succeeded => {}
                Some(tested) => {
                    let (first, longest) = limits::TEST_RETRY;
                    let at =
                        tested.ended_at.checked_add(backoff(first, longest, tested.failures)).unwrap_or(now);
                    if at <= now { due.push(identity) } else { next = next.into_iter().chain([at]).min() }
                }
                None => due.push(identity),
            }
        }
        if !due.is_empty() {
            self.start(webhook, due, inputs.clone());
        }
        next
    }

    fn start(&self, webhook: &OutboundWebhook, due: Vec<Option<Arc<Identity>>>, inputs: Inputs) {
        let Some(webhook_key) = key(webhook) else { return };
        {
            let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
            let of_webhook = webhooks.entry(webhook_key.clone()).or_default();
            if of_webhook.uid != webhook.uid() {
                *of_webhook = OfWebhook { uid: webhook.uid(), ..OfWebhook::default() };
            }
            // Those that run wake the webhook when they end; what is due then is started then.
            if std::mem::replace(&mut of_webhook.running, true) {
                return;
            }
        }
        let (places, webhooks, ended, clock) =
            (Arc::clone(&self.places), Arc::clone(&self.webhooks), self.ended.clone(), self.clock.clone());
        let (egress, metrics) = (self.egress.clone(), self.metrics.clone());
        let end = End {
            webhooks: Arc::clone(&webhooks),
            webhook: webhook_key.clone(),
            reference: ObjectRef::from_obj(webhook),
            ended,
        };
        tokio::spawn(async move {
            let _end = end;
            for identity in due {
                let Ok(_place) = places.acquire().await else { break };
                let endpoint = Endpoint {
                    url: &inputs.url,
                    trust: &inputs.trust,
                    request: inputs.request,
                    credentials_left_out: inputs.credentials_left_out,
                    timeout: inputs.timeout,
                    egress: &egress,
                };
                let presented = inputs.of(identity.as_deref());
                let mut span = Span::client("test connection", None, &webhook_key, &inputs.url);
                let outcome = probe(&endpoint, identity.as_deref()).await;
                tell(&mut span, &outcome);
                drop(span);
                let ended_at = clock.now();
                let fingerprint = identity.map(|identity| identity.facts().fingerprint_sha256.clone());
                let status = test_status(&outcome, fingerprint.clone(), &presented, ended_at);
                tracing::info!(webhook = %webhook_key, fingerprint, reason = status.reason, "tested the connection");
                metrics.tested(status.succeeded, &status.reason);
                let mut webhooks = webhooks.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(of_webhook) = webhooks.get_mut(&webhook_key) else { continue };
                let before = of_webhook.results.get(&fingerprint);
                let failures =
                    if status.succeeded { 0 } else { before.map_or(0, |before| before.failures) + 1 };
                let told = before.is_some_and(|before| !before.news && before.status.reason == status.reason);
                of_webhook.results.insert(fingerprint, Tested { status, failures, ended_at, news: !told });
            }
        });
    }

    /// Results that have not been told as events, each once.
    pub(super) fn news(&self, webhook: &OutboundWebhook) -> Vec<TestStatus> {
        let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_webhook) = key(webhook).and_then(|key| webhooks.get_mut(&key)) else { return Vec::new() };
        let fresh = of_webhook
            .results
            .values_mut()
            .filter_map(|tested| std::mem::take(&mut tested.news).then(|| tested.status.clone()));
        fresh.collect()
    }

    /// Results of certificates that are neither Active nor New any more are dropped: one that comes back is
    /// tested again.
    pub(super) fn keep_only(&self, webhook: &OutboundWebhook, slots: &Slots) {
        let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_webhook) = key(webhook).and_then(|key| webhooks.get_mut(&key)) {
            of_webhook.results.retain(|fingerprint, _| {
                let current = |identity: &Arc<Identity>| {
                    Some(&identity.facts().fingerprint_sha256) == fingerprint.as_ref()
                };
                fingerprint.is_none() || slots.active.iter().chain(&slots.new).any(current)
            });
        }
    }

    pub(super) fn forget(&self, webhook: &WebhookKey) {
        self.webhooks.lock().unwrap_or_else(PoisonError::into_inner).remove(webhook);
    }
}

/// How a test ended.
fn tell(span: &mut Span, outcome: &Outcome) {
    if let Some(status) = outcome.http_status {
        span.set("http.response.status_code", i64::from(status));
    }
    if !outcome.succeeded() {
        span.failed(outcome.reason.as_str(), &outcome.message);
    }
}

/// Marks the tests of a webhook as ended and wakes it, however they end.
struct End {
    webhooks: Arc<Mutex<HashMap<WebhookKey, OfWebhook>>>,
    webhook: WebhookKey,
    reference: ObjectRef<OutboundWebhook>,
    ended: mpsc::UnboundedSender<ObjectRef<OutboundWebhook>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_webhook) = webhooks.get_mut(&self.webhook) {
            of_webhook.running = false;
        }
        let _ = self.ended.unbounded_send(self.reference.clone());
    }
}
