//! The controller. A reconcile reads as its steps, a file each:
//!
//! [`fetch`] what the webhook names → [`load`] the keystore → [`rotation`] of the slots →
//! [`publish`] the identities Secret and the certificates → [`status`].

mod fetch;
mod load;
mod publish;
mod status;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use kube::{
    Client, ResourceExt as _,
    runtime::{controller::Action, reflector::ObjectRef},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::{OutboundWebhook, Reason},
    clock::{Clock, SystemClock},
    limits, rotation,
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
    reason: Reason,
    message: String,
}

impl Problem {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Something that time mends: the reconcile is repeated.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot {action}: {source}")]
    Api { action: &'static str, source: kube::Error },
    #[error("the identities cannot be written: {0}")]
    Pem(#[from] crate::identity::PemError),
    #[error("opening the keystore ended abnormally")]
    Load,
}

struct Context {
    client: Client,
    availability: Availability,
    clock: SystemClock,
    /// Opening a keystore costs CPU: so many at a time.
    loads: Arc<Semaphore>,
    failures: Mutex<HashMap<ObjectRef<OutboundWebhook>, u32>>,
}

/// Runs until `stop`, then lets reconciles under way finish.
pub async fn run(client: Client, options: Options, stop: CancellationToken) {
    let context = Arc::new(Context {
        client: client.clone(),
        availability: options.mtls_availability,
        clock: SystemClock,
        loads: Arc::new(Semaphore::new(limits::KEYSTORES_AT_ONCE)),
        failures: Mutex::default(),
    });
    tracing::info!(namespace = options.namespace.as_deref().unwrap_or("all"), "reconciles");
    watch::controller(&client, options.namespace.as_deref())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |webhook, error, context| retry(&webhook, error, &context), context)
        .for_each(async |result| {
            // A failed reconcile has been logged where it failed.
            if let Err(kube::runtime::controller::Error::QueueError(error)) = result {
                tracing::warn!(%error, "a watch failed; it is taken up again");
            }
        })
        .await;
}

/// The driver.
async fn reconcile(webhook: Arc<OutboundWebhook>, context: Arc<Context>) -> Result<Action, Error> {
    if webhook.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let fetched = fetch::fetch(&context, &webhook).await?;
    let now = context.clock.now();
    let loaded = load::load(&context, fetched.keystore, now).await?;
    let slots = rotation::next(fetched.slots, &loaded.found, now);
    let published =
        publish::publish(&context, &webhook, &slots, fetched.trust.as_ref(), fetched.identities).await?;
    let name = webhook.name_any();
    let observed = status::Observed {
        name: &name,
        slots: &slots,
        loaded: &loaded,
        trust: &fetched.trust,
        published: &published,
    };
    status::report(&context, &webhook, &observed, now).await?;

    context.succeeded(&webhook);
    Ok(Action::requeue(wait(rotation::wakes_at(&slots, &loaded.found, now), context.clock.now())))
}

/// Until the moment, and never longer than the net below the watches.
fn wait(moment: Option<jiff::Timestamp>, now: jiff::Timestamp) -> Duration {
    let until = moment.map(|moment| Duration::try_from(moment.duration_since(now)).unwrap_or_default());
    until.map_or(limits::LONGEST_REQUEUE, |until| until.min(limits::LONGEST_REQUEUE))
}

/// After a failure: exponential backoff of this webhook, which delays no other.
fn retry(webhook: &OutboundWebhook, error: &Error, context: &Context) -> Action {
    let failures = context.failed(webhook);
    let (first, longest) = limits::RECONCILE_RETRY;
    let delay = first.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(longest);
    tracing::warn!(webhook = %ObjectRef::from_obj(webhook), %error, again_in = ?delay, "not reconciled");
    Action::requeue(delay)
}

impl Context {
    fn failed(&self, webhook: &OutboundWebhook) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(ObjectRef::from_obj(webhook)).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn succeeded(&self, webhook: &OutboundWebhook) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&ObjectRef::from_obj(webhook));
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    #[test]
    fn a_moment_is_awaited_exactly_and_a_far_one_looked_at_again() {
        let now = Timestamp::from_second(1_000).unwrap();
        let after = |duration| now + SignedDuration::try_from(duration).unwrap();
        let soon = Duration::from_millis(1_234_567);
        assert_eq!(wait(Some(after(soon)), now), soon);
        assert_eq!(wait(Some(after(Duration::from_hours(400 * 24))), now), limits::LONGEST_REQUEUE);
        assert_eq!(wait(Some(now - SignedDuration::from_secs(1)), now), Duration::ZERO);
        assert_eq!(wait(None, now), limits::LONGEST_REQUEUE);
    }
}
