//! What was asked of the API server, counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{
    audit::{Asked, Object},
    chart::RELEASE,
};

/// Who asks.
pub(crate) const PROGRAMS: [&str; 2] = ["controller", "dispatcher"];

/// What the two programs have asked for.
#[derive(Default)]
pub(crate) struct Tally(Vec<Asked>);

impl Tally {
    pub(crate) fn add(&mut self, asked: impl IntoIterator<Item = Asked>) {
        let by_us = |asked: &Asked| asked.account(RELEASE).is_some_and(|account| PROGRAMS.contains(&account));
        // A watch is in the log when it begins and when it ends; that it lasts costs nothing.
        let counts = |asked: &Asked| (asked.stage == "ResponseStarted") == (asked.verb == "watch");
        self.0.extend(asked.into_iter().filter(by_us).filter(counts));
    }

    /// By what was asked for, as `patch outboundwebhooks/status`: how often each program did.
    pub(crate) fn kinds(&self) -> BTreeMap<String, [usize; 2]> {
        let mut kinds: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for asked in &self.0 {
            let counts = kinds.entry(kind(asked)).or_default();
            for (program, count) in PROGRAMS.iter().zip(counts) {
                *count += usize::from(asked.account(RELEASE) == Some(*program));
            }
        }
        kinds
    }

    /// What is no part of rest: all but watches, and the Lease.
    pub(crate) fn work(&self) -> impl Iterator<Item = &Asked> {
        self.0.iter().filter(|asked| !is_rest(asked))
    }

    /// What changed something, but for the Lease.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Asked> {
        self.work().filter(|asked| !["get", "list"].contains(&asked.verb.as_str()))
    }

    /// The webhooks that were worked on: whoever does looks at the webhook once more at the end.
    pub(crate) fn webhooks(&self) -> BTreeSet<(&str, &str)> {
        let objects = self.work().filter_map(|asked| asked.object_ref.as_ref());
        let webhooks =
            objects.filter(|object| object.resource == "outboundwebhooks" && !object.name.is_empty());
        webhooks.map(|Object { namespace, name, .. }| (namespace.as_str(), name.as_str())).collect()
    }
}

fn is_rest(asked: &Asked) -> bool {
    asked.verb == "watch" || asked.object_ref.as_ref().is_some_and(|object| object.resource == "leases")
}

/// As a person says it.
pub(crate) fn kind(asked: &Asked) -> String {
    let Some(Object { resource, subresource, .. }) = &asked.object_ref else { return asked.verb.clone() };
    let slash = if subresource.is_empty() { "" } else { "/" };
    format!("{} {resource}{slash}{subresource}", asked.verb)
}
