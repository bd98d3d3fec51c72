//! The receivers, each in a mood that changes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use postrider::limits;
use rand::{RngExt as _, rngs::StdRng};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    books::Books,
    harness::{
        pki,
        receiver::{ClientAuth, Options, free_port},
    },
};

/// How a slow receiver waits before it answers, milliseconds.
const SLOW_MILLIS: std::ops::Range<u64> = 1000..3000;

/// Of ten requests a failing receiver answers so many with 500, while it does not fail at all of them.
const FAILURES_OF_TEN: u32 = 3;

/// How long a mood lasts, seconds: the usual one, and the bad one.
const USUAL_SECONDS: std::ops::Range<u64> = 10..40;
const BAD_SECONDS: std::ops::Range<u64> = 5..15;

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// Answers after a while.
    Slow,
    /// Answers 500 at random, and to everything while its mood is bad.
    Failing,
    /// Answers 400 to everything.
    Refusing,
    /// Its port is closed while its mood is bad.
    Vanishing,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Good, Self::Slow, Self::Failing, Self::Refusing, Self::Vanishing];

    /// Also the name of the webhook.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Refusing => "refusing",
            Self::Vanishing => "vanishing",
        }
    }

    /// Events a second.
    pub(crate) fn rate(self, usual: f64, time: Duration) -> f64 {
        match self {
            // As much as sixteen at a time can be with two seconds each, and time to catch up.
            Self::Slow => usual.min(5.0),
            // Those that are dead are kept, so many of them; one more would drop the oldest.
            Self::Refusing => {
                let room = f64::from(u32::try_from(limits::DEAD_EVENTS).unwrap_or(u32::MAX)) * 0.8;
                usual.min(room / time.as_secs_f64().max(1.0))
            }
            _ => usual,
        }
    }

    /// `delivery.retry.maxAgeSeconds`, where it is not the default.
    pub(crate) fn max_age_seconds(self) -> Option<u32> {
        (self == Self::Refusing).then_some(60)
    }
}

/// A server on a port of its own, whether it runs or not.
pub(crate) struct Receiver {
    kind: Kind,
    address: SocketAddr,
    tls: TlsAcceptor,
    books: Arc<Books>,
    bad: watch::Sender<bool>,
    /// Nothing fails at random any more.
    calm: AtomicBool,
}

impl Receiver {
    /// Starts one.
    pub(crate) async fn start(kind: Kind, books: Arc<Books>) -> Arc<Self> {
        let shared = pki::shared().await;
        let tls = Options::new(&shared.server, ClientAuth::Required(&shared.client_authority)).tls();
        let receiver = Arc::new(Self {
            kind,
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            tls: TlsAcceptor::from(Arc::new(tls)),
            books,
            bad: watch::Sender::new(false),
            calm: AtomicBool::new(false),
        });
        let listener = receiver.listen().await;
        tokio::spawn(Arc::clone(&receiver).serve(listener));
        receiver
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// With the name that the shared server certificate is for.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/hooks", self.address.port())
    }

    /// Until the end, when it is in its usual mood.
    pub(crate) async fn change_moods(self: Arc<Self>, mut random: StdRng, stop: CancellationToken) {
        let lasts = async |seconds| {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(Duration::from_secs(seconds)) => {}
            }
        };
        while !stop.is_cancelled() {
            lasts(random.random_range(USUAL_SECONDS)).await;
            let bad = lasts(random.random_range(BAD_SECONDS));
            self.bad.send_replace(true);
            match self.kind {
                Kind::Vanishing => self.books.away.during(bad).await,
                _ => bad.await,
            }
            self.bad.send_replace(false);
        }
        self.calm.store(true, Ordering::Relaxed);
    }

    async fn listen(&self) -> TcpListener {
        let listener = TcpListener::bind(self.address).await;
        listener
            .unwrap_or_else(|error| panic!("{} cannot listen on {}: {error}", self.kind.name(), self.address))
    }

    async fn serve(self: Arc<Self>, mut listener: TcpListener) {
        let mut bad = self.bad.subscribe();
        // Dropped, they are closed.
        let mut connections = JoinSet::new();
        loop {
            let vanishes = async {
                // The sender is ours: the channel cannot close.
                let _ = bad.wait_for(|bad| *bad && self.kind == Kind::Vanishing).await;
            };
            tokio::select! {
                accepted = listener.accept() => {
                    // Too many open files, or a client that is gone already: the next one may do better.
                    if let Ok((stream, _)) = accepted {
                        let receiver = Arc::clone(&self);
                        connections.spawn(async move {
                            let Ok(stream) = receiver.tls.accept(stream).await else { return };
                            let service = service_fn(|request| receiver.answer(request));
                            // A client may close as it likes.
                            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                        });
                    }
                    while connections.try_join_next().is_some() {}
                }
                () = vanishes => {
                    drop(listener);
                    connections.shutdown().await;
                    let _ = bad.wait_for(|bad| !bad).await;
                    listener = self.listen().await;
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        // A body that breaks off is no request: the client gave up or was killed.
        let id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()?.parse::<Uuid>().ok());
        let status = match (body.collect().await, id) {
            (Ok(_), Some(id)) => self.decide(id).await,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = Response::new(Empty::new());
        *response.status_mut() = status;
        Ok(response)
    }

    async fn decide(&self, id: Uuid) -> StatusCode {
        let fails = || {
            let at_random =
                !self.calm.load(Ordering::Relaxed) && rand::rng().random_ratio(FAILURES_OF_TEN, 10);
            *self.bad.borrow() || at_random
        };
        let status = match self.kind {
            Kind::Refusing => StatusCode::BAD_REQUEST,
            Kind::Failing if fails() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::OK,
        };
        if self.kind == Kind::Slow {
            let after = rand::rng().random_range(SLOW_MILLIS);
            sleep(Duration::from_millis(after)).await;
        }
        if status == StatusCode::OK {
            self.books.delivered(id);
        } else {
            self.books.refused();
        }
        status
    }
}
