//! A sender that posts without pause: a few posters for each webhook, at a bounded rate. What was not taken is
//! posted again until it is.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Requests of one webhook that wait for their 202 at one time.
const POSTERS: u32 = 2;

/// Before an event that was not taken is posted again, unless the dispatcher comes back first.
const AGAIN: Duration = Duration::from_millis(50);

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The posters of all webhooks.
pub(crate) struct Load {
    posters: JoinSet<()>,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { posters: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Posts to a webhook from now on, and tells the id of each event that is taken; `dispatcher` tells the URL
    /// of its namespace while one runs.
    pub(crate) fn post(
        &mut self,
        webhook: &str,
        per_second: f64,
        acknowledged: impl Fn(Uuid) + Send + Sync + 'static,
        dispatcher: &watch::Receiver<Option<String>>,
    ) {
        let acknowledged: Arc<dyn Fn(Uuid) + Send + Sync> = Arc::new(acknowledged);
        for _ in 0..POSTERS {
            let poster = Poster {
                path: format!("outboundwebhooks/{webhook}/events"),
                acknowledged: Arc::clone(&acknowledged),
                dispatcher: dispatcher.clone(),
                http: client(),
                stop: self.stop.clone(),
            };
            self.posters.spawn(poster.run(Duration::from_secs_f64(f64::from(POSTERS) / per_second)));
        }
    }

    /// Lets what is under way be answered.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.posters.join_next().await.is_some() {}
    }
}

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_TIMEOUT).build();
    client.unwrap_or_else(|error| panic!("the client of a poster: {error}"))
}

struct Poster {
    path: String,
    acknowledged: Arc<dyn Fn(Uuid) + Send + Sync>,
    dispatcher: watch::Receiver<Option<String>>,
    http: reqwest::Client,
    stop: CancellationToken,
}

/// The body of a 202.
#[derive(Deserialize)]
struct Accepted {
    ids: Vec<Uuid>,
}

impl Poster {
    async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let id = Uuid::now_v7();
            while !self.stop.is_cancelled() {
                if let Some(accepted) = self.post(id).await {
                    accepted.ids.into_iter().for_each(|id| (self.acknowledged)(id));
                    break;
                }
                // The same event again, as a sender does that does not know whether it was taken.
                let _ = timeout(AGAIN, self.dispatcher.changed()).await;
            }
        }
    }

    /// `None` where it cannot be known that the event was taken: nothing counts but a whole 202.
    async fn post(&mut self, id: Uuid) -> Option<Accepted> {
        let url = format!("{}/{}", self.dispatcher.borrow_and_update().as_deref()?, self.path);
        let event = self.http.post(url).header("ce-specversion", "1.0").header("ce-id", id.to_string());
        let event = event.header("ce-source", "/load").header("ce-type", "order.paid");
        let event = event.header("content-type", "application/json").body(format!("{{\"order\":\"{id}\"}}"));
        let response = event.send().await.ok().filter(|answer| answer.status() == StatusCode::ACCEPTED)?;
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    }
}
