//! A receiving server in the test program: it asks for client certificates and remembers every request.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc::UnboundedSender, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    context::locked,
    eventually,
    pki::{self, Authority, Certificate},
};

/// What a program is told to reach receivers: they are on this machine, which is refused by default.
pub(crate) const TO_RECEIVERS: [&str; 1] = ["--egress-allow=127.0.0.1"];

static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Which client certificate the server asks for.
#[derive(Clone, Copy)]
pub(crate) enum ClientAuth<'a> {
    /// The handshake fails without one below this authority's root.
    Required(&'a Authority),
    /// Asked for; whoever has none is served as well.
    Optional(&'a Authority),
    /// As `Optional`, below any of these roots.
    OptionalOfAny(&'a [&'a Authority]),
    /// Not asked for.
    None,
}

/// What a server answers.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or_else(|error| panic!("{status}: {error}"));
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// SHA-256 of the client's certificate, in the notation of [`pki::Facts`].
    pub(crate) client_fingerprint_sha256: Option<String>,
    /// Counts from 1: the same number, the same connection.
    pub(crate) connection: usize,
    pub(crate) at: Instant,
}

impl Received {
    /// A header's value; a test that asks for one that is missing fails.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers));
        value.to_str().unwrap_or_else(|error| panic!("header {name}: {error}"))
    }
}

/// How a server is to be.
pub(crate) struct Options<'a> {
    certificate: &'a Certificate,
    client_auth: ClientAuth<'a>,
    versions: &'static [&'static SupportedProtocolVersion],
    address: SocketAddr,
    diverted: Option<UnboundedSender<Received>>,
}

impl<'a> Options<'a> {
    pub(crate) fn new(certificate: &'a Certificate, client_auth: ClientAuth<'a>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { certificate, client_auth, versions: rustls::ALL_VERSIONS, address, diverted: None }
    }

    pub(crate) fn tls12_only(self) -> Self {
        Self { versions: &TLS12, ..self }
    }

    pub(crate) fn tls13_only(self) -> Self {
        Self { versions: &TLS13, ..self }
    }

    /// Where another server was before.
    pub(crate) fn address(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// Requests go there and are not remembered: for more of them than a run has memory for.
    pub(crate) fn divert(self, to: UnboundedSender<Received>) -> Self {
        Self { diverted: Some(to), ..self }
    }

    pub(crate) async fn start(self) -> Receiver {
        let config = self.tls();
        let listener = TcpListener::bind(self.address)
            .await
            .unwrap_or_else(|error| panic!("the receiver cannot listen on {}: {error}", self.address));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("the receiver's address: {error}"));
        let state = Arc::new(State {
            seen: watch::Sender::new(Seen::default()),
            answers: Mutex::new(Answers { next: VecDeque::new(), then: Answer::status(200) }),
            held: watch::Sender::new(false),
            diverted: self.diverted,
        });
        let accept = accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&state));
        Receiver { address, state, server: tokio::spawn(accept) }
    }

    pub(crate) fn tls(&self) -> ServerConfig {
        let verifier = |authorities: &[&Authority]| {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add_parsable_certificates(pki::certificates(&authority.root));
            }
            WebPkiClientVerifier::builder(Arc::new(roots))
        };
        let verifier: Arc<dyn ClientCertVerifier> = match self.client_auth {
            ClientAuth::Required(authority) => verifier(&[authority]).build().expect("one root is enough"),
            ClientAuth::Optional(authority) => {
                verifier(&[authority]).allow_unauthenticated().build().expect("one root is enough")
            }
            ClientAuth::OptionalOfAny(authorities) => {
                verifier(authorities).allow_unauthenticated().build().expect("there is a root")
            }
            ClientAuth::None => Arc::new(NoClientAuth),
        };
        ServerConfig::builder_with_protocol_versions(self.versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.certificate.chain_der(), self.certificate.key_der())
            .unwrap_or_else(|error| panic!("the receiver's certificate: {error}"))
    }
}

/// A running server; dropped, it and its connections are gone.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    seen: watch::Sender<Seen>,
    answers: Mutex<Answers>,
    held: watch::Sender<bool>,
    diverted: Option<UnboundedSender<Received>>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Received>,
    dialled: usize,
    connections: usize,
    failed_handshakes: Vec<String>,
}

struct Answers {
    next: VecDeque<Answer>,
    then: Answer,
}

impl Receiver {
    /// One that demands a client certificate of the shared authority.
    pub(crate) async fn start() -> Self {
        let shared = pki::shared().await;
        Options::new(&shared.server, ClientAuth::Required(&shared.client_authority)).start().await
    }

    /// Ends it and its connections; another can take its address then.
    pub(crate) async fn stop(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// With the name that the shared server certificate is for.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What it answers from now on.
    pub(crate) fn always(&self, answer: Answer) {
        let mut answers = locked(&self.state.answers);
        answers.next.clear();
        answers.then = answer;
    }

    /// What it answers to the next requests, one each, before it answers as it did.
    pub(crate) fn first(&self, next: impl IntoIterator<Item = Answer>) {
        locked(&self.state.answers).next.extend(next);
    }

    /// Requests from now on are remembered at once and answered only when the guard is dropped.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.state.held.send_replace(true);
        Hold(self)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.state.seen.borrow().requests.clone()
    }

    /// TCP connections, whatever became of them.
    pub(crate) fn dialled(&self) -> usize {
        self.state.seen.borrow().dialled
    }

    /// Connections whose handshake succeeded.
    pub(crate) fn connections(&self) -> usize {
        self.state.seen.borrow().connections
    }

    /// What the server said of the handshakes that failed.
    pub(crate) fn failed_handshakes(&self) -> Vec<String> {
        self.state.seen.borrow().failed_handshakes.clone()
    }

    /// Waits until `n` requests came in all, and returns all.
    pub(crate) async fn wait_for(&self, n: usize) -> Vec<Received> {
        self.wait_until(&format!("{n} requests"), |requests| requests.len() >= n).await
    }

    /// Waits until the requests so far are as wanted, and returns them.
    pub(crate) async fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&[Received]) -> bool,
    ) -> Vec<Received> {
        self.wait(what, |seen| condition(&seen.requests)).await;
        self.requests()
    }

    /// Waits until `n` handshakes failed in all, and returns what the server said of them.
    pub(crate) async fn wait_for_failed_handshakes(&self, n: usize) -> Vec<String> {
        self.wait(&format!("{n} failed handshakes"), |seen| seen.failed_handshakes.len() >= n).await;
        self.failed_handshakes()
    }

    async fn wait(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.state.seen.subscribe();
        let bound = eventually::TIMEOUT;
        super::context::waiting_for(&format!("{what} at the receiver"));
        if tokio::time::timeout(bound, seen.wait_for(condition)).await.is_err() {
            let seen = self.state.seen.borrow();
            let requests: Vec<_> = seen.requests.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
            panic!(
                "waited {bound:?} for {what} at the receiver; it has {} requests on {} connections: {requests:?}; \
                 failed handshakes: {:?}",
                seen.requests.len(),
                seen.connections,
                seen.failed_handshakes
            );
        }
    }

    /// Asserts that nothing comes for a while: the one wait that has no event to end it.
    pub(crate) async fn assert_no_more(&self, than: usize, during: Duration) {
        tokio::time::sleep(during).await;
        let requests = self.requests();
        assert!(requests.len() <= than, "{} requests came, not {than}: {requests:?}", requests.len());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Keeps answers back; dropped, they go.
pub(crate) struct Hold<'a>(&'a Receiver);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.state.held.send_replace(false);
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Too many open files, or a client that is gone already: the next one may do better.
        let Ok((stream, _)) = listener.accept().await else { continue };
        state.seen.send_modify(|seen| seen.dialled += 1);
        connections.spawn(serve(stream, tls.clone(), Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Arc<State>) {
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            return state.seen.send_modify(|seen| seen.failed_handshakes.push(error.to_string()));
        }
    };
    let client = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(pki::fingerprint);
    let mut connection = 0;
    state.seen.send_modify(|seen| {
        seen.connections += 1;
        connection = seen.connections;
    });
    let service = service_fn(|request| answer(request, client.clone(), connection, &state));
    // A client may close as it likes.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    client: Option<String>,
    connection: usize,
    state: &State,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off is no request: the client gave up or was killed.
    let Ok(body) = body.collect().await else {
        return Ok(response(Answer::status(400)));
    };
    let answer = {
        let mut answers = locked(&state.answers);
        answers.next.pop_front().unwrap_or_else(|| answers.then.clone())
    };
    let received = Received {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body: body.to_bytes(),
        client_fingerprint_sha256: client,
        connection,
        at: Instant::now(),
    };
    match &state.diverted {
        // Whoever listened may be gone; the server goes on.
        Some(to) => drop(to.send(received)),
        None => state.seen.send_modify(|seen| seen.requests.push(received)),
    }
    let _ = state.held.subscribe().wait_for(|held| !held).await;
    Ok(response(answer))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// A port for a server that comes and goes: below those that the kernel gives to outgoing connections, so that
/// nobody takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    let candidates = std::iter::repeat_with(|| 20_000 + rand::random::<u16>() % 12_000);
    let mut free = candidates.filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().unwrap_or_default()
}
