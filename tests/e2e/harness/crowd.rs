//! Thousands of senders of ill will: idle, with heads and bodies that creep, and TLS handshakes that do not go on.
//! Each has one connection; when it is closed, another one is opened.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Addresses of this machine that they come from: 127.0.1.1 and on.
const PEERS: usize = 8;

/// Between two bytes of one that creeps.
const CREEP: Duration = Duration::from_secs(2);

/// Before one that was refused comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// What one does.
#[derive(Clone, Copy)]
enum Kind {
    Idle,
    Head,
    Body,
    Handshake,
}

/// They are there until this is dropped.
pub(crate) struct Crowd {
    _senders: JoinSet<()>,
    open: watch::Receiver<usize>,
    opened: Arc<AtomicUsize>,
}

impl Crowd {
    /// So many, a fourth of each kind; `path` is where events are posted.
    pub(crate) async fn gather(plain: SocketAddr, secure: SocketAddr, path: &str, senders: usize) -> Self {
        let open = Arc::new(watch::Sender::new(0));
        let opened = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        for n in 0..senders {
            let kind = [Kind::Idle, Kind::Head, Kind::Body, Kind::Handshake][n % 4];
            let to = if matches!(kind, Kind::Handshake) { secure } else { plain };
            let from = [127, 0, 1, u8::try_from(n / 4 % PEERS).unwrap_or_default() + 1];
            let (open, opened, path) = (Arc::clone(&open), Arc::clone(&opened), path.to_owned());
            tasks.spawn(async move {
                loop {
                    if let Ok(stream) = connect(from, to).await {
                        opened.fetch_add(1, Ordering::Relaxed);
                        open.send_modify(|open| *open += 1);
                        disturb(stream, kind, &path).await;
                        open.send_modify(|open| *open -= 1);
                    }
                    sleep(AGAIN).await;
                }
            });
        }
        let mut crowd = Self { _senders: tasks, open: open.subscribe(), opened };
        // Some of them have been closed for a moment at any time.
        let most = senders * 19 / 20;
        let gathered = crowd.open.wait_for(|open| *open >= most);
        let _ = super::eventually::within(super::eventually::TIMEOUT, "the crowd to gather", gathered).await;
        crowd
    }

    /// Connections that they have now.
    pub(crate) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Connections that they have had.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Many may be closing: a port is no reason to wait.
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Until the connection is closed.
async fn disturb(mut stream: TcpStream, kind: Kind, path: &str) {
    let begins = match kind {
        Kind::Idle => "GET /idle HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        Kind::Head => format!("POST {path} HTTP/1.1\r\nhost: x\r\nx: "),
        Kind::Body => format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"),
        // The beginning of a ClientHello.
        Kind::Handshake => "\u{16}\u{3}\u{1}\u{1}".to_owned(),
    };
    let creeps = matches!(kind, Kind::Head | Kind::Body);
    if stream.write_all(begins.as_bytes()).await.is_err() {
        return;
    }
    let mut read = vec![0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut read) => if read.unwrap_or_default() == 0 { return },
            () = sleep(CREEP), if creeps => {}
        }
        if creeps && stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}
