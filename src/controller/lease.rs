//! Of several controllers one works: the one that holds the Lease.
//!
//! The Lease is renewed well before it runs out, by requests that end before it does. The first that fails ends the
//! work, whatever the reason: who cannot say that it leads may not lead any more. Work under way is dropped, not
//! finished; another controller does it again.

use std::{future::Future, pin::pin};

use clap::Args;
use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError, LeaseParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{backoff::backoff, limits};

/// Name of the Lease.
pub(crate) const LEASE: &str = "postrider-controller";

/// Whether there may be several controllers.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "leader-election")]
pub struct Options {
    /// Work only while holding the Lease postrider-controller, in the namespace of the Pod
    #[arg(long, env = "POSTRIDER_LEADER_ELECTION", requires = "pod_namespace")]
    pub leader_election: bool,
}

/// Works while it leads, again and again, until `stop`. Work ends by itself then; when the Lease is lost it is dropped.
pub(super) async fn lead<W: Future<Output = ()>>(
    namespace: &str,
    stop: &CancellationToken,
    mut work: impl FnMut() -> W,
) -> Result<(), kube::Error> {
    let client = client().await?;
    let identity = identity();
    let mut failures = 0;
    while !stop.is_cancelled() {
        match term(&client, namespace, &identity, stop, &mut work).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                let (first, longest) = limits::LEASE_RETRY;
                let delay = backoff(first, longest, failures);
                tracing::warn!(%error, again_in = ?delay, "the Lease {LEASE} cannot be had");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(delay) => {}
                }
            }
        }
    }
    Ok(())
}

/// From waiting for the Lease to its loss, or the end.
async fn term<W: Future<Output = ()>>(
    client: &Client,
    namespace: &str,
    identity: &str,
    stop: &CancellationToken,
    work: &mut impl FnMut() -> W,
) -> Result<(), LeaseManagerError> {
    // Its manager of fields is of this process alone: that two apply at one time is a conflict, and one gives way.
    let parameters = LeaseParams::new(identity, limits::LEASE_SECONDS, limits::LEASE_GRACE_SECONDS);
    // One for each term: what an earlier one believed of itself is not told again.
    let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(namespace)
        .with_parameters(parameters)
        .build()
        .await?;
    tracing::info!(%identity, "waits for the Lease {LEASE}");
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        leads = until(&manager, true) => leads?,
    }
    tracing::info!(%identity, "leads");
    let ended = {
        let mut work = pin!(work());
        tokio::select! {
            () = &mut work => Ok(()),
            lost = until(&manager, false) => {
                tracing::warn!(%identity, "leads no more");
                return lost;
            }
        }
    };
    // So that another need not wait for it to run out.
    match timeout(limits::LEASE_REQUEST, manager.release()).await {
        Ok(Ok(())) => tracing::info!(%identity, "gives the Lease back"),
        Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be given back: it runs out"),
        Err(_) => tracing::warn!("the Lease could not be given back in time: it runs out"),
    }
    ended
}

async fn until(manager: &LeaseManager, leads: bool) -> Result<(), LeaseManagerError> {
    while manager.changed().await? != leads {}
    Ok(())
}

/// A client whose requests end long before the Lease does: one that hangs is one that fails.
async fn client() -> Result<Client, kube::Error> {
    let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.connect_timeout = Some(limits::LEASE_REQUEST);
    config.read_timeout = Some(limits::LEASE_REQUEST);
    config.write_timeout = Some(limits::LEASE_REQUEST);
    // A server that says "later" would be obeyed, until the Lease has run out.
    config.default_retry = false;
    Client::try_from(config)
}

/// The Pod's name, for people, and what no other process has.
fn identity() -> String {
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".to_owned());
    format!("{pod}_{}", uuid::Uuid::now_v7())
}
