//! The dispatcher: watches webhooks and their Secrets of identities, and keeps a worker for each webhook.
//!
//! Once a webhook is loaded its deliveries need neither the controller nor the API server.

mod assign;
mod registry;
mod report;
mod reviews;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _, reflector,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::{IDENTITIES_SELECTOR, OutboundWebhook},
    clock::{Clock as _, SystemClock},
    credentials::CREDENTIALS,
    egress::{self, Egress},
    event::WebhookKey,
    identity::{Slot, TRUSTED},
    ingest::{self, Ingest},
    kubernetes, limits,
    queue::{Embedded, Expired, Queue as _, QueueError},
};
use registry::Registry;
use report::Board;
pub use reviews::Reviews;

/// As jiff reads it.
const DELETED_RETENTION: &str = "1h";

/// What the dispatcher is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Directory of the queue; one dispatcher each
    #[arg(long, env = "POSTRIDER_QUEUE", default_value = "/var/lib/postrider", value_name = "DIR")]
    pub queue: PathBuf,
    /// Where events are taken
    #[arg(long, env = "POSTRIDER_LISTEN", default_value = "127.0.0.1:8087", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// How long the events of a deleted webhook wait for its return
    #[arg(long, env = "POSTRIDER_DELETED_RETENTION", default_value = DELETED_RETENTION, value_name = "DURATION")]
    pub deleted_retention: SignedDuration,
    /// Serve the webhooks of this namespace only
    #[arg(long, env = "POSTRIDER_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// What may be dialled
    #[command(flatten)]
    pub egress: egress::Options,
}

/// Why the dispatcher cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What may be dialled is not told in a way that can be used.
    #[error(transparent)]
    Egress(#[from] egress::OptionsError),
    /// The queue cannot be opened.
    #[error("queue {directory}: {source}")]
    Queue {
        /// Its directory.
        directory: String,
        /// Why.
        source: QueueError,
    },
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs until `stop`, then lets what is under way finish.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let egress = Egress::new(&options.egress)?;
    let queue = Arc::new(
        Embedded::open(&options.queue)
            .map_err(|source| Error::Queue { directory: options.queue.display().to_string(), source })?,
    );
    let listen = |source| Error::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;

    let address = listener.local_addr().map_err(listen)?;

    let (refusals, refused) = mpsc::channel(limits::REFUSALS);
    let board = Arc::new(Board::default());
    let mut reporting = JoinSet::new();
    reporting.spawn(report::refusals(client.clone(), refused));
    reporting.spawn(report::statuses(client.clone(), Arc::clone(&queue), Arc::clone(&board), SystemClock));
    tracing::info!(%address, proxy = egress.proxy(), "takes events");
    let registry = Registry::new(Arc::clone(&queue), SystemClock, egress, stop.clone(), refusals, board);
    let ingest =
        Arc::new(Ingest { queue: Arc::clone(&queue), webhooks: registry.known(), clock: SystemClock });
    let watching = tokio::spawn(watch(client, options, registry, Arc::clone(&queue), stop.clone()));
    ingest::serve(listener, ingest::router(ingest), stop).await;
    let _ = watching.await;
    // The workers are gone, and so is who could tell it something. A word that it cannot write now is lost.
    drop(reporting);
    queue.close().await;
    Ok(())
}

/// Feeds the registry from two watches; ends its workers when it ends.
async fn watch(
    client: Client,
    options: Options,
    mut registry: Registry<Embedded, SystemClock>,
    queue: Arc<Embedded>,
    stop: CancellationToken,
) {
    let namespace = options.namespace.as_deref();
    let webhooks: Api<OutboundWebhook> = kubernetes::scoped(&client, namespace);
    let secrets: Api<Secret> = kubernetes::scoped(&client, namespace);
    let names = registry.known();
    let retention = Duration::try_from(options.deleted_retention).unwrap_or_default();
    let mut expiry = interval(limits::EXPIRY.min(retention.max(Duration::from_secs(1))));
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (webhook_store, webhook_writer) = reflector::store();
    let (secret_store, secret_writer) = reflector::store();
    let mut webhooks = watcher(webhooks, watcher::Config::default())
        .backoff(kubernetes::WatchBackoff::default())
        .reflect(webhook_writer)
        .boxed();
    let mut secrets = watcher(secrets, watcher::Config::default().labels(IDENTITIES_SELECTOR))
        .backoff(kubernetes::WatchBackoff::default())
        .modify(keep_what_is_read)
        .reflect(secret_writer)
        .boxed();
    let (mut webhooks_read, mut secrets_read) = (false, false);
    loop {
        // The stores hold an event before it is seen here.
        let touched = tokio::select! {
            () = stop.cancelled() => break,
            Some(event) = webhooks.next() => touched(event, &mut webhooks_read, "webhooks"),
            Some(event) = secrets.next() => touched(event, &mut secrets_read, "identities"),
            // Only once it is known which webhooks there are.
            _ = expiry.tick(), if webhooks_read && secrets_read => {
                expire(&queue, namespace, names.all(), options.deleted_retention).await;
                Touched::Nothing
            }
        };
        if !(webhooks_read && secrets_read) {
            continue;
        }
        match touched {
            Touched::Nothing => {}
            Touched::All => registry.sync_all(&webhook_store, &secret_store),
            Touched::Webhook(webhook) => registry.sync(&webhook, &webhook_store, &secret_store),
        }
    }
    registry.finish().await;
}

/// Drops what nobody is going to have, and says so.
async fn expire(
    queue: &Embedded,
    namespace: Option<&str>,
    there: Vec<WebhookKey>,
    retention: SignedDuration,
) {
    let now = SystemClock.now();
    let before = |kept: SignedDuration| now.checked_sub(kept).unwrap_or(Timestamp::MIN);
    let dead_kept = SignedDuration::try_from(limits::DEAD_KEPT).unwrap_or(SignedDuration::MAX);
    let not_cleared = |error: QueueError| {
        tracing::error!(%error, "the queue could not be cleared of what has expired");
    };
    if let Err(error) = queue.present(namespace.map(str::to_owned), there, now).await {
        return not_cleared(error);
    }
    // A bounded number in a commit, so that others are not kept waiting.
    loop {
        let expired = match queue.expire(before(retention), before(dead_kept)).await {
            Ok(expired) if expired == Expired::default() => return,
            Ok(expired) => expired,
            Err(error) => return not_cleared(error),
        };
        for (webhook, dropped) in expired.gone {
            let (pending, dead) = (dropped.pending.events, dropped.dead.events);
            tracing::warn!(%webhook, pending, dead, "the events of a deleted webhook are dropped: it has not come back");
        }
        if expired.dead > 0 {
            tracing::warn!(events = expired.dead, "events that were given up long ago are dropped");
        }
    }
}

/// Anybody can put our labels on a Secret; what is kept in memory is what a webhook's own has to say.
fn keep_what_is_read(secret: &mut Secret) {
    secret.metadata.managed_fields = None;
    let named = secret.webhook().is_some();
    if let Some(data) = &mut secret.data {
        let ours = |key: &str| {
            [TRUSTED, CREDENTIALS].contains(&key)
                || Slot::ALL
                    .iter()
                    .any(|slot| [slot.certificate_key(), slot.private_key_key()].contains(&key))
        };
        data.retain(|key, _| named && ours(key));
    }
}

enum Touched {
    Nothing,
    Webhook(WebhookKey),
    All,
}

fn touched<K: Identified>(event: watcher::Result<Event<K>>, read: &mut bool, what: &str) -> Touched {
    match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => {
            object.webhook().map_or(Touched::Nothing, Touched::Webhook)
        }
        Ok(Event::InitDone) => {
            *read = true;
            Touched::All
        }
        Ok(Event::Init | Event::InitApply(_)) => Touched::Nothing,
        Err(error) => {
            tracing::warn!(%error, "cannot watch {what}; deliveries go on with what is loaded");
            Touched::Nothing
        }
    }
}

/// An object that tells something of a webhook.
trait Identified {
    fn webhook(&self) -> Option<WebhookKey>;
}

impl Identified for OutboundWebhook {
    fn webhook(&self) -> Option<WebhookKey> {
        kubernetes::key(self)
    }
}

impl Identified for Secret {
    fn webhook(&self) -> Option<WebhookKey> {
        let WebhookKey { namespace, name } = kubernetes::key(self)?;
        Some(WebhookKey { namespace, name: OutboundWebhook::of_identities(&name)?.to_owned() })
    }
}
