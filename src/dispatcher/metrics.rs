//! What metrics tell of the queue beside what is counted.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    event::WebhookKey,
    limits,
    queue::{Embedded, Queue as _},
    telemetry::metrics::{Amounts, DispatcherMetrics},
};

/// The queue keeps its own books.
impl Amounts for Arc<Embedded> {
    fn amounts(&self, webhook: &WebhookKey) -> (i64, i64) {
        let counts = self.counts(webhook);
        (counts.pending.events, counts.dead.events)
    }
}

/// Looks for what waits longest, now and then.
pub(super) async fn oldest(queue: Arc<Embedded>, metrics: DispatcherMetrics) {
    let mut look = interval(limits::METRICS_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for webhook in metrics.webhooks() {
            let oldest = if queue.counts(&webhook).pending.events > 0 {
                // Whoever looks at the queue is told of what is wrong with it elsewhere.
                queue.oldest(&webhook).await.ok().flatten()
            } else {
                None
            };
            metrics.oldest(&webhook, oldest.map(Timestamp::as_second));
        }
    }
}
