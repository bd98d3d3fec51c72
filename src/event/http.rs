//! The CloudEvents HTTP protocol binding 1.0.2: what comes in, in binary, structured and batch mode, and
//! what goes out, in binary mode. A body that is no CloudEvent is wrapped.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use super::{Event, WebhookKey, trace::TraceContext};
use crate::limits;

/// The type of a body that is no CloudEvent.
pub const EVENT_TYPE_HEADER: &str = "postrider-event-type";
/// Its type where the header is not there.
pub const DEFAULT_EVENT_TYPE: &str = "dev.postrider.event";
/// The CloudEvents attribute (partitioning extension) by which events are ordered.
const PARTITION_KEY: &str = "partitionkey";

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Attributes whose values are strings, also in JSON. Those of other extensions may be numbers and booleans.
const STRINGS: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "datacontenttype",
    "dataschema",
    "subject",
    "time",
    PARTITION_KEY,
];

/// Section 3.1.3.2: space, double quote, percent, and what is not printable ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Why a request holds no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// A required attribute is not there, or empty.
    #[error("the CloudEvents attribute {0:?} is missing or empty")]
    Missing(&'static str),
    /// Another version of the specification.
    #[error("specversion {0:?} is not supported: it must be \"1.0\"")]
    Version(String),
    /// A name with other letters than a-z and 0-9.
    #[error("{0:?} is no name of a CloudEvents attribute: a-z and 0-9 only")]
    Name(String),
    /// A value that is no string, number or boolean, or not UTF-8.
    #[error("the CloudEvents attribute {0:?} has a value that is not allowed")]
    Value(String),
    /// Not JSON of the expected shape.
    #[error("the body is not {0}")]
    Json(&'static str),
    /// `data_base64` cannot be decoded.
    #[error("data_base64 is not valid base64")]
    Base64,
    /// Too many events at once.
    #[error("the batch has more than {limit} events", limit = limits::BATCH_EVENTS)]
    Batch,
    /// A bound was exceeded.
    #[error("the event has more than {0} {1} of attributes")]
    Limit(usize, &'static str),
}

/// An event as it came, for nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Ours.
    pub id: Uuid,
    /// The CloudEvents context attributes by name.
    pub attributes: BTreeMap<String, String>,
    /// The data.
    pub body: Bytes,
}

impl Message {
    /// Its attributes and its data.
    pub fn bytes(&self) -> usize {
        bytes_of(&self.attributes) + self.body.len()
    }

    /// The CloudEvents type.
    pub fn event_type(&self) -> &str {
        self.attributes.get("type").map(String::as_str).unwrap_or_default()
    }

    /// The event for one webhook. Where it is `ordered`, those with the same partition key go out one at a time.
    pub fn into_event(self, webhook: WebhookKey, ordered: bool, now: Timestamp) -> Event {
        let key = self.attributes.get(PARTITION_KEY).filter(|_| ordered).cloned();
        Event { id: self.id, webhook, accepted_at: now, attributes: self.attributes, body: self.body, key }
    }

    /// The event for one webhook of many, each of which has an id of its own; also as a CloudEvent, where its sender
    /// has not given it one.
    pub fn to_event(&self, webhook: WebhookKey, ordered: bool, now: Timestamp) -> Event {
        let mut copy = Self { id: Uuid::now_v7(), ..self.clone() };
        if let Some(id) = copy.attributes.get_mut("id").filter(|id| **id == self.id.to_string()) {
            *id = copy.id.to_string();
        }
        copy.into_event(webhook, ordered, now)
    }
}

/// Reads the events of a request. `source` is that of a body that is no CloudEvent. Events that name no trace belong
/// to that of the request.
pub fn read(
    headers: &HeaderMap,
    body: &Bytes,
    source: &str,
    now: Timestamp,
) -> Result<Vec<Message>, NotAnEvent> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let new = |(attributes, body)| Message { id: Uuid::now_v7(), attributes, body };
    let mut messages = if media_type.eq_ignore_ascii_case(STRUCTURED) {
        let fields = serde_json::from_slice(body).map_err(|_| NotAnEvent::Json("a CloudEvent in JSON"))?;
        vec![new(structured(fields)?)]
    } else if media_type.eq_ignore_ascii_case(BATCH) {
        let batch: Vec<Fields<'_>> =
            serde_json::from_slice(body).map_err(|_| NotAnEvent::Json("a JSON array of CloudEvents"))?;
        if batch.len() > limits::BATCH_EVENTS {
            return Err(NotAnEvent::Batch);
        }
        batch.into_iter().map(|fields| structured(fields).map(new)).collect::<Result<_, _>>()?
    } else if headers.contains_key("ce-specversion") {
        vec![new((binary(headers, content_type)?, body.clone()))]
    } else {
        let id = Uuid::now_v7();
        vec![Message { id, attributes: wrap(id, headers, content_type, source, now)?, body: body.clone() }]
    };
    messages.iter().try_for_each(|message| check(&message.attributes))?;
    if let Some(context) = TraceContext::of_request(headers) {
        // An event that names its own trace keeps it: its sender may only pass it on.
        for message in &mut messages {
            if TraceContext::of_event(&message.attributes).is_none() {
                context.set_event(&mut message.attributes);
            }
        }
    }
    Ok(messages)
}

/// The headers of an event in binary mode.
pub fn write(event: &Event) -> Result<HeaderMap, InvalidHeaderValue> {
    let mut headers = HeaderMap::new();
    for (name, value) in &event.attributes {
        if name == "datacontenttype" {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value)?);
        } else if let Ok(header) = HeaderName::try_from(format!("ce-{name}")) {
            let value = utf8_percent_encode(value, ESCAPED).to_string();
            headers.insert(header, HeaderValue::from_str(&value)?);
        }
    }
    Ok(headers)
}

fn binary(headers: &HeaderMap, content_type: Option<&str>) -> Result<BTreeMap<String, String>, NotAnEvent> {
    let mut attributes = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else { continue };
        attributes.insert(name.to_owned(), header_text(name, value)?);
    }
    if let Some(content_type) = content_type {
        attributes.insert("datacontenttype".to_owned(), content_type.to_owned());
    }
    Ok(attributes)
}

fn header_text(name: &str, value: &HeaderValue) -> Result<String, NotAnEvent> {
    let text = std::str::from_utf8(value.as_bytes()).ok();
    let text = text.and_then(|text| percent_decode_str(text).decode_utf8().ok());
    text.map(std::borrow::Cow::into_owned).ok_or_else(|| NotAnEvent::Value(name.to_owned()))
}

/// The members of a CloudEvent in JSON, as they stand: a number in its data may be larger than ours.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn structured(mut fields: Fields<'_>) -> Result<(BTreeMap<String, String>, Bytes), NotAnEvent> {
    let present = |value: &&RawValue| value.get() != "null";
    let data = fields.remove("data").filter(present);
    let data_base64 = fields.remove("data_base64").filter(present);
    let mut attributes = BTreeMap::new();
    for (name, value) in fields.into_iter().filter(|(_, value)| present(value)) {
        let value = match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => text,
            Ok(Value::Bool(_) | Value::Number(_)) if !STRINGS.contains(&name.as_str()) => {
                value.get().to_owned()
            }
            _ => return Err(NotAnEvent::Value(name)),
        };
        attributes.insert(name, value);
    }
    let body = match (data, data_base64) {
        (None, None) => Vec::new(),
        (None, Some(text)) => {
            let text: String = serde_json::from_str(text.get()).map_err(|_| NotAnEvent::Base64)?;
            BASE64.decode(text.as_bytes()).map_err(|_| NotAnEvent::Base64)?
        }
        (Some(data), None) => {
            let text: Option<String> = serde_json::from_str(data.get()).ok();
            if let Some(text) = text.filter(|_| !is_json(attributes.get("datacontenttype"))) {
                text.into_bytes()
            } else {
                let json = || "application/json".to_owned();
                attributes.entry("datacontenttype".to_owned()).or_insert_with(json);
                data.get().as_bytes().to_vec()
            }
        }
        (Some(_), Some(_)) => return Err(NotAnEvent::Json("an event with either data or data_base64")),
    };
    Ok((attributes, body.into()))
}

/// JSON format 1.0.2, section 3.1.1: without a content type, data is JSON.
fn is_json(content_type: Option<&String>) -> bool {
    let Some(content_type) = content_type else { return true };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

fn wrap(
    id: Uuid,
    headers: &HeaderMap,
    content_type: Option<&str>,
    source: &str,
    now: Timestamp,
) -> Result<BTreeMap<String, String>, NotAnEvent> {
    // As it stands: this is no header of the CloudEvents binding, with its escapes.
    let event_type = match headers.get(EVENT_TYPE_HEADER).filter(|value| !value.is_empty()) {
        Some(value) => {
            std::str::from_utf8(value.as_bytes()).map_err(|_| NotAnEvent::Value("type".to_owned()))?
        }
        None => DEFAULT_EVENT_TYPE,
    };
    Ok([
        ("specversion", "1.0".to_owned()),
        ("id", id.to_string()),
        ("source", source.to_owned()),
        ("type", event_type.to_owned()),
        ("time", now.to_string()),
        ("datacontenttype", content_type.unwrap_or("application/octet-stream").to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// Names and values.
fn bytes_of(attributes: &BTreeMap<String, String>) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn check(attributes: &BTreeMap<String, String>) -> Result<(), NotAnEvent> {
    for name in ["specversion", "id", "source", "type"] {
        if attributes.get(name).is_none_or(String::is_empty) {
            return Err(NotAnEvent::Missing(name));
        }
    }
    if attributes["specversion"] != "1.0" {
        return Err(NotAnEvent::Version(attributes["specversion"].clone()));
    }
    if attributes.get("time").is_some_and(|time| time.parse::<Timestamp>().is_err()) {
        return Err(NotAnEvent::Value("time".to_owned()));
    }
    if attributes.len() > limits::EVENT_ATTRIBUTES {
        return Err(NotAnEvent::Limit(limits::EVENT_ATTRIBUTES, "names"));
    }
    if bytes_of(attributes) > limits::EVENT_ATTRIBUTE_BYTES {
        return Err(NotAnEvent::Limit(limits::EVENT_ATTRIBUTE_BYTES, "bytes"));
    }
    for (name, value) in attributes {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(NotAnEvent::Name(name.clone()));
        }
        // Goes out unescaped, as Content-Type.
        if name == "datacontenttype" && !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(NotAnEvent::Value(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_bytes(v.as_bytes()).unwrap()))
            .collect()
    }

    fn read_all(pairs: &[(&'static str, &str)], body: &str) -> Result<Vec<Message>, NotAnEvent> {
        read(&headers(pairs), &Bytes::copy_from_slice(body.as_bytes()), "/shop", Timestamp::UNIX_EPOCH)
    }

    fn event(message: &Message) -> Event {
        let webhook = WebhookKey { namespace: "shop".into(), name: "partner".into() };
        message.clone().into_event(webhook, true, Timestamp::UNIX_EPOCH)
    }

    const BINARY: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "order.paid")];

    #[test]
    fn binary_mode_goes_out_as_it_came_in() {
        let mut pairs = BINARY.to_vec();
        pairs.extend([
            ("content-type", "text/plain; charset=utf-8"),
            ("ce-subject", "Euro%20%E2%82%AC %22x%22"),
        ]);
        let event = &read_all(&pairs, "paid").unwrap()[0];
        assert_eq!(event.attributes["subject"], "Euro \u{20ac} \"x\"");
        assert_eq!(event.body, b"paid"[..]);
        let out = write(&self::event(event)).unwrap();
        assert_eq!(out["ce-subject"], "Euro%20%E2%82%AC%20%22x%22");
        assert_eq!(out["content-type"], "text/plain; charset=utf-8");
        assert_eq!((out["ce-id"].as_bytes(), out["ce-type"].as_bytes()), (&b"1"[..], &b"order.paid"[..]));
    }

    #[test]
    fn an_event_belongs_to_its_own_trace_or_to_that_of_the_request() {
        let of = |id: char| format!("00-{}-b7ad6b7169203331-01", String::from(id).repeat(32));
        let (own, requests) = (of('1'), of('2'));
        let event = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = BINARY.iter().chain(pairs).copied().collect();
            let attributes = read_all(&pairs, "").unwrap().remove(0).attributes;
            (attributes.get("traceparent").cloned(), attributes.get("tracestate").cloned())
        };
        let (header, state) = (("traceparent", requests.as_str()), ("tracestate", "a=1"));
        assert_eq!(event(&[header, state]), (Some(requests.clone()), Some("a=1".to_owned())));
        assert_eq!(event(&[header, state, ("ce-traceparent", &own)]), (Some(own.clone()), None));
        // As if it were not there, and still the sender's where nothing better is.
        assert_eq!(event(&[header, ("ce-traceparent", "x")]), (Some(requests.clone()), None));
        assert_eq!(event(&[("ce-traceparent", "x"), ("traceparent", "y")]), (Some("x".to_owned()), None));
        assert_eq!(event(&[state]), (None, None));
        let wrapped = read_all(&[header], "x").unwrap().remove(0);
        assert_eq!(wrapped.attributes["traceparent"], requests);
        let batch = format!(
            r#"[{{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"{own}"}},
                {{"specversion":"1.0","id":"2","source":"/s","type":"t"}}]"#
        );
        let batch = read_all(&[("content-type", BATCH), header], &batch).unwrap();
        let parents: Vec<_> = batch.iter().map(|message| message.attributes["traceparent"].clone()).collect();
        assert_eq!(parents, [own, requests]);
    }

    #[test]
    fn structured_mode_gives_data_in_its_own_form() {
        let event = |data: &str| {
            let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t",{data}}}"#);
            read_all(&[("content-type", "application/cloudevents+json; charset=utf-8")], &body)
                .map(|mut e| e.remove(0))
        };
        let json = event(r#""data":{"a":[1,null]}"#).unwrap();
        assert_eq!(
            (&*json.body, json.attributes["datacontenttype"].as_str()),
            (&br#"{"a":[1,null]}"#[..], "application/json")
        );
        assert_eq!(event(r#""data":"x""#).unwrap().body, br#""x""#[..]);
        let exact = br#"{"n":12345678901234567890123, "n":0.10}"#;
        let kept = event(&format!("\"data\":{}", std::str::from_utf8(exact).unwrap())).unwrap();
        assert_eq!(kept.body, exact[..]);
        assert_eq!(event(r#""datacontenttype":"text/plain","data":"x""#).unwrap().body, b"x"[..]);
        assert_eq!(event(r#""data_base64":"AP8=""#).unwrap().body, [0, 255][..]);
        assert_eq!(event(r#""n":1,"b":true"#).unwrap().attributes["n"], "1");
        let odd = event(r#""datacontenttype":"text/plain\u0084","data":"x""#);
        assert_eq!(odd.unwrap_err(), NotAnEvent::Value("datacontenttype".into()));
        assert_eq!(event(r#""subject":1"#).unwrap_err(), NotAnEvent::Value("subject".into()));
        assert_eq!(event(r#""data_base64":"?""#).unwrap_err(), NotAnEvent::Base64);
        assert_eq!(event(r#""nested":{}"#).unwrap_err(), NotAnEvent::Value("nested".into()));
    }

    #[test]
    fn a_batch_is_all_or_nothing() {
        let batch = [("content-type", "application/cloudevents-batch+json")];
        let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        assert_eq!(read_all(&batch, &format!("[{good},{good}]")).unwrap().len(), 2);
        assert_eq!(
            read_all(&batch, &format!("[{good},{{}}]")).unwrap_err(),
            NotAnEvent::Missing("specversion")
        );
    }

    #[test]
    fn what_is_no_cloudevent_is_wrapped() {
        let event = &read_all(&[("postrider-event-type", "order.paid"), ("content-type", "text/plain")], "x")
            .unwrap()[0];
        let expected = [
            ("datacontenttype", "text/plain"),
            ("id", &event.id.to_string()),
            ("source", "/shop"),
            ("specversion", "1.0"),
            ("time", "1970-01-01T00:00:00Z"),
            ("type", "order.paid"),
        ];
        assert_eq!(event.attributes, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn each_copy_of_what_its_sender_has_not_named_is_another_event() {
        let webhook = || WebhookKey { namespace: "shop".into(), name: "partner".into() };
        let copy = |message: &Message| message.to_event(webhook(), false, Timestamp::UNIX_EPOCH);
        let wrapped = &read_all(&[], "x").unwrap()[0];
        let (one, other) = (copy(wrapped), copy(wrapped));
        assert_ne!(one.attributes["id"], other.attributes["id"]);
        assert_eq!((one.sender_key(), other.sender_key()), (None, None));
        let named = &read_all(&BINARY, "x").unwrap()[0];
        assert_eq!(copy(named).attributes["id"], "1");
        assert_eq!(copy(named).sender_key(), copy(named).sender_key());
        assert!(copy(named).sender_key().is_some());
    }

    #[test]
    fn the_type_of_what_is_no_cloudevent_is_taken_as_it_stands() {
        let event_type = |value| {
            read_all(&[("postrider-event-type", value)], "x")
                .map(|mut e| e.remove(0).attributes["type"].clone())
        };
        assert_eq!(event_type("100%20é").unwrap(), "100%20é");
        assert_eq!(event_type("").unwrap(), DEFAULT_EVENT_TYPE);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |change: (&'static str, &str)| {
            let pairs: Vec<_> = BINARY.into_iter().filter(|(n, _)| *n != change.0).chain([change]).collect();
            read_all(&pairs, "").unwrap_err()
        };
        assert_eq!(with(("ce-type", "")), NotAnEvent::Missing("type"));
        assert_eq!(with(("ce-specversion", "0.3")), NotAnEvent::Version("0.3".into()));
        assert_eq!(with(("ce-time", "yesterday")), NotAnEvent::Value("time".into()));
        assert_eq!(with(("ce-my-name", "x")), NotAnEvent::Name("my-name".into()));
        assert_eq!(with(("ce-subject", "%ff")), NotAnEvent::Value("subject".into()));
        let long = "x".repeat(limits::EVENT_ATTRIBUTE_BYTES);
        assert_eq!(with(("ce-subject", &long)), NotAnEvent::Limit(limits::EVENT_ATTRIBUTE_BYTES, "bytes"));
    }
}
