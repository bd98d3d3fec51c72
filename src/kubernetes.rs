//! What controller and dispatcher share of Kubernetes.

use kube::{Api, Client, Resource, core::NamespaceResourceScope};

use crate::{event::WebhookKey, limits};

/// An API for one namespace, or for all.
pub(crate) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Namespace and name of an object.
pub(crate) fn key<K: Resource>(object: &K) -> Option<WebhookKey> {
    let metadata = object.meta();
    Some(WebhookKey { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
}

/// Whether the object's controller is the owner with this UID.
pub(crate) fn is_controlled_by<K: Resource>(object: &K, uid: Option<&String>) -> bool {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
}

/// The note of an Event, as much of it as the API takes.
pub(crate) fn note_of(text: &str) -> String {
    text[..text.floor_char_boundary(limits::EVENT_NOTE_BYTES.min(text.len()))].to_owned()
}
