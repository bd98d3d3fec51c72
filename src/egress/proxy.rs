//! The HTTP proxy: a tunnel by CONNECT, RFC 9110, 9.3.6.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::BASE64;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{HOST, PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use url::Url;
use zeroize::Zeroizing;

use super::{Error, OptionsError, dial, dial::Stream, resolve::Names};
use crate::{
    identity::{Trust, client_config},
    limits,
};

/// A proxy that an administrator has named. Its own address is not checked: the name is the permission.
pub(super) struct Proxy {
    /// Without the credentials.
    origin: String,
    host: String,
    port: u16,
    /// With an https URL. No certificate of a webhook is ever shown to it, and no trust of a webhook counts.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
}

/// What came of a CONNECT.
enum Asked {
    Tunnel(Stream),
    /// This address may not do, another one may.
    Refused(StatusCode),
}

impl Proxy {
    pub(super) fn new(url: &str) -> Result<Self, OptionsError> {
        if url.len() > limits::PROXY_URL_BYTES {
            return Err(OptionsError::Proxy("is longer than any URL of a proxy"));
        }
        let url: Url = url.parse().map_err(|_| OptionsError::Proxy("is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OptionsError::Proxy("has to begin with http:// or https://"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(OptionsError::Proxy("may hold nothing after the port"));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(OptionsError::Proxy("has no host"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if url.scheme() == "https" {
            let name = ServerName::try_from(bare.clone())
                .map_err(|_| OptionsError::Proxy("has a host that is no DNS name or IP address"))?;
            Some((Arc::new(client_config(None, &Trust::default())?), name))
        } else {
            None
        };
        let origin = format!("{}://{host}:{port}", url.scheme());
        Ok(Self { origin, host: bare, port, tls, authorization: authorization(&url)? })
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// A tunnel to the first of these addresses that the proxy takes, and which that is.
    pub(super) async fn tunnel(
        &self,
        names: &Names,
        targets: &[SocketAddr],
        deadline: Instant,
    ) -> Result<(Stream, SocketAddr), Error> {
        let mut refused = Vec::new();
        for target in targets {
            let reached_by = deadline.min(Instant::now() + limits::PROXY_CONNECT_TIMEOUT);
            let reached = timeout_at(reached_by, self.reach(names, reached_by)).await;
            let stream =
                reached.unwrap_or_else(|_| Err(self.error("cannot be reached: no answer in time")))?;
            match timeout_at(deadline, self.ask(stream, *target)).await {
                Ok(Ok(Asked::Tunnel(stream))) => return Ok((stream, *target)),
                Ok(Ok(Asked::Refused(status))) => refused.push(format!("{target}: HTTP {status}")),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(self.error(format!("did not connect to {target} in time"))),
            }
        }
        Err(self.error(format!("did not connect: {}", refused.join("; "))))
    }

    async fn reach(
        &self,
        names: &Names,
        deadline: Instant,
    ) -> Result<Either<TcpStream, TlsStream<TcpStream>>, Error> {
        let unreachable = |error: &dyn std::error::Error| self.error(format!("cannot be reached: {error}"));
        let addresses = names.addresses(&self.host).await.map_err(|error| unreachable(&error))?;
        let addresses: Vec<_> =
            addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
        let (stream, _) = dial::connect(&addresses, deadline).await.map_err(|error| unreachable(&error))?;
        let Some((config, name)) = &self.tls else { return Ok(Either::Left(stream)) };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| unreachable(&error))?;
        Ok(Either::Right(stream))
    }

    async fn ask(
        &self,
        stream: Either<TcpStream, TlsStream<TcpStream>>,
        target: SocketAddr,
    ) -> Result<Asked, Error> {
        let broken = |error: hyper::Error| self.error(format!("did not answer CONNECT: {error}"));
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(target.to_string())
            .header(HOST, target.to_string())
            .header(USER_AGENT, crate::USER_AGENT)
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.error(format!("cannot be asked: {error}")))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(limits::PROXY_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // It ends with the answer that opens the tunnel, or when nobody waits for an answer any more.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            status if status.is_success() => {
                let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
                Ok(Asked::Tunnel(Stream::tunnel(upgraded)))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if self.authorization.is_some() => {
                Err(self.error("does not take the credentials of --egress-proxy (HTTP 407)"))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(self.error("wants credentials (HTTP 407): --egress-proxy has none"))
            }
            status => Ok(Asked::Refused(status)),
        }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::Proxy { proxy: self.origin.clone(), what: what.into() }
    }
}

/// Basic, RFC 7617.
fn authorization(url: &Url) -> Result<Option<HeaderValue>, OptionsError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let credentials = Zeroizing::new([&**user, b":", &**password].concat());
    let value = Zeroizing::new(format!("Basic {}", BASE64.encode(&credentials)));
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| OptionsError::Proxy("has credentials that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
