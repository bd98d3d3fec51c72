//! The answer to whoever scrapes.

use std::{fmt, sync::Arc};

use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

/// What a program tells.
#[derive(Clone, Debug)]
pub struct Page(Arc<Registry>);

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>, which everything reads.
    Prometheus,
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>, for who asks for it.
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let mut types = ranges.filter_map(|range| range.split(';').next());
        if types.any(|type_| type_.trim() == OPEN_METRICS) { Self::OpenMetrics } else { Self::Prometheus }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Page {
    pub(super) fn new(registry: Registry) -> Self {
        Self(Arc::new(registry))
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.written(Format::Prometheus)
    }

    fn written(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &self.0)?,
            Format::OpenMetrics => text::encode(&mut text, &self.0)?,
        }
        Ok(text)
    }
}

/// Answers `/metrics`.
pub(in crate::telemetry) async fn tell(State(page): State<Page>, headers: HeaderMap) -> Response {
    let format = Format::wanted(&headers);
    match page.written(format) {
        Ok(text) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_who_asks_for_it() {
        let wanted = |accept: Option<&str>| {
            let accept = accept.map(|accept| (ACCEPT, accept.parse().unwrap()));
            Format::wanted(&accept.into_iter().collect())
        };
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(wanted(Some(prometheus)), Format::OpenMetrics);
        for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4"), Some("application/json")] {
            assert_eq!(wanted(accept), Format::Prometheus, "{accept:?}");
        }
    }
}
