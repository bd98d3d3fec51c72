//! What comes of requests that no sender of good will makes: raw bytes to a real dispatcher.
//!
//! After each try a plain request follows on the same connection. It is answered by itself, or the connection was
//! closed: nothing of a try is ever taken for a request of its own.

use std::{collections::HashSet, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    cluster::Cluster,
    eventually,
    scene::{Dispatcher, Scene},
};

tests![nothing_is_smuggled_and_every_try_has_a_clear_answer];

/// Past this, a server that says nothing waits for more.
const SILENCE: Duration = Duration::from_secs(5);

/// What a try is to come to.
struct Try {
    what: &'static str,
    bytes: Vec<u8>,
    answers: Vec<u16>,
    /// Whether the request after it is answered on the same connection.
    stays: bool,
    /// Events that are taken: a request that means one thing to everybody is one.
    queued: usize,
}

/// What it came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<u16>,
    stays: bool,
    queued: usize,
}

/// Makes tries; each head is `POST` to the events of a webhook unless it is told otherwise.
struct Tries {
    path: String,
    tries: Vec<Try>,
}

impl Tries {
    fn raw(
        &mut self,
        what: &'static str,
        bytes: impl Into<Vec<u8>>,
        answers: &[u16],
        stays: bool,
        queued: usize,
    ) {
        self.tries.push(Try { what, bytes: bytes.into(), answers: answers.to_vec(), stays, queued });
    }

    /// With these headers and this body.
    fn post(&self, headers: &str, body: &str) -> Vec<u8> {
        format!("POST {} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}", self.path).into_bytes()
    }

    /// Refused, and the connection with it: where the next request begins is not known.
    fn refused(&mut self, what: &'static str, headers: &str, body: &str, status: u16) {
        self.raw(what, self.post(headers, body), &[status], false, 0);
    }

    /// Taken as one event.
    fn taken(&mut self, what: &'static str, headers: &str, body: &str, stays: bool) {
        self.raw(what, self.post(headers, body), &[202], stays, 1);
    }
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn tries(path: &str) -> Vec<Try> {
    let mut all = Tries { path: path.to_owned(), tries: Vec::new() };
    lengths(&mut all, path);
    chunks(&mut all);
    lines_and_names(&mut all, path);
    sizes(&mut all, path);
    request_lines(&mut all, path);
    all.tries
}

/// Two lengths: RFC 9112, 6.1 and 6.3.
fn lengths(all: &mut Tries, path: &str) {
    let hidden = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nsmuggled");
    let length = format!("content-length: {}\r\n", 5 + hidden.len());
    let body = format!("0\r\n\r\n{hidden}");
    all.taken(
        "Content-Length and Transfer-Encoding, a request after the last chunk",
        &format!("{length}{CHUNKED}"),
        &body,
        false,
    );
    all.taken("Transfer-Encoding and Content-Length, likewise", &format!("{CHUNKED}{length}"), &body, false);
    all.refused(
        "Transfer-Encoding: xchunked, and Content-Length",
        &format!("{length}transfer-encoding: xchunked\r\n"),
        &body,
        400,
    );
    all.refused("Transfer-Encoding: identity", "transfer-encoding: identity\r\n", &hidden, 400);
    all.refused(
        "Transfer-Encoding: chunked, identity",
        "transfer-encoding: chunked, identity\r\n",
        &body,
        400,
    );
    all.refused(
        "Transfer-Encoding : chunked (space before the colon)",
        "transfer-encoding : chunked\r\n",
        &body,
        400,
    );
    all.refused(
        "Transfer-Encoding: chunked on a folded line",
        "transfer-encoding:\r\n chunked\r\n",
        &body,
        400,
    );
    all.refused("Transfer-Encoding: \\x0bchunked", "transfer-encoding: \x0bchunked\r\n", &body, 400);
    let old = format!("POST {path} HTTP/1.0\r\nhost: x\r\n{CHUNKED}\r\n{body}");
    all.raw("Transfer-Encoding in HTTP/1.0", old, &[400], false, 0);
    all.refused(
        "two Content-Length, 0 and that of a request",
        &format!("content-length: 0\r\ncontent-length: {}\r\n", hidden.len()),
        &hidden,
        400,
    );
    all.taken(
        "two Content-Length that are equal",
        "content-length: 4\r\ncontent-length: 4\r\n",
        "paid",
        true,
    );
    all.refused("Content-Length: 4, 4", "content-length: 4, 4\r\n", "paid", 400);
    for (what, value) in [
        ("Content-Length: +4", "+4"),
        ("Content-Length: -1", "-1"),
        ("Content-Length: 0x4", "0x4"),
        ("Content-Length: 4 4", "4 4"),
        ("Content-Length: (empty)", ""),
        ("Content-Length: 99999999999999999999", "99999999999999999999"),
    ] {
        all.refused(what, &format!("content-length: {value}\r\n"), "paid", 400);
    }
    all.raw(
        "Content-Length shorter than the body, which is a request",
        all.post("content-length: 0\r\n", &hidden),
        &[202, 202],
        true,
        2,
    );
}

/// RFC 9112, 7.1.
fn chunks(all: &mut Tries) {
    for (what, body) in [
        ("chunk size zz", "zz\r\npaid\r\n0\r\n\r\n"),
        ("chunk size -4", "-4\r\npaid\r\n0\r\n\r\n"),
        ("chunk size 0x4", "0x4\r\npaid\r\n0\r\n\r\n"),
        ("chunk size of 17 digits", "10000000000000004\r\npaid\r\n0\r\n\r\n"),
        ("chunk size (empty)", "\r\npaid\r\n0\r\n\r\n"),
        ("chunk longer than its size", "4\r\npaid!\r\n0\r\n\r\n"),
        ("chunk that ends with a bare LF", "4\r\npaid\n0\r\n\r\n"),
        ("chunk size that ends with a bare LF", "4\npaid\r\n0\r\n\r\n"),
        ("chunk extension with a bare LF", "4;a\nb\r\npaid\r\n0\r\n\r\n"),
    ] {
        all.refused(what, CHUNKED, body, 400);
    }
    let extension = format!("4;{}\r\npaid\r\n0\r\n\r\n", "x".repeat(20 * 1024));
    all.refused("chunk extension of 20 KiB", CHUNKED, &extension, 400);
    let trailers = format!("4\r\npaid\r\n0\r\nx: {}\r\n\r\n", "x".repeat(40 * 1024));
    all.refused("trailers of 40 KiB", CHUNKED, &trailers, 400);
    all.taken(
        "trailers that are headers of a request",
        CHUNKED,
        "4\r\npaid\r\n0\r\ncontent-length: 100\r\nhost: y\r\n\r\n",
        true,
    );
}

/// RFC 9112, 2.2 and 5.
fn lines_and_names(all: &mut Tries, path: &str) {
    let bare = format!("POST {path} HTTP/1.1\nhost: x\ncontent-length: 4\n\npaid");
    all.raw("bare LF at the end of each line", bare, &[202], true, 1);
    let bare = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx: a\rcontent-length: 100\r\ncontent-length: 4\r\n\r\npaid"
    );
    all.raw("bare CR in a header", bare, &[400], false, 0);
    all.refused("a folded header", "x: a\r\n b\r\ncontent-length: 4\r\n", "paid", 400);
    all.refused("a header without a colon", "x\r\ncontent-length: 4\r\n", "paid", 400);
    all.refused("a header without a name", ": x\r\ncontent-length: 4\r\n", "paid", 400);
    all.refused("NUL in a name", "x\0y: z\r\ncontent-length: 4\r\n", "paid", 400);
    all.refused("NUL in a value", "x: a\0b\r\ncontent-length: 4\r\n", "paid", 400);
    let mut malformed = all.post("ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nce-subject: ??\r\ncontent-length: 4\r\n", "paid");
    let at = malformed.windows(2).position(|two| two == b"??").unwrap();
    malformed[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    all.raw("malformed UTF-8 in a CloudEvents attribute", malformed, &[400], true, 0);
    all.raw("no Host", format!("POST {path} HTTP/1.1\r\ncontent-length: 4\r\n\r\npaid"), &[400], true, 0);
    all.raw("two Hosts", all.post("host: y\r\ncontent-length: 4\r\n", "paid"), &[400], true, 0);
}

/// More than there may be.
fn sizes(all: &mut Tries, path: &str) {
    all.refused("a header of 40 KiB", &format!("x: {}\r\n", "x".repeat(40 * 1024)), "", 431);
    all.refused("200 headers", &"x: y\r\n".repeat(200), "", 431);
    let long = |bytes| format!("POST {path}?{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(bytes));
    all.raw("a query of 10 KiB", long(10 * 1024), &[414], true, 0);
    all.raw("a query of 40 KiB", long(40 * 1024), &[431], false, 0);
    all.refused("a body of 2 MiB, told before it comes", "content-length: 2097152\r\n", "", 413);
    all.refused(
        "the same, with Expect: 100-continue",
        "content-length: 2097152\r\nexpect: 100-continue\r\n",
        "",
        413,
    );
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, "x".repeat(64 * 1024));
    all.refused("a body of more than 1 MiB in chunks", CHUNKED, &(chunk.repeat(17)), 413);
}

/// RFC 9112, 3.
fn request_lines(all: &mut Tries, path: &str) {
    let line = |line: &str| format!("{line}\r\nhost: x\r\ncontent-length: 4\r\n\r\npaid");
    all.raw(
        "absolute form, with another host",
        line(&format!("POST http://evil{path} HTTP/1.1")),
        &[202],
        true,
        1,
    );
    all.raw("CONNECT shop:443", "CONNECT shop:443 HTTP/1.1\r\nhost: shop:443\r\n\r\n", &[404], true, 0);
    all.raw("TRACE", format!("TRACE {path} HTTP/1.1\r\nhost: x\r\n\r\n"), &[405], true, 0);
    all.raw("OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", &[404], true, 0);
    all.raw("a method in lower case", line(&format!("post {path} HTTP/1.1")), &[405], true, 0);
    all.raw(
        "a path with ..",
        line(&format!("POST {} HTTP/1.1", path.replace("/shop/", "/../shop/"))),
        &[404],
        true,
        0,
    );
    all.raw(
        "a path with %2e%2e%2f",
        line(&format!("POST {} HTTP/1.1", path.replace("/shop/", "/%2e%2e%2fshop/"))),
        &[400],
        true,
        0,
    );
    all.raw("a space in the path", line(&format!("POST {path} x HTTP/1.1")), &[400], false, 0);
    all.raw("two spaces in the request line", line(&format!("POST  {path} HTTP/1.1")), &[400], false, 0);
    all.raw("HTTP/0.9", format!("GET {path}\r\n\r\n"), &[400], false, 0);
    all.raw("HTTP/1.2", line(&format!("POST {path} HTTP/1.2")), &[400], false, 0);
    all.raw(
        "HTTP/2 by prior knowledge, on the plain port",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        &[],
        false,
        0,
    );
    all.raw("an upgrade to h2c, which is not made", all.post("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 4\r\n", "paid"), &[202], true, 1);
    all.raw(
        "TLS on the plain port",
        [0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00, b'\r', b'\n', b'\r', b'\n'],
        &[400],
        false,
        0,
    );
    let mut twice = all.post("content-length: 4\r\n", "paid");
    twice.extend_from_slice(b"\0\0garbage\r\n\r\n");
    all.raw("garbage behind a good request", twice, &[202, 400], false, 1);
}

/// A dispatcher of a namespace with one webhook, which keeps what is taken.
async fn dispatcher(cluster: Arc<Cluster>) -> (Scene, Dispatcher, String) {
    let scene = Scene::without_controller(cluster).await;
    scene.webhook("shop", "https://localhost:1", json!({ "suspend": true })).await;
    let dispatcher = scene.dispatcher().await;
    let path = format!("/v1/namespaces/{}/outboundwebhooks/shop/events", scene.namespace.name());
    dispatcher.post("shop", "the webhook is known").await;
    (scene, dispatcher, path)
}

async fn nothing_is_smuggled_and_every_try_has_a_clear_answer(cluster: Arc<Cluster>) {
    let (_scene, dispatcher, path) = dispatcher(cluster).await;
    let mut pending = dispatcher.pending();
    let mut table =
        "| try | answer | the connection | events taken |\n| --- | --- | --- | --- |\n".to_owned();
    let mut wrong = Vec::new();
    for Try { what, bytes, answers, stays, queued } in tries(&path) {
        let got = attack(dispatcher.address, &bytes, &path).await;
        let now = dispatcher.pending();
        let got = Outcome { queued: new(&now, &pending), ..got };
        pending = now;
        let _ =
            writeln!(table, "| {what} | {} | {} | {} |", said(&got.answers), state(got.stays), got.queued);
        let expected = Outcome { answers, stays, queued };
        if got != expected {
            wrong.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    println!("\n{table}");
    assert!(wrong.is_empty(), "{} tries came to something else:\n{}", wrong.len(), wrong.join("\n"));
    dispatcher.post("shop", "and everybody else goes on").await;
}

fn new(now: &HashSet<String>, before: &HashSet<String>) -> usize {
    now.difference(before).count()
}

fn said(answers: &[u16]) -> String {
    match answers {
        [] => "none".to_owned(),
        answers => answers.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn state(stays: bool) -> &'static str {
    if stays { "stays" } else { "is closed" }
}

/// Sends the bytes and a last plain request, and reads all answers until the connection is closed.
async fn attack(address: SocketAddr, bytes: &[u8], path: &str) -> Outcome {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let letters = path.replace("/events", "/deadletters");
    let last = format!("GET {letters}?limit=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let bytes = bytes.to_vec();
    let writer = tokio::spawn(async move {
        // It may be closed before it has all.
        if write.write_all(&bytes).await.is_ok() {
            let _ = write.write_all(last.as_bytes()).await;
        }
        write
    });
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let end = async {
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            answer.extend_from_slice(&piece[..length]);
        }
    };
    let ended = tokio::time::timeout(SILENCE, end).await;
    drop(eventually::within(SILENCE, "all to be written", writer).await);
    let answer = String::from_utf8_lossy(&answer);
    assert!(ended.is_ok(), "no end came after: {answer}");
    // No body holds the beginning of another answer.
    let mut answers: Vec<u16> =
        answer.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect();
    let stays = answers.last() == Some(&200);
    if stays {
        answers.pop();
    }
    Outcome { answers, stays, queued: 0 }
}
