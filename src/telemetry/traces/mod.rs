//! Traces by OTLP, for whom an administrator names a collector; without one nothing is recorded.
//!
//! A [`Span`] says what was done, for whom and how it ended. It holds no path or query of an endpoint, no header, no
//! body and no token: whoever may read traces need not be who may read those. Spans are made by name, one by one, and
//! not from whatever is logged: nothing gets into one that nobody has put there.

mod collector;
mod options;

use std::{borrow::Cow, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span as Recorded,
    },
};

use crate::{
    event::{WebhookKey, trace::TraceContext},
    identity::TlsError,
    limits,
};
use collector::Collector;
pub use options::Options;

/// Of the program; not there while spans are not wanted.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What holds a token for the collector: the exporter reads it.
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is wrong with the URL, without what stands in it.
    #[error("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) {0}")]
    Endpoint(&'static str),
    /// Whom to trust as the collector.
    #[error("--otlp-endpoint cannot be connected to over TLS: {0}")]
    Tls(#[from] TlsError),
    /// What the variables of OpenTelemetry say.
    #[error("traces cannot be exported: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Spans on their way to a collector.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// From now on there are spans of this service, if a collector is named. Within a runtime, once in a program.
    pub fn start(options: &Options, service: &'static str) -> Result<Option<Self>, Error> {
        let Some(endpoint) = options.endpoint()? else { return Ok(None) };
        if options::is_in_clear(&endpoint) && HEADERS.iter().any(|name| std::env::var_os(name).is_some()) {
            tracing::warn!(
                "headers for the collector, such as a token, go over http://, where others can read them"
            );
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(&endpoint)?)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(limits::SPANS_EXPORT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(limits::SPANS)
            .with_max_export_batch_size(limits::SPANS_BATCH)
            .with_scheduled_delay(limits::SPANS_PAUSE)
            .build();
        let spans = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(spans)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.trace_ratio))))
            .with_max_attributes_per_span(limits::SPAN_ATTRIBUTES)
            .with_resource(resource(service))
            .build();
        let _ = TRACER.set(provider.tracer("postrider"));
        tracing::info!(service, ratio = options.trace_ratio, "exports spans");
        Ok(Some(Self(provider)))
    }

    /// The last spans go out, as far as they can in a bounded time. It blocks, and the runtime has to be there still.
    pub fn end(self) {
        if self.0.shutdown_with_timeout(limits::SPANS_SHUTDOWN).is_err() {
            tracing::warn!("the last spans could not be exported");
        }
    }
}

/// With what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, which go first.
fn resource(service: &'static str) -> Resource {
    let ours =
        [KeyValue::new("service.name", service), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let said = Resource::builder().build();
    let unsaid = |attribute: &KeyValue| match said.get(&attribute.key) {
        Some(Value::String(name)) => name.as_str().starts_with("unknown_service"),
        said => said.is_none(),
    };
    let ours: Vec<_> = ours.into_iter().filter(unsaid).collect();
    Resource::builder().with_attributes(ours).build()
}

/// Whether spans are wanted.
pub(crate) fn are_on() -> bool {
    TRACER.get().is_some()
}

/// Something that takes time; it ends when it is dropped. Where no spans are wanted it is nothing.
pub(crate) struct Span {
    span: Option<Recorded>,
    /// Whether the trace begins with it.
    begins: bool,
}

impl Span {
    /// What is done here, for nobody elsewhere.
    pub(crate) fn internal(name: &'static str, webhook: &WebhookKey) -> Self {
        Self::start(SpanKind::Internal, None, || {
            (name.into(), of_webhook(&webhook.namespace, Some(&webhook.name)))
        })
    }

    /// A POST of a sender, in the trace that it says.
    pub(crate) fn server(
        parent: Option<&TraceContext<'_>>,
        route: &str,
        namespace: &str,
        webhook: Option<&str>,
    ) -> Self {
        Self::start(SpanKind::Server, parent, || {
            let mut attributes = of_webhook(namespace, webhook);
            attributes.push(KeyValue::new("http.request.method", "POST"));
            attributes.push(KeyValue::new("http.route", route.to_owned()));
            (format!("POST {route}").into(), attributes)
        })
    }

    /// What is done at an endpoint. Of its URL it says the host alone: all else may be a secret.
    pub(crate) fn client(
        name: &'static str,
        parent: Option<&TraceContext<'_>>,
        webhook: &WebhookKey,
        url: &url::Url,
    ) -> Self {
        Self::start(SpanKind::Client, parent, || {
            let mut attributes = of_webhook(&webhook.namespace, Some(&webhook.name));
            attributes.extend(url.host_str().map(|host| KeyValue::new("server.address", host.to_owned())));
            let port = url.port_or_known_default();
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
            (name.into(), attributes)
        })
    }

    fn start(
        kind: SpanKind,
        parent: Option<&TraceContext<'_>>,
        says: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self { span: None, begins: false } };
        let (name, attributes) = says();
        Self::of(tracer, SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes), parent)
    }

    fn of(tracer: &SdkTracer, span: SpanBuilder, parent: Option<&TraceContext<'_>>) -> Self {
        let parent = parent.map(TraceContext::to_span);
        let begins = parent.is_none();
        let context =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        Self { span: Some(tracer.build_with_context(span, &context)), begins }
    }

    /// The place in the trace of what follows from this, where it is another than the sender's: that goes on as it came
    /// where nothing is recorded. Without one it is said that nothing is, so that nobody behind begins to.
    pub(crate) fn context(&self) -> Option<TraceContext<'static>> {
        let own = self.span.as_ref()?.span_context();
        (own.is_sampled() || self.begins).then(|| TraceContext::of_span(own)).flatten()
    }

    /// Whether anybody is to read of it: else nothing need be said.
    pub(crate) fn is_recorded(&self) -> bool {
        self.span.as_ref().is_some_and(Recorded::is_recording)
    }

    /// Where anybody is.
    fn recorded(&mut self) -> Option<&mut Recorded> {
        self.span.as_mut().filter(|span| span.is_recording())
    }

    /// Says something of it: a word or a number of ours, or what somebody else chose, in a bounded length.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = self.recorded() {
            let value = match value.into() {
                Value::String(text) => Value::from(bounded(text.as_str())),
                value => value,
            };
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// It did not do what it was to do. `message` is one that a log may hold as well.
    pub(crate) fn failed(&mut self, reason: impl Into<Value>, message: &str) {
        if let Some(span) = self.recorded() {
            span.set_status(Status::error(bounded(message)));
            span.set_attribute(KeyValue::new("error.type", reason));
        }
    }
}

fn of_webhook(namespace: &str, name: Option<&str>) -> Vec<KeyValue> {
    let namespace = KeyValue::new("postrider.webhook.namespace", namespace.to_owned());
    let name = name.map(|name| KeyValue::new("postrider.webhook.name", name.to_owned()));
    std::iter::once(namespace).chain(name).collect()
}

fn bounded(text: &str) -> String {
    text.chars().take(limits::SPAN_VALUE_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceFlags;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(sampled: bool) -> std::collections::BTreeMap<String, String> {
        let parent = if sampled { PARENT.to_owned() } else { PARENT.replace("-01", "-00") };
        [("traceparent".to_owned(), parent), ("tracestate".to_owned(), "a=1".to_owned())].into()
    }

    /// A span of a program that keeps this part of the traces that begin in it.
    fn span(ratio: f64, parent: Option<&TraceContext<'_>>) -> Span {
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let tracer = SdkTracerProvider::builder().with_sampler(sampler).build().tracer("test");
        Span::of(&tracer, SpanBuilder::from_name("test"), parent)
    }

    #[test]
    fn what_follows_belongs_to_the_span_where_it_is_recorded() {
        let attributes = parent(true);
        let sender = TraceContext::of_event(&attributes);
        let span = span(0.0, sender.as_ref());
        let (before, after) = (sender.unwrap().to_span(), span.context().unwrap().to_span());
        assert_eq!((after.trace_id(), after.trace_flags()), (before.trace_id(), TraceFlags::SAMPLED));
        assert_ne!(after.span_id(), before.span_id());
        assert_eq!(after.trace_state().header(), "a=1");
    }

    #[test]
    fn what_a_sender_says_goes_on_as_it_came_where_nothing_is_recorded() {
        let attributes = parent(false);
        assert_eq!(span(1.0, TraceContext::of_event(&attributes).as_ref()).context(), None);
        assert_eq!(Span { span: None, begins: false }.context(), None);
    }

    #[test]
    fn a_trace_that_is_not_kept_is_not_begun_again_behind_it() {
        let context = span(0.0, None).context().unwrap();
        assert!(context.to_span().is_valid() && !context.to_span().is_sampled());
        assert!(span(1.0, None).context().unwrap().to_span().is_sampled());
        assert!(!span(1.0, Some(&context)).span.unwrap().span_context().is_sampled());
    }

    #[test]
    fn what_others_chose_is_cut() {
        assert_eq!(bounded(&"é".repeat(1000)).chars().count(), limits::SPAN_VALUE_CHARACTERS);
    }
}
