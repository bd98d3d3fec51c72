//! A Kubernetes API server: one for the whole run, or one for a test that stops it.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Secret};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    context::{self, locked},
    directory, eventually, secrets,
    tool::{Output, Tool},
};

/// Names the kubeconfig of a cluster to test on, instead of starting one.
const EXISTING: &str = "POSTRIDER_TEST_KUBECONFIG";

/// From nothing to a served API: the script has a bound of its own and explains itself first.
const START_TIMEOUT: Duration = Duration::from_mins(2);

const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// An API server, and how to reach it.
pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    client: Client,
    control_plane: tokio::sync::Mutex<Option<ControlPlane>>,
    /// Namespaces on their way out.
    deletions: Mutex<JoinSet<()>>,
}

impl Cluster {
    /// The cluster of the run.
    pub(super) async fn shared() -> Result<Arc<Self>, String> {
        match env::var_os(EXISTING) {
            Some(kubeconfig) => {
                let path = PathBuf::from(kubeconfig);
                let path =
                    path.canonicalize().map_err(|error| format!("{EXISTING}={}: {error}", path.display()))?;
                Self::existing(path).await
            }
            None => Self::start().await,
        }
    }

    /// A cluster for one test alone, which may stop its API server. It ends when it is dropped.
    pub(crate) async fn start_own() -> Arc<Self> {
        Self::start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) async fn start() -> Result<Arc<Self>, String> {
        build_programs().await?;
        let directory = directory::unique("control-plane");
        let mut control_plane = ControlPlane::start(&directory)?;
        control_plane.answer("ready ", START_TIMEOUT).await?;
        let kubeconfig = directory.join("admin.kubeconfig");
        let cluster = Self::connect(kubeconfig, directory.join("kubectl"), Some(control_plane)).await?;
        Ok(Arc::new(cluster))
    }

    async fn existing(kubeconfig: PathBuf) -> Result<Arc<Self>, String> {
        let cluster = Self::connect(kubeconfig, PathBuf::from("kubectl"), None).await?;
        if let Some(crds) = crds() {
            let crds = crds.display().to_string();
            cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", &crds]).await.succeeded();
            cluster
                .kubectl(["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds])
                .await
                .succeeded();
        }
        Ok(Arc::new(cluster))
    }

    async fn connect(
        kubeconfig: PathBuf,
        kubectl: PathBuf,
        control_plane: Option<ControlPlane>,
    ) -> Result<Self, String> {
        let client = client_of(&kubeconfig).await?;
        Ok(Self {
            kubeconfig,
            kubectl,
            client,
            control_plane: tokio::sync::Mutex::new(control_plane),
            deletions: Mutex::default(),
        })
    }

    /// A kubeconfig of a service account, whatever its rights are.
    pub(crate) async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token =
            self.kubectl(["create", "token", account, "--namespace", namespace, "--duration", "2h"]).await;
        let token = token.succeeded();
        secrets::token(&format!("the token of the {account}"), &token);
        let config = self.kubectl(["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).await;
        let mut config: Value = serde_json::from_str(&config.succeeded()).unwrap();
        config["users"][0]["user"] = json!({ "token": token.trim() });
        let path = directory::unique(&format!("{account}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// For `KUBECONFIG`.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client that may do everything.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs kubectl.
    pub(crate) async fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.kubectl_tool().args(arguments).run().await
    }

    /// Runs a line as a person types it, to whom this cluster is the current one.
    pub(crate) async fn typed(&self, line: &str) -> Output {
        let kubectl = format!("kubectl() {{ {} \"$@\"; }}\n{line}", self.kubectl.display());
        let kubeconfig = format!("KUBECONFIG={}", self.kubeconfig.display());
        // Not the person's cache: another cluster may have had this port.
        let cache = format!("KUBECACHEDIR={}", directory::of_run().join("kubectl-cache").display());
        Tool::new("env").args([&kubeconfig, &cache, "sh", "-euc", &kubectl]).run().await
    }

    /// kubectl as a person has it to whom this cluster is the current one, and whose plugins are in this directory.
    pub(crate) fn kubectl_with_plugins(&self, directory: &Path) -> Tool {
        let mut path = directory.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Tool::new(&self.kubectl).env("KUBECONFIG", &self.kubeconfig).env("PATH", path)
    }

    /// Runs kubectl with this on its standard input.
    pub(crate) async fn kubectl_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        stdin: &str,
    ) -> Output {
        self.kubectl_tool().args(arguments).stdin(stdin).run().await
    }

    /// Applies manifests as a person does.
    pub(crate) async fn apply(&self, manifests: &str) -> Output {
        self.kubectl_with(["apply", "-f", "-"], manifests).await
    }

    fn kubectl_tool(&self) -> Tool {
        // Not the person's cache: another cluster may have had this port.
        let cache = directory::of_run().join("kubectl-cache");
        Tool::new(&self.kubectl).arg("--kubeconfig", &self.kubeconfig).arg("--cache-dir", cache)
    }

    /// A namespace of the test's own, deleted behind its back when it is dropped.
    pub(crate) async fn namespace(self: &Arc<Self>) -> Namespace {
        self.namespace_with_labels(&[]).await
    }

    /// A namespace of the test's own, with labels.
    pub(crate) async fn namespace_with_labels(self: &Arc<Self>, labels: &[(&str, &str)]) -> Namespace {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // 63 characters at most: a part of the test's name tells a person what it is for.
        let slug: String = context::slug().chars().take(40).collect();
        let name = format!("{}-{:08x}", slug.trim_matches('-'), rand::random::<u32>());
        let object = NamespaceObject {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
            ..NamespaceObject::default()
        };
        Api::<NamespaceObject>::all(self.client())
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("namespace {name} cannot be created: {error}"));
        Namespace { name, cluster: Arc::clone(self) }
    }

    /// Kills the API server; etcd keeps what it knew. Only in a cluster of [`Cluster::start_own`].
    pub(crate) async fn stop_api_server(&self) {
        self.command("stop-apiserver", "stopped").await;
    }

    /// Starts the API server again, on the same port.
    pub(crate) async fn start_api_server(&self) {
        self.command("restart-apiserver", "ready ").await;
    }

    async fn command(&self, command: &str, answer: &str) {
        context::waiting_for(&format!("the control plane to {command}"));
        let mut control_plane = self.control_plane.lock().await;
        let control_plane = control_plane
            .as_mut()
            .unwrap_or_else(|| panic!("{command}: this control plane was not started here"));
        let outcome = async {
            control_plane.say(command)?;
            control_plane.answer(answer, START_TIMEOUT).await
        };
        outcome.await.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// Ends it, as far as it was started here. The namespaces are on their way out.
    pub(super) async fn stop(&self) {
        let mut deletions = std::mem::take(&mut *locked(&self.deletions));
        let mut control_plane = self.control_plane.lock().await;
        match control_plane.take() {
            // Its namespaces go with it.
            Some(control_plane) => {
                deletions.abort_all();
                drop(control_plane);
            }
            None => while deletions.join_next().await.is_some() {},
        }
    }
}

/// A namespace of a test.
pub(crate) struct Namespace {
    name: String,
    cluster: Arc<Cluster>,
}

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in this namespace.
    pub(crate) async fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.cluster.kubectl_tool().arg("--namespace", &self.name).args(arguments).run().await
    }

    /// Applies manifests in this namespace as a person does.
    pub(crate) async fn apply(&self, manifests: &str) -> Output {
        let tool = self.cluster.kubectl_tool().arg("--namespace", &self.name);
        tool.args(["apply", "-f", "-"]).stdin(manifests).run().await
    }

    /// A Secret with a serving certificate, as cert-manager writes it.
    pub(crate) async fn serving_certificate(&self, name: &str, chain: &str, key: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": name },
            "stringData": { "tls.crt": chain, "tls.key": key },
        });
        let patch = PatchParams::apply("test").force();
        let applied = self.api::<Secret>().patch(name, &patch, &Patch::Apply(secret)).await;
        applied.unwrap_or_else(|error| panic!("Secret {name}: {error}"));
    }

    /// Fails when what kubectl shows of these kinds (`events,configmaps`) gives a secret of the run away.
    pub(crate) async fn assert_no_secret_in(&self, kinds: &str) {
        let shown = self.kubectl(["get", kinds, "-o", "yaml"]).await.succeeded();
        let found = secrets::findings(shown.as_bytes());
        assert!(found.is_empty(), "in the {kinds} of {}: {}", self.name, found.join(", "));
    }

    /// The objects of a kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }
}

impl Deref for Namespace {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let namespaces = Api::<NamespaceObject>::all(self.cluster.client());
        let name = self.name.clone();
        let delete = async move {
            // Nobody waits for it, and a control plane may be gone already.
            let _ = namespaces.delete(&name, &kube::api::DeleteParams::background()).await;
        };
        locked(&self.cluster.deletions).spawn_on(delete, super::RUNTIME.handle());
    }
}

/// The script that runs a control plane. Dropped, its standard input closes, and it ends.
struct ControlPlane {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    answers: mpsc::UnboundedReceiver<String>,
    errors: PathBuf,
}

impl ControlPlane {
    fn start(directory: &Path) -> Result<Self, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let errors = directory::unique(&format!("control-plane-{number}.log"));
        let file = File::create(&errors).map_err(|error| format!("{}: {error}", errors.display()))?;
        let mut command = Command::new(scripts().join("control-plane"));
        if let Some(crds) = crds() {
            command.arg("--crds").arg(crds);
        }
        let mut child = command
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("tests/cluster/control-plane does not start: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, answers) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child: Some(child), stdin, answers, errors })
    }

    fn say(&mut self, command: &str) -> Result<(), String> {
        let said = self.stdin.as_mut().map_or(Ok(()), |stdin| writeln!(stdin, "{command}"));
        said.map_err(|error| format!("the control plane ended: {error}{}", self.log()))
    }

    async fn answer(&mut self, start: &str, bound: Duration) -> Result<(), String> {
        match tokio::time::timeout(bound, self.answers.recv()).await {
            Ok(Some(line)) if line.starts_with(start) => Ok(()),
            Ok(Some(line)) => Err(format!("the control plane answered `{line}`, not `{start}`")),
            Ok(None) => Err(format!("the control plane ended{}", self.log())),
            Err(_) => Err(format!("the control plane did not answer within {bound:?}{}", self.log())),
        }
    }

    fn log(&self) -> String {
        format!(":\n{}", fs::read_to_string(&self.errors).unwrap_or_default())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stdin.take());
        locked(&ENDING).extend(self.child.take());
    }
}

/// Control planes whose standard input is closed.
static ENDING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Waits until the control planes that were dropped are gone, and their directories with them.
pub(super) async fn await_ends() {
    let ending = std::mem::take(&mut *locked(&ENDING));
    let ended = tokio::task::spawn_blocking(move || {
        for mut child in ending {
            let _ = child.wait();
        }
    });
    let _ = eventually::within(STOP_TIMEOUT, "the end of the control planes", ended).await;
}

/// Builds the programs beforehand, where a person sees the progress.
async fn build_programs() -> Result<(), String> {
    let build = || Command::new(scripts().join("build")).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match tokio::task::spawn_blocking(build).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("tests/cluster/build failed, see above: {status}")),
        Ok(Err(error)) => Err(format!("tests/cluster/build does not start: {error}")),
        Err(error) => Err(format!("tests/cluster/build: {error}")),
    }
}

pub(crate) async fn client_of(path: &Path) -> Result<Client, String> {
    let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| explain(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| explain(&error))?;
    Client::try_from(config).map_err(|error| explain(&error))
}

/// The project's own kinds.
fn crds() -> Option<PathBuf> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    crds.is_dir().then_some(crds)
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster")
}
