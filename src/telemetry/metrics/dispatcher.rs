//! What the dispatcher tells: events, attempts, and the state of each webhook's deliveries.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::Unit,
};

use super::{
    ApiRequests, Connections, CountersBy, Label, Labels, Page, QueueMetrics, Requests, family, gauge,
    registry,
};
use crate::{event::WebhookKey, limits};

/// What the dispatcher counts of all webhooks together.
#[derive(Clone, Debug)]
pub struct DispatcherMetrics {
    totals: Arc<Totals>,
    webhooks: Arc<Webhooks>,
}

/// What the parts of a dispatcher count.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Of senders.
    pub requests: Requests,
    /// The queue.
    pub queue: QueueMetrics,
    /// To endpoints.
    pub connections: Connections,
    /// To the API server.
    pub api_requests: ApiRequests,
}

/// What all workers count together.
#[derive(Debug)]
struct Totals {
    attempts: Family<Label, Histogram>,
    delivered_attempt: Histogram,
    failed_attempt: Histogram,
    end_to_end: Histogram,
    failed: CountersBy,
    dead: Counter,
    fallbacks: CountersBy,
}

impl Totals {
    fn new(layers: impl IntoIterator<Item = &'static str>) -> Self {
        let attempt = || Histogram::new(limits::METRICS_ATTEMPT_SECONDS);
        let attempts = Family::<Label, Histogram>::new_with_constructor(attempt);
        Self {
            delivered_attempt: attempts.get_or_create_owned(&[("outcome", "delivered")]),
            failed_attempt: attempts.get_or_create_owned(&[("outcome", "failed")]),
            attempts,
            end_to_end: Histogram::new(limits::METRICS_END_TO_END_SECONDS),
            failed: CountersBy::new("layer", layers),
            dead: Counter::default(),
            fallbacks: CountersBy::new("reason", []),
        }
    }
}

/// Whether the events of a webhook go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    Delivering,
    /// Nothing is sent, for a reason of ours.
    Held,
    /// The endpoint fails, and gets single trials, or has said that it is gone.
    Failing,
}

impl Flow {
    const ALL: [Self; 3] = [Self::Delivering, Self::Held, Self::Failing];
}

/// What is counted of the deliveries of one webhook.
#[derive(Clone, Debug)]
pub struct Deliveries {
    totals: Arc<Totals>,
    own: Arc<Own>,
}

/// The series of one webhook.
#[derive(Debug, Default)]
struct Own {
    delivered: Counter,
    /// The certificate was refused, and another one was taken.
    refused_and_replaced: Counter,
    /// The certificate was refused, and no other was taken.
    refused: Counter,
    /// One of [`Flow::ALL`], by its place.
    flow: AtomicU8,
    /// When the oldest pending event was taken, seconds; 0 for none.
    oldest: AtomicI64,
}

impl Default for Deliveries {
    /// Counts for nobody.
    fn default() -> Self {
        Self { totals: Arc::new(Totals::new([])), own: Arc::default() }
    }
}

impl Deliveries {
    /// An event was acknowledged, so long after it had been taken.
    pub(crate) fn delivered(&self, attempt: Duration, since_accepted: Duration) {
        self.own.delivered.inc();
        self.totals.delivered_attempt.observe(attempt.as_secs_f64());
        self.totals.end_to_end.observe(since_accepted.as_secs_f64());
    }

    /// An attempt failed in a layer.
    pub(crate) fn failed(&self, attempt: Duration, layer: &'static str) {
        self.totals.failed_attempt.observe(attempt.as_secs_f64());
        self.totals.failed.inc(layer);
    }

    /// Events were given up.
    pub(crate) fn gave_up(&self, events: u64) {
        self.totals.dead.inc_by(events);
    }

    /// The endpoint refused a certificate for a reason; `replaced`: it took another loaded one instead.
    pub(crate) fn refused(&self, replaced: bool, reason: &'static str) {
        if replaced {
            self.own.refused_and_replaced.inc();
            self.totals.fallbacks.inc(reason);
        } else {
            self.own.refused.inc();
        }
    }

    /// What the worker is at.
    pub(crate) fn is(&self, flow: Flow) {
        self.own.flow.store(flow as u8, Ordering::Relaxed);
    }
}

/// Where amounts stand that nobody counts a second time.
pub trait Amounts: Send + Sync + 'static {
    /// Events of a webhook that wait, and that were given up.
    fn amounts(&self, webhook: &WebhookKey) -> (i64, i64);
}

/// All webhooks; those beyond the bound are told of together.
struct Webhooks {
    known: Mutex<Known>,
    amounts: Box<dyn Amounts>,
}

#[derive(Debug, Default)]
struct Known {
    webhooks: BTreeMap<WebhookKey, Entry>,
    /// How many of them have series of their own.
    own: usize,
    /// What was counted of webhooks without series of their own that are gone: a sum never falls.
    gone: Counted,
}

#[derive(Clone, Debug)]
struct Entry {
    series: Arc<Own>,
    own: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    delivered: u64,
    refused_and_replaced: u64,
    refused: u64,
}

/// What is told of a webhook, or of several together.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    counted: Counted,
    flows: [i64; Flow::ALL.len()],
    pending: i64,
    dead: i64,
    oldest: Option<i64>,
}

impl Counted {
    fn of(series: &Own) -> Self {
        Self {
            delivered: series.delivered.get(),
            refused_and_replaced: series.refused_and_replaced.get(),
            refused: series.refused.get(),
        }
    }

    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.refused_and_replaced += other.refused_and_replaced;
        self.refused += other.refused;
    }
}

impl Told {
    fn of(series: &Own, (pending, dead): (i64, i64)) -> Self {
        let mut flows = [0; Flow::ALL.len()];
        flows[usize::from(series.flow.load(Ordering::Relaxed))] = 1;
        // As of the last look; what is gone since is not old.
        let oldest = series.oldest.load(Ordering::Relaxed);
        let oldest = Some(oldest).filter(|oldest| *oldest != 0 && pending > 0);
        Self { counted: Counted::of(series), flows, pending, dead, oldest }
    }

    fn add(&mut self, other: Self) {
        self.counted.add(other.counted);
        self.flows.iter_mut().zip(other.flows).for_each(|(sum, one)| *sum += one);
        self.pending += other.pending;
        self.dead += other.dead;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }
}

impl DispatcherMetrics {
    /// `layers` are those in which an attempt may fail.
    pub fn new(layers: impl IntoIterator<Item = &'static str>, amounts: impl Amounts) -> Self {
        let totals = Arc::new(Totals::new(layers));
        let webhooks = Webhooks { known: Mutex::default(), amounts: Box::new(amounts) };
        Self { totals, webhooks: Arc::new(webhooks) }
    }

    /// All of it, with what the parts count.
    pub fn page(&self, parts: &Parts) -> Page {
        let mut registry = registry("dispatcher");
        parts.requests.register(&mut registry);
        let totals = &self.totals;
        let failed = "Attempts that failed, by the layer in which they did";
        registry.register("attempts_failed", failed, totals.failed.family.clone());
        registry.register("events_dead", "Events that were given up", totals.dead.clone());
        let fallbacks = "Attempts that another loaded certificate made good, by the reason of the refusal";
        registry.register("certificate_fallbacks", fallbacks, totals.fallbacks.family.clone());
        let attempt = "Time of an attempt, with all certificates that were tried in it, by its outcome";
        registry.register_with_unit("attempt_duration", attempt, Unit::Seconds, totals.attempts.clone());
        let end_to_end = "Time from the acceptance of an event to its acknowledgement by the endpoint";
        registry.register_with_unit("event_delivery", end_to_end, Unit::Seconds, totals.end_to_end.clone());
        registry.register_collector(Box::new(Arc::clone(&self.webhooks)));
        parts.queue.register(&mut registry);
        parts.connections.register(&mut registry);
        parts.api_requests.register(&mut registry);
        Page::new(registry)
    }

    /// What counts the deliveries of a webhook, which appears.
    pub fn deliveries(&self, webhook: &WebhookKey) -> Deliveries {
        let mut known = self.webhooks.known();
        let Known { webhooks, own, .. } = &mut *known;
        let entry = webhooks.entry(webhook.clone()).or_insert_with(|| {
            let has_own = *own < limits::METRICS_WEBHOOKS;
            *own += usize::from(has_own);
            Entry { series: Arc::default(), own: has_own }
        });
        Deliveries { totals: Arc::clone(&self.totals), own: Arc::clone(&entry.series) }
    }

    /// A webhook is gone, and its series with it.
    pub fn forget(&self, webhook: &WebhookKey) {
        let mut known = self.webhooks.known();
        let Some(entry) = known.webhooks.remove(webhook) else { return };
        if entry.own {
            known.own -= 1;
        } else {
            known.gone.add(Counted::of(&entry.series));
        }
    }

    /// All that there are.
    pub fn webhooks(&self) -> Vec<WebhookKey> {
        self.webhooks.known().webhooks.keys().cloned().collect()
    }

    /// Since when the oldest pending event of a webhook has been waiting, seconds.
    pub fn oldest(&self, webhook: &WebhookKey, since: Option<i64>) {
        if let Some(entry) = self.webhooks.known().webhooks.get(webhook) {
            entry.series.oldest.store(since.unwrap_or_default(), Ordering::Relaxed);
        }
    }
}

impl Webhooks {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each with series of its own, then the others together, and how many these are.
    fn told(&self) -> (Vec<(Labels, Told)>, i64) {
        let (webhooks, gone) = {
            let known = self.known();
            (known.webhooks.clone(), known.gone)
        };
        let (mut told, mut others, mut count) = (Vec::new(), Told { counted: gone, ..Told::default() }, 0);
        for (webhook, Entry { series, own }) in webhooks {
            let one = Told::of(&series, self.amounts.amounts(&webhook));
            if own {
                told.push((Labels::of(webhook), one));
            } else {
                others.add(one);
                count += 1;
            }
        }
        let Counted { delivered, refused_and_replaced, refused } = others.counted;
        if count > 0 || delivered + refused_and_replaced + refused > 0 {
            told.push((Labels::other(), others));
        }
        (told, count)
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Collector for Webhooks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let (webhooks, others) = self.told();
        let help = "Webhooks beyond the bound, which are told of together as _other.";
        gauge(encoder, "webhooks_without_series", help, None, others)?;

        let delivered =
            webhooks.iter().map(|(labels, told)| (labels.clone(), ConstCounter::new(told.counted.delivered)));
        family(encoder, "events_delivered", "Events that the endpoint acknowledged.", None, delivered)?;
        let help = "Deliveries that the endpoint refused because of the client certificate, and whether another \
                    loaded certificate was taken instead.";
        let refusals = webhooks.iter().flat_map(|(labels, told)| {
            let Counted { refused_and_replaced, refused, .. } = told.counted;
            [("true", refused_and_replaced), ("false", refused)]
                .map(|(taken, count)| ((labels.clone(), [("taken", taken)]), ConstCounter::new(count)))
        });
        family(encoder, "client_certificate_refusals", help, None, refusals)?;

        let mut gauges = |name: &str, help: &str, unit, value: fn(&Told) -> Option<i64>| {
            let values = webhooks
                .iter()
                .filter_map(|(labels, told)| Some((labels.clone(), ConstGauge::new(value(told)?))));
            family(encoder, name, help, unit, values)
        };
        gauges("events_pending", "Events that wait, those under way included.", None, |told| {
            Some(told.pending)
        })?;
        let help = "When the oldest event that waits was taken; not there where none waits.";
        gauges("events_oldest_pending_timestamp", help, Some(&Unit::Seconds), |told| told.oldest)?;
        gauges("dead_letters", "Events that were given up and are kept.", None, |told| Some(told.dead))?;
        let help =
            "Whether nothing is sent for a reason on this side: suspended, not ready, no valid certificate.";
        gauges("deliveries_held", help, None, |told| Some(told.flows[Flow::Held as usize]))?;
        let help = "Whether the endpoint fails and gets single trials, or has said that it is gone.";
        gauges("endpoint_failing", help, None, |told| Some(told.flows[Flow::Failing as usize]))
    }
}
