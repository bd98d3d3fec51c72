//! The objects of an installation, as the chart labels them.

use std::fmt::Debug;

use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;

/// What finds all of them, whatever the chart is called.
pub(super) const SELECTOR: &str = "app.kubernetes.io/part-of=postrider";
/// What finds those of a chart from before there was that, unless it is called something else.
const BEFORE: &str = "app.kubernetes.io/name=postrider";

/// Objects of an installation, and what finds them.
pub(super) struct Installed<K> {
    pub(super) objects: Vec<K>,
    pub(super) selector: &'static str,
}

/// Those of one kind, which may have to have more labels.
pub(super) async fn installed<K>(api: &Api<K>, more: &[&str]) -> kube::Result<Installed<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    for selector in [SELECTOR, BEFORE] {
        let labels = [&[selector], more].concat().join(",");
        let objects = api.list(&ListParams::default().labels(&labels)).await?.items;
        if !objects.is_empty() {
            return Ok(Installed { objects, selector });
        }
    }
    Ok(Installed { objects: Vec::new(), selector: SELECTOR })
}
