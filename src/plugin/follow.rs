//! A webhook as it changes, until what is waited for is there or the time is over.

use std::{ops::ControlFlow, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher, watcher::watch_object};
use tokio::time::{Instant, interval, sleep_until};

use super::{cluster::Connection, failure::Failure, output::Progress};
use crate::{api::v1alpha1::OutboundWebhook, kubernetes::WatchBackoff, limits};

/// Looks at the webhook as it is, and each time that it changes.
pub(super) async fn follow<T>(
    connection: &Connection,
    name: &str,
    timeout: Duration,
    progress: &mut Progress,
    mut look: impl FnMut(&OutboundWebhook, &mut Progress) -> ControlFlow<T>,
) -> Result<T, Failure> {
    let mut changes = pin!(watch_object(connection.api(), name).backoff(WatchBackoff::default()));
    let deadline = Instant::now() + timeout;
    let mut ticks = interval(limits::PLUGIN_TICK);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(webhook))) => {
                    if let ControlFlow::Break(found) = look(&webhook, progress) {
                        return Ok(found);
                    }
                }
                Some(Ok(None)) => return Err(Failure::not_found(format!("outboundwebhook {name:?} is gone"))),
                Some(Err(error)) => refused(&error)?,
                None => return Err(Failure::tried("the watch ended".to_owned())),
            },
            _ = ticks.tick() => progress.tick(),
            () = sleep_until(deadline) => {
                return Err(Failure::unfinished(format!("not over after {timeout:?}; it goes on without you")));
            }
        }
    }
}

/// A watch that may not be is none; all else is taken up again.
fn refused(error: &watcher::Error) -> Result<(), Failure> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return Ok(());
    };
    if matches!(status.code, 401 | 403) { Err(kube::Error::Api(status.clone()).into()) } else { Ok(()) }
}
