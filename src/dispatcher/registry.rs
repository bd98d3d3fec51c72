//! The workers that run, one a webhook.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Identified as _,
    assign::{Built, assign, is_ready},
    report::Board,
};
use crate::{
    api::v1alpha1::{Ordering, OutboundWebhook},
    clock::Clock,
    deliver::{Assignment, Hold, Refused, Worker},
    egress::Egress,
    event::WebhookKey,
    ingest::{Known, Takes, Webhooks},
    queue::Queue,
};

/// Which webhooks there are, and what they take: what ingest reads. `None` until the first time they have all been
/// read.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<Option<BTreeMap<WebhookKey, Takes>>>);

impl Names {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<WebhookKey, Takes>)) {
        if let Some(names) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            change(names);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<WebhookKey> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().flat_map(BTreeMap::keys).cloned().collect()
    }
}

impl Webhooks for Names {
    fn knows(&self, webhook: &WebhookKey) -> Known<Takes> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            None => Known::NotYet,
            Some(names) => names.get(webhook).map_or(Known::No, |takes| Known::Yes(takes.clone())),
        }
    }

    fn of_namespace(&self, namespace: &str) -> Known<Vec<(WebhookKey, Takes)>> {
        let first = WebhookKey { namespace: namespace.to_owned(), name: String::new() };
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            None => Known::NotYet,
            Some(names) => Known::Yes(
                names
                    .range(first..)
                    .take_while(|(webhook, _)| webhook.namespace == namespace)
                    .map(|(webhook, takes)| (webhook.clone(), takes.clone()))
                    .collect(),
            ),
        }
    }
}

struct Running {
    assignment: watch::Sender<Assignment>,
    built: Option<Built>,
    seen: Option<Seen>,
    stop: CancellationToken,
}

/// What an assignment is made of, by its versions. Most changes of a webhook are its status, and mostly our own.
#[derive(PartialEq)]
struct Seen {
    uid: Option<String>,
    generation: Option<i64>,
    is_ready: bool,
    identities: Option<String>,
}

impl Seen {
    fn of(webhook: &OutboundWebhook, identities: Option<&Secret>) -> Self {
        Self {
            uid: webhook.metadata.uid.clone(),
            generation: webhook.metadata.generation,
            is_ready: is_ready(webhook),
            identities: identities.and_then(|secret| secret.metadata.resource_version.clone()),
        }
    }
}

pub(super) struct Registry<Q, C> {
    queue: Arc<Q>,
    clock: C,
    egress: Egress,
    stop: CancellationToken,
    refusals: mpsc::Sender<Refused>,
    names: Arc<Names>,
    board: Arc<Board>,
    running: HashMap<WebhookKey, Running>,
    workers: JoinSet<()>,
}

impl<Q: Queue, C: Clock + Clone> Registry<Q, C> {
    pub(super) fn new(
        queue: Arc<Q>,
        clock: C,
        egress: Egress,
        stop: CancellationToken,
        refusals: mpsc::Sender<Refused>,
        board: Arc<Board>,
    ) -> Self {
        Self {
            queue,
            clock,
            egress,
            stop,
            refusals,
            names: Arc::default(),
            board,
            running: HashMap::new(),
            workers: JoinSet::new(),
        }
    }

    pub(super) fn known(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }

    /// Brings every worker in line, and ends those whose webhook is gone.
    pub(super) fn sync_all(&mut self, webhooks: &Store<OutboundWebhook>, secrets: &Store<Secret>) {
        let state = webhooks.state();
        let present: BTreeMap<_, _> =
            state.iter().filter_map(|webhook| Some((webhook.webhook()?, takes(webhook)))).collect();
        let gone: Vec<_> = self.running.keys().filter(|key| !present.contains_key(key)).cloned().collect();
        // All at once: who is told that they are known relies on each.
        *self.names.0.write().unwrap_or_else(PoisonError::into_inner) = Some(present.clone());
        for key in present.keys().chain(&gone) {
            self.sync(key, webhooks, secrets);
        }
    }

    /// Brings one worker in line with its webhook.
    pub(super) fn sync(
        &mut self,
        key: &WebhookKey,
        webhooks: &Store<OutboundWebhook>,
        secrets: &Store<Secret>,
    ) {
        // Workers that have ended are reaped as others change.
        while let Some(ended) = self.workers.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker ended abnormally");
            }
        }
        let webhook = webhooks.get(&ObjectRef::new(&key.name).within(&key.namespace));
        let Some(webhook) = webhook.filter(|webhook| webhook.metadata.deletion_timestamp.is_none()) else {
            self.end(key);
            return;
        };
        // Made anew under its name, which was not seen: what was known of the one before is not for this one.
        let before = self.running.get(key).and_then(|running| running.seen.as_ref());
        if before.is_some_and(|seen| seen.uid != webhook.metadata.uid) {
            self.end(key);
        }
        let identities = OutboundWebhook::identities_name(&key.name);
        let secret = secrets.get(&ObjectRef::new(&identities).within(&key.namespace));
        let running = self.running.entry(key.clone()).or_insert_with(|| {
            let (assignment, receiver) = watch::channel(Assignment::Hold(Hold::Starting));
            let stop = self.stop.child_token();
            let (queue, clock) = (Arc::clone(&self.queue), self.clock.clone());
            let activity = self.board.add(key, &webhook);
            let (stop_worker, refusals) = (stop.clone(), self.refusals.clone());
            let worker = Worker::new(key.clone(), queue, receiver, clock, stop_worker, refusals, activity);
            self.workers.spawn(worker.run());
            Running { assignment, built: None, seen: None, stop }
        });
        let seen = Seen::of(&webhook, secret.as_deref());
        if running.seen.as_ref() == Some(&seen) {
            return;
        }
        running.seen = Some(seen);
        let assignment = assign(&webhook, secret.as_deref(), &self.egress, &mut running.built);
        report(key, &running.assignment.borrow(), &assignment);
        running.assignment.send_replace(assignment);
        let takes = takes(&webhook);
        self.names.change(|names| {
            names.insert(key.clone(), takes);
        });
    }

    /// Its events stay in the queue for a while: a webhook that is made again under the name goes on with them.
    fn end(&mut self, key: &WebhookKey) {
        self.names.change(|names| {
            names.remove(key);
        });
        self.board.remove(key);
        if let Some(running) = self.running.remove(key) {
            tracing::info!(webhook = %key, "gone");
            running.stop.cancel();
        }
    }

    /// Waits for the workers, once they have been stopped.
    pub(super) async fn finish(mut self) {
        while self.workers.join_next().await.is_some() {}
    }
}

/// What it takes, and whether its events are ordered by their key.
fn takes(webhook: &OutboundWebhook) -> Takes {
    let ordering = webhook.spec.delivery.as_ref().map(|delivery| delivery.ordering);
    Takes {
        events: Arc::new(webhook.spec.events.clone().unwrap_or_default()),
        ordered: ordering == Some(Ordering::ByKey),
    }
}

/// Tells what changed, once.
fn report(webhook: &WebhookKey, before: &Assignment, after: &Assignment) {
    match (before, after) {
        (Assignment::Hold(was), Assignment::Hold(is)) if was == is => {}
        (_, Assignment::Hold(reason)) => tracing::info!(%webhook, %reason, "holds"),
        (Assignment::Deliver(was), Assignment::Deliver(is)) if Arc::ptr_eq(&was.clients, &is.clients) => {
            if !Arc::ptr_eq(&was.authorizer, &is.authorizer) {
                tracing::info!(%webhook, "has other headers, authorization or signing secrets");
            }
        }
        (_, Assignment::Deliver(target)) => {
            let identity = target.clients.active().identity();
            tracing::info!(
                %webhook,
                identifier = identity.map(|facts| facts.identifier.as_str()),
                fingerprint = identity.map(|facts| facts.fingerprint_sha256.as_str()),
                "delivers"
            );
        }
    }
}
