//! The events that are sent: 1 KiB each, with the time of their post in front.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

/// Size of a body, bytes.
pub(crate) const BYTES: usize = 1024;

/// Digits of the time in front of a body.
const DIGITS: usize = 20;

const PADDING: &str = match str::from_utf8(&[b'x'; BYTES - DIGITS]) {
    Ok(padding) => padding,
    Err(_) => unreachable!(),
};

/// Nanoseconds since 1970: the clock that all processes of a machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A body that is posted now.
pub(crate) fn body() -> String {
    format!("{:0DIGITS$}{PADDING}", now())
}

/// When a body was posted.
pub(crate) fn posted(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body.get(..DIGITS)?).ok()?.parse().ok()
}

/// A request with one event, in binary mode.
pub(crate) fn headers(request: http::request::Builder) -> http::request::Builder {
    request
        .header("content-type", "text/plain")
        .header("ce-specversion", "1.0")
        .header("ce-id", Uuid::now_v7().to_string())
        .header("ce-source", "/bench")
        .header("ce-type", "order.paid")
}

/// A batch of events, `application/cloudevents-batch+json`.
pub(crate) fn batch(events: usize) -> String {
    let mut batch = String::with_capacity(events * (BYTES + 160));
    for n in 0..events {
        batch.push(if n == 0 { '[' } else { ',' });
        let (id, body) = (Uuid::now_v7(), body());
        let _ = write!(
            batch,
            r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"order.paid","datacontenttype":"text/plain","data":"{body}"}}"#
        );
    }
    batch.push(']');
    batch
}
