//! The chart, and its rights, as the programs of a test have them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{cluster::Cluster, directory, tool::Tool};

/// Name and namespace of the release.
pub(crate) const RELEASE: &str = "postrider";

static HELM: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let tool = root().join("tests/tools/tool");
    let output = Command::new(&tool).arg("helm").stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{}: {error}", tool.display()))?;
    if !output.status.success() {
        return Err(format!("tests/tools/tool helm failed, see above: {}", output.status));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
});

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path of helm, which is built where it is not there yet: that takes longer than a test may.
pub(crate) fn helm() -> &'static Path {
    HELM.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// A kubeconfig of a ServiceAccount that has what the chart gives to `program`, with these values, and nothing else.
///
/// In a Pod both programs have one ServiceAccount. Here each has its own, so that none lives on the other's rights.
pub(crate) async fn kubeconfig(cluster: &Cluster, program: &'static str, values: &Value) -> PathBuf {
    static MADE: Mutex<BTreeMap<(PathBuf, &str), PathBuf>> = Mutex::const_new(BTreeMap::new());
    let mut made = MADE.lock().await;
    let key = (cluster.kubeconfig().to_owned(), program);
    if let Some(path) = made.get(&key) {
        return path.clone();
    }
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": RELEASE } });
    cluster.apply(&namespace.to_string()).await.succeeded();
    cluster.apply(&rights(RELEASE, program, values).await).await.succeeded();
    let path = cluster.kubeconfig_of(RELEASE, program).await;
    made.insert(key, path.clone());
    path
}

/// Manifests of what the chart gives to `program` in a release of this namespace, and of the roles for people.
pub(crate) async fn rights(namespace: &str, program: &str, values: &Value) -> String {
    let file = directory::unique("values.json");
    std::fs::write(&file, values.to_string()).unwrap();
    template(RELEASE, namespace, &["serviceaccount.yaml", &format!("rbac-{program}.yaml"), "rbac-users.yaml"])
        .arg("--values", file)
        .arg("--set", format!("serviceAccount.name={program}"))
        .succeed()
        .await
}

/// Renders a release in this namespace: these templates, or all of them.
pub(crate) fn template(release: &str, namespace: &str, templates: &[&str]) -> Tool {
    let helm = Tool::new(helm()).current_dir(root());
    let helm = helm.args(["template", release, "charts/postrider", "--namespace", namespace]);
    templates.iter().fold(helm, |helm, template| helm.arg("--show-only", format!("templates/{template}")))
}
