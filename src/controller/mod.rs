//! The controller. A reconcile reads as its steps, a file each:
//!
//! [`fetch`] what the webhook names, its [`credentials`] too → [`load`] the keystores → [`rotation`] of the slots →
//! [`publish`] the identities Secret → tell the story in [`events`] → publish the certificates → start the
//! tests that are due ([`probing`]) → [`status`].
//!
//! Beside that it makes the [`serving`] certificate of the dispatcher's secure listener, where it is told to.

mod credentials;
mod events;
mod fetch;
mod lease;
mod load;
mod probing;
mod publish;
mod serving;
mod status;
mod watch;

use std::{
    borrow::Cow,
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{Client, ResourceExt as _, runtime::controller::Action};
use strum::VariantArray as _;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use lease::LEASE;

use events::{Names, Story};
use fetch::Fetched;
use load::Keystores;
use probing::{Inputs, Tested, Tests};

use crate::{
    api::v1alpha1::{self, OutboundWebhook, Reason},
    backoff::backoff,
    clock::{Clock, SystemClock},
    egress::{self, Egress},
    event::WebhookKey,
    identity::{Identity, Slots},
    kubernetes::{self, TlsSecret, key},
    limits,
    rotation::{
        self, Because, Found, Known, Promotion, Step,
        reminders::{self, Reminder},
    },
    server::{self, BindError},
    telemetry::{
        health::Health,
        metrics::{ApiRequests, ControllerMetrics},
        traces::{self, Span},
    },
};

/// The name under which the controller owns fields.
pub const FIELD_MANAGER: &str = "postrider-controller";

/// What the controller is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Serve the webhooks of this namespace only
    #[arg(long, env = "POSTRIDER_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Where mTLS may be asked for
    #[arg(long, env = "POSTRIDER_MTLS_AVAILABILITY", value_enum, ignore_case = true, default_value_t)]
    pub mtls_availability: Availability,
    /// Where /livez, /readyz and /metrics are
    #[arg(long, env = "POSTRIDER_METRICS_LISTEN", default_value = "127.0.0.1:8089", value_name = "ADDRESS")]
    pub metrics_listen: SocketAddr,
    /// What may be dialled
    #[command(flatten)]
    pub egress: egress::Options,
    /// Whether the serving certificate is made
    #[command(flatten)]
    pub serving: serving::Options,
    /// Where it is
    #[command(flatten)]
    pub tls: TlsSecret,
    /// Whether it works only while it leads
    #[command(flatten)]
    pub leader: lease::Options,
    /// Where spans go
    #[command(flatten)]
    pub traces: traces::Options,
}

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What may be dialled is not told in a way that can be used.
    #[error(transparent)]
    Egress(#[from] egress::OptionsError),
    /// The address is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// There is no client for the Lease.
    #[error("the Lease cannot be had: {0}")]
    Lease(kube::Error),
}

/// Where mTLS may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Availability {
    /// In namespaces that an administrator has labelled postrider.dev/mtls=enabled
    #[default]
    Labelled,
    /// In every namespace
    Always,
}

/// Something that a person must mend. It ends as a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// A documented constant, ours or the keystore's.
    reason: Cow<'static, str>,
    message: String,
}

impl Problem {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: reason.as_str().into(), message: message.into() }
    }
}

/// Something that time mends: the reconcile is repeated.
#[derive(Debug, strum::IntoStaticStr, thiserror::Error)]
enum Error {
    #[error("cannot {action} {object}: {source}")]
    Api { action: &'static str, object: String, source: kube::Error },
    #[error("the identities cannot be written: {0}")]
    Pem(#[from] crate::identity::PemError),
    #[error("the credentials cannot be written: {0}")]
    Credentials(#[from] crate::credentials::CredentialsError),
    #[error("opening the keystore ended abnormally")]
    Load,
    #[error("it took longer than {:?}", limits::RECONCILE)]
    TimedOut,
}

impl Error {
    /// What was done to which object: the API server's own words seldom name it.
    fn api<K: kube::Resource<DynamicType = ()>>(
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = format!("{} {name:?}", K::kind(&()));
        move |source| Self::Api { action, object, source }
    }
}

struct Context {
    client: Client,
    availability: Availability,
    clock: SystemClock,
    /// Opening a keystore costs CPU: so many at a time.
    loads: Arc<Semaphore>,
    tests: Tests<SystemClock>,
    story: Story,
    failures: Mutex<HashMap<WebhookKey, u32>>,
    metrics: ControllerMetrics,
}

/// Runs until `stop`, then lets reconciles under way finish. With leader election it works only while it leads.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), StartError> {
    let egress = Egress::new(&options.egress)?;
    let metrics = ControllerMetrics::new(Because::VARIANTS.iter().map(|because| because.as_str()));
    let api_requests = ApiRequests::default();
    let client = kubernetes::counted(client, &api_requests);
    let (told, address) = server::bind(options.metrics_listen).await?;
    let read = watch::Read::default();
    let watches = read.clone();
    let health = Health::default().check("watches", move || std::future::ready(watches.finding()));
    tracing::info!(%address, "tells of its health and its metrics");
    let mut telling = JoinSet::new();
    telling.spawn(health.serve(told, metrics.page(egress.connections(), &api_requests)));
    if !options.leader.leader_election {
        read.begun.set();
    }
    let work = || {
        let (client, options, egress) = (client.clone(), options.clone(), egress.clone());
        work(client, options, egress, read.clone(), metrics.clone(), stop.clone())
    };
    match options.tls.pod_namespace.as_deref().filter(|_| options.leader.leader_election) {
        Some(namespace) => Box::pin(lease::lead(namespace, &stop, work)).await.map_err(StartError::Lease)?,
        None => Box::pin(work()).await,
    }
    Ok(())
}

/// All that a controller does. Dropped, it writes nothing more.
async fn work(
    client: Client,
    options: Options,
    egress: Egress,
    read: watch::Read,
    metrics: ControllerMetrics,
    stop: CancellationToken,
) {
    read.begun.set();
    let _leads = metrics.leads();
    let Options { namespace, mtls_availability, serving, tls, .. } = options;
    let serving = serving::run(client.clone(), serving, tls, SystemClock, stop.clone());
    tracing::info!(namespace = namespace.as_deref().unwrap_or("all"), proxy = egress.proxy(), "reconciles");
    let reconciling =
        reconcile_all(client, namespace.as_deref(), mtls_availability, egress, &read, metrics, stop);
    tokio::join!(serving, reconciling);
}

async fn reconcile_all(
    client: Client,
    namespace: Option<&str>,
    availability: Availability,
    egress: Egress,
    read: &watch::Read,
    metrics: ControllerMetrics,
    stop: CancellationToken,
) {
    let (tests, tested) = Tests::new(SystemClock, egress, metrics.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        tests,
        story: Story::new(client.clone()),
        availability,
        clock: SystemClock,
        loads: Arc::new(Semaphore::new(limits::KEYSTORES_AT_ONCE)),
        failures: Mutex::default(),
        metrics,
    });
    let forgotten = Arc::clone(&context);
    watch::controller(&client, namespace, availability, read, &forgotten.metrics, tested)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |webhook, error, context| retry(&webhook, error, &context), context)
        .for_each(async |result| {
            // A failed reconcile has been logged where it failed.
            match result {
                Err(kube::runtime::controller::Error::QueueError(error)) => {
                    tracing::warn!(%error, "a watch failed; it is taken up again");
                }
                Err(kube::runtime::controller::Error::ObjectNotFound(gone)) => {
                    let (namespace, name) = (gone.namespace.unwrap_or_default(), gone.name);
                    forgotten.forget_all(&WebhookKey { namespace, name });
                }
                _ => {}
            }
        })
        .await;
}

/// One reconcile, with its bound: a request that hangs delays no other webhook for long.
async fn reconcile(webhook: Arc<OutboundWebhook>, context: Arc<Context>) -> Result<Action, Error> {
    let action = if webhook.metadata.deletion_timestamp.is_some() {
        Action::await_change()
    } else {
        let mut span = Span::internal("reconcile", &key(&*webhook).unwrap_or_default());
        let began = Instant::now();
        let bounded = timeout(limits::RECONCILE, steps(&webhook, &context));
        let result = bounded.await.map_err(|_| Error::TimedOut).flatten();
        context.metrics.reconciled(began.elapsed(), result.is_ok());
        result.inspect_err(|error| span.failed(<&str>::from(error), &error.to_string()))?
    };
    context.forget(&key(&*webhook).unwrap_or_default());
    Ok(action)
}

/// The driver.
async fn steps(webhook: &OutboundWebhook, context: &Context) -> Result<Action, Error> {
    let mut fetched = fetch::fetch(context, webhook).await?;
    let now = context.clock.now();
    let keystores = load::load_all(context, fetched.active.take(), fetched.new.take(), now).await?;
    load::trust_store(context, fetched.trust_store.take(), &mut fetched.trust, now).await?;
    let before = std::mem::take(&mut fetched.slots);
    let mut names = Names::default();
    names.add(&before);

    let inputs = testable(webhook, &fetched);
    let passed = passed(context, webhook, inputs.as_ref(), &keystores, &before);
    let known = known(webhook, &keystores, &passed);
    // Without an endpoint or whom to trust there nothing is sent, and nothing that is accepted would be kept.
    let settled = fetched.url.is_ok() && fetched.trust.is_ok();
    let (slots, steps) = if settled { rotation::next(before, &known, now) } else { (before, Vec::new()) };
    names.add(&slots);
    let due = reminders::due(fetched.reminded.as_ref(), &slots, &known, now);
    let reminded = due.as_ref().map(Reminder::told).or(fetched.reminded.take());

    let mut published = Ok(());
    if settled {
        published = publish::identities(context, webhook, &slots, reminded.as_ref(), &fetched).await?;
    }
    if published.is_ok() {
        for step in &steps {
            if let Step::Promoted { because, .. } = step {
                context.metrics.promoted(because.as_str());
            }
        }
    }
    if settled && published.is_ok() {
        // What has happened is kept: now it can be told.
        context.story.tell(webhook, &steps, &context.tests.news(webhook), &names).await;
        if let Some(reminder) = &due {
            context.story.remind(webhook, reminder, &names, now).await;
        }
        published = publish::certificates(context, webhook, &slots).await?;
    }
    let retest_at = inputs.as_ref().and_then(|inputs| {
        context.tests.keep_only(webhook, &slots);
        context.tests.start_due(webhook, &slots, webhook.spec.mtls.is_some(), inputs)
    });

    let tests = tests(context, webhook, inputs.as_ref(), &slots);
    let wakes_at = rotation::wakes_at(&slots, &known, now).into_iter().chain(retest_at).min();
    let observed = status::Observed {
        webhook,
        slots: &slots,
        keystores: &keystores,
        fetched: &fetched,
        published: &published,
        tests,
        now,
    };
    status::report(context, &observed).await?;
    Ok(wakes_at.map_or_else(Action::await_change, |at| Action::requeue(until(at, context.clock.now()))))
}

/// What a connection is tested with; `None` while there is nothing that it could be tested with.
fn testable(webhook: &OutboundWebhook, fetched: &Fetched) -> Option<Inputs> {
    let (Ok(url), Ok(()), Ok(trust)) = (&fetched.url, &fetched.gate, &fetched.trust) else { return None };
    Some(Inputs::new(webhook, url, trust.clone().unwrap_or_default()))
}

/// The certificates that have passed their test against the endpoint as it is.
fn passed(
    context: &Context,
    webhook: &OutboundWebhook,
    inputs: Option<&Inputs>,
    keystores: &Keystores,
    slots: &Slots,
) -> Vec<String> {
    let Some(inputs) = inputs else { return Vec::new() };
    let found = [&keystores.active.found, &keystores.new.found].into_iter().filter_map(|found| match found {
        Found::Usable(identity) => Some(identity),
        Found::NotAsked | Found::Unusable(_) => None,
    });
    let candidates = found.chain(&slots.new);
    let tested = candidates.filter_map(|identity| context.tests.result(webhook, Some(identity), inputs));
    tested
        .filter(|tested| counts(tested, context.clock.now()))
        .filter_map(|tested| tested.status.fingerprint_sha256)
        .collect()
}

/// An endpoint may have changed its mind since.
fn counts(tested: &Tested, now: Timestamp) -> bool {
    let until = tested.ended_at.checked_add(limits::TEST_COUNTS).unwrap_or(now);
    tested.status.succeeded && now < until
}

fn known<'a>(webhook: &'a OutboundWebhook, keystores: &'a Keystores, passed: &'a [String]) -> Known<'a> {
    let rotation = webhook.spec.mtls.as_ref().and_then(|mtls| mtls.rotation.as_ref());
    Known {
        active: &keystores.active.found,
        new: &keystores.new.found,
        promotion: match rotation.map(|rotation| rotation.promotion).unwrap_or_default() {
            v1alpha1::Promotion::Automatic => Promotion::Automatic,
            v1alpha1::Promotion::Manual => Promotion::Manual,
        },
        asked: webhook.annotations().get(v1alpha1::PROMOTE_ANNOTATION).map(String::as_str),
        names_waiting: names_waiting(webhook),
        passed,
    }
}

/// Where the New was read is in the status. Without a word there, it is not taken away.
fn names_waiting(webhook: &OutboundWebhook) -> bool {
    let told = webhook.status.as_ref().and_then(|status| status.mtls.as_ref()?.new.as_ref()?.source.as_ref());
    let named = webhook.spec.mtls.iter().flat_map(|mtls| std::iter::once(&mtls.active).chain(&mtls.new));
    let mut named = named.map(|certificate| &certificate.secret_ref.name);
    told.is_none_or(|source| named.any(|name| *name == source.secret))
}

fn tests(
    context: &Context,
    webhook: &OutboundWebhook,
    inputs: Option<&Inputs>,
    slots: &Slots,
) -> v1alpha1::TestsStatus {
    let result = |identity: Option<&Identity>| {
        inputs.and_then(|inputs| context.tests.result(webhook, identity, inputs)).map(|tested| tested.status)
    };
    let without = webhook.spec.mtls.is_none();
    v1alpha1::TestsStatus {
        active: if slots.active.is_some() || without { result(slots.active.as_deref()) } else { None },
        new: slots.new.as_deref().and_then(|new| result(Some(new))),
    }
}

/// The time that is left until the moment. Without one there is nothing to look for: what is watched tells of itself.
fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// After a failure: exponential backoff of this webhook, which delays no other.
fn retry(webhook: &OutboundWebhook, error: &Error, context: &Context) -> Action {
    let webhook = key(webhook).unwrap_or_default();
    let failures = context.failed(&webhook);
    let (first, longest) = limits::RECONCILE_RETRY;
    let delay = backoff(first, longest, failures);
    tracing::warn!(%webhook, %error, again_in = ?delay, "not reconciled");
    Action::requeue(delay)
}

impl Context {
    fn failed(&self, webhook: &WebhookKey) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(webhook.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// What is kept of a webhook that is gone.
    fn forget_all(&self, webhook: &WebhookKey) {
        self.forget(webhook);
        self.tests.forget(webhook);
    }

    fn forget(&self, webhook: &WebhookKey) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(webhook);
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    #[test]
    fn a_moment_is_awaited_exactly() {
        let now = Timestamp::from_second(1_000).unwrap();
        let after = |duration| now + SignedDuration::try_from(duration).unwrap();
        for time in [Duration::from_millis(1_234_567), Duration::from_hours(400 * 24)] {
            assert_eq!(until(after(time), now), time);
        }
        assert_eq!(until(now - SignedDuration::from_secs(1), now), Duration::ZERO);
    }
}
