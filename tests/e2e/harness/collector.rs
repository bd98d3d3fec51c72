//! A collector in the test program: it takes spans by OTLP over HTTP, and remembers them.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    body::Bytes,
    http::{Response, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span as Otlp,
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A span as it came.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) otlp: Otlp,
}

impl Span {
    pub(crate) fn name(&self) -> &str {
        &self.otlp.name
    }

    /// As what follows from it says it.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace(), hex(&self.otlp.span_id))
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.otlp.trace_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.otlp.parent_span_id)
    }

    /// Empty where it has none of this name.
    pub(crate) fn attribute(&self, name: &str) -> String {
        value(&self.otlp.attributes, name)
    }
}

fn hex(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

fn value(attributes: &[KeyValue], name: &str) -> String {
    let attribute = attributes.iter().find(|attribute| attribute.key == name);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
    }
}

/// The spans of a request.
pub(crate) fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap_or_else(|error| panic!("no spans: {error}"));
    let of_resource = request.resource_spans.into_iter().flat_map(|of_resource| {
        let resource = of_resource.resource.unwrap_or_default();
        let service = value(&resource.attributes, "service.name");
        let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        spans.map(move |otlp| Span { service: service.clone(), otlp })
    });
    of_resource.collect()
}

/// A running collector; dropped, it is gone.
pub(crate) struct Collector {
    address: SocketAddr,
    bodies: watch::Sender<Vec<Bytes>>,
    server: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the collector listens");
        let address = listener.local_addr().expect("the collector has an address");
        let bodies = watch::Sender::default();
        let server = tokio::spawn(accept(listener, bodies.clone()));
        Self { address, bodies, server }
    }

    /// What the programs are told.
    pub(crate) fn endpoint(&self) -> String {
        format!("--otlp-endpoint=http://{}", self.address)
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.bodies.borrow().iter().flat_map(|body| spans(body)).collect()
    }

    /// All that came, as it came.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bodies.borrow().concat()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener, bodies: watch::Sender<Vec<Bytes>>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let bodies = bodies.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &bodies));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    bodies: &watch::Sender<Vec<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_spans = request.uri().path() == "/v1/traces"
        && request.headers().get(CONTENT_TYPE).is_some_and(|is| is == "application/x-protobuf");
    let mut response = Response::new(Full::default());
    match request.into_body().collect().await {
        Ok(body) if is_spans => bodies.send_modify(|bodies| bodies.push(body.to_bytes())),
        _ => *response.status_mut() = axum::http::StatusCode::BAD_REQUEST,
    }
    Ok(response)
}
