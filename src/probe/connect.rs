//! The I/O of a test: resolve, connect, shake hands, read, and (by choice) ask.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{CipherSuite, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

use super::{
    Endpoint, Request,
    classify::{Context, Failure, Stage, classify, resolve_failed},
    http::{self, Answer},
    reason::{Layer, Reason},
};
use crate::{
    egress::Stream,
    identity::{Identity, Recorder, TlsError, recorded_client_config},
    limits,
    telemetry::metrics::Handshake,
};

/// One test, and how far it came: what is here is told also where the time runs out.
pub(super) struct Connection<'a> {
    pub(super) endpoint: &'a Endpoint<'a>,
    pub(super) identity: Option<&'a Identity>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stage: Stage,
    pub(super) address: Option<SocketAddr>,
    pub(super) cipher_suite: Option<CipherSuite>,
    pub(super) http_status: Option<u16>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(endpoint: &'a Endpoint<'a>, identity: Option<&'a Identity>) -> Self {
        Self {
            endpoint,
            identity,
            recorder: Arc::default(),
            stage: Stage::Resolve,
            address: None,
            cipher_suite: None,
            http_status: None,
        }
    }

    pub(super) fn context(&self) -> Context {
        Context {
            presented: self.identity.is_some(),
            requested: Some(self.recorder.certificate_requested()),
            stage: self.stage,
        }
    }

    pub(super) async fn test(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.endpoint.timeout;
        // Before anything is sent: an identity that was asked for and cannot be used ends the test here.
        let config = recorded_client_config(self.identity, self.endpoint.trust, &self.recorder)
            .map_err(|error| unusable(&error))?;
        let url = self.endpoint.url;
        let host = host(url)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| resolve_failed("the host of endpoint.url is no DNS name or IP address"))?;

        let stream = self.connect(host, deadline).await?;
        self.stage = Stage::Handshake;
        let started = Instant::now();
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let outcome = if shaken.is_ok() { Handshake::Completed } else { Handshake::Failed };
        self.endpoint.egress.connections().shook_hands(outcome);
        let mut stream = shaken.map_err(|error| self.classify(&error))?;
        self.cipher_suite = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());

        self.stage = Stage::FirstRead;
        let (least, longest) = limits::PROBE_FIRST_READ;
        let bound = (started.elapsed() * limits::PROBE_FIRST_READ_HANDSHAKES).clamp(least, longest);
        // Half of the time is left for an answer.
        let spoke_first = self.first_read(&mut stream, bound.min(share(deadline, 2))).await?;
        let method = match self.endpoint.request {
            Request::None => {
                // A farewell for the server's log; who does not take it at once does without.
                let _ = stream.shutdown().now_or_never();
                return Ok(());
            }
            Request::Head => Method::HEAD,
            Request::Options => Method::OPTIONS,
        };
        if spoke_first {
            return Err(Failure::new(
                Layer::Http,
                Reason::HttpFailed,
                "the server spoke before it was asked: what listens there is no HTTP server",
            ));
        }
        self.stage = Stage::Request;
        self.ask(method, stream).await
    }

    fn classify(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        classify(error, self.context())
    }

    /// As a delivery does it. A tenth of the time is left, so that what came of each address can be told.
    async fn connect(&mut self, host: &str, deadline: Instant) -> Result<Stream, Failure> {
        let port = self.endpoint.url.port_or_known_default().unwrap_or(443);
        let egress = self.endpoint.egress;
        let checked = egress.resolve(host, port).await.map_err(|error| self.classify(&error))?;
        self.stage = Stage::Connect;
        let dialled = egress.dial(&checked, deadline - self.endpoint.timeout / 10).await;
        let (stream, address) = dialled.map_err(|error| self.classify(&error))?;
        self.address = Some(address);
        Ok(stream)
    }

    /// Waits for what a server may have to say to the handshake. Silence is consent. Returns whether it sent
    /// anything else than TLS's own messages.
    async fn first_read(&self, stream: &mut TlsStream<Stream>, bound: Duration) -> Result<bool, Failure> {
        match timeout(bound, stream.read(&mut [0; 1])).await {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(self.classify(&io::Error::from(io::ErrorKind::UnexpectedEof))),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => Err(self.classify(&error)),
        }
    }

    async fn ask(&mut self, method: Method, stream: TlsStream<Stream>) -> Result<(), Failure> {
        let request = request(method, self.endpoint.url)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(limits::PROBE_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.classify(&error))?;
        let exchange = async {
            let (head, mut body) = sender.send_request(request).await?.into_parts();
            self.http_status = Some(head.status.as_u16());
            let mut page = Vec::new();
            // Only the page of a 400 tells anything. One that breaks off is judged by what came of it.
            while head.status == StatusCode::BAD_REQUEST && page.len() < limits::PROBE_BODY_BYTES {
                let Some(Ok(frame)) = body.frame().await else { break };
                page.extend_from_slice(frame.data_ref().map_or(&[], |data| &**data));
            }
            Ok::<_, hyper::Error>((head, page))
        };
        let (head, page) = drive(exchange, connection).await.map_err(|error| self.classify(&error))?;
        let status = head.status.as_u16();
        if self.endpoint.credentials_left_out && matches!(status, 401 | 403) {
            return Ok(());
        }
        let answer = Answer { status, headers: &head.headers, body: &page };
        http::refused(&answer, self.context()).map_or(Ok(()), Err)
    }
}

/// Runs the connection until the exchange ends, and tells why where only the connection knows.
async fn drive<T>(
    exchange: impl Future<Output = Result<T, hyper::Error>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<T, hyper::Error> {
    let mut exchange = std::pin::pin!(exchange);
    let ended = tokio::select! {
        biased;
        result = &mut exchange => return result,
        ended = connection => ended,
    };
    exchange.await.map_err(|error| match ended {
        Err(cause) if error.is_canceled() => cause,
        _ => error,
    })
}

fn request(method: Method, url: &Url) -> Result<hyper::Request<Empty<Bytes>>, Failure> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    hyper::Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, host)
        .header(USER_AGENT, crate::USER_AGENT)
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| {
            Failure::new(Layer::Http, Reason::HttpFailed, "endpoint.url cannot be written as an HTTP request")
        })
}

fn unusable(error: &TlsError) -> Failure {
    match error {
        TlsError::Trust(error) => Failure::new(
            Layer::TlsServer,
            Reason::TrustUnusable,
            format!("endpoint.trust {error}; nothing was sent"),
        ),
        TlsError::Identity(error) => Failure::new(
            Layer::TlsClient,
            Reason::CertificateUnusable,
            format!("the client certificate cannot be used for TLS, and nothing was sent: {error}"),
        ),
    }
}

/// Without the brackets of an IPv6 address.
fn host(url: &Url) -> Result<&str, Failure> {
    let host = url.host_str().ok_or_else(|| resolve_failed("endpoint.url has no host"))?;
    Ok(host.trim_start_matches('[').trim_end_matches(']'))
}

fn share(deadline: Instant, among: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left / u32::try_from(among).unwrap_or(u32::MAX).max(1)
}
