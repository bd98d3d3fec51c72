//! Waiting for what is to become true: by events, with a bound, and a message that tells the last state.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::{
    Api, Resource,
    api::ListParams,
    runtime::{WatchStreamExt, wait::await_condition, watcher},
};
use serde::{Serialize, de::DeserializeOwned};

use super::context::{self, locked};

/// The bound where a test names none: generous, because the machine may be busy. A test that is about
/// speed measures it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Awaits `future`; after `bound` the test fails with the name of what it waited for.
pub(crate) async fn within<F: Future>(bound: Duration, what: &str, future: F) -> F::Output {
    context::waiting_for(what);
    let output = tokio::time::timeout(bound, future).await;
    output.unwrap_or_else(|_| panic!("waited {bound:?} for {what}"))
}

/// Watches the object until `condition` holds, and returns it as it was then.
pub(crate) async fn object<K>(api: &Api<K>, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    let found = watch(api, name, what, |object: Option<&K>| object.is_some_and(&condition)).await;
    found.unwrap_or_else(|| panic!("{what} held for an object that is not there"))
}

/// Watches the object until it is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    watch(api, name, "its end", |object: Option<&K>| object.is_none()).await;
}

async fn watch<K>(api: &Api<K>, name: &str, what: &str, condition: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    let kind = K::kind(&());
    context::waiting_for(&format!("{kind} {name}: {what}"));
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    let remembered = move |object: Option<&K>| {
        *locked(&seen) = Some(object.cloned());
        condition(object)
    };
    match tokio::time::timeout(TIMEOUT, await_condition(api.clone(), name, remembered)).await {
        Ok(Ok(object)) => object,
        Ok(Err(error)) => panic!("{kind} {name} cannot be watched for {what}: {error:?}"),
        Err(_) => {
            let last = locked(&last).take();
            panic!("waited {TIMEOUT:?} for {kind} {name}: {what}; it is\n{}", describe_seen(last.as_ref()))
        }
    }
}

/// Watches the objects that `selected` names until `condition` holds for all of them together. For objects
/// whose names are not known beforehand, such as Events.
pub(crate) async fn objects<K>(
    api: &Api<K>,
    selected: &ListParams,
    what: &str,
    condition: impl Fn(&[K]) -> bool,
) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    use futures::TryStreamExt;

    let kind = K::kind(&());
    context::waiting_for(&format!("{kind} objects: {what}"));
    let mut last: Vec<K> = Vec::new();
    let search = async {
        let config = watcher::Config {
            label_selector: selected.label_selector.clone(),
            field_selector: selected.field_selector.clone(),
            ..watcher::Config::default()
        };
        let mut changes = std::pin::pin!(watcher(api.clone(), config).default_backoff());
        // The events of a watch only say when to look: a list is consistent by itself.
        while changes.try_next().await.transpose().is_some() {
            if let Ok(found) = api.list(selected).await {
                last = found.items;
                if condition(&last) {
                    return;
                }
            }
        }
    };
    if tokio::time::timeout(TIMEOUT, search).await.is_err() {
        let seen: Vec<String> = last.iter().map(describe).collect();
        panic!(
            "waited {TIMEOUT:?} for {kind} objects: {what}; there are {}:\n{}",
            seen.len(),
            seen.join("\n")
        );
    }
    last
}

/// Looks again and again, for what gives no event. `look` returns what is wrong until nothing is.
pub(crate) async fn polled<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    const INTERVAL: Duration = Duration::from_millis(20);
    context::waiting_for(what);
    let mut last = "it was not looked at".to_owned();
    let search = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(state) => last = state,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let found = tokio::time::timeout(TIMEOUT, search).await;
    found.unwrap_or_else(|_| panic!("waited {TIMEOUT:?} for {what}; the last state was {last}"))
}

fn describe_seen<K: Resource<DynamicType = ()> + Clone + Serialize>(seen: Option<&Option<K>>) -> String {
    match seen {
        None => "unknown: the watch told nothing".to_owned(),
        Some(None) => "not there".to_owned(),
        Some(Some(object)) => describe(object),
    }
}

/// The object without what only managers read, and without the values of a Secret.
fn describe<K: Resource<DynamicType = ()> + Clone + Serialize>(object: &K) -> String {
    let mut object = object.clone();
    object.meta_mut().managed_fields = None;
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    if K::kind(&()) == "Secret" {
        for data in ["data", "stringData"] {
            for (_, entry) in value.get_mut(data).and_then(|data| data.as_object_mut()).into_iter().flatten()
            {
                *entry = format!("({} characters)", entry.as_str().map_or(0, str::len)).into();
            }
        }
    }
    serde_json::to_string_pretty(&value).unwrap_or_else(|error| error.to_string())
}
