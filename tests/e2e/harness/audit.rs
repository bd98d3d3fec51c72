//! The API server's own log of who asked for what: of service accounts, not of those who test.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use serde::Deserialize;

use super::cluster::Cluster;

/// What one entry says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) stage: String,
    user: User,
    pub(crate) verb: String,
    pub(crate) object_ref: Option<Object>,
    response_status: Option<Status>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

/// What was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Object {
    pub(crate) api_group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    code: Option<u16>,
}

impl Asked {
    /// The service account of this namespace that asked.
    pub(crate) fn account(&self, namespace: &str) -> Option<&str> {
        self.user.username.strip_prefix("system:serviceaccount:")?.strip_prefix(namespace)?.strip_prefix(':')
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid")
    }

    /// A patch that made its object was allowed to create as well.
    pub(crate) fn verbs(&self) -> impl Iterator<Item = &str> {
        let made = self.response_status.as_ref().and_then(|status| status.code) == Some(201);
        let create = (made && self.verb == "patch").then_some("create");
        std::iter::once(self.verb.as_str()).chain(create)
    }
}

/// The log of a control plane that was started here, from its beginning.
pub(crate) struct Log {
    path: PathBuf,
    read: u64,
}

impl Log {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self { path: cluster.kubeconfig().with_file_name("audit.log"), read: 0 }
    }

    /// What has come since the last time.
    pub(crate) fn news(&mut self) -> Vec<Asked> {
        let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_string(&mut text)
        });
        read.unwrap_or_else(|error| panic!("{}", explain(&error)));
        // The last line may still be on its way.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let news = text[..whole]
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}", explain(&error))))
            .collect();
        self.read += whole as u64;
        news
    }
}
