//! W3C Trace Context: which trace an event belongs to, as its sender says.
//!
//! An event carries it in two attributes, those of the CloudEvents extension for distributed tracing, so it is kept
//! with the event. What is not valid counts as not there, as the recommendation has it, and is never an error.

use std::{borrow::Cow, collections::BTreeMap};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::limits;

/// The name of the header, and of the attribute.
const PARENT: &str = "traceparent";
/// Likewise.
const STATE: &str = "tracestate";
/// Length of what version 00 says, and of what every later one begins with.
const PARENT_BYTES: usize = 55;

/// A place in a trace; both parts are valid, and as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    parent: Cow<'a, str>,
    state: Option<Cow<'a, str>>,
}

impl<'a> TraceContext<'a> {
    fn new(parent: Cow<'a, str>, state: Option<Cow<'a, str>>) -> Option<Self> {
        is_parent(&parent).then(|| Self { parent, state: state.filter(|state| is_state(state)) })
    }

    /// That of an event.
    pub fn of_event(attributes: &'a BTreeMap<String, String>) -> Option<Self> {
        let attribute = |name| attributes.get(name).map(|value| Cow::Borrowed(value.as_str()));
        Self::new(attribute(PARENT)?, attribute(STATE))
    }

    /// That of a request.
    pub fn of_request(headers: &'a HeaderMap) -> Option<Self> {
        Self::of_headers(headers, PARENT, STATE)
    }

    /// That of the event that a request in binary mode holds.
    pub fn of_binary(headers: &'a HeaderMap) -> Option<Self> {
        Self::of_headers(headers, "ce-traceparent", "ce-tracestate")
    }

    /// The state may be in several headers, the parent may not.
    fn of_headers(headers: &'a HeaderMap, parent: &str, state: &str) -> Option<Self> {
        let mut parents = headers.get_all(parent).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let states: Result<Vec<_>, _> = headers.get_all(state).iter().map(HeaderValue::to_str).collect();
        let state = states.ok().map(|states| Cow::Owned(states.join(",")));
        Self::new(Cow::Borrowed(parent.to_str().ok()?), state)
    }

    /// That of a span; `None` where there is none.
    pub fn of_span(span: &SpanContext) -> Option<Self> {
        let flags = (span.trace_flags() & TraceFlags::SAMPLED).to_u8();
        let parent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        Self::new(parent.into(), Some(span.trace_state().header().into()))
    }

    /// As a span knows its parent.
    pub fn to_span(&self) -> SpanContext {
        let parent = &self.parent;
        let flags = u8::from_str_radix(&parent[53..55], 16).unwrap_or_default();
        SpanContext::new(
            TraceId::from_hex(&parent[3..35]).unwrap_or(TraceId::INVALID),
            SpanId::from_hex(&parent[36..52]).unwrap_or(SpanId::INVALID),
            TraceFlags::new(flags) & TraceFlags::SAMPLED,
            true,
            self.state.as_ref().and_then(|state| state.parse().ok()).unwrap_or_default(),
        )
    }

    /// Whether a request says anything of a trace, be it valid or not.
    pub fn is_said(headers: &HeaderMap) -> bool {
        headers.contains_key(PARENT) || headers.contains_key(STATE)
    }

    /// Makes it the event's.
    pub fn set_event(&self, attributes: &mut BTreeMap<String, String>) {
        attributes.insert(PARENT.to_owned(), self.parent.to_string());
        match &self.state {
            Some(state) => attributes.insert(STATE.to_owned(), state.to_string()),
            None => attributes.remove(STATE),
        };
    }

    /// Makes it the request's.
    pub fn set_request(&self, headers: &mut HeaderMap) {
        let state = self.state.as_deref();
        for (name, value) in [(PARENT, Some(self.parent.as_ref())), (STATE, state)] {
            headers.remove(name);
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Section 3.2.2: of a later version than 00 only the beginning is known. Lower case, and neither id is all zeroes.
fn is_parent(text: &str) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| hex(part) && part.iter().any(|byte| *byte != b'0');
    let bytes = text.as_bytes();
    let Some((known, later)) = bytes.split_at_checked(PARENT_BYTES) else { return false };
    let version = &known[..2];
    let ends = later.is_empty() || (version != b"00" && later[0] == b'-' && later.is_ascii());
    bytes.len() <= limits::TRACEPARENT_BYTES
        && ends
        && [known[2], known[35], known[52]] == *b"---"
        && (hex(version) && version != b"ff")
        && (is_id(&known[3..35]) && is_id(&known[36..52]) && hex(&known[53..]))
}

/// Section 3.3.1.
fn is_state(text: &str) -> bool {
    text.len() <= limits::TRACESTATE_BYTES
        && !text.trim().is_empty()
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t')
        && text.split(',').count() <= limits::TRACESTATE_MEMBERS
        && text.parse::<TraceState>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        pairs.collect::<Vec<_>>().into_iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn a_parent_is_as_the_recommendation_has_it() {
        let later = format!("cc{}-what-the-future-will-be-like", &VALID[2..]);
        for valid in [VALID, &VALID.replace("-01", "-ff"), &later, &format!("01{}", &VALID[2..])] {
            assert!(is_parent(valid), "{valid}");
        }
        let long = format!("cc{}-{}", &VALID[2..], "x".repeat(limits::TRACEPARENT_BYTES));
        let wrong = [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}-00"),
            &format!("ff{}", &VALID[2..]),
            &format!("0x{}", &VALID[2..]),
            &format!("cc{}.x", &VALID[2..]),
            &format!("cc{}-\u{e9}", &VALID[2..]),
            &VALID.replace("0af7", "0AF7"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("b7ad", "b7-d"),
            &VALID.replace('-', "_"),
            &format!(" {VALID}"),
            &format!("00-{}", "\u{e9}".repeat(26)),
            &long,
        ];
        for wrong in wrong {
            assert!(!is_parent(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_state_that_is_not_valid_is_left_out_and_takes_no_parent_with_it() {
        let state = |state: &str| {
            let headers = request(&[(PARENT, VALID), (STATE, state)]);
            TraceContext::of_request(&headers).unwrap().state.map(Cow::into_owned)
        };
        for valid in ["rojo=00f067aa0ba902b7", "rojo=1, congo=t61rcWkgMzE ,", "tenant@vendor=x"] {
            assert_eq!(state(valid).as_deref(), Some(valid));
        }
        let many = (0..=limits::TRACESTATE_MEMBERS).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "x".repeat(limits::TRACESTATE_BYTES));
        for wrong in ["", "  ", "rojo", "Rojo=1", "a=b=c=\"\"é", &many, &long] {
            assert_eq!(state(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_says_one_parent_and_its_state_in_several_headers() {
        let headers = request(&[(PARENT, VALID), (STATE, "a=1"), (STATE, "b=2")]);
        assert_eq!(TraceContext::of_request(&headers).unwrap().state.as_deref(), Some("a=1,b=2"));
        assert_eq!(TraceContext::of_request(&request(&[(PARENT, VALID), (PARENT, VALID)])), None);
        assert_eq!(TraceContext::of_request(&request(&[(STATE, "a=1")])), None);
    }

    #[test]
    fn it_stays_the_same_from_request_to_event_to_request() {
        let headers = request(&[(PARENT, VALID), (STATE, "a=1,b=2")]);
        let mut attributes = BTreeMap::from([(STATE.to_owned(), "old=1".to_owned())]);
        TraceContext::of_request(&headers).unwrap().set_event(&mut attributes);
        let mut out = request(&[(PARENT, "old"), (STATE, "old")]);
        TraceContext::of_event(&attributes).unwrap().set_request(&mut out);
        assert_eq!(out, headers);
        TraceContext::of_request(&request(&[(PARENT, VALID)])).unwrap().set_event(&mut attributes);
        assert_eq!(attributes, BTreeMap::from([(PARENT.to_owned(), VALID.to_owned())]));
    }

    #[test]
    fn a_span_knows_it_as_it_is() {
        let headers = request(&[(PARENT, VALID), (STATE, "a=1,b=2")]);
        let context = TraceContext::of_request(&headers).unwrap();
        let span = context.to_span();
        assert!(span.is_valid() && span.is_remote() && span.is_sampled());
        assert_eq!(TraceContext::of_span(&span), Some(context));
        assert_eq!(TraceContext::of_span(&SpanContext::empty_context()), None);
        // Flags that are not known are not passed on: 3.2.2.5.
        let flags = VALID.replace("-01", "-f1");
        let context = TraceContext::new(flags.as_str().into(), None).unwrap();
        assert_eq!(TraceContext::of_span(&context.to_span()).unwrap().parent, VALID);
    }
}
