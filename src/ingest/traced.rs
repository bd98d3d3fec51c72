//! A span for each request that brings events, in the trace that its sender says.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::Target;
use crate::{event::trace::TraceContext, telemetry::traces::Span};

/// From here on a request that is recorded says that it belongs to this span, and so do its events, but for those that
/// name a trace of their own.
pub(super) async fn traced(route: MatchedPath, target: Target, mut request: Request, next: Next) -> Response {
    // Nobody brings anything otherwise.
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let headers = request.headers();
    let sender = TraceContext::of_request(headers).or_else(|| TraceContext::of_binary(headers));
    let Target { namespace, name } = &target;
    let mut span = Span::server(sender.as_ref(), route.as_str(), namespace, name.as_deref());
    if let Some(context) = span.context() {
        context.set_request(request.headers_mut());
    }
    let response = next.run(request).await;
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.failed(i64::from(status.as_u16()).to_string(), "");
    }
    response
}
