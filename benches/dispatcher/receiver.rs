//! The receiver, in its own process: TLS 1.3, a client certificate demanded, 200 for all that comes. It tells
//! over plain HTTP what came.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    routing::{get, post},
};
use clap::Args;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::{
    event,
    harness::{
        pki,
        process::{Process, Program},
    },
    parts,
    sender::Sender,
};

/// How long to wait for what is on its way.
const ARRIVAL: Duration = Duration::from_mins(2);

/// Between two looks at the count.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    chain: PathBuf,
    #[arg(long)]
    key: PathBuf,
    /// Who issues client certificates
    #[arg(long)]
    clients: PathBuf,
}

#[derive(Default)]
struct Book {
    requests: AtomicU64,
    connections: AtomicU64,
    /// See [`event::now`]; 0 before the first.
    first: AtomicU64,
    last: AtomicU64,
    /// From a post to its arrival, microseconds.
    took: Mutex<Vec<u64>>,
}

/// What came since it was last asked to forget.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Arrived {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    /// When the first came and when the last, see [`event::now`].
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Times from a post to its arrival, milliseconds.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Book {
    fn receive(&self, body: &[u8]) {
        let now = event::now();
        let _ = self.first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
        if let Some(posted) = event::posted(body) {
            self.took.lock().unwrap_or_else(PoisonError::into_inner).push(now.saturating_sub(posted) / 1000);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn arrived(&self) -> Arrived {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Arrived {
            requests: get(&self.requests),
            connections: get(&self.connections),
            first: get(&self.first),
            last: get(&self.last),
        }
    }

    async fn wait_for(&self, requests: u64) -> Arrived {
        while self.requests.load(Ordering::Relaxed) < requests {
            tokio::time::sleep(LOOK).await;
        }
        self.arrived()
    }

    fn forget(&self) {
        for value in [&self.requests, &self.connections, &self.first, &self.last] {
            value.store(0, Ordering::Relaxed);
        }
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn latency(&self) -> Latency {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner).clone();
        took.sort_unstable();
        let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        #[allow(clippy::cast_precision_loss)]
        let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
        Latency { p50: milliseconds(at(50)), p99: milliseconds(at(99)) }
    }
}

/// Runs until it is killed.
pub(crate) async fn run(options: Options) {
    let book = Arc::new(Book::default());
    let tls = TlsAcceptor::from(Arc::new(server_config(&options)));
    let (listener, address) = parts::listen().await;
    let (telling, told_at) = parts::listen().await;
    let router = Router::new()
        .route(
            "/wait/{requests}",
            get(async |State(book): State<Arc<Book>>, Path(requests)| Json(book.wait_for(requests).await)),
        )
        .route("/forget", post(async |State(book): State<Arc<Book>>| book.forget()))
        .route("/latency", get(async |State(book): State<Arc<Book>>| Json(book.latency())))
        .with_state(Arc::clone(&book));
    tokio::spawn(parts::accept(telling, move |stream| {
        let service = TowerToHyperService::new(router.clone());
        async { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) }
    }));
    println!("listening {} {told_at}", address.port());
    parts::accept(listener, |stream| {
        let (tls, book) = (tls.clone(), Arc::clone(&book));
        async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            book.connections.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await?.to_bytes();
                book.receive(&body);
                Ok::<_, hyper::Error>(http::Response::new(Empty::<Bytes>::new()))
            });
            // A client may close as it likes.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
}

fn server_config(options: &Options) -> ServerConfig {
    let certificates = |path: &PathBuf| {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&options.clients));
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("one root is enough");
    let key = PrivateKeyDer::from_pem_file(&options.key);
    ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(clients)
        .with_single_cert(
            certificates(&options.chain),
            key.unwrap_or_else(|error| panic!("{}: {error}", options.key.display())),
        )
        .unwrap_or_else(|error| panic!("the receiver's certificate: {error}"))
}

/// A running receiver.
pub(crate) struct Receiver {
    _process: Process,
    port: u16,
    told_at: SocketAddr,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared = pki::shared().await;
        let process = Program::new("receiver", parts::program())
            .args(["receiver".as_ref(), "--chain".as_ref(), shared.server.chain.as_os_str()])
            .args(["--key".as_ref(), shared.server.key.as_os_str()])
            .args(["--clients".as_ref(), shared.client_authority.root.as_os_str()])
            .start();
        let (port, told_at) = process
            .find_line("the ports", |line| {
                let (port, told_at) = line.strip_prefix("listening ")?.split_once(' ')?;
                Some((port.parse().ok()?, told_at.parse().ok()?))
            })
            .await;
        Self { _process: process, port, told_at }
    }

    /// With the name that the shared server certificate is for.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/hooks", self.port)
    }

    /// Counts from nothing.
    pub(crate) async fn forget(&self) {
        Sender::connect(self.told_at).await.send(Request::post("/forget"), "").await;
    }

    /// Waits until so many requests have come.
    pub(crate) async fn wait_for(&self, requests: impl Into<u64>) -> Arrived {
        let requests = requests.into();
        if let Ok(arrived) = timeout(ARRIVAL, self.ask(&format!("/wait/{requests}"))).await {
            return arrived;
        }
        let arrived: Arrived = self.ask("/wait/0").await;
        panic!("waited {ARRIVAL:?} for {requests} requests; what came is {arrived:?}")
    }

    pub(crate) async fn latency(&self) -> Latency {
        self.ask("/latency").await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (_, body) = Sender::connect(self.told_at).await.send(Request::get(path), "").await;
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("the receiver said of {path}: {error}"))
    }
}
