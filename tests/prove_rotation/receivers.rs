//! The partners' servers: each demands a client certificate, keeps its port, can be told anew whom to trust,
//! and tells its ledger of every request.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{
    Mutex,
    mpsc::{self, UnboundedSender},
};

use crate::{
    harness::{
        self,
        nginx::{Access, Nginx},
        pki::{self, Authority},
        process::{Process, Program},
        receiver::{ClientAuth, Options, Received, Receiver as RustlsServer, free_port},
        tool::Tool,
    },
    ledger::{Ledger, Receipt},
};

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// nginx, TLS 1.2 and 1.3; it refuses in HTTP.
    Nginx,
    /// rustls, TLS 1.3 alone: it refuses after the client's handshake.
    Tls13,
    /// rustls, TLS 1.2 alone: it refuses in the handshake.
    Tls12,
    /// The JDK's HttpsServer: it refuses by closing.
    Java,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Nginx, Self::Tls13, Self::Tls12, Self::Java];

    /// Also the name of the webhook.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Tls13 => "rustls-tls13",
            Self::Tls12 => "rustls-tls12",
            Self::Java => "java",
        }
    }
}

/// A server on a port of its own, whether it runs or not.
pub(crate) struct Receiver {
    kind: Kind,
    port: u16,
    running: Mutex<Option<Server>>,
    ledger: Arc<Ledger>,
    /// Where nginx's and Java's lines go.
    lines: UnboundedSender<String>,
    requests: UnboundedSender<Received>,
}

enum Server {
    Nginx(Nginx),
    Rustls(RustlsServer),
    Java(Process),
}

impl Receiver {
    /// Starts one.
    pub(crate) async fn start(kind: Kind, ledger: Arc<Ledger>, trusted: &[&Authority]) -> Self {
        let (lines, mut said) = mpsc::unbounded_channel::<String>();
        let (requests, mut arriving) = mpsc::unbounded_channel();
        let books = Arc::clone(&ledger);
        tokio::spawn(async move {
            while let Some(line) = said.recv().await {
                books.received(&match kind {
                    Kind::Nginx => receipt_of_nginx(&Access::parse(&line)),
                    _ => receipt_of_java(&line).unwrap_or_else(|| panic!("the Java receiver said {line}")),
                });
            }
        });
        let books = Arc::clone(&ledger);
        tokio::spawn(async move {
            while let Some(request) = arriving.recv().await {
                books.received(&receipt_of_rustls(request));
            }
        });
        let port = free_port();
        let receiver = Self { kind, port, running: Mutex::default(), ledger, lines, requests };
        receiver.start_again(trusted).await;
        receiver
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/hooks", self.port)
    }

    /// Ends it. What it acknowledged until then has been told.
    pub(crate) async fn stop(&self) {
        match self.running.lock().await.take() {
            // It writes its log after the answer; killed in between it would forget a request.
            Some(Server::Nginx(nginx)) => nginx.process().terminate().await,
            Some(Server::Java(process)) => process.kill().await,
            Some(Server::Rustls(server)) => {
                self.report_failures(&server);
                server.stop().await;
            }
            None => {}
        }
    }

    /// On the same port, and whom it trusts may be others.
    pub(crate) async fn start_again(&self, trusted: &[&Authority]) {
        let server = &pki::shared().await.server;
        let lines = self.lines.clone();
        let started = match self.kind {
            Kind::Nginx => Server::Nginx(Nginx::start_on(self.port, server, &roots(trusted), lines).await),
            Kind::Java => Server::Java(start_java(self.port, trusted, lines).await),
            Kind::Tls12 | Kind::Tls13 => {
                // Without a certificate it would serve as well: only the sender can see to it that none goes
                // without.
                let options = Options::new(server, ClientAuth::OptionalOfAny(trusted))
                    .address(SocketAddr::from(([127, 0, 0, 1], self.port)))
                    .divert(self.requests.clone());
                let tls12 = self.kind == Kind::Tls12;
                let options = if tls12 { options.tls12_only() } else { options.tls13_only() };
                Server::Rustls(options.start().await)
            }
        };
        *self.running.lock().await = Some(started);
    }

    fn report_failures(&self, server: &RustlsServer) {
        let failures = server.failed_handshakes();
        for failure in failures.into_iter().filter(|failure| failure.contains("certificate expired")) {
            self.ledger.refused_as_expired(format!("in a handshake: {failure}"));
        }
    }
}

fn receipt_of_nginx(access: &Access) -> Receipt {
    let milliseconds = |seconds: f64| SignedDuration::from_secs_f64(seconds);
    Receipt {
        id: access.webhook_id.parse().ok(),
        fingerprint: access.client_fingerprint_sha256(),
        received_at: Timestamp::UNIX_EPOCH + milliseconds(access.answered_at - access.seconds),
        accepted: access.status == 200,
    }
}

fn receipt_of_rustls(request: Received) -> Receipt {
    let id = request.headers.get("webhook-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let ago = SignedDuration::try_from(request.at.elapsed()).unwrap_or_default();
    Receipt {
        id,
        fingerprint: request.client_fingerprint_sha256,
        received_at: Timestamp::now() - ago,
        accepted: true,
    }
}

/// `WEBHOOK-ID SHA-256 NOT-AFTER RECEIVED-AT`
fn receipt_of_java(line: &str) -> Option<Receipt> {
    let mut words = line.split(' ');
    let (id, fingerprint, _not_after, at) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(Receipt {
        id: id.parse().ok(),
        fingerprint: Some(fingerprint.to_owned()),
        received_at: Timestamp::from_millisecond(at.parse().ok()?).ok()?,
        accepted: true,
    })
}

/// Java's program, compiled once, and its keystore.
struct Java {
    directory: PathBuf,
    keystore: pki::Keystore,
}

async fn java() -> &'static Java {
    static JAVA: tokio::sync::OnceCell<Java> = tokio::sync::OnceCell::const_new();
    JAVA.get_or_init(|| async {
        let directory = harness::new_directory("java");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/prove_rotation/Receiver.java");
        Tool::new("javac").arg("-d", &directory).args([source]).succeed().await;
        Java { directory, keystore: pki::shared().await.server.pkcs12().await }
    })
    .await
}

async fn start_java(port: u16, trusted: &[&Authority], requests: UnboundedSender<String>) -> Process {
    let Java { directory, keystore } = java().await;
    let file = harness::new_directory("java-trusts").join("trusted.pem");
    std::fs::write(&file, roots(trusted)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let process = Program::new("java", "java")
        // It is to start quickly and to leave the processors to the others.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m"])
        .args(["-Dsun.net.httpserver.nodelay=true"])
        .args(["-cp".as_ref(), directory.as_os_str(), "Receiver".as_ref()])
        .args([port.to_string().as_ref(), keystore.path.as_os_str(), file.as_os_str()])
        .env("KEYSTORE_PASSWORD", &keystore.password)
        .divert("request ", requests)
        .start();
    process.line_with("listening").await;
    process
}

fn roots(authorities: &[&Authority]) -> String {
    authorities.iter().map(|authority| authority.root_pem()).collect()
}
