//! The parts of a delivery alone, each in a process of its own: what the dispatcher is compared with.

use std::{net::SocketAddr, path::PathBuf, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::usage;

pub(crate) mod accepts;
pub(crate) mod appends;
pub(crate) mod pool;

/// What a process of its own does.
pub(crate) type Body = Pin<Box<dyn Future<Output = ()>>>;

/// Runs it on a runtime like the dispatcher's.
pub(crate) fn run(body: Body) {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("no other provider is installed");
    tokio::runtime::Runtime::new().expect("the runtime starts").block_on(body);
}

/// This program, for a process of its own.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    (listener, address)
}

/// Serves each connection in a task of its own.
pub(crate) async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap_or_else(|error| panic!("accept: {error}"));
        stream.set_nodelay(true).expect("an option that every TCP socket has");
        tokio::spawn(serve(stream));
    }
}

/// What was done of something, and what it took.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Cost {
    pub(crate) times: u32,
    pub(crate) cpu: Duration,
}

impl Cost {
    /// Of this process, while `work` runs, which returns how many times it was done.
    fn of(work: impl FnOnce() -> u32) -> Self {
        let before = usage::own_cpu();
        let times = work();
        Self { times, cpu: usage::own_cpu().saturating_sub(before) }
    }

    /// CPU time of one, microseconds.
    pub(crate) fn each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / f64::from(self.times.max(1))
    }
}
