//! What the controller tells: certificates, their tests, and how its own work goes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Unit,
};

use super::{ApiRequests, Connections, CountersBy, Label, Labels, Page, family, gauge, registry};
use crate::{event::WebhookKey, limits};

/// What the controller counts.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    leads: Gauge,
    reconciles: Histogram,
    failed: Counter,
    promotions: CountersBy,
    tests: Family<[(&'static str, String); 2], Counter>,
    webhooks: Arc<Webhooks>,
}

/// A certificate of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// `active`, `new` or `previous`.
    pub slot: &'static str,
    /// notBefore, seconds.
    pub not_before: i64,
    /// notAfter, seconds.
    pub not_after: i64,
}

/// What a webhook names as the keystore of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// `active` or `new`.
    pub slot: &'static str,
    /// Whether what is there now can be used.
    pub usable: bool,
}

/// The last connection test with what is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// `active` or `new`.
    pub slot: &'static str,
    /// Whether it passed.
    pub succeeded: bool,
}

/// What a reconcile has found of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether anything may be sent.
    pub ready: bool,
    /// One a slot at most.
    pub certificates: Vec<Certificate>,
    /// One for each that is named.
    pub keystores: Vec<Keystore>,
    /// Likewise.
    pub tests: Vec<Tested>,
}

/// Says whether a webhook is still there.
type Present = dyn Fn(&WebhookKey) -> bool + Send + Sync;

#[derive(Default)]
struct Webhooks(Mutex<Known>);

#[derive(Default)]
struct Known {
    observed: BTreeMap<WebhookKey, Observed>,
    present: Option<Box<Present>>,
}

/// Says that the controller works, for as long as this lives; then nothing more is told of webhooks, which another
/// one may look after.
#[derive(Debug)]
pub struct Term(ControllerMetrics);

impl Drop for Term {
    fn drop(&mut self) {
        self.0.leads.set(0);
        *self.0.webhooks.open() = Known::default();
    }
}

impl ControllerMetrics {
    /// `becauses` are the reasons for which a New is promoted.
    pub fn new(becauses: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            leads: Gauge::default(),
            reconciles: Histogram::new(limits::METRICS_RECONCILE_SECONDS),
            failed: Counter::default(),
            promotions: CountersBy::new("because", becauses),
            tests: Family::default(),
            webhooks: Arc::default(),
        }
    }

    /// All of it, with what the parts count.
    pub fn page(&self, connections: &Connections, api_requests: &ApiRequests) -> Page {
        let mut registry = registry("controller");
        let leads = "Whether this controller reconciles: it has the Lease, or needs none";
        registry.register("controller_leader", leads, self.leads.clone());
        let reconciles = "Time of a reconcile of a webhook";
        registry.register_with_unit("reconcile_duration", reconciles, Unit::Seconds, self.reconciles.clone());
        let failed = "Reconciles that failed, and are repeated";
        registry.register("reconcile_errors", failed, self.failed.clone());
        let promotions = "New certificates that became Active, by why they did";
        registry.register("promotions", promotions, self.promotions.family.clone());
        let tests = "Connection tests that ended, by outcome and reason";
        registry.register("connection_tests", tests, self.tests.clone());
        registry.register_collector(Box::new(Arc::clone(&self.webhooks)));
        connections.register(&mut registry);
        api_requests.register(&mut registry);
        Page::new(registry)
    }

    /// It works from now on.
    pub fn leads(&self) -> Term {
        self.leads.set(1);
        Term(self.clone())
    }

    /// A reconcile has ended.
    pub(crate) fn reconciled(&self, took: Duration, succeeded: bool) {
        self.reconciles.observe(took.as_secs_f64());
        if !succeeded {
            self.failed.inc();
        }
    }

    /// A New has become Active.
    pub(crate) fn promoted(&self, because: &'static str) {
        self.promotions.inc(because);
    }

    /// A connection test has ended; the reason is a documented constant.
    pub(crate) fn tested(&self, succeeded: bool, reason: &str) {
        let outcome = if succeeded { "passed" } else { "failed" };
        self.tests.get_or_create(&[("outcome", outcome.to_owned()), ("reason", reason.to_owned())]).inc();
    }

    /// What a webhook is like now.
    pub fn observed(&self, webhook: WebhookKey, observed: Observed) {
        self.webhooks.open().observed.insert(webhook, observed);
    }

    /// The series of a webhook go with it: this says whether it is there when somebody scrapes. Nobody else is sure to
    /// hear of its end, and a reconcile of it may be under way.
    pub fn present_by(&self, present: impl Fn(&WebhookKey) -> bool + Send + Sync + 'static) {
        self.webhooks.open().present = Some(Box::new(present));
    }
}

impl Observed {
    /// What cannot be used goes first, then what expires first.
    fn urgency(&self) -> (bool, i64) {
        let is_well = self.ready && self.keystores.iter().all(|keystore| keystore.usable);
        let ends = self.certificates.iter().filter(|certificate| certificate.slot == "active");
        (is_well, ends.map(|certificate| certificate.not_after).min().unwrap_or(i64::MAX))
    }
}

impl Webhooks {
    fn open(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn there(&self) -> BTreeMap<WebhookKey, Observed> {
        let mut known = self.open();
        let Known { observed, present } = &mut *known;
        if let Some(present) = present {
            observed.retain(|webhook, _| present(webhook));
        }
        observed.clone()
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhooks").field(&self.open().observed).finish()
    }
}

impl Collector for Webhooks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let all = self.there();
        let (ready, not_ready): (Vec<_>, Vec<_>) = all.values().partition(|observed| observed.ready);
        let counts = [("true", ready.len()), ("false", not_ready.len())];
        let counts = counts.map(|(ready, count)| ([("ready", ready)], ConstGauge::new(count)));
        family(encoder, "webhooks", "Webhooks, by whether anything may be sent.", None, counts)?;
        let mut webhooks: Vec<_> = all.into_iter().collect();
        by_urgency(&mut webhooks);
        let beyond = webhooks.len().saturating_sub(limits::METRICS_WEBHOOKS);
        webhooks.truncate(limits::METRICS_WEBHOOKS);
        let help = "Webhooks beyond the bound, of which nothing is told: those whose certificates last longest, in namespaces with many.";
        gauge(encoder, "webhooks_without_series", help, None, beyond)?;

        let told: Vec<_> = webhooks.into_iter().map(|(key, observed)| (Labels::of(key), observed)).collect();
        let help = "Whether anything may be sent: the condition Ready.";
        let ready = told
            .iter()
            .map(|(labels, observed)| (labels.clone(), ConstGauge::new(i64::from(observed.ready))));
        family(encoder, "webhook_ready", help, None, ready)?;
        let help =
            "notAfter of the certificate in a slot. Without an Active, that of what mtls.active names.";
        let not_after = of_slots(&told, |observed| &observed.certificates, |one| (one.slot, one.not_after));
        family(encoder, "certificate_not_after_timestamp", help, Some(&Unit::Seconds), not_after)?;
        let help = "notBefore of the certificate in a slot, likewise.";
        let not_before = of_slots(&told, |observed| &observed.certificates, |one| (one.slot, one.not_before));
        family(encoder, "certificate_not_before_timestamp", help, Some(&Unit::Seconds), not_before)?;
        let help = "Whether the keystore that mtls.active or mtls.new names can be used as it is now.";
        let usable = of_slots(&told, |observed| &observed.keystores, |one| (one.slot, one.usable.into()));
        family(encoder, "keystore_usable", help, None, usable)?;
        let help = "Whether the last connection test with what is in a slot passed.";
        let succeeded = of_slots(&told, |observed| &observed.tests, |one| (one.slot, one.succeeded.into()));
        family(encoder, "connection_test_succeeded", help, None, succeeded)
    }
}

/// A gauge for each of what is known of slots.
fn of_slots<T: 'static>(
    webhooks: &[(Labels, Observed)],
    all: fn(&Observed) -> &Vec<T>,
    value: fn(&T) -> (&'static str, i64),
) -> impl Iterator<Item = ((Labels, Label), ConstGauge<i64>)> {
    webhooks.iter().flat_map(move |(labels, observed)| {
        all(observed)
            .iter()
            .map(value)
            .map(|(slot, value)| ((labels.clone(), [("slot", slot)]), ConstGauge::new(value)))
    })
}

/// The most urgent of each namespace, then the second of each, and so on: nobody's many push out another's one.
fn by_urgency(webhooks: &mut [(WebhookKey, Observed)]) {
    webhooks.sort_by_key(|(_, observed)| observed.urgency());
    let mut of_namespace = HashMap::<String, usize>::new();
    webhooks.sort_by_cached_key(|(webhook, _)| {
        let before = of_namespace.entry(webhook.namespace.clone()).or_default();
        *before += 1;
        *before
    });
}
