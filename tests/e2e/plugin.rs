//! `kubectl postrider` as a person and a script have it: each command, good and bad, with its exit status.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Secret;
use postrider::api::v1alpha1::OutboundWebhook;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{
        cluster::Cluster,
        directory, eventually,
        kubelet::Kubelet,
        pki::{self, Authority, Keystore, Request, Validity},
        process::Program,
        receiver::{Answer, ClientAuth, Options, Receiver},
        scene::{Dispatcher, Scene, active},
        secrets,
        servers::TlsServer,
        tool::Tool,
    },
    ingest_server::secure_address,
};

tests![
    a_keystore_is_judged_in_the_words_of_the_controller,
    the_public_certificate_is_printed,
    a_webhook_is_shown_on_one_screen,
    a_text_of_others_is_only_seen,
    webhooks_are_listed_by_the_time_that_is_left,
    a_test_shows_each_layer,
    a_keystore_becomes_the_certificate_in_use,
    a_rotation_that_sticks_says_why,
    a_person_promotes_where_it_is_theirs_to_do,
    who_interrupts_a_rotation_leaves_it_whole,
    a_pause_keeps_what_comes,
    events_are_sent_and_dead_letters_brought_back,
    the_dispatcher_is_reached_through_the_api_server,
    a_doctor_finds_what_is_wrong,
    what_cannot_be_done_has_its_exit_status,
    kubectl_finds_the_plugin_and_completes_its_lines,
];

const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-postrider");

/// What a command left.
struct Ran {
    line: String,
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// It has to have ended with this status.
    fn with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}:\n{}{}", self.line, self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{}: {error}", self.line))
    }

    /// All of these have to be in what was printed.
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            let said =
                format!("{}{}", self.stdout, self.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                said.contains(word),
                "{} does not say {word:?}:\n{}{}",
                self.line,
                self.stdout,
                self.stderr
            );
        }
        self
    }
}

/// Runs a line of the plugin, without colours and without a secret in what it prints.
async fn run(kubeconfig: &Path, namespace: &str, arguments: &[&str], stdin: &str) -> Ran {
    let tool = Tool::new(PLUGIN).args(arguments).args(["--namespace", namespace]).stdin(stdin);
    let output = tool.env("KUBECONFIG", kubeconfig).run().await;
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains('\x1b'), "{} is coloured:\n{text}", output.command);
        let found = secrets::findings(text.as_bytes());
        assert!(found.is_empty(), "{} prints {}", output.command, found.join(", "));
    }
    let status = output.status.code().unwrap_or(-1);
    Ran { line: output.command, status, stdout: output.stdout, stderr: output.stderr }
}

impl Scene {
    /// As who may do everything.
    async fn plugin(&self, line: &str) -> Ran {
        let arguments: Vec<_> = line.split_whitespace().collect();
        self.plugin_with(&arguments).await
    }

    async fn plugin_with(&self, arguments: &[&str]) -> Ran {
        run(self.cluster().kubeconfig(), self.namespace.name(), arguments, "").await
    }

    /// A webhook with the shared certificate, whose receiver wants it.
    async fn orders(&self, receiver: &Receiver) -> OutboundWebhook {
        self.keystore("orders", pki::shared().await.pkcs12().await).await;
        self.mtls_webhook("orders", &receiver.url(), "PKCS12").await;
        self.condition("orders", "Connected", "True", None).await
    }
}

/// The password of a keystore in a file of its own.
fn password_file(keystore: &Keystore) -> PathBuf {
    let path = directory::unique("password");
    std::fs::write(&path, &keystore.password).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn next(subject: &str) -> (pki::Certificate, Keystore) {
    let certificate = pki::shared().await.client_authority.issue(&Request::client(subject)).await;
    let keystore = certificate.pkcs12().await;
    (certificate, keystore)
}

async fn a_keystore_is_judged_in_the_words_of_the_controller(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let keystore = pki::shared().await.pkcs12().await;
    let (file, password) = (text(&keystore.path), password_file(keystore));
    // Nothing of it needs a cluster.
    let nowhere = directory::unique("none.kubeconfig");
    let arguments = ["validate", file, "--password-file", text(&password), "-o", "json"];
    let value = run(&nowhere, "x", &arguments, "").await.with(0).json();
    assert_eq!(value["fingerprintSHA256"], json!(pki::shared().await.client.facts.fingerprint_sha256));
    let by_stdin = ["validate", file, "--password-file", "-"];
    run(&nowhere, "x", &by_stdin, &keystore.password)
        .await
        .with(0)
        .says(&["this PKCS12 keystore can be used"]);
    let wrong = run(&nowhere, "x", &["validate", file, "--password-file", "-", "-o", "yaml"], "wrong").await;
    wrong.with(1).says(&["reason: WrongPasswordOrCorrupt"]);
    run(&nowhere, "x", &["validate", "missing.p12", "--password-file", "-"], "x").await.with(3);
    run(&nowhere, "x", &["validate"], "").await.with(2);

    scene.keystore("orders", keystore).await;
    scene.mtls_webhook("orders", "https://localhost:1", "PKCS12").await;
    scene.ready("orders").await;
    scene.plugin("validate --webhook orders").await.with(0).says(&["mtls.active", "Valid"]);
    scene.password("orders", "not the password").await;
    scene.condition("orders", "CertificateValid", "False", None).await;
    let judged = scene.plugin("validate --webhook orders -o json").await.with(1).json();
    assert_eq!(judged["active"]["judged"]["reason"], "WrongPasswordOrCorrupt");
}

async fn the_public_certificate_is_printed(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let webhook = scene.orders(&receiver).await;
    let client = &pki::shared().await.client;
    assert_eq!(scene.plugin("certificate orders").await.with(0).stdout, client.leaf_pem());
    let chain = scene.plugin("certificate orders --part chain").await.with(0).stdout;
    assert!(chain.starts_with(&client.leaf_pem()));
    let length = webhook.status.unwrap().mtls.unwrap().active.unwrap().chain_length;
    assert_eq!(i32::try_from(chain.matches("BEGIN CERTIFICATE").count()), Ok(length));
    let bundle = scene.plugin("certificate orders --part bundle -o json").await.with(0).json();
    assert_eq!(bundle[0]["facts"]["fingerprintSHA256"], json!(client.facts.fingerprint_sha256));
    scene.plugin("certificate orders --part chain --der").await.with(2);
    scene.plugin("certificate orders --slot new").await.with(4).says(&["has no new certificate"]);

    let der = directory::unique("leaf.der");
    let line = format!("{PLUGIN} certificate orders --der -n {} > {}", scene.namespace.name(), text(&der));
    scene.cluster().typed(&line).await.succeeded();
    assert_eq!(std::fs::read(&der).unwrap(), client.chain_der()[0].to_vec());
}

async fn a_webhook_is_shown_on_one_screen(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let shown = scene.plugin("status orders").await.with(0);
    shown.says(&["Ready", "Active", "days left", "Active: Succeeded", "nothing to do"]);
    let value = scene.plugin("status orders -o json").await.with(0).json();
    assert_eq!(value["conditions"]["Ready"]["reason"], "Ready");
    assert_eq!(value["next"], json!([]));
    let days = value["daysLeft"]["active"].as_i64().unwrap();
    assert!((364..=365).contains(&days), "{days}");
    let name = scene.plugin("status orders -o name").await.with(0).stdout;
    assert_eq!(name, "outboundwebhook.postrider.dev/orders\n");
    scene.namespace.kubectl(["get", name.trim()]).await.succeeded();

    scene.mtls_webhook("lost", &receiver.url(), "JKS").await;
    scene.not_ready("lost", "SecretNotFound").await;
    let lost = scene.plugin("status lost").await.with(1);
    lost.says(&["SecretNotFound", "there is no Secret \"lost-keystore\" in this namespace"]);
    scene.plugin("status unknown").await.with(4);
    let counts = scene.plugin("pending -o json").await.with(0).json();
    assert_eq!(counts.as_array().unwrap().len(), 2);
    scene.plugin("pending orders").await.with(0).says(&["PENDING", "never"]);
}

async fn a_text_of_others_is_only_seen(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    scene.webhook("orders", "https://localhost:1", json!({})).await;
    scene.ready("orders").await;
    let hostile = "it fails\n✓ all is well\x1b[2J\x1b[8m\u{202e}\u{200b}\u{e0041}";
    // What a dispatcher tells of a receiver.
    let failure = json!({ "time": "2026-11-24T08:00:00Z", "layer": "HTTP", "reason": "HTTPStatus", "message": hostile });
    let delivery = json!({ "pending": 0, "delivered": 0, "dead": 0, "lastFailure": failure });
    let patch = json!({ "status": { "delivery": delivery } }).to_string();
    let patch = ["patch", "owh", "orders", "--subresource=status", "--type=merge", "-p", &patch];
    scene.namespace.kubectl(patch).await.succeeded();

    let hidden = |char: char| char != '\n' && char.is_control() || "\u{202e}\u{200b}\u{e0041}".contains(char);
    for line in ["status orders", "status orders -o json", "status orders -o yaml"] {
        let shown = scene.plugin(line).await.with(0);
        assert!(!shown.stdout.contains(hidden) && !shown.stdout.contains("\n✓"), "{}", shown.stdout);
    }
    scene.plugin("status orders").await.says(&["it fails ✓ all is well�[2J�[8m���"]);
    let value = scene.plugin("status orders -o json").await.json();
    assert_eq!(value["delivery"]["lastFailure"]["message"], hostile);
    let refused = scene.plugin_with(&["status", "orders", "--context", hostile]).await.with(3);
    assert!(!refused.stderr.contains(hidden) && !refused.stderr.contains("\n✓"), "{}", refused.stderr);
    refused.says(&["kubeconfig", "it fails ✓ all is well�[2J"]);
}

async fn webhooks_are_listed_by_the_time_that_is_left(cluster: Arc<Cluster>) {
    let scene = Scene::new(Arc::clone(&cluster)).await;
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    for (name, validity) in [
        ("year", Validity::Year),
        ("week", Validity::ExpiresIn(hours(7 * 24))),
        ("day", Validity::ExpiresIn(hours(30))),
    ] {
        let request = Request::client(&format!("/CN={name}")).validity(validity);
        let certificate = pki::shared().await.client_authority.issue(&request).await;
        scene.keystore(name, &certificate.pkcs12().await).await;
        scene.mtls_webhook(name, "https://localhost:1", "PKCS12").await;
        scene.ready(name).await;
    }
    let names = |ran: Ran| {
        let all = ran.json();
        let names = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(scene.plugin("list -o json").await.with(0)), ["day", "week", "year"]);
    let within = |time: &str| format!("list --expiring-within {time} -o json");
    assert_eq!(names(scene.plugin(&within("30d")).await.with(0)), ["day", "week"]);
    assert_eq!(names(scene.plugin(&within("48h")).await.with(0)), ["day"]);
    scene.plugin("list --expiring-within 48h --exit-code").await.with(1).says(&["CN=day", "in 30 h"]);
    scene
        .plugin("list --expiring-within 1h --exit-code")
        .await
        .with(0)
        .says(&["No webhook in this namespace"]);
    scene.plugin("list --expiring-within soon").await.with(2);
    let everywhere = scene.plugin("list -A --expiring-within 48h -o wide").await.with(0);
    everywhere.says(&[scene.namespace.name(), "FINGERPRINT", "CN=day"]);
}

async fn a_test_shows_each_layer(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let before = scene.orders(&receiver).await;
    let before = before.status.unwrap().test.unwrap().active.unwrap();
    let shown = scene.plugin("test orders").await.with(0);
    shown.says(&[
        "DNS",
        "TLSv1.3",
        "CN=localhost",
        "asked for our certificate, and did not refuse it",
        "Passed",
    ]);
    let value = scene.plugin("test orders -o json").await.with(0).json();
    assert_ne!(value["test"]["active"]["inputs"], json!(before.inputs));
    scene.plugin("test orders --last -o json").await.with(0);

    let shared = pki::shared().await;
    let others = Authority::root("Others alone").await;
    let refuses = Options::new(&shared.server, ClientAuth::Required(&others)).start().await;
    scene.mtls_webhook("orders", &refuses.url(), "PKCS12").await;
    scene.condition("orders", "Connected", "False", None).await;
    let shown = scene.plugin("test orders").await.with(1);
    shown.says(&["✗ TLSClient", "alert 48 (unknown_ca)", "– HTTP not reached", "✓ TLSServer", "Failed"]);
    let shown = scene.plugin("status orders").await.with(0);
    shown.says(&["! ", "Ready, and its test fails", "certificate orders --part chain"]);
    scene.plugin("doctor").await.with(1).says(&["✗ Connections", "orders (ClientCertificateRejected)"]);
    // The JDK says no by closing the connection, once TLS is up.
    let closes = TlsServer::java(&shared.server, &others, "TLSv1.3").await;
    scene.mtls_webhook("orders", &closes.url(), "PKCS12").await;
    scene.condition("orders", "Connected", "False", Some("ConnectionClosed")).await;
    scene.plugin("test orders").await.with(1).says(&["✓ TLSServer", "✗ TLSClient ConnectionClosed"]);
    scene.mtls_webhook("orders", "https://localhost:1/", "PKCS12").await;
    scene.condition("orders", "Connected", "False", Some("ConnectFailed")).await;
    scene.plugin("test orders").await.with(1).says(&["✓ DNS", "✗ Connect"]);

    scene.mtls_webhook("lost", &receiver.url(), "PKCS12").await;
    scene.not_ready("lost", "SecretNotFound").await;
    scene.plugin("test lost").await.with(3).says(&["nothing to test with: SecretNotFound"]);
}

async fn a_keystore_becomes_the_certificate_in_use(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let (certificate, keystore) = next("/CN=orders-2028").await;
    let (file, password) = (text(&keystore.path), password_file(&keystore));

    // Nothing is touched for a keystore that cannot be opened.
    let wrong = ["rotate", "orders", "--keystore", file, "--password-file", "-"];
    let ran = run(scene.cluster().kubeconfig(), scene.namespace.name(), &wrong, "wrong").await;
    ran.with(1).says(&["WrongPasswordOrCorrupt"]);
    assert!(scene.webhooks().get("orders").await.unwrap().spec.mtls.unwrap().new.is_none());

    let rotate = ["rotate", "orders", "--keystore", file, "--password-file", text(&password)];
    let ran = scene.plugin_with(&rotate).await.with(0);
    ran.says(&["names it in mtls.new", "test passed", "in use: CN=orders-2028", "before: CN="]);
    let webhook = scene.webhooks().get("orders").await.unwrap();
    let named = webhook.spec.mtls.clone().unwrap().new.unwrap().secret_ref.name;
    let secret = scene.namespace.api::<Secret>().get(&named).await.unwrap();
    assert_eq!(secret.data.unwrap()["password"].0, keystore.password.as_bytes());
    assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, webhook.metadata.uid.unwrap());

    // The same again does nothing more.
    let again = scene.plugin_with(&[&rotate[..], &["-o", "json"]].concat()).await.with(0);
    assert_eq!(again.json()["active"]["fingerprintSHA256"], json!(certificate.facts.fingerprint_sha256));

    // The next one: what is in use moves to mtls.active.
    let (third, keystore) = next("/CN=orders-2029").await;
    let password = password_file(&keystore);
    let arguments =
        ["rotate", "orders", "--keystore", text(&keystore.path), "--password-file", text(&password)];
    scene.plugin_with(&arguments).await.with(0);
    let mtls = scene.webhooks().get("orders").await.unwrap().spec.mtls.unwrap();
    assert_eq!(mtls.active.secret_ref.name, named);
    assert!(mtls.active.alias.is_none());
    let status = scene.plugin("status orders -o json").await.json();
    assert_eq!(status["certificates"]["active"]["fingerprintSHA256"], json!(third.facts.fingerprint_sha256));
}

async fn a_rotation_that_sticks_says_why(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let stranger =
        Authority::root("Unknown to the receiver").await.issue(&Request::client("/CN=stranger")).await;
    let keystore = stranger.pkcs12().await;
    let password = password_file(&keystore);
    let rotate = ["rotate", "orders", "--keystore", text(&keystore.path), "--password-file", text(&password)];
    let stuck = scene.plugin_with(&rotate).await.with(1);
    stuck.says(&[
        "✗ TLSClient",
        "its test does not pass",
        "The certificate before stays in use",
        "certificate orders --slot new --part chain",
        "take it back",
    ]);

    let (_, other) = next("/CN=orders-2028").await;
    let other_password = password_file(&other);
    let other =
        ["rotate", "orders", "--keystore", text(&other.path), "--password-file", text(&other_password)];
    scene.plugin_with(&other).await.with(2).says(&["--replace takes its place"]);
    scene.plugin_with(&[&other[..], &["--replace"]].concat()).await.with(0).says(&["in use: CN=orders-2028"]);

    scene.webhook("plain", &receiver.url(), json!({})).await;
    let plain = [&["rotate", "plain"], &rotate[2..]].concat();
    scene.plugin_with(&plain).await.with(2).says(&["asks for no client certificate"]);
}

async fn a_person_promotes_where_it_is_theirs_to_do(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let manual =
        json!({ "mtls": { "active": active("orders", "PKCS12"), "rotation": { "promotion": "Manual" } } });
    scene.webhook("orders", &receiver.url(), manual).await;
    scene.plugin("promote orders").await.with(4).says(&["has no New certificate"]);
    let (_, keystore) = next("/CN=orders-2028").await;
    let password = password_file(&keystore);
    let rotate = ["rotate", "orders", "--keystore", text(&keystore.path), "--password-file", text(&password)];
    let waits =
        scene.plugin_with(&rotate).await.with(6).says(&["✓ it has passed its test", "promote orders"]);
    assert!(!waits.stderr.contains("error:"), "{}", waits.stderr);
    scene.plugin("status orders").await.says(&["promote orders"]);
    scene.plugin("promote orders").await.with(0).says(&["CN=orders-2028", "is in use now"]);
    scene.plugin("promote orders").await.with(0).says(&["is in use already"]);

    let (_, keystore) = next("/CN=orders-2029").await;
    let password = password_file(&keystore);
    let rotate = ["rotate", "orders", "--keystore", text(&keystore.path), "--password-file", text(&password)];
    scene
        .plugin_with(&[&rotate[..], &["--promote"]].concat())
        .await
        .with(0)
        .says(&["in use: CN=orders-2029"]);
}

async fn who_interrupts_a_rotation_leaves_it_whole(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let manual =
        json!({ "mtls": { "active": active("orders", "PKCS12"), "rotation": { "promotion": "Manual" } } });
    scene.webhook("orders", "https://localhost:1", manual).await;
    let (certificate, keystore) = next("/CN=orders-2028").await;
    let password = password_file(&keystore);
    let rotate = ["rotate", "orders", "--keystore", text(&keystore.path), "--password-file", text(&password)];
    let process = Program::new("plugin", PLUGIN)
        .args(rotate)
        .args(["--namespace", scene.namespace.name()])
        .env("KUBECONFIG", scene.cluster().kubeconfig())
        .start();
    process.line_with("waits for its test").await;
    process.signal(Signal::INT);
    assert_eq!(process.ended().await.code(), Some(130));
    process.line_with("the webhook names the new certificate").await;

    // It goes on without them, and the same line goes on where it was.
    let spec = json!({ "spec": { "endpoint": { "url": receiver.url() } } }).to_string();
    scene.namespace.kubectl(["patch", "owh", "orders", "--type=merge", "-p", &spec]).await.succeeded();
    scene.condition("orders", "NewCertificateValid", "True", Some("WaitsForPromotion")).await;
    let ran = scene.plugin_with(&[&rotate[..], &["--promote", "-o", "json"]].concat()).await.with(0);
    assert_eq!(ran.json()["active"]["fingerprintSHA256"], json!(certificate.facts.fingerprint_sha256));
}

async fn a_pause_keeps_what_comes(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let dispatcher = scene.dispatcher().await;
    let paused = scene.plugin("pause orders -o json").await.with(0).json();
    assert_eq!((&paused["suspend"], &paused["ready"]["reason"]), (&json!(true), &json!("Suspended")));
    scene.plugin("status orders").await.with(1).says(&["Suspended", "resume orders"]);
    dispatcher.post("orders", "kept").await;
    scene.plugin("resume orders").await.with(0).says(&["orders is resumed"]);
    receiver.wait_for(1).await;
    scene.plugin("pause unknown").await.with(4);
}

/// A dispatcher with its secure listener, and how the plugin is told of it.
async fn secure(scene: &Scene) -> (Dispatcher, Vec<String>) {
    scene.serves_with(&pki::shared().await.server).await;
    let dispatcher = scene.secure_dispatcher(&[]).await;
    let port = secure_address(&dispatcher.process).await.port();
    let authority = text(&pki::shared().await.server_authority.root).to_owned();
    let told =
        ["--dispatcher".into(), format!("https://localhost:{port}"), "--dispatcher-ca".into(), authority];
    (dispatcher, told.to_vec())
}

async fn operator(scene: &Scene, name: &str, roles: &[&str]) {
    scene.namespace.kubectl(["create", "serviceaccount", name]).await.succeeded();
    let who = format!("--serviceaccount={}:{name}", scene.namespace.name());
    for role in roles {
        let (binding, role) = (format!("{name}-{role}"), format!("--clusterrole={role}"));
        scene.namespace.kubectl(["create", "rolebinding", &binding, &role, &who]).await.succeeded();
    }
}

async fn events_are_sent_and_dead_letters_brought_back(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    scene.keystore("orders", pki::shared().await.pkcs12().await).await;
    let given_up = json!({
        "mtls": { "active": active("orders", "PKCS12") },
        "delivery": { "retry": { "nonRetryableStatusCodes": [422] } },
    });
    scene.webhook("orders", &receiver.url(), given_up).await;
    scene.ready("orders").await;
    let (dispatcher, told) = secure(&scene).await;
    dispatcher.post("orders", "known").await;
    receiver.wait_for(1).await;
    let told: Vec<_> = told.iter().map(String::as_str).collect();
    let with = async |line: &[&str]| scene.plugin_with(&[line, &told].concat()).await;

    // The person is no ServiceAccount, and has not named one; one that may nothing gets nowhere.
    with(&["send", "orders"]).await.with(2).says(&["--service-account"]);
    let none = with(&["dead", "list", "orders", "--service-account", "operator"]).await.with(4);
    let namespace = scene.namespace.name();
    none.says(&[
        "there is no ServiceAccount \"operator\"",
        &format!("kubectl create serviceaccount operator --namespace {namespace}"),
        "kubectl create role postrider-get-deadletters-orders",
        &format!("--serviceaccount {namespace}:operator"),
    ]);
    operator(&scene, "nobody", &[]).await;
    let refused = with(&["send", "orders", "--service-account", "nobody"]).await.with(5);
    refused.says(&[
        "may not create outboundwebhooks.postrider.dev/events",
        "who may grant it types",
        "kubectl create role",
    ]);
    operator(&scene, "operator", &["postrider-sender", "postrider-edit"]).await;
    let as_operator = ["--service-account", "operator"];
    let sent =
        with(&[&["send", "orders", "-o", "json", "--data", "{\"order\":7}"][..], &as_operator].concat())
            .await;
    let id = sent.with(0).json()["ids"][0].as_str().unwrap().to_owned();
    let requests = receiver.wait_for(2).await;
    assert_eq!(
        (requests[1].header("webhook-id"), &requests[1].body[..]),
        (id.as_str(), &b"{\"order\":7}"[..])
    );
    assert_eq!(requests[1].header("ce-type"), "dev.postrider.test");
    with(&[&["send", "unknown"][..], &as_operator].concat()).await.with(4);

    // A person without the right gets no further with an account that has it.
    let person = scene.cluster().kubeconfig_of(scene.namespace.name(), "nobody").await;
    let ran =
        run(&person, scene.namespace.name(), &[&["send", "orders"][..], &as_operator, &told].concat(), "")
            .await;
    ran.with(5).says(&["you may not create"]);

    receiver.first([Answer::status(422).body("no such order\n  Reason      none\x1b[2J")]);
    let event = json!({ "specversion": "1.0", "id": "7", "source": "/shop", "type": "order",
        "subject": "paid\u{202e}\u{200b}", "data": "dead\n\tor \x1b[2Jnot" });
    let event = event.to_string();
    let structured = ["send", "orders", "--content-type", "application/cloudevents+json", "--data", &event];
    with(&[&structured[..], &as_operator].concat()).await.with(0);
    receiver.wait_for(3).await;
    let listed = eventually::polled("a dead letter", || async {
        let all = with(&[&["dead", "list", "orders", "-o", "json"][..], &as_operator].concat())
            .await
            .with(0)
            .json();
        all.get(0).cloned().ok_or(all.to_string())
    })
    .await;
    let id = listed["id"].as_str().unwrap();
    with(&[&["dead", "list", "orders"][..], &as_operator].concat()).await.with(0).says(&[id, "HTTPStatus"]);
    let named = with(&[&["dead", "list", "orders", "-o", "name"][..], &as_operator].concat()).await.with(0);
    assert_eq!(named.stdout, format!("{id}\n"));
    let shown = with(&[&["dead", "show", "orders", id][..], &as_operator].concat()).await.with(0);
    let shown = shown.says(&["422: no such order Reason none�[2J", "subject: paid��", "dead"]);
    assert!(!shown.stdout.contains("\n  Reason      none"), "{}", shown.stdout);
    let yaml =
        with(&[&["dead", "show", "orders", id, "-o", "yaml"][..], &as_operator].concat()).await.with(0);
    yaml.says(&[r"paid\U0000202E\U0000200B"]);
    with(&[&["dead", "replay", "orders"][..], &as_operator].concat()).await.with(2).says(&["choose them"]);
    let again =
        with(&[&["dead", "replay", "orders", id, "-o", "json"][..], &as_operator].concat()).await.with(0);
    assert_eq!(again.json()["count"], 1);
    assert_eq!(receiver.wait_for(4).await[3].header("webhook-id"), id);
    with(&[&["dead", "show", "orders", id][..], &as_operator].concat()).await.with(4);
    with(&[&["dead", "list", "orders"][..], &as_operator].concat())
        .await
        .with(0)
        .says(&["orders has no dead letter."]);
    with(&[&["dead", "delete", "orders", "--all"][..], &as_operator].concat()).await.with(2).says(&["--yes"]);
    let gone =
        with(&[&["dead", "delete", "orders", "--all", "--yes", "-o", "json"][..], &as_operator].concat())
            .await;
    assert_eq!(gone.with(0).json()["count"], 0);
}

async fn the_dispatcher_is_reached_through_the_api_server(cluster: Arc<Cluster>) {
    // A node of ours means nothing to a cluster that is not.
    if !cluster.kubeconfig().with_file_name("tokens.key").exists() {
        return;
    }
    let (scene, receiver) = (Scene::new(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let namespace = scene.namespace.name();
    let authority = &pki::shared().await.server_authority;
    let name = format!("DNS:hooks.{namespace}.svc");
    let certificate = authority.issue(&Request::server().alt_names(&name)).await;
    scene.serves_with(&certificate).await;
    let dispatcher = scene.secure_dispatcher(&[]).await;
    dispatcher.process.line_with(&certificate.facts.fingerprint_sha256).await;
    let kubelet = Kubelet::start(cluster.client(), secure_address(&dispatcher.process).await).await;
    operator(&scene, "operator", &["postrider-sender"]).await;
    let send = format!("send orders --service-account operator --installed-in {namespace}");

    // What an installation has, one after the other.
    scene.plugin(&send).await.with(3).says(&["no ConfigMap postrider-ingest-ca"]);
    scene.config_map("postrider-ingest-ca", &[("ca.crt", &authority.root_pem())]).await;
    scene.plugin(&send).await.with(3).says(&["no Pod of Postrider", "--installed-in"]);
    let labels = json!({ "app.kubernetes.io/name": "postrider" });
    let ports = json!([{ "name": "ingest", "containerPort": 8443 }]);
    kubelet.pod(namespace, "postrider-0", labels.clone(), ports).await;
    scene.plugin(&send).await.with(3).says(&["TLS with the dispatcher as postrider."]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "hooks", "labels": { "app.kubernetes.io/name": "postrider", "app.kubernetes.io/component": "ingest" } },
        "spec": { "selector": labels, "ports": [{ "name": "https", "port": 443 }] },
    });
    scene.namespace.apply(&service.to_string()).await.succeeded();
    scene.plugin(&send).await.with(0).says(&["kept on disk as"]);
    receiver.wait_for(1).await;
    let doctor = scene.plugin(&format!("doctor --installed-in {namespace} -o json")).await.json();
    assert_eq!(state(&doctor, "Dispatcher"), "good", "{doctor:#}");
    assert_eq!(state(&doctor, "Installation"), "good", "{doctor:#}");
    scene
        .plugin(&format!("doctor --installed-in {namespace}"))
        .await
        .says(&["-l app.kubernetes.io/name=postrider"]);

    // The same of a chart that says what it is a part of, and is called something else.
    let renamed = ["app.kubernetes.io/name=hooks", "app.kubernetes.io/part-of=postrider", "--overwrite"];
    for object in ["pod/postrider-0", "service/hooks"] {
        scene.namespace.kubectl([&["label", object][..], &renamed].concat()).await.succeeded();
    }
    scene.plugin(&send).await.with(0).says(&["kept on disk as"]);
    receiver.wait_for(2).await;
    let doctor = scene.plugin(&format!("doctor --installed-in {namespace}")).await;
    doctor.says(&["✓ Installation", "✓ Dispatcher", "-l app.kubernetes.io/part-of=postrider"]);

    // Who may send, and not look into the Pod.
    let account = scene.cluster().kubeconfig_of(namespace, "operator").await;
    let arguments: Vec<_> = send.split(' ').collect();
    run(&account, namespace, &arguments, "").await.with(5);
}

fn state<'a>(doctor: &'a Value, what: &str) -> &'a str {
    let mut findings = doctor["findings"].as_array().unwrap().iter();
    let finding = findings.find(|finding| finding["what"] == what);
    finding.map_or("", |finding| finding["state"].as_str().unwrap())
}

async fn a_doctor_finds_what_is_wrong(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.orders(&receiver).await;
    let seen = scene.plugin("doctor -o json").await.json();
    for good in ["API server", "Clock", "Definition", "mTLS gate", "Reconciled", "Ready", "Your rights"] {
        assert_eq!(state(&seen, good), "good", "{good}: {seen:#}");
    }
    // The programs of a test are in no Pod.
    assert_eq!(state(&seen, "Installation"), "bad");
    scene.plugin("doctor").await.with(1).says(&["no Pod of Postrider", "--installed-in", "to be mended"]);

    scene.enable(false).await;
    scene.not_ready("orders", "MTLSNotEnabled").await;
    let label = format!("kubectl label namespace {} postrider.dev/mtls=enabled", scene.namespace.name());
    scene.plugin("doctor").await.with(1).says(&[&label, "nothing is sent for orders (MTLSNotEnabled)"]);

    // Who sees little is told so, and what would change it.
    operator(&scene, "viewer", &["postrider-view"]).await;
    let viewer = scene.cluster().kubeconfig_of(scene.namespace.name(), "viewer").await;
    let seen = run(&viewer, scene.namespace.name(), &["doctor"], "").await.with(1);
    seen.says(&["you may not: patch outboundwebhooks", "rolebinding postrider-operator", "you may not look"]);

    // What it prints, an administrator types; it is enough, for a port-forward as well.
    let installed_in = cluster.namespace().await;
    let doctor = ["doctor", "-o", "json", "--installed-in", installed_in.name()];
    let rights = async || {
        let seen = run(&viewer, scene.namespace.name(), &doctor, "").await.json();
        let mut findings = seen["findings"].as_array().unwrap().clone().into_iter();
        findings.find(|finding| finding["what"] == "Your rights").unwrap()
    };
    scene.cluster().typed(rights().await["fix"].as_str().unwrap()).await.succeeded();
    eventually::polled("the rights that were granted", || async {
        let rights = rights().await;
        if rights["state"] == "good" { Ok(()) } else { Err(rights.to_string()) }
    })
    .await;
}

async fn what_cannot_be_done_has_its_exit_status(cluster: Arc<Cluster>) {
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    operator(&scene, "nobody", &[]).await;
    let nobody = cluster.kubeconfig_of(scene.namespace.name(), "nobody").await;
    let as_nobody = async |line: &[&str]| run(&nobody, scene.namespace.name(), line, "").await;
    as_nobody(&["status", "orders"]).await.with(5).says(&["cannot get resource \"outboundwebhooks\""]);
    as_nobody(&["list", "-A"]).await.with(5);
    scene.plugin("status orders --as system:anonymous").await.with(5);
    scene.plugin("statsu orders").await.with(2);
    scene.plugin("status orders --context other").await.with(3).says(&["kubeconfig"]);

    let away = directory::unique("away.kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "away",
        "clusters": [{ "name": "away", "cluster": { "server": "https://127.0.0.1:1" } }],
        "users": [{ "name": "away", "user": { "token": "nobody's" } }],
        "contexts": [{ "name": "away", "context": { "cluster": "away", "user": "away" } }],
    });
    std::fs::write(&away, config.to_string()).unwrap();
    run(&away, "x", &["status", "orders"], "").await.with(3).says(&["the API server cannot be asked"]);
    run(&away, "x", &["doctor"], "").await.with(1).says(&["✗ API server", "KUBECONFIG"]);
    let script = run(&away, "x", &["completion", "bash"], "").await.with(0);
    assert!(script.stdout.contains("kubectl-postrider") && script.stdout.contains("--password-file"));
}

async fn kubectl_finds_the_plugin_and_completes_its_lines(cluster: Arc<Cluster>) {
    let scene = Scene::new(Arc::clone(&cluster)).await;
    for name in ["orders", "invoices"] {
        scene.webhook(name, "https://localhost:1", json!({})).await;
    }
    // What the archive holds.
    let programs = directory::unique_directory("programs");
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin/kubectl_complete-postrider");
    for (name, program) in
        [("kubectl-postrider", Path::new(PLUGIN)), ("kubectl_complete-postrider", shim.as_path())]
    {
        std::os::unix::fs::symlink(program, programs.join(name)).unwrap();
    }
    let kubectl =
        async |words: &[&str]| cluster.kubectl_with_plugins(&programs).args(words).run().await.succeeded();
    let namespace = scene.namespace.name();
    let names = "outboundwebhook.postrider.dev/invoices\noutboundwebhook.postrider.dev/orders\n";
    assert_eq!(kubectl(&["postrider", "list", "-n", namespace, "-o", "name"]).await, names);

    let completed = async |words: &[&str]| {
        let words = [&["__complete", "postrider", "-n", namespace][..], words].concat();
        let stdout = kubectl(&words).await;
        let values = stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(completed(&["stat"]).await, ["status", ":4"]);
    assert_eq!(completed(&["status", ""]).await, ["invoices", "orders", ":4"]);
    assert_eq!(completed(&["dead", "list", "o"]).await, ["orders", ":4"]);
    assert_eq!(completed(&["validate", "--webhook", "inv"]).await, ["invoices", ":4"]);
    assert_eq!(completed(&["status", "orders", "--output", "y"]).await, ["yaml", ":4"]);
    assert_eq!(completed(&["list", "--expiring"]).await, ["--expiring-within", ":4"]);
    assert_eq!(completed(&["rotate", "orders", "--keystore", "/us"]).await, ["/usr/", ":6"]);
    // Without a cluster it is what is known without one.
    assert_eq!(completed(&["--context", "other", "status", ""]).await, [":4"]);
}
