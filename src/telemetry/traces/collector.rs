//! The HTTP client of the exporter, which has a thread of its own: what it sends is sent in the program's runtime.
//!
//! A collector that is away costs nothing but the spans, and one line in the log until it is there again.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    causes::chain,
    identity::{TlsError, Trust, client_config},
    limits,
};

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Whether it is known, and was told, that nothing gets there.
    away: AtomicBool,
}

impl Collector {
    /// The one at this URL; over TLS where that says so.
    pub(super) fn new(url: &str) -> Result<Self, TlsError> {
        let tls = if url.starts_with("https:") {
            client_config(None, &Trust::default())?
        } else {
            // Not used.
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(limits::COLLECTOR_CONNECT));
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::IDLE_CONNECTION)
            .build(HttpsConnector::from((connector, tls)));
        Ok(Self { http, runtime: Handle::current(), away: AtomicBool::new(false) })
    }

    /// Told where it changes.
    fn tell(&self, result: &Result<Response<Bytes>, HttpError>) {
        let problem = match result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(chain(&**error)),
        };
        match (self.away.swap(problem.is_some(), Ordering::Relaxed), problem) {
            (false, Some(error)) => {
                tracing::warn!(error, "spans do not reach the collector of --otlp-endpoint, and are dropped");
            }
            (true, None) => tracing::info!("spans reach the collector again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.http.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = answer.await?.into_parts();
            let body = Limited::new(body, limits::COLLECTOR_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // Made there as well: a timer outside of a runtime would panic.
        let sent = self.runtime.spawn(async { timeout(limits::SPANS_EXPORT, exchange).await }).await;
        let result = match sent {
            Ok(Ok(result)) => result,
            Ok(Err(late)) => Err(late.into()),
            Err(ended) => Err(ended.into()),
        };
        self.tell(&result);
        result
    }
}
