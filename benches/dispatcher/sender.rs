//! Senders of events, and of what else is asked over HTTP: each on one connection that it keeps.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::interval_at,
};
use tokio_rustls::TlsConnector;

use crate::event;

/// What a sender needs where not everybody is let in.
pub(crate) struct Door {
    pub(crate) tls: TlsConnector,
    /// Value of the header Authorization.
    pub(crate) authorization: HeaderValue,
}

/// A connection.
pub(crate) struct Sender {
    connection: SendRequest<Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Sender {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_through(address, None).await
    }

    async fn connect_through(address: SocketAddr, door: Option<&Door>) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        stream.set_nodelay(true).expect("an option that every TCP socket has");
        let Some(door) = door else { return Self::over(stream, None).await };
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = door.tls.connect(name, stream).await;
        let stream = stream.unwrap_or_else(|error| panic!("no handshake with {address}: {error}"));
        Self::over(stream, Some(door.authorization.clone())).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        authorization: Option<HeaderValue>,
    ) -> Self {
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.expect("nothing is said in a handshake");
        tokio::spawn(connection);
        Self { connection: sender, authorization }
    }

    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Bytes) {
        let mut request = request.header(HOST, "localhost");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body.into())).expect("a valid request");
        self.connection.ready().await.expect("the connection stays");
        let response =
            self.connection.send_request(request).await.unwrap_or_else(|error| panic!("no answer: {error}"));
        let status = response.status();
        let body =
            response.into_body().collect().await.unwrap_or_else(|error| panic!("half an answer: {error}"));
        (status, body.to_bytes())
    }

    /// Posts an event; returns how long its 202 took.
    pub(crate) async fn post(&mut self, path: &str) -> Duration {
        let from = Instant::now();
        let (status, body) = self.send(event::headers(Request::post(path)), event::body()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path}: {}", String::from_utf8_lossy(&body));
        from.elapsed()
    }
}

/// Where events are posted: to each path in turn.
#[derive(Clone)]
pub(crate) struct Paths {
    pub(crate) address: SocketAddr,
    pub(crate) paths: Arc<[String]>,
    /// Where it is over TLS.
    pub(crate) door: Option<Arc<Door>>,
}

/// What senders did.
pub(crate) struct Sent {
    pub(crate) events: u32,
    /// When the first one was posted, see [`event::now`].
    pub(crate) from: u64,
}

/// Posts events for a while: so many at a time, each as soon as the one before it is answered.
pub(crate) async fn saturate(paths: &Paths, at_once: usize, time: Duration) -> Sent {
    send(paths, at_once, time, None).await
}

/// Posts so many events a second for a while, whether the ones before are answered or not: `at_once` senders
/// have to be enough for that.
pub(crate) async fn pace(paths: &Paths, per_second: f64, at_once: usize, time: Duration) -> Sent {
    send(paths, at_once, time, Some(per_second)).await
}

async fn send(paths: &Paths, at_once: usize, time: Duration, per_second: Option<f64>) -> Sent {
    #[allow(clippy::cast_precision_loss)]
    let every = per_second.map(|rate| Duration::from_secs_f64(at_once as f64 / rate));
    let mut senders = Vec::new();
    for _ in 0..at_once {
        senders.push(Sender::connect_through(paths.address, paths.door.as_deref()).await);
    }
    let (next, from) = (Arc::new(AtomicUsize::new(0)), event::now());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, mut sender) in senders.into_iter().enumerate() {
        let (paths, next) = (Arc::clone(&paths.paths), Arc::clone(&next));
        // One after the other, and not all of them at the same time.
        let first = every.map_or(start, |every| start + every.mul_f64(fraction(n, at_once)));
        tasks.spawn(async move {
            let mut ticks = every.map(|every| interval_at(first.into(), every));
            let mut events = 0;
            loop {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                if start.elapsed() >= time {
                    return events;
                }
                sender.post(&paths[next.fetch_add(1, Ordering::Relaxed) % paths.len()]).await;
                events += 1;
            }
        });
    }
    Sent { events: tasks.join_all().await.into_iter().sum(), from }
}

#[allow(clippy::cast_precision_loss)]
fn fraction(n: usize, of: usize) -> f64 {
    n as f64 / of as f64
}

/// Posts so many events, in batches.
pub(crate) async fn fill(paths: &Paths, events: usize, at_once: usize) {
    // More would not fit in the 1 MiB that a request may have.
    const BATCH: usize = 800;
    let batches = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let mut sender = Sender::connect(paths.address).await;
        let (paths, batches) = (Arc::clone(&paths.paths), Arc::clone(&batches));
        tasks.spawn(async move {
            loop {
                let batch = batches.fetch_add(1, Ordering::Relaxed);
                let events = events.saturating_sub(batch * BATCH).min(BATCH);
                if events == 0 {
                    return;
                }
                let path = &paths[batch % paths.len()];
                let request = Request::builder().method(Method::POST).uri(path);
                let request = request.header("content-type", "application/cloudevents-batch+json");
                let (status, body) = sender.send(request, event::batch(events)).await;
                assert_eq!(status, StatusCode::ACCEPTED, "{path}: {}", String::from_utf8_lossy(&body));
            }
        });
    }
    tasks.join_all().await;
}
