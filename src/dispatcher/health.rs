//! What makes a dispatcher ready. That the API server is there is no part of it: once all is read it is needed no more.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    queue::{Embedded, Queue as _},
    telemetry::health::{Finding, Health, Once},
};

/// What has been read from the API server.
#[derive(Clone, Default)]
pub(super) struct Read {
    pub(super) webhooks: Once,
    pub(super) identities: Once,
}

/// The checks, but that of the certificate.
pub(super) fn checks(read: &Read, queue: &Arc<Embedded>, stop: &CancellationToken) -> Health {
    let (Read { webhooks, identities }, queue, stop) = (read.clone(), Arc::clone(queue), stop.clone());
    let not_read = "not read from the API server yet";
    Health::default()
        .check("webhooks", move || std::future::ready(webhooks.or(not_read)))
        .check("identities", move || std::future::ready(identities.or(not_read)))
        .check("queue", move || {
            let queue = Arc::clone(&queue);
            async move {
                let writable = queue.writable().await;
                writable.map_or_else(|error| Finding::Failed(error.to_string()), |()| Finding::Ok)
            }
        })
        .check("shutdown", move || {
            let ends = || Finding::Failed("the program ends".to_owned());
            std::future::ready(if stop.is_cancelled() { ends() } else { Finding::Ok })
        })
}
