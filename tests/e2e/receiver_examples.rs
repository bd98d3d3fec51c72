//! The receivers of `docs/receivers.md`, each run from its file in `examples/receivers`: what it takes, what it refuses and
//! how Postrider tells that, and a New beside the Active.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request as HttpRequest, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use postrider::probe::{Outcome, Request};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    harness::{
        self,
        cluster::Cluster,
        eventually,
        pki::{self, Authority, Certificate},
        process::{Process, Program},
        receiver::free_port,
        scene::{Scene, active},
        servers,
        tool::Tool,
    },
    probe::tested,
};

tests![nginx, apache, haproxy, envoy, java, go];

async fn nginx(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Nginx).await;
}

async fn apache(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Apache).await;
}

async fn haproxy(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Haproxy).await;
}

async fn envoy(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Envoy).await;
}

async fn java(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Java).await;
}

async fn go(cluster: Arc<Cluster>) {
    takes_both(cluster, Kind::Go).await;
}

async fn takes_both(cluster: Arc<Cluster>, kind: Kind) {
    let (scene, shared) = (Scene::new(cluster).await, pki::shared().await);
    let url = format!("https://localhost:{}", free_port());
    let old = &shared.client;
    scene.keystore("old", shared.pkcs12().await).await;
    named(&scene, &url, json!({ "active": active("old", "PKCS12") })).await;
    scene.ready("shop").await;

    let mut receiver = Receiver::start(kind, &url, &bundle(&scene, "active.crt").await, &[old]).await;
    let dispatcher = scene.dispatcher().await;
    receiver.took(&dispatcher.post("shop", "x").await, old).await;

    let next = issued(&shared.client_authority, "orders-next").await;
    let neighbour = issued(&shared.client_authority, "neighbour").await;
    let stranger = issued(&Authority::root("Stranger").await, "orders").await;
    is_documented(
        kind,
        &tested(&url, None, Request::Head).await,
        &tested(&url, Some(&neighbour), Request::Head).await,
        &tested(&url, Some(&stranger), Request::Head).await,
    );

    // The New beside the Active: the bundle of both.
    scene.keystore("next", &next.pkcs12().await).await;
    let rotation = json!({ "promotion": "Manual" });
    let mtls =
        json!({ "active": active("old", "PKCS12"), "new": active("next", "PKCS12"), "rotation": rotation });
    named(&scene, &url, mtls).await;
    receiver.install(&bundle(&scene, "new.crt").await, &[old, &next]).await;
    for certificate in [&next, old] {
        eventually::polled("the bundle to be in force", || async {
            let outcome = tested(&url, Some(certificate), Request::Head).await;
            if outcome.succeeded() { Ok(()) } else { Err(outcome.message) }
        })
        .await;
    }
    assert!(!tested(&url, Some(&neighbour), Request::Head).await.succeeded());
    receiver.took(&dispatcher.post("shop", "x").await, old).await;
    let promote = format!("postrider.dev/promote={}", next.facts.fingerprint_sha256);
    scene.namespace.kubectl(["annotate", "owh", "shop", &promote]).await.succeeded();
    bundle(&scene, "previous.crt").await;
    // The dispatcher may learn of it a moment later, and the receiver takes the old one as well.
    eventually::polled("an event with the New", || async {
        let id = dispatcher.post("shop", "x").await;
        if receiver.client_of(&id).await.is(&next) { Ok(()) } else { Err("it had the old one".to_owned()) }
    })
    .await;
}

async fn issued(authority: &Authority, name: &str) -> Certificate {
    authority.issue(&pki::Request::client(&format!("/O=Example/CN={name}"))).await
}

async fn named(scene: &Scene, url: &str, mtls: Value) {
    scene.webhook("shop", url, json!({ "endpoint": { "test": { "request": "Head" } }, "mtls": mtls })).await;
}

/// What the receiver's people download, once it has this key.
async fn bundle(scene: &Scene, key: &str) -> String {
    let maps = scene.namespace.api::<ConfigMap>();
    let what = format!("{key} to be published");
    let map = eventually::object(&maps, "shop-client-certificate", &what, |map: &ConfigMap| {
        map.data.as_ref().is_some_and(|data| data.contains_key(key))
    })
    .await;
    map.data.unwrap()["bundle.crt"].clone()
}

/// What Postrider says of a refusal stands in a row of the page.
fn is_documented(kind: Kind, without: &Outcome, neighbour: &Outcome, stranger: &Outcome) {
    let cells = [without, neighbour, stranger].map(|outcome| {
        assert!(!outcome.succeeded(), "{outcome:#?}");
        let alert = outcome.alert.map_or_else(String::new, |alert| format!(", alert {alert}"));
        let status = outcome.http_status.map_or_else(String::new, |status| format!(", HTTP {status}"));
        format!("`{}`{alert}{status}", outcome.reason)
    });
    let row = format!("| {} | {} |", kind.name(), cells.join(" | "));
    let page = fs::read_to_string(repository().join("docs/receivers.md")).unwrap();
    assert!(page.lines().any(|line| line == row), "docs/receivers.md has no row\n{row}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Apache,
    Haproxy,
    Envoy,
    Java,
    Go,
}

impl Kind {
    /// As the page calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Java => "Java",
            Self::Go => "Go",
        }
    }

    /// Its files; those with a configuration stand before an application.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx.conf"],
            Self::Apache => &["apache.conf"],
            Self::Haproxy => &["haproxy.cfg"],
            Self::Envoy => &["envoy.yaml", "envoy-clients.yaml"],
            Self::Java | Self::Go => &[],
        }
    }
}

/// A receiver in its directory; dropped, it is killed.
struct Receiver {
    kind: Kind,
    directory: PathBuf,
    port: String,
    process: Process,
    application: Application,
}

/// What a receiver said of a client.
struct Client(String);

impl Client {
    fn is(&self, certificate: &Certificate) -> bool {
        let facts = &certificate.facts;
        // Java writes a space after a comma.
        let said = self.0.replace(", ", ",").to_lowercase();
        said.contains(&facts.subject.to_lowercase()) || said.contains(&facts.fingerprint_sha256)
    }
}

impl Receiver {
    async fn start(kind: Kind, url: &str, bundle: &str, known: &[&Certificate]) -> Self {
        let (directory, application) =
            (harness::new_directory(&kind.name().to_lowercase()), Application::start().await);
        let server = &pki::shared().await.server;
        let (chain, key) = (server.chain_pem(), server.key_pem());
        for (name, text) in
            [("server.crt", &chain), ("server.key", &key), ("server.pem", &(chain.clone() + &key))]
        {
            fs::write(directory.join(name), text).unwrap();
        }
        let port = url.rsplit(':').next().unwrap().to_owned();
        write_clients(kind, &directory, bundle, known);
        for file in kind.files().iter().filter(|file| !directory.join(file).exists()) {
            let text = placed(file, &directory, &port, &application.port);
            fs::write(directory.join(file), text).unwrap();
        }
        let process = launch(kind, &directory, &port).await;
        listens(&port).await;
        Self { kind, directory, port, process, application }
    }

    /// Takes another bundle, as the head of its file says.
    async fn install(&mut self, bundle: &str, known: &[&Certificate]) {
        write_clients(self.kind, &self.directory, bundle, known);
        match self.kind {
            Kind::Haproxy => self.process.signal(Signal::USR2),
            // They have one process here, so that killing that kills all of them, and such a one cannot reload.
            Kind::Nginx | Kind::Apache => {
                self.process.kill().await;
                self.process = launch(self.kind, &self.directory, &self.port).await;
                listens(&self.port).await;
            }
            Kind::Envoy | Kind::Java | Kind::Go => {}
        }
    }

    async fn took(&self, id: &str, certificate: &Certificate) {
        let client = self.client_of(id).await;
        assert!(client.is(certificate), "the event came from {}", client.0);
    }

    /// Waits for the event with this id, and tells what is known of who sent it.
    async fn client_of(&self, id: &str) -> Client {
        if self.kind.files().is_empty() {
            let event = format!("event {id} from ");
            return Client(self.process.line_with(&event).await);
        }
        let headers = self.application.request(id).await;
        let names = ["x-client-identifier", "x-client-fingerprint", "x-forwarded-client-cert"];
        let told = names.iter().find_map(|name| headers.get(*name)).expect("it is told who sent it");
        Client(told.to_str().unwrap().to_owned())
    }
}

/// An example with its ports and paths on this machine, where it listens to nobody else.
fn placed(file: &str, directory: &Path, port: &str, application: &str) -> String {
    let text = fs::read_to_string(repository().join("examples/receivers").join(file)).unwrap();
    let text = text.replace("9000", application);
    let listening = [("listen 8443", "listen 127.0.0.1:8443"), ("Listen 8443", "Listen 127.0.0.1:8443")];
    let text = listening.iter().fold(text, |text, (from, to)| text.replace(from, to));
    let text = text.replace("bind :8443", "bind 127.0.0.1:8443").replace("0.0.0.0", "127.0.0.1");
    text.replace("8443", port).replace("/etc/receiver", &directory.display().to_string())
}

/// What a receiver knows of clients. Each file takes the place of the one before at once.
fn write_clients(kind: Kind, directory: &Path, bundle: &str, known: &[&Certificate]) {
    let write = |name: &str, text: &str| {
        let new = directory.join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, directory.join(name)).unwrap();
    };
    write("clients.crt", bundle);
    let fingerprints: Vec<_> = known.iter().map(|known| known.facts.fingerprint_sha256.as_str()).collect();
    match kind {
        Kind::Haproxy => write("fingerprints", &fingerprints.join("\n")),
        Kind::Envoy => {
            let text = placed("envoy-clients.yaml", directory, "", "");
            let list = fingerprints.join("\n    - ");
            write("envoy-clients.yaml", &text.replace(&"0".repeat(64), &list));
        }
        Kind::Nginx | Kind::Apache | Kind::Java | Kind::Go => {}
    }
}

async fn listens(port: &str) {
    eventually::polled(&format!("a server at port {port}"), || async {
        TcpStream::connect(format!("127.0.0.1:{port}")).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// Starts it, with what a distribution has around such a file.
async fn launch(kind: Kind, directory: &Path, port: &str) -> Process {
    let program = match kind {
        Kind::Nginx => {
            write_around(
                directory,
                "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;\nevents {}\nhttp {\n\
                 access_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
                 uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\ninclude nginx.conf;\n}\n",
            );
            let nginx = servers::debian("nginx", "nginx").await;
            Program::new("nginx", nginx).args(["-e", "stderr", "-p", "./", "-c", "around"])
        }
        Kind::Apache => {
            let apache = servers::debian("apache2", "apache2-bin").await;
            let unpacked = Path::new(&apache).with_file_name("root/usr/lib/apache2/modules");
            let installed = PathBuf::from("/usr/lib/apache2/modules");
            let modules = if unpacked.exists() { unpacked } else { installed };
            let names = ["mpm_event", "authz_core", "ssl", "headers", "proxy", "proxy_http"];
            let load = |name| format!("LoadModule {name}_module {}/mod_{name}.so\n", modules.display());
            let load: String = names.map(load).concat();
            let here = directory.display();
            let rest = "ServerName localhost\nUser daemon\nGroup daemon\nErrorLog /dev/stderr\n";
            write_around(
                directory,
                &format!("ServerRoot {here}\nPidFile {here}/pid\n{rest}{load}Include {here}/apache.conf\n"),
            );
            Program::new("apache", apache).args(["-X", "-f"]).args([directory.join("around")])
        }
        Kind::Haproxy => {
            write_around(
                directory,
                "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n",
            );
            // The process that is told to reload ends the others.
            let haproxy = servers::debian("haproxy", "haproxy").await;
            Program::new("haproxy", haproxy).args(["-W", "-db", "-f", "around", "-f", "haproxy.cfg"])
        }
        Kind::Envoy => Program::new("envoy", servers::envoy().await).args([
            "-c",
            "envoy.yaml",
            "--concurrency",
            "1",
            "--disable-hot-restart",
        ]),
        Kind::Java => {
            let keystore = pki::shared().await.server.pkcs12().await;
            fs::copy(&keystore.path, directory.join("server.p12")).unwrap();
            let source = repository().join("examples/receivers/Receiver.java");
            Program::new("java", "java")
                .args([source.as_path(), directory, Path::new("127.0.0.1"), Path::new(port)])
                .env("STORE_PASSWORD", keystore.password)
        }
        Kind::Go => {
            // `go run` would not take what it runs with it when it is killed.
            let program = directory.join("receiver");
            let source = repository().join("examples/receivers/receiver.go");
            let build = Tool::new("go").args(["build", "-o"]).args([&program, &source]);
            build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("CGO_ENABLED", "0").succeed().await;
            Program::new("go", program).args([directory]).args([format!("127.0.0.1:{port}")])
        }
    };
    program.current_dir(directory).start()
}

fn write_around(directory: &Path, text: &str) {
    fs::write(directory.join("around"), text).unwrap();
}

/// What a receiver passes events on to, in plain HTTP.
struct Application {
    port: String,
    seen: watch::Sender<Vec<HeaderMap>>,
    server: JoinHandle<()>,
}

impl Application {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let seen = watch::Sender::new(Vec::new());
        let to = seen.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let to = to.clone();
                let service = service_fn(move |request: HttpRequest<Incoming>| {
                    let to = to.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        body.collect().await?;
                        to.send_modify(|seen| seen.push(head.headers));
                        Ok::<_, hyper::Error>(Response::new(Empty::<&[u8]>::new()))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { port, seen, server }
    }

    /// Waits for the event with this id.
    async fn request(&self, id: &str) -> HeaderMap {
        let is = |headers: &&HeaderMap| headers.get("webhook-id").is_some_and(|value| value == id);
        let mut seen = self.seen.subscribe();
        let came = seen.wait_for(|seen| seen.iter().any(|headers| is(&headers)));
        let seen =
            eventually::within(eventually::TIMEOUT, &format!("event {id} at the application"), came).await;
        seen.unwrap().iter().find(is).unwrap().clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.server.abort();
    }
}
