//! From checked addresses to a connection, directly or through the proxy.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::Uri;
use hyper::upgrade::Upgraded;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::either::Either;

use super::{Checked, Egress, Error};
use crate::limits;

/// A connection to an endpoint: its own, or a tunnel.
pub struct Stream(Either<TcpStream, TokioIo<Upgraded>>);

impl Stream {
    pub(super) fn tunnel(upgraded: Upgraded) -> Self {
        Self(Either::Right(TokioIo::new(upgraded)))
    }
}

impl Egress {
    /// Connects to one of these addresses before the deadline, and tells which.
    pub async fn dial(&self, checked: &Checked, deadline: Instant) -> Result<(Stream, SocketAddr), Error> {
        let dialled = match &self.0.proxy {
            Some(proxy) => proxy.tunnel(&self.0.names, checked.addresses(), deadline).await,
            None => connect(checked.addresses(), deadline)
                .await
                .map(|(stream, address)| (Stream(Either::Left(stream)), address)),
        };
        self.0.connections.dialled(dialled.is_ok());
        dialled
    }
}

/// For an HTTP client: its connections begin here.
impl tower::Service<Uri> for Egress {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let egress = self.clone();
        async move {
            let deadline = Instant::now() + limits::DIAL_TIMEOUT;
            let checked = egress.resolve(uri.host().unwrap_or_default(), port(&uri)).await?;
            let (stream, _) = egress.dial(&checked, deadline).await?;
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(443)
}

/// Tries the addresses in their order: the next joins in when the one before has failed, or not answered for a
/// while.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), Error> {
    let mut waiting = addresses.iter().copied();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    let connected = timeout_at(deadline, async {
        let mut under_way = FuturesUnordered::new();
        loop {
            under_way.extend(
                waiting.next().map(|address| async move { (address, TcpStream::connect(address).await) }),
            );
            tokio::select! {
                Some((address, result)) = under_way.next() => match result {
                    Ok(stream) => break Some((stream, address)),
                    Err(error) => failed.push((address, error)),
                },
                () = sleep(limits::DIAL_NEXT), if waiting.len() > 0 => {}
                else => break None,
            }
        }
    })
    .await;
    if let Ok(Some((stream, address))) = connected {
        // Without it a small write may wait for the answer to the one before.
        let _ = stream.set_nodelay(true);
        return Ok((stream, address));
    }
    if failed.is_empty() {
        return Err(Error::NoAnswer);
    }
    let told = addresses.iter().map(|address| {
        let error = failed.iter().find(|(failed, _)| failed == address).map(|(_, error)| error.to_string());
        format!("{address}: {}", error.as_deref().unwrap_or("no answer"))
    });
    Err(Error::NotConnected(told.collect::<Vec<_>>().join("; ")))
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
