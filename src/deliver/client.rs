//! The HTTP client of one identity: its TLS configuration, its connections, its sessions.
//!
//! It lives exactly as long as the identity is in use. A client for each request would connect each time;
//! one that outlived a rotation would go on with the old certificate.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::time::timeout;
use url::Url;

use crate::{
    egress::{self, Egress, Stream},
    identity::{Facts, Identity, Recorder, TlsError, Trust, recorded_client_config},
    limits,
    telemetry::metrics::{Connections, Handshake},
};

/// Sends requests with one identity, or with none.
#[derive(Debug)]
pub struct Client {
    http: HttpClient,
    identity: Option<Facts>,
    recorder: Arc<Recorder>,
}

/// Makes and keeps the connections.
pub(super) type HttpClient = legacy::Client<Connector, Full<Bytes>>;

/// The head of a response, and its body as it comes.
pub(super) type Response = http::Response<Incoming>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nothing was sent.
    #[error("the URL or a header cannot be written as an HTTP request")]
    Request(#[from] http::Error),
    /// No connection, or none that lasted.
    #[error("no response")]
    Http(#[from] legacy::Error),
}

impl Client {
    /// A client that presents `identity` to servers that `trust` covers, at addresses that `egress` permits.
    pub fn new(identity: Option<&Arc<Identity>>, trust: &Trust, egress: &Egress) -> Result<Self, TlsError> {
        let recorder = Arc::new(Recorder::default());
        let config = recorded_client_config(identity.map(AsRef::as_ref), trust, &recorder)?;
        let http = http_client(config, egress);
        Ok(Self { http, identity: identity.map(|identity| identity.facts().clone()), recorder })
    }

    /// The certificate that is presented.
    pub fn identity(&self) -> Option<&Facts> {
        self.identity.as_ref()
    }

    /// Whether its certificate may be presented at `now`; true without one.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.identity.as_ref().is_none_or(|facts| facts.is_valid_at(now))
    }

    /// Full handshakes so far.
    pub(super) fn handshakes(&self) -> usize {
        self.recorder.handshakes()
    }

    /// Whether the endpoint has ever asked for a client certificate.
    pub(super) fn certificate_requested(&self) -> bool {
        self.recorder.certificate_requested()
    }

    /// Sends a POST, and returns with the head of the response.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, SendError> {
        let mut request = Request::builder().method(Method::POST).uri(url.as_str()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        Ok(send(&self.http, request).await?)
    }
}

/// Sends a request that says of itself no less than every other of ours.
pub(super) async fn send(
    http: &HttpClient,
    mut request: Request<Full<Bytes>>,
) -> Result<Response, legacy::Error> {
    for (name, value) in [(USER_AGENT, crate::USER_AGENT), (ACCEPT, "*/*")] {
        request.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    http.request(request).await
}

/// It follows no redirect and knows no proxy but that of `egress`: one from the environment would be one more party
/// that nobody named. reqwest, which is made of the same parts, would ask a proxy for the name instead of the address
/// that was checked, and show an https proxy the certificate of the webhook.
pub(super) fn http_client(tls: ClientConfig, egress: &Egress) -> HttpClient {
    let mut connector = HttpsConnector::from((egress.clone(), tls));
    connector.enforce_https();
    let connections = egress.connections().clone();
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limits::IDLE_CONNECTION)
        .pool_max_idle_per_host(limits::IDLE_CONNECTIONS)
        .build(Connector { connector, connections })
}

/// Makes connections in a bounded time, TLS handshake included.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    connector: HttpsConnector<Egress>,
    connections: Connections,
}

impl tower::Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Stream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connections = self.connections.clone();
        let connected = timeout(limits::CONNECT_TIMEOUT, self.connector.call(uri));
        let counted = move |connected: &Result<Result<_, Self::Error>, _>| match connected {
            Ok(Ok(_)) => connections.shook_hands(Handshake::Completed),
            // There was no connection to shake hands on, and that has been counted.
            Ok(Err(error)) if error.is::<egress::Error>() => {}
            Ok(Err(_)) => connections.shook_hands(Handshake::Failed),
            // A connection has less time than that.
            Err(_) => connections.shook_hands(Handshake::TimedOut),
        };
        connected.inspect(counted).map(|connected| connected?).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        egress::tests::{loopback, scripted},
        identity::tests::identity,
        probe::{Context as Seen, Failure, Reason, Refusal, Stage, classify::classify},
    };

    fn client(egress: &Egress) -> Client {
        let trust = Trust { certificates: identity("CN=authority").chain().into(), system_roots: false };
        Client::new(None, &trust, egress).unwrap()
    }

    async fn failure(client: &Client, url: &str) -> Failure {
        let error = client.post(&url.parse().unwrap(), HeaderMap::new(), Bytes::new()).await.unwrap_err();
        classify(&error, Seen { presented: true, requested: None, stage: Stage::Request })
    }

    async fn reason(client: &Client, url: &str) -> Reason {
        failure(client, url).await.reason
    }

    async fn is_dialled(listener: &TcpListener) -> bool {
        timeout(std::time::Duration::from_millis(50), listener.accept()).await.is_ok()
    }

    #[tokio::test]
    async fn every_connection_is_made_to_an_address_that_was_checked_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // A name that is harmless when it is looked up first.
        let client = client(&scripted(&["127.0.0.2"], None, &[&["127.0.0.2"], &["127.0.0.1"], &["::1"]]));
        let url = format!("https://rebinding.example:{port}/");
        let reasons = [reason(&client, &url).await, reason(&client, &url).await, reason(&client, &url).await];
        assert_eq!(reasons, [Reason::ConnectFailed, Reason::AddressRefused, Reason::AddressRefused]);
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
            let reason = reason(&client, &format!("https://{host}:{port}/")).await;
            assert_eq!(reason, Reason::AddressRefused, "{host}");
        }
        assert!(!is_dialled(&listener).await);
    }

    #[tokio::test]
    async fn an_end_before_the_handshake_is_no_refusal_of_a_certificate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, url) = (client(&loopback()), format!("https://{}/", listener.local_addr().unwrap()));
        let (failure, ()) = tokio::join!(failure(&client, &url), async { drop(listener.accept().await) });
        assert_eq!((failure.reason, failure.refusal), (Reason::ConnectionClosed, Refusal::No));
        assert!(failure.message.contains("before the TLS handshake was finished"), "{failure}");
    }

    #[tokio::test]
    async fn nothing_is_sent_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        failure(&client(&loopback()), &format!("http://{}/", listener.local_addr().unwrap())).await;
        assert!(!is_dialled(&listener).await);
    }
}
