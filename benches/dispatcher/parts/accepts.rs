//! A plain HTTP server that reads a body and answers 202.

use axum::body::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use crate::{
    harness::process::{Process, Program},
    parts,
    sender::Paths,
};

/// Runs until it is killed.
pub(crate) async fn run() {
    let (listener, address) = parts::listen().await;
    println!("listening {address}");
    parts::accept(listener, |stream| async {
        let service = service_fn(async |request: Request<Incoming>| {
            request.into_body().collect().await?;
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok::<_, hyper::Error>(response)
        });
        // A client may close as it likes.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
}

/// Starts one.
pub(crate) async fn start() -> (Process, Paths) {
    let process = Program::new("accepts", parts::program()).args(["accepts"]).start();
    let address =
        process.find_line("the address", |line| line.strip_prefix("listening ")?.parse().ok()).await;
    (process, Paths { address, paths: ["/events".to_owned()].into(), door: None })
}
