//! `/livez` and `/readyz`, on an address of their own beside the metrics, in the form of kube-apiserver: `ok`, or a
//! line for each check where one of them fails, and with `?verbose`.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::StatusCode,
    routing::get,
};
use futures::future::join_all;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::{Page, tell};
use crate::{
    limits,
    server::{self, Bounds},
};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Ok,
    /// It works, and there is something to be said.
    OkBut(String),
    /// It does not work, for this reason; never a secret.
    Failed(String),
}

type Look = dyn Fn() -> Pin<Box<dyn Future<Output = Finding> + Send>> + Send + Sync;

/// Named checks of whether the program is ready.
#[derive(Default)]
pub struct Health(Vec<(&'static str, Box<Look>)>);

impl Health {
    /// Adds a check; `look` has a bounded time.
    #[must_use]
    pub fn check<F>(mut self, name: &'static str, look: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Finding> + Send + 'static,
    {
        self.0.push((name, Box::new(move || Box::pin(look()))));
        self
    }

    /// Tells of it, and what the metrics are, for as long as this is polled.
    pub(crate) async fn serve(self, listener: TcpListener, metrics: Page) {
        let limit = limits::HEALTH_CONNECTIONS;
        let bounds = Arc::new(Bounds::new(limit, limit, limit));
        let routes = self.routes().route("/metrics", get(tell).with_state(metrics));
        server::serve(listener, None, routes, bounds, CancellationToken::new()).await;
    }

    fn routes(self) -> Router {
        Router::new()
            // That there is an answer is all that it says: no failure here is mended by a restart.
            .route("/livez", get(async |query| live(&query)))
            .route("/readyz", get(ready))
            .with_state(Arc::new(self))
    }
}

fn live(query: &RawQuery) -> String {
    page("livez", &[("ping", Finding::Ok)], query).1
}

async fn ready(State(health): State<Arc<Health>>, query: RawQuery) -> (StatusCode, String) {
    let looks = health.0.iter().map(async |(name, look)| {
        let found = timeout(limits::HEALTH_CHECK, look()).await;
        let late = |_| Finding::Failed(format!("there was no answer in {:?}", limits::HEALTH_CHECK));
        (*name, found.unwrap_or_else(late))
    });
    page("readyz", &join_all(looks).await, &query)
}

fn page(path: &str, found: &[(&str, Finding)], RawQuery(query): &RawQuery) -> (StatusCode, String) {
    let failed = found.iter().any(|(_, finding)| matches!(finding, Finding::Failed(_)));
    let verbose = query.iter().flat_map(|query| query.split('&'));
    let verbose = verbose.into_iter().any(|word| word.split('=').next() == Some("verbose"));
    if !failed && !verbose {
        return (StatusCode::OK, "ok".to_owned());
    }
    let mut lines = String::new();
    for (name, finding) in found {
        let _ = match finding {
            Finding::Ok => writeln!(lines, "[+]{name} ok"),
            Finding::OkBut(said) => writeln!(lines, "[+]{name} ok: {said}"),
            Finding::Failed(reason) => writeln!(lines, "[-]{name} failed: {reason}"),
        };
    }
    let (status, outcome) =
        if failed { (StatusCode::SERVICE_UNAVAILABLE, "failed") } else { (StatusCode::OK, "passed") };
    let _ = writeln!(lines, "{path} check {outcome}");
    (status, lines)
}

/// Something that has to have happened once.
#[derive(Clone, Debug, Default)]
pub struct Once(Arc<AtomicBool>);

impl Once {
    /// It has happened.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// As a check.
    pub fn or(&self, reason: &str) -> Finding {
        if self.is_set() { Finding::Ok } else { Finding::Failed(reason.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    use super::*;

    async fn asked(health: Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn health(queue: Finding) -> Health {
        let said = Finding::OkBut("expires soon".to_owned());
        Health::default()
            .check("queue", move || std::future::ready(queue.clone()))
            .check("certificate", move || std::future::ready(said.clone()))
    }

    #[tokio::test]
    async fn each_check_has_a_line_where_one_fails_or_somebody_asks() {
        assert_eq!(asked(health(Finding::Ok), "/readyz").await, (200, "ok".to_owned()));
        let lines = "[+]queue ok\n[+]certificate ok: expires soon\nreadyz check passed\n";
        for query in ["?verbose", "?verbose=1", "?x&verbose"] {
            assert_eq!(asked(health(Finding::Ok), &format!("/readyz{query}")).await, (200, lines.to_owned()));
        }
        let failed = || health(Finding::Failed("the volume is full".to_owned()));
        let lines =
            "[-]queue failed: the volume is full\n[+]certificate ok: expires soon\nreadyz check failed\n";
        assert_eq!(asked(failed(), "/readyz").await, (503, lines.to_owned()));
        assert_eq!(asked(failed(), "/livez").await, (200, "ok".to_owned()));
        let lines = "[+]ping ok\nlivez check passed\n";
        assert_eq!(asked(failed(), "/livez?verbose").await, (200, lines.to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails() {
        let health = Health::default().check("queue", std::future::pending);
        let (status, lines) = asked(health, "/readyz").await;
        assert_eq!(
            (status, lines.starts_with("[-]queue failed: there was no answer")),
            (503, true),
            "{lines}"
        );
    }
}
