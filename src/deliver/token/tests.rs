use std::{collections::VecDeque, convert::Infallible};

use http_body_util::Full;
use hyper::{Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::egress::tests::loopback;

const SECRET: &str = "the_client_secret";

/// What an authorization server answers: status, content type, body.
type Answer = (u16, &'static str, String);

/// An authorization server that gives these answers, one each.
struct Server {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<AtomicU16>,
    tokens: Tokens,
}

async fn server() -> Server {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let (answers, asked) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(AtomicU16::new(0)));
    tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&answers), Arc::clone(&asked)));
    let client = ClientCredentials {
        token_url: url.parse().unwrap(),
        client_id: "the_client_id".into(),
        client_secret: SECRET.into(),
        scopes: Vec::new(),
        audience: None,
        in_body: false,
    };
    let tokens =
        Tokens::new(client, &Trust { certificates: chain, system_roots: false }, &loopback()).unwrap();
    Server { answers, asked, tokens }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<AtomicU16>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answers, asked) = (tls.clone(), Arc::clone(&answers), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(|_: hyper::Request<Incoming>| async {
                asked.fetch_add(1, Ordering::SeqCst);
                let (status, kind, body) = answers.lock().unwrap().pop_front().expect("an answer");
                let response = Response::builder().status(status).header("content-type", kind);
                let response = response.header("location", "/elsewhere");
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn token(name: &str, expires_in: Option<u64>) -> Answer {
    let token = json!({ "access_token": name, "token_type": "bearer", "expires_in": expires_in });
    (200, "application/json", token.to_string())
}

fn error(code: &str) -> Answer {
    (400, "application/json", json!({ "error": code, "error_description": SECRET }).to_string())
}

impl Server {
    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn asked(&self) -> u16 {
        self.asked.load(Ordering::SeqCst)
    }

    async fn get(&self, second: i64) -> Result<String, Failure> {
        let token = self.tokens.get(at(second)).await?;
        assert!(token.header().is_sensitive());
        Ok(token.header().to_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn a_token_is_kept_until_a_minute_before_it_expires() {
    let server = server().await;
    server.answers([token("a", Some(600)), token("b", Some(100))]);
    for (second, is, asked) in [(0, "a", 1), (539, "a", 1), (540, "b", 2), (619, "b", 2)] {
        let sent = server.get(second).await.unwrap();
        assert_eq!((sent, server.asked()), (format!("Bearer {is}"), asked), "at {second}");
    }
}

#[tokio::test]
async fn one_of_which_nobody_says_when_it_expires_is_kept_for_an_hour() {
    let server = server().await;
    server.answers([token("a", None), token("b", Some(0)), token("c", Some(u64::MAX))]);
    for (second, is) in [(0, "a"), (3_539, "a"), (3_600, "b"), (3_600, "b"), (3_601, "c"), (9_999_999, "c")] {
        assert_eq!(server.get(second).await.unwrap(), format!("Bearer {is}"), "at {second}");
    }
}

#[tokio::test]
async fn many_at_once_wait_for_one() {
    let server = server().await;
    server.answers([token("a", Some(600))]);
    let all = futures::future::join_all((0..32).map(|_| server.get(0))).await;
    assert!(all.iter().all(|sent| sent.as_deref() == Ok("Bearer a")));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn one_that_cannot_be_renewed_is_good_until_it_expires() {
    let server = server().await;
    server.answers([token("a", Some(600)), error("temporarily_unavailable"), error("invalid_client")]);
    server.get(0).await.unwrap();
    for (second, asked) in [(550, 2), (550, 2), (599, 3)] {
        assert_eq!(server.get(second).await.unwrap(), "Bearer a");
        assert_eq!(server.asked(), asked, "at {second}");
    }
    let failure = server.get(600).await.unwrap_err();
    assert_eq!((failure.layer, failure.reason), (Layer::Authorization, Reason::TokenRefused));
    assert_eq!(failure.message, "the token endpoint gave no token: HTTP 400, invalid_client");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_for_longer_each_time() {
    let server = server().await;
    server.answers([error("server_error"), error("server_error"), token("a", Some(600))]);
    for (second, retry_after, asked) in [(0, 1, 1), (0, 1, 1), (1, 2, 2), (2, 1, 2)] {
        let failure = server.get(second).await.unwrap_err();
        assert_eq!(failure.retry_after, Some(Duration::from_secs(retry_after)), "at {second}");
        assert_eq!(server.asked(), asked, "at {second}");
    }
    assert_eq!(server.get(3).await.unwrap(), "Bearer a");
}

#[tokio::test]
async fn a_401_drops_a_token_once() {
    let server = server().await;
    server.answers(["a", "b", "c", "d"].map(|name| token(name, Some(86_400))));
    let a = server.tokens.get(at(0)).await.unwrap();
    assert!(server.tokens.refused(&a, at(1)));
    let b = server.tokens.get(at(1)).await.unwrap();
    // Others were under way with the first: they go on with the second.
    assert!(server.tokens.refused(&a, at(2)));
    assert_eq!(server.get(2).await.unwrap(), "Bearer b");
    // The second fares no better: it stays for a minute.
    assert!(!server.tokens.refused(&b, at(3)));
    assert_eq!((server.get(60).await.unwrap().as_str(), server.asked()), ("Bearer b", 2));
    assert!(server.tokens.refused(&b, at(61)));
    let c = server.tokens.get(at(61)).await.unwrap();
    // One that was taken may be dropped at once.
    server.tokens.taken(&c);
    assert!(server.tokens.refused(&c, at(62)));
    assert_eq!(server.get(62).await.unwrap(), "Bearer d");
}

#[tokio::test]
async fn what_is_no_token_is_told_without_what_was_said() {
    let echo = format!("no_client_with_{SECRET}");
    let mac = json!({ "access_token": "a", "token_type": "mac" }).to_string();
    for (answer, told) in [
        (error("invalid_scope"), "HTTP 400, invalid_scope"),
        (error(&echo), "HTTP 400, an error code that is not told"),
        (error("<b>"), "HTTP 400, an error code that is not told"),
        ((500, "text/html", SECRET.to_owned()), "HTTP 500, and no JSON as in RFC 6749, section 5"),
        ((200, "text/html", SECRET.to_owned()), "HTTP 200, and no JSON as in RFC 6749, section 5"),
        (
            (200, "application/json", format!("\"{SECRET}\"")),
            "HTTP 200, and no JSON as in RFC 6749, section 5",
        ),
        ((302, "text/html", String::new()), "HTTP 302, and no JSON as in RFC 6749, section 5"),
        ((200, "application/json", mac), "its token is of another type than Bearer"),
        (token("a\r\nx: y", None), "its token cannot be sent"),
    ] {
        let server = server().await;
        server.answers([answer]);
        let failure = server.get(0).await.unwrap_err();
        assert_eq!(failure.reason, Reason::TokenRefused);
        assert!(failure.message.contains(told), "{failure}");
        let printed = format!("{failure:?} {:?}", server.tokens);
        assert!(!printed.contains(SECRET), "{printed}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_no_answer() {
    let server = server().await;
    server.answers([(200, "application/json", "x".repeat(limits::TOKEN_RESPONSE_BYTES + 1))]);
    assert_eq!(server.get(0).await.unwrap_err().reason, Reason::TokenEndpointUnreachable);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_told_nothing() {
    let server = server().await;
    let other = crate::identity::tests::identity("CN=other").chain().to_vec();
    let trust = Trust { certificates: other, system_roots: false };
    let tokens = Tokens::new(server.tokens.client.clone(), &trust, &loopback()).unwrap();
    let failure = tokens.get(at(0)).await.unwrap_err();
    assert_eq!((failure.layer, failure.reason), (Layer::Authorization, Reason::TokenEndpointUnreachable));
    assert!(failure.message.contains("TLSServer, ServerUntrusted; check tokenURL, and endpoint.trust"));
    assert_eq!(server.asked(), 0);
}
