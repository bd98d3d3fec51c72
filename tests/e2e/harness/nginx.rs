//! A real nginx that demands a client certificate and tells, for each request, which one it got.

use std::{fs, net::TcpListener, path::PathBuf};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use tokio::sync::{OnceCell, mpsc::UnboundedSender};

use super::{
    directory,
    pki::{self, Authority, Certificate},
    process::{Process, Program},
    servers,
};

/// nginx cannot choose a port by itself: another process may take the one that was free.
const PORT_ATTEMPTS: usize = 5;

/// A line of the access log.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Access {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// nginx's `$ssl_client_verify`: `SUCCESS`, `NONE` or `FAILED:reason`.
    pub(crate) verify: String,
    /// nginx's `$ssl_client_escaped_cert`: PEM, percent-encoded.
    certificate: String,
    /// nginx's `$ssl_client_fingerprint`: SHA-1, lower-case hex.
    pub(crate) fingerprint_sha1: String,
    /// nginx's `$ssl_protocol`: `TLSv1.3`.
    pub(crate) protocol: String,
    /// Counts connections, for the life of this nginx.
    pub(crate) connection: u64,
    /// nginx's `$msec`: when the answer was complete, seconds of the Unix epoch.
    pub(crate) answered_at: f64,
    /// nginx's `$request_time`: from the first byte of the request to the answer, seconds.
    pub(crate) seconds: f64,
    pub(crate) webhook_id: String,
    pub(crate) ce_id: String,
    pub(crate) ce_type: String,
    pub(crate) body: String,
}

impl Access {
    /// What follows [`ACCESS`] in a line.
    pub(crate) fn parse(line: &str) -> Self {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("nginx logged a line of another form, {error}: {line}"))
    }

    /// SHA-256 of the client's certificate, in the notation of [`pki::Facts`].
    pub(crate) fn client_fingerprint_sha256(&self) -> Option<String> {
        if self.certificate.is_empty() {
            return None;
        }
        let pem = percent_decoded(&self.certificate);
        let certificate = CertificateDer::from_pem_slice(&pem)
            .unwrap_or_else(|error| panic!("nginx logged the certificate {}: {error}", self.certificate));
        Some(pki::fingerprint(&certificate))
    }
}

/// A running nginx; dropped, it is killed.
pub(crate) struct Nginx {
    process: Process,
    port: u16,
}

impl Nginx {
    /// One with the shared certificates, that demands a client certificate.
    pub(crate) async fn start() -> Self {
        let shared = pki::shared().await;
        Self::start_with(&shared.server, &shared.client_authority).await
    }

    /// One that presents `server` and demands a certificate below the root of `clients`.
    pub(crate) async fn start_with(server: &Certificate, clients: &Authority) -> Self {
        Self::start_trusting(server, &clients.root_pem()).await
    }

    /// One that presents `server` and demands a certificate that this bundle, PEM, covers.
    pub(crate) async fn start_trusting(server: &Certificate, clients: &str) -> Self {
        let mut refused = String::new();
        for _ in 0..PORT_ATTEMPTS {
            match Self::try_start(free_port(), server, clients, None).await {
                Ok(started) => return started,
                Err(line) if line.contains("Address already in use") => refused = line,
                Err(line) => panic!("nginx does not start: {line}"),
            }
        }
        panic!("nginx found no free port in {PORT_ATTEMPTS} attempts: {refused}")
    }

    /// As [`Self::start_trusting`], on this port. Its accesses go there, as [`Access::parse`] reads them.
    pub(crate) async fn start_on(
        port: u16,
        server: &Certificate,
        clients: &str,
        accesses: UnboundedSender<String>,
    ) -> Self {
        let started = Self::try_start(port, server, clients, Some(accesses)).await;
        started.unwrap_or_else(|line| panic!("nginx does not start: {line}"))
    }

    async fn try_start(
        port: u16,
        server: &Certificate,
        clients: &str,
        accesses: Option<UnboundedSender<String>>,
    ) -> Result<Self, String> {
        let mut nginx = Program::new("nginx", program().await)
            .args(["-e", "stderr", "-p", "./", "-c", "nginx.conf"])
            .current_dir(&configure(port, server, clients));
        if let Some(accesses) = accesses {
            nginx = nginx.divert(ACCESS, accesses);
        }
        let process = nginx.start();
        let started = process.find_line("whether it started", |line| {
            let failed = line.contains("[emerg]").then(|| Err(line.to_owned()));
            failed.or_else(|| line.contains("event method").then_some(Ok(())))
        });
        started.await.map(|()| Self { process, port })
    }

    /// With the name that the shared server certificate is for.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for the first request for which `wanted` holds.
    pub(crate) async fn request(&self, what: &str, wanted: impl Fn(&Access) -> bool) -> Access {
        self.process.find_line(what, |line| access(line).filter(|access| wanted(access))).await
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Access> {
        self.process.lines().iter().filter_map(|line| access(line)).collect()
    }
}

/// How a line of the access log begins.
const ACCESS: &str = "access ";

fn access(line: &str) -> Option<Access> {
    line.strip_prefix(ACCESS).map(Access::parse)
}

/// The program, on the PATH or unpacked from the distribution's package.
async fn program() -> &'static str {
    static PROGRAM: OnceCell<String> = OnceCell::const_new();
    PROGRAM.get_or_init(|| servers::debian("nginx", "nginx")).await
}

/// Writes a directory for one nginx.
///
/// It is one process, so that killing it kills all of it. `$request_body` is known only where a request is
/// passed on, so it is passed on to nginx itself. nginx runs in that directory: the path of a socket must be
/// short.
fn configure(port: u16, server: &Certificate, clients: &str) -> PathBuf {
    let directory = directory::unique_directory("nginx");
    let configuration = format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    log_format events escape=json 'access {{'
        '"method":"$request_method","path":"$request_uri","status":$status,'
        '"verify":"$ssl_client_verify","certificate":"$ssl_client_escaped_cert",'
        '"fingerprint_sha1":"$ssl_client_fingerprint","protocol":"$ssl_protocol",'
        '"connection":$connection,"answered_at":$msec,"seconds":$request_time,'
        '"webhook_id":"$http_webhook_id","ce_id":"$http_ce_id","ce_type":"$http_ce_type","body":"$request_body"}}';
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen unix:inner.sock;
        return 200 "delivered\n";
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        access_log /dev/stdout events;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_client_certificate clients.crt;
        ssl_verify_client on;
        ssl_verify_depth 4;
        client_max_body_size 1m;
        client_body_buffer_size 1m;
        location / {{ proxy_pass http://unix:inner.sock; }}
    }}
}}
"#,
        chain = server.chain.display(),
        key = server.key.display(),
    );
    for (name, text) in [("nginx.conf", configuration.as_str()), ("clients.crt", clients)] {
        fs::write(directory.join(name), text)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }
    directory
}

fn free_port() -> u16 {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.unwrap_or_else(|error| panic!("no free port: {error}")).port()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let escaped = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
        let value = match escaped {
            Some([Some(high), Some(low)]) => {
                let digits = [high, low];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => Some(byte),
        };
        decoded.extend(value);
    }
    decoded
}
