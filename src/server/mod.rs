//! An HTTP server that nobody can hold up: plain HTTP/1.1, or HTTP/1.1 and HTTP/2 over TLS.
//!
//! Whatever a sender could take for long has a bound (`bounds`) and a time (`activity`). Over a bound it is told
//! so at once, and everybody else goes on.

mod activity;
mod bounds;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    http::{
        HeaderValue, Request, Response, StatusCode, Version,
        header::{CONTENT_TYPE, HOST, RETRY_AFTER},
    },
    response::IntoResponse as _,
};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{io::InspectReader, sync::CancellationToken};
use tower::Service as _;

use crate::limits;
use activity::{Activity, Overdue};
pub(crate) use bounds::{Bounds, Over, Shares, Taken};

/// What HTTP over TLS is negotiated by (RFC 7301), in the order in which it is preferred.
pub(crate) const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

/// The certificate that is shown, and what else TLS is told; `None` before there is one.
pub(crate) type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Whose request it is: an extension of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens on an address; returns which it is, for a port of 0.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| BindError { address, source })
}

/// Lets this program have as many open files as it is allowed to; says so where they are too few for so many
/// connections, and what else it has open.
pub(crate) fn raise_open_files(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let limit = getrlimit(Resource::Nofile).current;
    if limit.is_some_and(|limit| limit < 2 * connections as u64) {
        tracing::warn!(limit, connections, "few open files are allowed: senders may be kept waiting by that");
    }
}

/// Serves until `stop`, then answers what has begun, for a while at most. With `tls`, nobody is served before there
/// is a certificate; a new one is for new connections.
pub(crate) async fn serve(
    listener: TcpListener,
    mut tls: Option<Tls>,
    routes: Router,
    bounds: Arc<Bounds>,
    stop: CancellationToken,
) {
    if let Some(tls) = &mut tls {
        tokio::select! {
            () = stop.cancelled() => return,
            there = tls.wait_for(Option::is_some) => if there.is_err() { return },
        }
    }
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            // The sender is gone already, or there are too many open files: the next one may do better.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(limits::ACCEPT_RETRY).await;
                continue;
            }
        };
        // Dropped where there is no place for it, and so closed.
        let Some(place) = bounds.connection(peer) else { continue };
        let activity = Arc::clone(place.activity());
        let sender = Sender {
            peer,
            activity,
            bounds: Arc::clone(&bounds),
            routes: routes.clone(),
            stop: stop.clone(),
        };
        let tls = tls.as_ref().and_then(|tls| tls.borrow().clone());
        connections.spawn(async move {
            let ended = Arc::new(sender).serve(stream, tls).await;
            tracing::debug!(%peer, %ended, "a sender's connection ended");
            drop(place);
        });
    }
    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    if timeout(limits::HTTP_DRAIN, answered).await.is_err() {
        tracing::warn!(connections = connections.len(), "senders were cut off that did not come to an end");
    }
}

/// Who is at the other end of a connection.
struct Sender {
    peer: IpAddr,
    activity: Arc<Activity>,
    bounds: Arc<Bounds>,
    routes: Router,
    stop: CancellationToken,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("as it should")]
    InOrder,
    #[error("too many TLS handshakes are under way")]
    TooManyHandshakes,
    #[error("no TLS: {0}")]
    Handshake(io::Error),
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    #[error("{0}")]
    Overdue(Overdue),
    #[error("its place was needed for a peer that has fewer")]
    MadeRoom,
}

impl Sender {
    async fn serve(self: Arc<Self>, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Ended {
        // Answers are short: none is to wait for the sender's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (activity, served) = (Arc::clone(&self.activity), self.over(stream, tls));
        tokio::select! {
            ended = served => ended.err().unwrap_or(Ended::InOrder),
            () = activity.made_room() => Ended::MadeRoom,
        }
    }

    async fn over(self: Arc<Self>, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<(), Ended> {
        let Some(tls) = tls else { return self.http1(stream).await };
        let handshake = self.bounds.handshake(self.peer).ok_or(Ended::TooManyHandshakes)?;
        let accepted = timeout(limits::TLS_HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await;
        let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(Ended::Handshake)?;
        drop(handshake);
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    async fn http1(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<(), Ended> {
        self.activity.opened();
        let activity = Arc::clone(&self.activity);
        let stream = InspectReader::new(stream, move |_: &[u8]| activity.heard());
        let mut builder = http1::Builder::new();
        builder
            // `activity` has an eye on that.
            .header_read_timeout(None)
            .max_headers(limits::HTTP_HEADERS)
            .max_header_size(limits::HTTP_HEAD_BYTES as usize)
            .max_buf_size(limits::HTTP_BUFFER_BYTES);
        let (sender, activity) = (Arc::clone(&self), &*self.activity);
        let service = service_fn(move |request| Arc::clone(&sender).answer(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tend(connection, activity, &self.stop).await
    }

    async fn http2(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), Ended> {
        // What is heard on it need not be a request: pings are welcome.
        self.activity.idles();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::HTTP2_STREAMS)
            .max_header_list_size(limits::HTTP_HEAD_BYTES)
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(limits::HTTP_BUFFER_BYTES)
            .max_pending_accept_reset_streams(limits::HTTP2_RESET_STREAMS)
            .max_local_error_reset_streams(limits::HTTP2_RESET_STREAMS)
            .keep_alive_interval(limits::HTTP2_PING)
            .keep_alive_timeout(limits::HTTP2_PONG);
        let (sender, activity) = (Arc::clone(&self), &*self.activity);
        let service = service_fn(move |request| Arc::clone(&sender).answer(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tend(connection, activity, &self.stop).await
    }

    /// The exchange is under way until the last of the answer has been taken from us.
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<impl HttpBody<Data = Bytes, Error = axum::Error>>, Infallible> {
        let exchange = self.activity.begin();
        let admitted = self.admit(&request);
        let response = match admitted {
            Err(refused) => refused.into_response(),
            // The place is free again with the answer: a sender that does not take it holds its connection alone.
            Ok(_place) => {
                request.extensions_mut().insert(Peer(self.peer));
                let Ok(response) = self.routes.clone().call(request.map(Body::new)).await;
                response
            }
        };
        Ok(response.map(|body| {
            body.inspect_frame(move |_| {
                let _held = &exchange;
            })
        }))
    }

    fn admit(&self, request: &Request<Incoming>) -> Result<Taken, Refused> {
        let uri = request.uri();
        if uri.path_and_query().map_or(0, |target| target.as_str().len()) > limits::HTTP_TARGET_BYTES {
            return Err(Refused::Target);
        }
        // RFC 9112, 3.2.
        let hosts = request.headers().get_all(HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return Err(Refused::Host);
        }
        self.bounds.request(self.peer).map_err(Refused::Over)
    }
}

/// Sees to it that the connection comes to an end: once its sender has had its time, or at `stop`.
async fn tend<C>(connection: C, activity: &Activity, stop: &CancellationToken) -> Result<(), Ended>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = std::pin::pin!(connection);
    let mut ends = false;
    loop {
        tokio::select! {
            ended = &mut connection => return ended.map_err(Ended::Http),
            () = stop.cancelled(), if !ends => {}
            overdue = activity.overdue() => match overdue {
                // A request may be on its way already: it is still taken.
                Overdue::Idle if !ends => {}
                overdue => return Err(Ended::Overdue(overdue)),
            }
        }
        ends = true;
        activity.idles_for_the_last_time();
        connection.as_mut().graceful_shutdown();
    }
}

/// Why a request goes no further.
enum Refused {
    Target,
    Host,
    Over(Over),
}

impl Refused {
    fn into_response(self) -> axum::response::Response {
        let bytes = limits::HTTP_TARGET_BYTES;
        match self {
            Self::Target => told(
                StatusCode::URI_TOO_LONG,
                &format!("path and query are longer than the limit of {bytes} bytes"),
            ),
            Self::Host => told(StatusCode::BAD_REQUEST, "exactly one Host header is needed"),
            Self::Over(over) => over.told("requests"),
        }
    }
}

impl Over {
    /// As an answer.
    pub(crate) fn told(self, what: &str) -> axum::response::Response {
        let mut response = match self {
            Self::Peer => told(
                StatusCode::TOO_MANY_REQUESTS,
                &format!("your address has too many {what} under way; send it again"),
            ),
            Self::All => told(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("too many {what} are under way; send it again"),
            ),
        };
        response.headers_mut().insert(RETRY_AFTER, limits::INGEST_RETRY_AFTER_SECONDS.into());
        response
    }
}

/// RFC 9457.
fn told(status: StatusCode, detail: &str) -> axum::response::Response {
    let title = status.canonical_reason().unwrap_or_default();
    let problem =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[cfg(test)]
mod tests;
