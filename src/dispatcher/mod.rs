//! The dispatcher: watches webhooks and their Secrets of identities, and keeps a worker for each webhook.
//!
//! Once a webhook is loaded its deliveries need neither the controller nor the API server.

mod assign;
mod certificate;
mod health;
mod metrics;
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
use strum::VariantArray as _;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::{IDENTITIES_SELECTOR, OutboundWebhook},
    clock::{Clock as _, SystemClock},
    credentials::CREDENTIALS,
    egress::{self, Egress},
    event::WebhookKey,
    identity::{Slot, TRUSTED},
    ingest::{self, Ingest, Secure, access::Access},
    kubernetes, limits,
    probe::Layer,
    queue::{Embedded, Expired, Queue as _, QueueError},
    server::{self, BindError},
    telemetry::{
        metrics::{ApiRequests, DispatcherMetrics, Parts, Requests},
        traces,
    },
};
use certificate::Published;
use health::Read;
use registry::Registry;
use report::Board;
pub use reviews::Reviews;

/// What the dispatcher is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Directory of the queue; one dispatcher each
    #[arg(long, env = "POSTRIDER_QUEUE", default_value = "/var/lib/postrider", value_name = "DIR")]
    pub queue: PathBuf,
    /// Where events are taken
    #[command(flatten)]
    pub ingest: ingest::Options,
    /// Where /livez, /readyz and /metrics are
    #[arg(long, env = "POSTRIDER_METRICS_LISTEN", default_value = "127.0.0.1:8088", value_name = "ADDRESS")]
    pub metrics_listen: SocketAddr,
    /// How long the events of a deleted webhook wait for its return
    #[arg(long, env = "POSTRIDER_DELETED_RETENTION", default_value = limits::DELETED_RETENTION, value_name = "DURATION")]
    pub deleted_retention: SignedDuration,
    /// Serve the webhooks of this namespace only
    #[arg(long, env = "POSTRIDER_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// What may be dialled
    #[command(flatten)]
    pub egress: egress::Options,
    /// Where spans go
    #[command(flatten)]
    pub traces: traces::Options,
}

/// Why the dispatcher cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What may be dialled is not told in a way that can be used.
    #[error(transparent)]
    Egress(#[from] egress::OptionsError),
    /// Nor where events are taken.
    #[error(transparent)]
    Ingest(#[from] ingest::OptionsError),
    /// The queue cannot be opened.
    #[error("queue {directory}: {source}")]
    Queue {
        /// Its directory.
        directory: String,
        /// Why.
        source: QueueError,
    },
    /// An address is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] BindError),
}

/// Runs until `stop`, then lets what is under way finish.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), Error> {
    options.ingest.check()?;
    let api_requests = ApiRequests::default();
    let client = kubernetes::counted(client, &api_requests);
    let egress = Egress::new(&options.egress)?;
    server::raise_open_files(limits::INGEST_CONNECTIONS.0);
    let queue = Arc::new(
        Embedded::open(&options.queue)
            .map_err(|source| Error::Queue { directory: options.queue.display().to_string(), source })?,
    );
    let (plain, address) = server::bind(options.ingest.listen).await?;
    let (told, told_address) = server::bind(options.metrics_listen).await?;
    let read = Read::default();
    let mut health = health::checks(&read, &queue, &stop);

    let (refusals, refused) = mpsc::channel(limits::REFUSALS);
    let metrics =
        DispatcherMetrics::new(Layer::VARIANTS.iter().map(|layer| layer.as_str()), Arc::clone(&queue));
    let parts = Parts {
        requests: Requests::default(),
        queue: queue.metrics().clone(),
        connections: egress.connections().clone(),
        api_requests,
    };
    let board = Arc::new(Board::new(metrics.clone()));
    let mut reporting = JoinSet::new();
    reporting.spawn(report::refusals(client.clone(), refused));
    reporting.spawn(metrics::oldest(Arc::clone(&queue), metrics.clone()));
    reporting.spawn(report::statuses(client.clone(), Arc::clone(&queue), Arc::clone(&board), SystemClock));
    tracing::info!(%address, proxy = egress.proxy(), "takes events");
    let drain = CancellationToken::new();
    let registry = Registry::new(Arc::clone(&queue), SystemClock, egress, drain.clone(), refusals, board);
    let ingest = Ingest {
        queue: Arc::clone(&queue),
        webhooks: registry.known(),
        clock: SystemClock,
        metrics: parts.requests.clone(),
    };
    let routes = ingest::router(Arc::new(ingest));
    let mut secure = None;
    if let Some((address, namespace)) =
        options.ingest.secure_listen.zip(options.ingest.tls.pod_namespace.clone())
    {
        let (listener, address) = server::bind(address).await?;
        let (published, name) = (Published::default(), options.ingest.tls.tls_secret.clone());
        let serving = published.serving.subscribe();
        health = health.check("certificate", move || {
            let finding = serving.borrow().finding(SystemClock.now());
            std::future::ready(finding)
        });
        let reviews = Reviews::new(client.clone(), options.ingest.access.token_audience.clone());
        let access = Arc::new(Access::new(reviews, SystemClock, &options.ingest.access));
        secure = Some(Secure {
            listener,
            tls: published.tls.subscribe(),
            routes: ingest::counted(ingest::guarded(routes.clone(), access), parts.requests.clone()),
        });
        tracing::info!(%address, secret = name, "serves over TLS");
        reporting.spawn(certificate::watch(client.clone(), namespace, name, SystemClock, published));
    }
    tracing::info!(address = %told_address, "tells of its health and its metrics");
    // Until the very end: that it is not ready any more has to be told as well.
    let mut telling = JoinSet::new();
    telling.spawn(health.serve(told, metrics.page(&parts)));
    telling.spawn(drain_after(stop, options.ingest.shutdown_delay, drain.clone()));
    let watching = tokio::spawn(watch(client, options, registry, Arc::clone(&queue), read, drain.clone()));
    ingest::serve(plain, ingest::counted(routes, parts.requests), secure, drain).await;
    let _ = watching.await;
    // The workers are gone, and so is who could tell it something. A word that it cannot write now is lost.
    drop(reporting);
    queue.close().await;
    Ok(())
}

/// From `stop` on the program is not ready; whoever sends to it is given a while to hear of that.
async fn drain_after(stop: CancellationToken, delay: SignedDuration, drain: CancellationToken) {
    stop.cancelled().await;
    sleep(Duration::try_from(delay).unwrap_or_default()).await;
    drain.cancel();
}

/// Feeds the registry from two watches; ends its workers when it ends.
async fn watch(
    client: Client,
    options: Options,
    mut registry: Registry<Embedded, SystemClock>,
    queue: Arc<Embedded>,
    read: Read,
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
        .modify(kubernetes::without_managers)
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
        if webhooks_read && secrets_read {
            match touched {
                Touched::Nothing => {}
                Touched::All => registry.sync_all(&webhook_store, &secret_store),
                Touched::Webhook(webhook) => registry.sync(&webhook, &webhook_store, &secret_store),
            }
        }
        // Once the workers know of it as well.
        for (is_read, read) in [(webhooks_read, &read.webhooks), (secrets_read, &read.identities)] {
            if is_read {
                read.set();
            }
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
    kubernetes::without_managers(secret);
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
