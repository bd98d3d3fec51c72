use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{extract::State, routing::get};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::ingest::certificate;

/// Answers at once, or once it is let, and counts those that wait.
#[derive(Default)]
struct Gate {
    waiting: AtomicUsize,
    came: Notify,
    open: Notify,
}

fn routes(gate: &Arc<Gate>) -> Router {
    let wait = async |State(gate): State<Arc<Gate>>| {
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        gate.came.notify_one();
        gate.open.notified().await;
        "waited"
    };
    let large = async || vec![b'x'; 1024 * 1024];
    let long = async || {
        let piece = || Ok::<_, Infallible>(vec![b'x'; 1024]);
        Body::from_stream(futures::stream::iter(std::iter::repeat_with(piece).take(1024)))
    };
    Router::new()
        .route("/", get(async || "ok"))
        .route("/wait", get(wait))
        .route("/large", get(large))
        .route("/long", get(long))
        .with_state(Arc::clone(gate))
}

fn roomy() -> Bounds {
    Bounds::new((100, 100), (100, 100), (100, 100))
}

/// A running server, and what it was started with.
struct Scene {
    address: SocketAddr,
    gate: Arc<Gate>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Scene {
    async fn new(tls: Option<Tls>, bounds: Bounds) -> Self {
        let (listener, address) = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (gate, stop) = (Arc::<Gate>::default(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, tls, routes(&gate), Arc::new(bounds), stop.clone()));
        Self { address, gate, stop, server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

type Served = (Result<(), Ended>, Duration);

/// What HTTP/1.1 makes of a connection whose time is not real, and after how long it ended.
fn over_duplex() -> (DuplexStream, JoinHandle<Served>) {
    let (ours, theirs) = duplex(1024);
    let sender = Arc::new(Sender {
        peer: [127, 0, 0, 1].into(),
        activity: Arc::new(Activity::new()),
        bounds: Arc::new(roomy()),
        routes: routes(&Arc::default()),
        stop: CancellationToken::new(),
    });
    let from = Instant::now();
    (ours, tokio::spawn(async move { (sender.http1(theirs).await, from.elapsed()) }))
}

fn overdue(ended: &Result<(), Ended>) -> Option<Overdue> {
    if let Err(Ended::Overdue(overdue)) = ended { Some(*overdue) } else { None }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_creeps_ends_its_connection() {
    for first in ["", "GET / HT"] {
        let (mut stream, server) = over_duplex();
        say(&mut stream, first).await;
        let creep = async {
            loop {
                tokio::time::sleep(Duration::from_secs(3)).await;
                if stream.write_all(b"x").await.is_err() {
                    break;
                }
            }
        };
        let ((ended, after), ()) = tokio::join!(async { server.await.unwrap() }, creep);
        assert_eq!(overdue(&ended), Some(Overdue::Head));
        assert!(after.abs_diff(limits::HTTP_HEAD) < limits::HTTP_LOOK, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_has_longer_than_a_head_that_has_begun() {
    let (mut stream, server) = over_duplex();
    for pause in [0, 60, 60] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        say(&mut stream, GET).await;
        stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
    }
    let (ended, after) = server.await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert!(after.abs_diff(Duration::from_mins(2) + limits::HTTP_IDLE) < limits::HTTP_LOOK, "{after:?}");

    let (mut stream, server) = over_duplex();
    say(&mut stream, GET).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    say(&mut stream, "G").await;
    let (ended, after) = server.await.unwrap();
    assert_eq!(overdue(&ended), Some(Overdue::Head));
    assert!(after.abs_diff(Duration::from_mins(1) + limits::HTTP_HEAD) < limits::HTTP_LOOK * 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_not_waited_for() {
    for (path, bound, last) in [
        // In one piece, so hyper has all of it from the beginning.
        ("/large", limits::HTTP_IDLE + limits::HTTP_LAST, Overdue::Ends),
        ("/long", limits::HTTP_EXCHANGE, Overdue::Exchange),
    ] {
        let (mut stream, server) = over_duplex();
        say(&mut stream, &GET.replace("/ ", &format!("{path} "))).await;
        let (ended, after) = server.await.unwrap();
        assert_eq!(overdue(&ended), Some(last), "{path}");
        assert!(after.abs_diff(bound) < limits::HTTP_LOOK * 2, "{path}: {after:?}");
    }
}

#[tokio::test]
async fn over_the_bound_of_a_peer_it_is_told_so_and_others_go_on() {
    let scene = Scene::new(None, Bounds::new((100, 2), (1, 1), (100, 1))).await;
    let mut first = scene.connect().await;
    say(&mut first, WAIT).await;
    scene.gate.came.notified().await;

    let mut second = scene.connect().await;
    say(&mut second, LAST).await;
    let told = all(&mut second).await;
    assert!(told.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{told}");
    assert!(
        told.contains("retry-after: 5\r\n") && told.contains("your address has too many requests"),
        "{told}"
    );

    let _third = scene.connect().await;
    assert_eq!(all(&mut scene.connect().await).await, "", "one connection too many is closed at once");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = other.connect(scene.address).await.unwrap();
    say(&mut other, LAST).await;
    assert!(all(&mut other).await.starts_with("HTTP/1.1 200 OK\r\n"));

    scene.gate.open.notify_one();
    let mut answer = Vec::with_capacity(1024);
    first.read_buf(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn over_the_bound_of_all_nobody_waits() {
    let scene = Scene::new(None, Bounds::new((100, 100), (1, 1), (1, 2))).await;
    let mut first = scene.connect().await;
    say(&mut first, WAIT).await;
    scene.gate.came.notified().await;
    let mut second = scene.connect().await;
    say(&mut second, LAST).await;
    let told = all(&mut second).await;
    assert!(
        told.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && told.contains("retry-after"),
        "{told}"
    );
}

#[tokio::test]
async fn what_has_begun_is_answered_at_the_end() {
    let scene = Scene::new(None, roomy()).await;
    let (mut busy, mut idle) = (scene.connect().await, scene.connect().await);
    say(&mut busy, WAIT).await;
    say(&mut idle, GET).await;
    scene.gate.came.notified().await;
    let mut answer = Vec::with_capacity(1024);
    idle.read_buf(&mut answer).await.unwrap();
    scene.stop.cancel();
    assert_eq!(all(&mut idle).await, "", "it is closed, for it has nothing to wait for");
    assert!(TcpStream::connect(scene.address).await.is_err(), "nobody listens any more");
    assert!(!scene.server.is_finished());
    scene.gate.open.notify_one();
    let answer = all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("waited"), "{answer}");
    scene.server.await.unwrap();
}

/// A certificate for localhost, with what is served with it.
struct Certificate {
    der: rustls::pki_types::CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

fn new_certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let now = jiff::Timestamp::now();
    let certificate = certificate::read(Some(chain.as_bytes()), Some(key.as_bytes()), now).unwrap();
    Certificate { der: made.cert.der().clone(), config: certificate.config }
}

fn client_config(trusted: &[&Certificate], alpn: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// Which certificate a new connection is shown.
async fn shown(address: SocketAddr, trusted: &[&Certificate]) -> Vec<u8> {
    let connector = TlsConnector::from(Arc::new(client_config(trusted, b"http/1.1")));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

type Pool = Client<hyper_rustls::HttpsConnector<HttpConnector>, axum::body::Body>;

fn pool(config: ClientConfig, version: Version) -> Pool {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let mut config = config;
    config.alpn_protocols = Vec::new();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector = if version == Version::HTTP_2 {
        builder.enable_http2().wrap_connector(tcp)
    } else {
        builder.enable_http1().wrap_connector(tcp)
    };
    Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build(connector)
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_no_request_is_dropped() {
    const CERTIFICATES: usize = 5;
    let certificates: Vec<_> = (0..CERTIFICATES).map(|_| new_certificate()).collect();
    let trusted: Vec<_> = certificates.iter().collect();
    let published = watch::Sender::new(None);
    let scene = Scene::new(Some(published.subscribe()), roomy()).await;
    published.send_replace(Some(Arc::clone(&certificates[0].config)));
    let url: axum::http::Uri = format!("https://localhost:{}/", scene.address.port()).parse().unwrap();

    let done = CancellationToken::new();
    let mut senders = JoinSet::new();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let pool = pool(client_config(&trusted, b""), version);
        let (url, done) = (url.clone(), done.clone());
        senders.spawn(async move {
            let mut sent = 0;
            while !done.is_cancelled() {
                let response = pool.get(url.clone()).await.unwrap();
                assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
                response.into_body().collect().await.unwrap();
                sent += 1;
            }
            sent
        });
    }
    for certificate in &certificates {
        published.send_replace(Some(Arc::clone(&certificate.config)));
        for _ in 0..5 {
            assert_eq!(shown(scene.address, &trusted).await, certificate.der.to_vec());
        }
    }
    done.cancel();
    let sent = senders.join_all().await;
    assert!(sent.iter().all(|sent| *sent > 0), "{sent:?}");
}

#[tokio::test]
async fn over_http2_what_has_begun_is_answered_at_the_end() {
    let certificate = new_certificate();
    let published = watch::Sender::new(Some(Arc::clone(&certificate.config)));
    let scene = Scene::new(Some(published.subscribe()), roomy()).await;
    let pool = pool(client_config(&[&certificate], b""), Version::HTTP_2);
    let url = format!("https://localhost:{}/wait", scene.address.port());
    let answers: Vec<_> = (0..3).map(|_| tokio::spawn(pool.get(url.parse().unwrap()))).collect();
    while scene.gate.waiting.load(Ordering::SeqCst) < answers.len() {
        scene.gate.came.notified().await;
    }
    scene.stop.cancel();
    // Nobody is left to wait but these.
    tokio::task::yield_now().await;
    for _ in &answers {
        scene.gate.open.notify_one();
        tokio::task::yield_now().await;
    }
    scene.gate.open.notify_waiters();
    for answer in answers {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    }
    scene.server.await.unwrap();
}

#[tokio::test]
async fn nobody_is_served_over_tls_before_there_is_a_certificate() {
    let certificate = new_certificate();
    let published = watch::Sender::new(None);
    let scene = Scene::new(Some(published.subscribe()), roomy()).await;
    let trusted = [&certificate];
    let mut waiting = std::pin::pin!(shown(scene.address, &trusted));
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    published.send_replace(Some(Arc::clone(&certificate.config)));
    assert_eq!(waiting.await, certificate.der.to_vec());
    // Plain HTTP is no TLS.
    let mut plain = scene.connect().await;
    say(&mut plain, GET).await;
    let answered = all(&mut plain).await;
    assert!(!answered.contains("HTTP/1.1"), "{answered}");
}

#[tokio::test]
async fn who_resets_streams_without_end_loses_the_connection_and_others_go_on() {
    let certificate = new_certificate();
    let published = watch::Sender::new(Some(Arc::clone(&certificate.config)));
    let scene = Scene::new(Some(published.subscribe()), roomy()).await;
    let connector = TlsConnector::from(Arc::new(client_config(&[&certificate], HTTP2)));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, scene.connect().await).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let flood = async {
        for _ in 0..100_000 {
            let request = Request::get("https://localhost/wait").body(()).unwrap();
            sender = sender.ready().await?;
            // Dropped at once, it is reset.
            let (_, mut stream) = sender.send_request(request, false)?;
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        Ok::<_, h2::Error>(())
    };
    // What the server says before it closes need not arrive, for more is on its way to it.
    let told = flood.await.expect_err("the connection ends before that").reason();
    assert!(told.is_none_or(|reason| reason == h2::Reason::ENHANCE_YOUR_CALM), "{told:?}");
    assert!(ended.await.unwrap().is_err());
    let pool = pool(client_config(&[&certificate], b""), Version::HTTP_2);
    let url = format!("https://localhost:{}/", scene.address.port());
    assert_eq!(pool.get(url.parse().unwrap()).await.unwrap().status(), StatusCode::OK);
}
