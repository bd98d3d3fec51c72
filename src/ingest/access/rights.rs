//! Which right each request needs. What stands in no line here is refused, whatever the router would make of it.

use std::fmt;

use axum::{extract::MatchedPath, http::Method};
use serde_json::{Value, json};

use super::{
    super::{DEAD_LETTERS, EVENTS, EVENTS_OF_NAMESPACE, REPLAY, Target},
    denied::Denied,
};

/// The API group of the resource that all rights are about.
pub const GROUP: &str = "postrider.dev";
/// The resource; a right is about one of its subresources, which exist for that alone.
pub const RESOURCE: &str = "outboundwebhooks";

/// What a request needs.
pub(super) struct Rule {
    method: Method,
    path: &'static str,
    verb: &'static str,
    subresource: &'static str,
}

const fn rule(method: Method, path: &'static str, verb: &'static str, subresource: &'static str) -> Rule {
    Rule { method, path, verb, subresource }
}

static RULES: [Rule; 8] = [
    rule(Method::POST, EVENTS, "create", "events"),
    rule(Method::POST, EVENTS_OF_NAMESPACE, "create", "events"),
    // Asks whether it may send.
    rule(Method::OPTIONS, EVENTS, "create", "events"),
    rule(Method::OPTIONS, EVENTS_OF_NAMESPACE, "create", "events"),
    rule(Method::GET, DEAD_LETTERS, "get", "deadletters"),
    rule(Method::HEAD, DEAD_LETTERS, "get", "deadletters"),
    rule(Method::DELETE, DEAD_LETTERS, "delete", "deadletters"),
    rule(Method::POST, REPLAY, "create", "deadletters"),
];

impl Rule {
    /// Of a request that the router has a route for.
    pub(super) fn of(path: Option<&MatchedPath>, method: &Method) -> Result<&'static Self, Denied> {
        let path = path.map(MatchedPath::as_str);
        let here = || RULES.iter().filter(|rule| Some(rule.path) == path);
        if let Some(rule) = here().find(|rule| rule.method == *method) {
            return Ok(rule);
        }
        let allowed: Vec<_> = here().map(|rule| rule.method.as_str()).collect();
        Err(if allowed.is_empty() { Denied::NoSuchPath } else { Denied::Method(allowed.join(",")) })
    }

    pub(super) fn on(&self, target: Target) -> Right {
        Right { verb: self.verb, subresource: self.subresource, target }
    }
}

/// A right, as RBAC grants it: a verb on a subresource of [`RESOURCE`], of one webhook or in a whole namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Such as `create`.
    pub verb: &'static str,
    /// `events` or `deadletters`.
    pub subresource: &'static str,
    /// Where.
    pub target: Target,
}

impl Right {
    /// For a program.
    pub(super) fn to_json(&self) -> Value {
        let Self { verb, subresource, target: Target { namespace, name } } = self;
        let resource = format!("{RESOURCE}/{subresource}");
        json!({ "verb": verb, "group": GROUP, "resource": resource, "namespace": namespace, "name": name })
    }

    /// The lines for a person who may grant it, as they are to be typed; none for a user whose name cannot be.
    pub(crate) fn granted_by(&self, user: &str) -> Vec<String> {
        let Self { verb, subresource, target: Target { namespace, name } } = self;
        let role = ["postrider", verb, subresource].into_iter().chain(name.as_deref());
        let role = role.collect::<Vec<_>>().join("-");
        let account = user.strip_prefix("system:serviceaccount:");
        // Such a name may hold what that of an object may not.
        let subject = account.unwrap_or(user).replace(|char: char| !char.is_ascii_alphanumeric(), "-");
        let (kind, who) = account.map_or(("--user", user), |account| ("--serviceaccount", account));

        let resource = format!("{RESOURCE}.{GROUP}/{subresource}");
        let mut create_role = vec!["role", &role, "--namespace", namespace, "--verb", verb];
        create_role.extend(["--resource", &resource]);
        create_role.extend(name.iter().flat_map(|name| ["--resource-name", name]));
        let binding = format!("{role}-{subject}");
        let create_binding =
            vec!["rolebinding", &binding, "--namespace", namespace, "--role", &role, kind, who];
        let line = |words: Vec<&str>| shlex::try_join(["kubectl", "create"].into_iter().chain(words)).ok();
        [create_role, create_binding].into_iter().map(line).collect::<Option<_>>().unwrap_or_default()
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, subresource, target: Target { namespace, name } } = self;
        write!(f, "{verb} {RESOURCE}.{GROUP}/{subresource}")?;
        if let Some(name) = name {
            write!(f, " of {name:?}")?;
        }
        write!(f, " in namespace {namespace:?}")
    }
}
