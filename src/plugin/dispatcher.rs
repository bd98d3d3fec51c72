//! The dispatcher: its queue is reached through its secure listener alone, where Kubernetes decides who may do what.
//!
//! The way there is a port-forward through the API server to the Pod, for which the person needs `create` on
//! `pods/portforward` there. TLS runs through it from end to end, under the name of the Service and by the authority
//! that the controller publishes. The token is one for the audience of the dispatcher alone, good for ten minutes, of
//! a ServiceAccount of the webhook's namespace that the person may make tokens for; what that account may do is for
//! RBAC to say. The person has to have the right as well: nobody gets further with an account than by themselves.
//! Without any of these nothing is sent.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec},
    authorization::v1::ResourceAttributes,
    core::v1::{ConfigMap, Pod, Service, ServiceAccount},
};
use kube::{Api, ResourceExt, api::PostParams};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;
use zeroize::Zeroizing;

use super::{cluster::Connection, failure::Failure, installation::installed, paint::Text, typed::kubectl};
use crate::{
    causes::chain,
    identity::{Trust, client_config, parse_bundle},
    ingest::{
        self, Target,
        access::{GROUP, RESOURCE},
    },
    kubernetes::SERVING_AUTHORITY,
    limits,
};

/// The port of the secure listener, as the chart names it.
const PORT: &str = "ingest";

/// How the dispatcher is reached.
#[derive(Args)]
#[command(next_help_heading = "Dispatcher")]
pub(super) struct Options {
    /// The namespace that Postrider is installed in
    #[arg(long, env = "POSTRIDER_INSTALLED_IN", value_name = "NAME", default_value = "postrider")]
    pub(super) installed_in: String,
    /// The URL of its secure listener, where it is reached without a port-forward
    #[arg(long, env = "POSTRIDER_DISPATCHER", value_name = "URL")]
    dispatcher: Option<Url>,
    /// The authorities of its certificate, PEM; without it those that the controller publishes
    #[arg(long, env = "POSTRIDER_DISPATCHER_CA", value_name = "FILE")]
    dispatcher_ca: Option<PathBuf>,
    /// The ServiceAccount of the webhook's namespace to act as; without it the one that you are
    #[arg(long, env = "POSTRIDER_SERVICE_ACCOUNT", value_name = "NAME")]
    service_account: Option<String>,
    /// A file with a token for the dispatcher, instead of one that is made; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "service_account")]
    token_file: Option<PathBuf>,
    /// The audience of a token that is made
    #[arg(long, env = "POSTRIDER_TOKEN_AUDIENCE", value_name = "NAME", default_value = "postrider")]
    token_audience: String,
}

/// What a person has to have for a request.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) subresource: &'static str,
}

impl Right {
    pub(super) fn on(self, namespace: &str, name: Option<&str>) -> ResourceAttributes {
        ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(RESOURCE.to_owned()),
            subresource: Some(self.subresource.to_owned()).filter(|subresource| !subresource.is_empty()),
            verb: Some(self.verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: name.map(str::to_owned),
            ..ResourceAttributes::default()
        }
    }
}

/// The same, above the lines for a person who may make such an account, with this right alone.
fn made_by(message: impl Into<Text>, account: &str, right: &ingest::access::Right) -> Text {
    let namespace = &right.target.namespace;
    let mut lines = vec![kubectl(&["create", "serviceaccount", account, "--namespace", namespace])];
    lines.extend(right.granted_by(&format!("system:serviceaccount:{namespace}:{account}")));
    (message.into() + "; who may make one types:").above(lines)
}

/// A connection to the dispatcher.
pub(super) struct Door {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<Zeroizing<String>>,
}

/// What carries bytes.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Options {
    /// A connection for what needs this right on a webhook.
    pub(super) async fn open(
        &self,
        connection: &Connection,
        name: &str,
        right: Right,
    ) -> Result<Door, Failure> {
        if !connection.may(right.on(&connection.namespace, Some(name))).await? {
            let Right { verb, subresource } = right;
            let message = format!(
                "you may not {verb} {RESOURCE}.{GROUP}/{subresource} of {name:?} in namespace {:?}",
                connection.namespace
            );
            return Err(Failure::forbidden(message));
        }
        let target = Target { namespace: connection.namespace.clone(), name: Some(name.to_owned()) };
        let Right { verb, subresource } = right;
        let token = self.token(connection, &ingest::access::Right { verb, subresource, target }).await?;
        let mut door = self.reach(connection).await?;
        door.token = Some(token);
        Ok(door)
    }

    /// A connection over which nobody has said who they are.
    pub(super) async fn reach(&self, connection: &Connection) -> Result<Door, Failure> {
        let trust = self.trust(connection).await?;
        let (host, stream) = match &self.dispatcher {
            Some(url) => direct(url).await?,
            None => self.forwarded(connection).await?,
        };
        let config = client_config(None, &trust).map_err(|error| Failure::tried(error.to_string()))?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Failure::usage(format!("{host:?} is no name of a server")))?;
        let tls = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream);
        let tls = timeout(limits::PLUGIN_CONNECT, tls).await.map_err(|_| no_answer())?;
        let tls =
            tls.map_err(|error| Failure::tried(format!("TLS with the dispatcher as {host}: {error}")))?;
        let (sender, driver) = handshake(TokioIo::new(tls)).await.map_err(|error| not_answered(&error))?;
        tokio::spawn(driver);
        Ok(Door { sender, host, token: None })
    }

    /// By which way the dispatcher is reached, for people: no other has been tried.
    pub(super) fn way(&self) -> String {
        self.dispatcher.as_ref().map_or_else(
            || "over TLS, by a port-forward (senders come by its Service)".to_owned(),
            |url| format!("over TLS at {url}"),
        )
    }

    async fn trust(&self, connection: &Connection) -> Result<Trust, Failure> {
        let (bundle, from) = if let Some(path) = &self.dispatcher_ca {
            let bytes = std::fs::read(path)
                .map_err(|error| Failure::tried(format!("cannot read {}: {error}", path.display())))?;
            (bytes, path.display().to_string())
        } else {
            let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &self.installed_in);
            let map = maps.get(SERVING_AUTHORITY).await.map_err(|error| match Failure::from(error) {
                Failure::NotFound(_) => Failure::tried(format!(
                    "no ConfigMap {SERVING_AUTHORITY} in namespace {}: name the namespace of the installation with \
                     --installed-in, or the authority with --dispatcher-ca",
                    self.installed_in
                )),
                failure => failure,
            })?;
            let bundle = map.data.and_then(|mut data| data.remove("ca.crt")).unwrap_or_default();
            (bundle.into_bytes(), format!("ConfigMap {SERVING_AUTHORITY}"))
        };
        let certificates =
            parse_bundle(&bundle).map_err(|error| Failure::tried(format!("{from} {error}")))?;
        Ok(Trust { certificates, system_roots: false })
    }

    /// Through the API server to the Pod. The name is that of the Service before it.
    async fn forwarded(&self, connection: &Connection) -> Result<(String, Box<dyn Stream>), Failure> {
        let namespace = &self.installed_in;
        let services: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
        let services = installed(&services, &["app.kubernetes.io/component=ingest"]).await?;
        let service = services.objects.first().map(ResourceExt::name_any);
        let host = format!("{}.{namespace}.svc", service.as_deref().unwrap_or("postrider"));
        let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
        let found = installed(&pods, &[]).await?;
        let Some((pod, port)) = found.objects.iter().find_map(listening) else {
            let message = format!(
                "no Pod of Postrider in namespace {namespace} takes events: is it installed there (--installed-in), \
                 with ingest.enabled?"
            );
            return Err(Failure::tried(message));
        };
        let forward = timeout(limits::PLUGIN_CONNECT, pods.portforward(&pod, &[port])).await;
        let mut forward = forward.map_err(|_| no_answer())?.map_err(|error| match error {
            kube::Error::UpgradeConnection(error) => Failure::forbidden(format!(
                "no port-forward to Pod {pod} in namespace {namespace}: {}; it takes get and create on pods/portforward there",
                chain(&error)
            )),
            error => error.into(),
        })?;
        let stream = forward.take_stream(port).ok_or_else(no_answer)?;
        Ok((host, Box::new(stream)))
    }

    /// A token by which this right is asked for.
    async fn token(
        &self,
        connection: &Connection,
        right: &ingest::access::Right,
    ) -> Result<Zeroizing<String>, Failure> {
        if let Some(path) = &self.token_file {
            let bytes = crate::inspect::read(path, limits::TOKEN_BYTES)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the token is no text"))?;
            return Ok(Zeroizing::new(text.trim().to_owned()));
        }
        let (namespace, account) = self.account(connection, right).await?;
        let spec = TokenRequestSpec {
            audiences: Some(vec![self.token_audience.clone()]),
            expiration_seconds: Some(limits::PLUGIN_TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(connection.client.clone(), &namespace);
        let made = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let made = made.map_err(|error| match Failure::from(error) {
            Failure::NotFound(_) => {
                let message = format!("there is no ServiceAccount {account:?} in namespace {namespace:?}");
                Failure::not_found(made_by(message, &account, right))
            }
            failure => failure,
        })?;
        let token = made.status.and_then(|status| status.token);
        let token = token.ok_or_else(|| Failure::tried("the API server made no token"))?;
        Ok(Zeroizing::new(token))
    }

    /// Whose token is asked for.
    async fn account(
        &self,
        connection: &Connection,
        right: &ingest::access::Right,
    ) -> Result<(String, String), Failure> {
        if let Some(account) = &self.service_account {
            return Ok((connection.namespace.clone(), account.clone()));
        }
        let user = who_am_i(connection).await?;
        let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).ok_or_else(|| {
            let message = format!(
                "the dispatcher takes tokens of ServiceAccounts, and you are {user:?}: name one that may do it, such as \
                 --service-account operator"
            );
            Failure::usage(made_by(message, "operator", right))
        })
    }
}

/// The name that the API server knows the person by.
pub(super) async fn who_am_i(connection: &Connection) -> Result<String, Failure> {
    let reviews: Api<SelfSubjectReview> = Api::all(connection.client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    Ok(user.unwrap_or_default())
}

/// A running Pod with the port of the secure listener.
fn listening(pod: &Pod) -> Option<(String, u16)> {
    let running =
        pod.status.as_ref()?.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    let containers = &pod.spec.as_ref().filter(|_| running)?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    Some((pod.name_any(), u16::try_from(port.container_port).ok()?))
}

async fn direct(url: &Url) -> Result<(String, Box<dyn Stream>), Failure> {
    let (Some(host), Some(port), "https") = (url.host_str(), url.port_or_known_default(), url.scheme())
    else {
        return Err(Failure::usage(format!("--dispatcher {url}: it has to be https://HOST:PORT")));
    };
    let stream =
        timeout(limits::PLUGIN_CONNECT, TcpStream::connect((host.trim_matches(['[', ']']), port))).await;
    let stream = stream.map_err(|_| no_answer())?;
    let stream = stream.map_err(|error| Failure::tried(format!("the dispatcher at {url}: {error}")))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), Box::new(stream)))
}

fn no_answer() -> Failure {
    Failure::tried("the dispatcher does not answer")
}

fn not_answered(error: &hyper::Error) -> Failure {
    Failure::tried(format!("the dispatcher does not answer: {}", chain(error)))
}

impl Door {
    /// Sends a request; `path` follows the API's version.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Value, Failure> {
        let (status, body) = self.request(method, path, headers, body).await?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() { Ok(value) } else { Err(problem(status, &value)) }
    }

    /// The status alone.
    pub(super) async fn status(&mut self, path: &str) -> Result<StatusCode, Failure> {
        Ok(self.request(Method::OPTIONS, path, HeaderMap::new(), Bytes::new()).await?.0)
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request =
            Request::builder().method(method).uri(format!("/v1/{path}")).header(header::HOST, &self.host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let mut request = request
            .header(header::USER_AGENT, crate::USER_AGENT)
            .body(Full::new(body))
            .map_err(|error| Failure::usage(format!("that cannot be sent: {error}")))?;
        request.headers_mut().extend(headers);
        let exchange = async {
            self.sender.ready().await.map_err(|error| not_answered(&error))?;
            let response = self.sender.send_request(request).await.map_err(|error| not_answered(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), limits::PLUGIN_ANSWER_BYTES).collect().await;
            let body =
                body.map_err(|error| Failure::tried(format!("the dispatcher's answer broke off: {error}")))?;
            Ok((status, body.to_bytes()))
        };
        timeout(limits::PLUGIN_REQUEST, exchange).await.map_err(|_| no_answer())?
    }
}

/// What a problem of RFC 9457 says to a person; who lacks a right is told the lines that grant it.
fn problem(status: StatusCode, problem: &Value) -> Failure {
    let detail = problem["detail"].as_str().map_or_else(|| format!("HTTP {status}"), str::to_owned);
    let mut message = Text::from(format!("the dispatcher says: {detail}"));
    let lines: Vec<_> = problem["grant"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !lines.is_empty() {
        message = (message + "; who may grant it types:").above(lines);
    }
    match status.as_u16() {
        401 | 403 => Failure::forbidden(message),
        404 => Failure::not_found(message),
        400 | 413 | 414 | 422 | 431 => Failure::usage(message),
        _ => Failure::tried(message),
    }
}
