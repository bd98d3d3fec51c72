//! The answer to whoever scrapes.

use std::{convert::Infallible, fmt, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures::stream;
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// What a program tells.
#[derive(Clone, Debug)]
pub struct Page {
    registry: Arc<Registry>,
    /// A page of many webhooks is some megabytes, and is held for as long as somebody takes to read it.
    places: Arc<Semaphore>,
}

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
        Self { registry: Arc::new(registry), places: Arc::new(Semaphore::new(limits::METRICS_SCRAPES)) }
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.written(Format::Prometheus)
    }

    fn written(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut text, &self.registry)?,
        }
        Ok(text)
    }
}

/// Answers `/metrics`.
pub(in crate::telemetry) async fn tell(State(page): State<Page>, headers: HeaderMap) -> Response {
    let format = Format::wanted(&headers);
    let Ok(place) = Arc::clone(&page.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "others are being told\n").into_response();
    };
    match page.written(format) {
        Ok(text) => {
            let headers =
                [(CONTENT_TYPE, format.content_type().to_owned()), (CONTENT_LENGTH, text.len().to_string())];
            (headers, in_parts(text.into(), place)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The place is given back with the last part, which is asked for once those before have been taken.
fn in_parts(mut text: Bytes, place: OwnedSemaphorePermit) -> Body {
    Body::from_stream(stream::iter(std::iter::from_fn(move || {
        let _held = &place;
        let part = text.split_to(text.len().min(limits::METRICS_PART_BYTES));
        (!part.is_empty()).then_some(Ok::<_, Infallible>(part))
    })))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use prometheus_client::metrics::{family::Family, gauge::Gauge};

    use super::*;

    #[tokio::test]
    async fn so_many_are_told_at_a_time_and_each_all_of_it() {
        let mut registry = Registry::default();
        let many = Family::<[(&str, String); 1], Gauge>::default();
        for n in 0..limits::METRICS_PART_BYTES / 8 {
            many.get_or_create(&[("n", n.to_string())]).set(1);
        }
        registry.register("many", "Many", many);
        let page = Page::new(registry);
        let scrape = async || tell(State(page.clone()), HeaderMap::new()).await;
        let mut slow = Vec::new();
        for _ in 0..limits::METRICS_SCRAPES {
            slow.push(scrape().await);
        }
        assert_eq!(scrape().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let told = slow.pop().unwrap();
        let length: usize = told.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        let text = to_bytes(told.into_body(), usize::MAX).await.unwrap();
        assert!(text.len() > 2 * limits::METRICS_PART_BYTES && text.len() == length);
        assert_eq!(text, page.text().unwrap());
        assert_eq!(scrape().await.status(), StatusCode::OK, "who has read it makes room");
    }

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
