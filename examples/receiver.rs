//! A partner's server: takes webhooks over TLS, demands a client certificate, and prints each event and who
//! sent it. `make demo` runs it; by itself:
//!
//! ```sh
//! cargo run --example receiver -- --listen 127.0.0.1:8443 --certificate server.crt --key server.key \
//!     --client-ca client-ca.crt
//! ```

use std::{convert::Infallible, error::Error, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Parser;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use postrider::identity::Facts;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Largest body that is read, bytes.
const BODY_BYTES: usize = 1024 * 1024;

#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The server's certificate and chain, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// The server's key, PEM
    #[arg(long)]
    key: PathBuf,
    /// Whose clients are let in, PEM: what the sender offers for download, or its authority
    #[arg(long)]
    client_ca: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&arguments)?));
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(acceptor, connection).await {
                println!("refused: {error}");
            }
        });
    }
}

fn server_config(arguments: &Arguments) -> Result<ServerConfig, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut accepted = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&arguments.client_ca)? {
        accepted.add(certificate?)?;
    }
    // No certificate, or one of somebody else: no connection.
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(accepted), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_file_iter(&arguments.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&arguments.key)?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?)
}

async fn serve(acceptor: TlsAcceptor, connection: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    let connection = acceptor.accept(connection).await?;
    let chain = connection.get_ref().1.peer_certificates().unwrap_or_default();
    let sender = Facts::of(chain, None)?;
    let service = service_fn(|request| print(request, &sender));
    http1::Builder::new().serve_connection(TokioIo::new(connection), service).await?;
    Ok(())
}

async fn print(request: Request<Incoming>, sender: &Facts) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let answer = |status| {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = status;
        Ok(response)
    };
    if parts.method != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Ok(body) = Limited::new(body, BODY_BYTES).collect().await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    println!(
        "{} {} from {} ({}…): {}",
        parts.uri.path(),
        header("ce-type"),
        sender.identifier,
        sender.fingerprint_sha256.get(..12).unwrap_or_default(),
        String::from_utf8_lossy(&body.to_bytes()),
    );
    answer(StatusCode::NO_CONTENT)
}
