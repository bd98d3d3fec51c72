//! Which events a webhook takes, and how they are sent and repeated.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which events a webhook takes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// CloudEvents types, each in full or with an asterisk at its end for all that begin so: `order.paid`, `order.*`.
    /// Events of other types are refused, and one for all webhooks of a namespace is not for this one. Default: all
    /// types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(type, !type.substring(0, type.size() - 1).contains('*'))")
        .message("an asterisk may stand at the end of a type only"))]
    pub types: Vec<String>,
}

impl Events {
    /// Whether events of a CloudEvents type are taken.
    pub fn take(&self, event_type: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => event_type.starts_with(beginning),
            None => pattern == event_type,
        };
        self.types.is_empty() || self.types.iter().any(matches)
    }
}

/// How events are sent and repeated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Requests that are under way at one time.
    #[serde(default = "default_max_in_flight")]
    #[schemars(range(min = 1, max = 256))]
    pub max_in_flight: i32,
    /// Requests that begin in a second, on average; as many may begin at once after a pause. Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub rate_limit_per_second: Option<i32>,
    /// Which events wait for others. It holds for events that are accepted from then on.
    #[serde(default)]
    pub ordering: Ordering,
    /// When an attempt that failed is repeated.
    #[serde(default)]
    pub retry: Retry,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_in_flight: default_max_in_flight(),
            rate_limit_per_second: None,
            ordering: Ordering::default(),
            retry: Retry::default(),
        }
    }
}

/// Which events wait for others.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// None.
    #[default]
    None,
    /// Those with the same CloudEvents attribute partitionkey go out one at a time, as they came: the next one
    /// once the one before is delivered or given up.
    ByKey,
}

fn default_max_in_flight() -> i32 {
    16
}

/// Exponential backoff: the delay doubles from `initialSeconds` up to `maxSeconds`, with jitter, until the
/// event has been failing for `maxAgeSeconds`; then it is dead, and kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("self.initialSeconds <= self.maxSeconds")
    .message("initialSeconds must not be above maxSeconds"))]
#[x_kube(validation = Rule::new("self.maxSeconds <= self.maxAgeSeconds")
    .message("maxSeconds must not be above maxAgeSeconds"))]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Delay after the first failure, seconds.
    #[serde(default = "default_initial_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub initial_seconds: i32,
    /// Longest delay, seconds.
    #[serde(default = "default_max_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: i32,
    /// How long an event is tried, from its first failure, seconds.
    #[serde(default = "default_max_age_seconds")]
    #[schemars(range(min = 60, max = 2_592_000))]
    pub max_age_seconds: i32,
    /// Statuses of a response (400-599) after which an event is given up at once. 410 is none of them: it says
    /// that the endpoint is gone, and holds all events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 400, max = 599)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("!self.exists(status, status == 410)")
        .message("must not hold 410: it holds all events, for the endpoint says that it is gone"))]
    pub non_retryable_status_codes: Vec<i32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial_seconds: default_initial_seconds(),
            max_seconds: default_max_seconds(),
            max_age_seconds: default_max_age_seconds(),
            non_retryable_status_codes: Vec::new(),
        }
    }
}

impl Retry {
    /// Delay after the first failure.
    pub fn initial(&self) -> Duration {
        seconds(self.initial_seconds)
    }

    /// Longest delay.
    pub fn max(&self) -> Duration {
        seconds(self.max_seconds)
    }

    /// How long an event is tried, from its first failure.
    pub fn max_age(&self) -> Duration {
        seconds(self.max_age_seconds)
    }
}

/// The API server has checked the range; an object that went around it gets at least a second.
pub(super) fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(1).max(1))
}

fn default_initial_seconds() -> i32 {
    1
}

fn default_max_seconds() -> i32 {
    600
}

fn default_max_age_seconds() -> i32 {
    3 * 24 * 3600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_match_in_full_or_by_their_beginning() {
        let take = |types: &[&str], event_type| {
            Events { types: types.iter().map(ToString::to_string).collect() }.take(event_type)
        };
        assert!(take(&[], "order.paid"));
        assert!(take(&["refund", "order.*"], "order.paid"));
        assert!(take(&["order.paid*"], "order.paid") && take(&["*"], "anything"));
        assert!(!take(&["order.*"], "order") && !take(&["order.*"], "reorder.paid"));
        assert!(!take(&["order"], "order.paid"));
    }
}
