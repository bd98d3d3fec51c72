//! hyper's own pool over mutual TLS: requests to the receiver, and nothing else.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use clap::Args;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::task::JoinSet;

use super::Cost;
use crate::{
    event,
    harness::{pki, tool::Tool, usage},
    parts,
};

/// Requests that open the connections before anything is counted, for each task.
const WARM_UP: u32 = 50;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    url: String,
    #[arg(long)]
    chain: PathBuf,
    #[arg(long)]
    key: PathBuf,
    /// Who issued the server's certificate
    #[arg(long)]
    servers: PathBuf,
    #[arg(long)]
    at_once: u32,
    #[arg(long)]
    milliseconds: u64,
}

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Runs to its end and prints the cost of a request.
pub(crate) async fn run(options: Options) {
    let pool = pool(&options);
    requests(&pool, &options, |done| done < WARM_UP).await;
    let before = usage::own_cpu();
    let till = Instant::now() + Duration::from_millis(options.milliseconds);
    let times = requests(&pool, &options, move |_| Instant::now() < till).await;
    let cost = Cost { times, cpu: usage::own_cpu().saturating_sub(before) };
    println!("{}", serde_json::to_string(&cost).expect("numbers are JSON"));
}

/// As many tasks as told, each one request after the other as long as `again` says; returns their number.
async fn requests(
    pool: &Pool,
    options: &Options,
    again: impl Fn(u32) -> bool + Copy + Send + 'static,
) -> u32 {
    let mut tasks = JoinSet::new();
    for _ in 0..options.at_once {
        let (pool, url) = (pool.clone(), options.url.clone());
        tasks.spawn(async move {
            let mut done = 0;
            while again(done) {
                let request = event::headers(Request::post(&url)).body(Full::new(event::body().into()));
                let response = pool.request(request.expect("a valid request")).await.expect("an answer");
                assert!(response.status().is_success(), "{}", response.status());
                response.into_body().collect().await.expect("a whole answer");
                done += 1;
            }
            done
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn pool(options: &Options) -> Pool {
    let certificates = |path: &PathBuf| {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&options.servers));
    let key = PrivateKeyDer::from_pem_file(&options.key);
    let key = key.unwrap_or_else(|error| panic!("{}: {error}", options.key.display()));
    let config = ClientConfig::builder()
        .with_root_certificates(Arc::new(roots))
        .with_client_auth_cert(certificates(&options.chain), key)
        .unwrap_or_else(|error| panic!("the client's certificate: {error}"));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
    Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp))
}

/// Runs it in a process of its own; CPU time of a request.
pub(crate) async fn cost(url: &str, at_once: u32, time: Duration) -> Cost {
    let shared = pki::shared().await;
    let printed = Tool::new(parts::program())
        .args(["pool", "--url", url])
        .arg("--chain", &shared.client.chain)
        .arg("--key", &shared.client.key)
        .arg("--servers", &shared.server_authority.root)
        .arg("--at-once", at_once.to_string())
        .arg("--milliseconds", time.as_millis().to_string())
        .succeed()
        .await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("pool printed {printed}: {error}"))
}
