//! An HTTP proxy in the test program: it takes CONNECT, and remembers what it was asked.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::BASE64;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    pki::{Authority, Certificate},
    receiver::{ClientAuth, Options},
    secrets,
};

/// What a proxy was asked.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    /// Where to.
    pub(crate) target: String,
    /// The whole of it, with its headers.
    pub(crate) head: String,
    /// Whether who asked had shown a client certificate.
    pub(crate) client_certificate: bool,
}

/// A running proxy; dropped, it and its tunnels are gone.
pub(crate) struct Proxy {
    scheme: &'static str,
    address: SocketAddr,
    credentials: Option<String>,
    asked: watch::Sender<Vec<Connect>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// For whoever asks.
    pub(crate) async fn open() -> Self {
        Self::start(None, None).await
    }

    /// For whoever has these credentials, `user:password`; else 407.
    pub(crate) async fn with_credentials(credentials: &str) -> Self {
        secrets::password("the password of a proxy", credentials.split_once(':').expect("user:password").1);
        secrets::password("the header with the password of a proxy", &BASE64.encode(credentials.as_bytes()));
        Self::start(Some(credentials), None).await
    }

    /// That is spoken to over TLS, and asks for a client certificate of this authority, which nobody has to have.
    pub(crate) async fn tls(certificate: &Certificate, clients: &Authority) -> Self {
        let config = Options::new(certificate, ClientAuth::Optional(clients)).tls();
        Self::start(None, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(credentials: Option<&str>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the proxy listens");
        let address = listener.local_addr().expect("the proxy has an address");
        let asked = watch::Sender::new(Vec::new());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let expected =
            credentials.map(|credentials| format!("basic {}", BASE64.encode(credentials.as_bytes())));
        let server = tokio::spawn(accept(listener, tls, expected, asked.clone()));
        Self { scheme, address, credentials: credentials.map(str::to_owned), asked, server }
    }

    /// What stands in messages.
    pub(crate) fn origin(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    /// With credentials, where it wants some.
    pub(crate) fn url(&self) -> String {
        match &self.credentials {
            Some(credentials) => format!("{}://{credentials}@localhost:{}", self.scheme, self.address.port()),
            None => self.origin(),
        }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Connect> {
        self.asked.borrow().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    expected: Option<String>,
    asked: watch::Sender<Vec<Connect>>,
) {
    // Dropped with this task, and the tunnels with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, expected, asked) = (tls.clone(), expected.clone(), asked.clone());
        connections.spawn(async move {
            let Some(tls) = tls else { return serve(stream, false, expected, &asked).await };
            let Ok(stream) = tls.accept(stream).await else { return };
            let shown = stream.get_ref().1.peer_certificates().is_some();
            serve(stream, shown, expected, &asked).await;
        });
    }
}

async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    client_certificate: bool,
    expected: Option<String>,
    asked: &watch::Sender<Vec<Connect>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let allowed = expected.is_none_or(|expected| {
        head.lines()
            .any(|line| line.to_lowercase() == format!("proxy-authorization: {}", expected.to_lowercase()))
    });
    let connect = Connect { target: target.clone(), head, client_certificate };
    asked.send_modify(|asked| asked.push(connect));
    if !allowed {
        let _ = client
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            .await;
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
