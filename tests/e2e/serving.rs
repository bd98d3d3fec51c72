//! The serving certificate that the controller makes: its three objects, what becomes of them, and that senders trust
//! a server that has it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ConfigMap, Secret},
        events::v1::Event,
    },
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::harness::{
    chart,
    cluster::{Cluster, Namespace},
    directory, eventually,
    pki::Facts,
    process::{Process, Program},
    secrets,
    tool::Tool,
};

tests![
    a_server_with_it_is_trusted_by_who_reads_the_config_map,
    openssl_and_kubectl_show_what_it_is,
    what_is_deleted_is_made_again,
    what_is_edited_is_repaired,
    a_damaged_authority_is_replaced_and_told,
    it_is_renewed_in_time,
    other_names_need_another_leaf,
    what_is_somebody_elses_is_left_alone,
    two_controllers_make_one_authority,
    nothing_is_asked_for_at_rest,
];

const AUTHORITY: &str = "postrider-ingest-ca";
const LEAF: &str = "postrider-ingest-tls";
const NAME: &str = "ingest.example";

/// A namespace in which a controller has the rights of the Role in `examples/rbac.yaml`, and no other.
struct Ingest {
    namespace: Namespace,
    kubeconfig: PathBuf,
}

/// The objects, as files for openssl.
struct Made {
    secret: Secret,
    leaf: PathBuf,
    key: PathBuf,
    facts: Facts,
    bundle: PathBuf,
}

impl Ingest {
    async fn new(cluster: &Arc<Cluster>) -> Self {
        let namespace = cluster.namespace().await;
        namespace.kubectl(["create", "serviceaccount", "controller"]).await.succeeded();
        let rights = chart::rights(namespace.name(), "controller", &json!({})).await;
        let own = rights.split("\n---\n").filter(|object| object.contains("name: postrider-controller-own"));
        namespace.apply(&own.collect::<Vec<_>>().join("\n---\n")).await.succeeded();
        let kubeconfig = cluster.kubeconfig_of(namespace.name(), "controller").await;
        Self { namespace, kubeconfig }
    }

    fn controller(&self) -> Process {
        self.controller_for(&[NAME])
    }

    /// It serves webhooks of its namespace as well, and is told that it has no right to them.
    fn controller_for(&self, names: &[&str]) -> Process {
        Program::postrider("controller")
            .args(["--namespace", self.namespace.name(), "--serving-certificate"])
            .args(names.iter().flat_map(|name| ["--serving-name", name]))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAMESPACE", self.namespace.name())
            .start()
    }

    async fn secret(&self, name: &str, what: &str, condition: impl Fn(&Secret) -> bool) -> Secret {
        let secret = eventually::object(&self.namespace.api::<Secret>(), name, what, condition).await;
        for key in ["tls.key", "next.key"] {
            if let Some(der) = value(&secret, key).and_then(|pem| PrivateKeyDer::from_pem_slice(pem).ok()) {
                secrets::private_key(&format!("{key} of {name}"), der.secret_der());
            }
        }
        secret
    }

    /// Waits until the three of them fit together, and the leaf is not the one from before.
    async fn made(&self, before: Option<&Made>) -> Made {
        let authority = self.secret(AUTHORITY, "an authority", |_| true).await;
        let authority = value(&authority, "tls.crt").unwrap().to_vec();
        self.made_by(&authority, before, None).await
    }

    /// Likewise, and the leaf is not as somebody has edited it.
    async fn repaired(&self, before: &Made, edited: &str) -> Made {
        let authority = value(&before.secret, "ca.crt").unwrap();
        self.made_by(authority, Some(before), Some(edited)).await
    }

    /// Below this authority.
    async fn made_by(&self, authority: &[u8], before: Option<&Made>, edited: Option<&str>) -> Made {
        let authority_text = String::from_utf8(authority.to_vec()).unwrap();
        let map = self.bundle("the authority", |bundle| bundle.contains(&authority_text)).await;
        let before = before.map(|before| value(&before.secret, "tls.crt").unwrap());
        let secret = self
            .secret(LEAF, "a leaf of the authority", |secret| {
                value(secret, "ca.crt") == Some(authority)
                    && value(secret, "tls.crt") != before
                    && secret.resource_version().as_deref() != edited
            })
            .await;
        let [leaf, key, bundle] = ["leaf.pem", "leaf.key", "bundle.pem"].map(directory::unique);
        std::fs::write(&leaf, value(&secret, "tls.crt").unwrap()).unwrap();
        std::fs::write(&key, value(&secret, "tls.key").unwrap()).unwrap();
        std::fs::write(&bundle, map).unwrap();
        let facts = Facts::of(&leaf).await;
        Made { secret, leaf, key, facts, bundle }
    }

    /// The published authorities, once they are as wanted.
    async fn bundle(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let text = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("ca.crt").cloned());
        let maps = self.namespace.api::<ConfigMap>();
        let found =
            eventually::object(&maps, AUTHORITY, what, |map| text(map).is_some_and(|pem| condition(&pem)));
        text(&found.await).unwrap()
    }

    async fn delete_secret(&self, name: &str) {
        self.namespace.api::<Secret>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The version that it has then.
    async fn patch(&self, kind: &str, name: &str, patch: Value) -> String {
        let patch = patch.to_string();
        let version = "jsonpath={.metadata.resourceVersion}";
        let arguments = ["patch", kind, name, "--type=merge", "-p", &patch, "-o", version];
        let patched = self.namespace.kubectl(arguments).await;
        // Not by `succeeded`: its message would hold the patch.
        assert!(patched.status.success(), "{}", patched.stderr);
        patched.stdout
    }

    async fn event(&self, reason: &str) -> Event {
        let events = self.namespace.api::<Event>();
        let is = |event: &Event| event.reason.as_deref() == Some(reason);
        let all = ListParams::default();
        let found = eventually::objects(&events, &all, reason, |all| all.iter().any(is)).await;
        found.into_iter().find(is).unwrap()
    }

    /// The versions of the three objects.
    async fn versions(&self) -> [Option<String>; 3] {
        let secrets = self.namespace.api::<Secret>();
        [
            secrets.get(AUTHORITY).await.unwrap().resource_version(),
            self.namespace.api::<ConfigMap>().get(AUTHORITY).await.unwrap().resource_version(),
            secrets.get(LEAF).await.unwrap().resource_version(),
        ]
    }
}

fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|value| value.0.as_slice())
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A TLS server with the leaf, until the test ends.
async fn serve(made: &Made) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&made.leaf).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let _ = connection.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            let _ = connection.write_all(answer).await;
            let _ = connection.shutdown().await;
        }
    });
    address
}

/// Sends a request as an application does that has read the ConfigMap.
async fn send(to: SocketAddr, name: &str, bundle: &str) -> Result<u16, String> {
    let roots = certificates(bundle).into_iter().map(|der| reqwest::Certificate::from_der(&der).unwrap());
    let client =
        reqwest::Client::builder().no_proxy().resolve(name, to).tls_certs_only(roots).build().unwrap();
    let url = format!("https://{name}:{}/", to.port());
    match client.get(url).send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(format!("{error:?}")),
    }
}

async fn openssl_verifies(made: &Made) {
    Tool::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", NAME, "-CAfile"])
        .args([&made.bundle, &made.leaf])
        .succeed()
        .await;
}

async fn a_server_with_it_is_trusted_by_who_reads_the_config_map(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let _controller = ingest.controller_for(&[NAME, "Postrider.Postrider.svc"]);
    let made = ingest.made(None).await;
    let bundle = std::fs::read_to_string(&made.bundle).unwrap();
    let server = serve(&made).await;
    for name in [NAME, "postrider.postrider.svc"] {
        assert_eq!(send(server, name, &bundle).await, Ok(204));
    }
    let refused = send(server, "another.example", &bundle).await.unwrap_err();
    assert!(refused.contains("NotValidForName"), "{refused}");
    openssl_verifies(&made).await;

    let another = Ingest::new(&cluster).await;
    let _controller = another.controller();
    let anothers = std::fs::read_to_string(another.made(None).await.bundle).unwrap();
    let refused = send(server, NAME, &anothers).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    ingest.namespace.assert_no_secret_in("configmaps,events").await;
}

async fn openssl_and_kubectl_show_what_it_is(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let _controller = ingest.controller();
    let made = ingest.made(None).await;
    let keys = |secret: &Secret| secret.data.as_ref().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&made.secret), ["ca.crt", "tls.crt", "tls.key"]);
    let authority = ingest.secret(AUTHORITY, "it", |_| true).await;
    assert_eq!(keys(&authority), ["tls.crt", "tls.key"]);
    for secret in [&made.secret, &authority] {
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        assert_eq!(secret.labels()["app.kubernetes.io/managed-by"], "postrider");
        assert_eq!(secret.labels()["app.kubernetes.io/component"], "serving-certificate");
    }

    let shown = async |path: &Path| {
        let extensions = "basicConstraints,keyUsage,extendedKeyUsage,subjectAltName,subjectKeyIdentifier";
        let text = Tool::new("openssl").args(["x509", "-noout", "-ext", extensions, "-in"]).args([path]);
        text.succeed().await.lines().map(str::trim).collect::<Vec<_>>().join("\n")
    };
    let (leaf, bundle) = (shown(&made.leaf).await, shown(&made.bundle).await);
    for part in [
        "X509v3 Basic Constraints: critical\nCA:FALSE",
        "X509v3 Key Usage: critical\nDigital Signature",
        "X509v3 Extended Key Usage:\nTLS Web Server Authentication",
        "X509v3 Subject Alternative Name:\nDNS:ingest.example",
        "X509v3 Subject Key Identifier:",
    ] {
        assert!(leaf.contains(part), "{part}: {leaf}");
    }
    for part in [
        "X509v3 Basic Constraints: critical\nCA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\nCertificate Sign, CRL Sign",
    ] {
        assert!(bundle.contains(part), "{part}: {bundle}");
    }
    let authority = Facts::of(&made.bundle).await;
    assert_eq!(
        (made.facts.subject.as_str(), &made.facts.issuer),
        ("CN=Postrider ingest", &authority.subject)
    );
    let days = |facts: &Facts| facts.not_after.duration_since(facts.not_before).as_hours() / 24;
    assert_eq!((days(&made.facts), days(&authority)), (90, 3 * 365));
    let age = Timestamp::now().duration_since(made.facts.not_before);
    assert!((299..600).contains(&age.as_secs()), "{age}");
    for reason in ["AuthorityMade", "AuthorityPublished", "CertificateMade"] {
        let event = ingest.event(reason).await;
        assert_eq!(event.type_.as_deref(), Some("Normal"), "{event:?}");
    }
}

async fn what_is_deleted_is_made_again(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let controller = ingest.controller();
    let first = ingest.made(None).await;

    ingest.delete_secret(LEAF).await;
    let second = ingest.made(Some(&first)).await;
    assert_eq!(value(&second.secret, "ca.crt"), value(&first.secret, "ca.crt"));

    let maps = ingest.namespace.api::<ConfigMap>();
    let uid = maps.get(AUTHORITY).await.unwrap().uid();
    maps.delete(AUTHORITY, &DeleteParams::default()).await.unwrap();
    eventually::object(&maps, AUTHORITY, "it to be back", |map| map.uid() != uid).await;
    let bundle = ingest.bundle("the authority", |_| true).await;
    assert_eq!(bundle.as_bytes(), value(&second.secret, "ca.crt").unwrap());

    // Senders do not know the new authority yet, so that the leaf stays, and the old authority is published.
    ingest.delete_secret(AUTHORITY).await;
    let both = ingest.bundle("two authorities", |bundle| certificates(bundle).len() == 2).await;
    assert!(both.ends_with(&bundle), "the old one comes last");
    let server = serve(&second).await;
    for bundle in [&bundle, &both] {
        assert_eq!(send(server, NAME, bundle).await, Ok(204));
    }
    ingest.secret(AUTHORITY, "it to be back", |secret| value(secret, "retired.crt").is_some()).await;
    let is = ingest.namespace.api::<Secret>().get(LEAF).await.unwrap();
    assert_eq!(is.resource_version(), second.secret.resource_version());

    // All of it at once, while nobody looks: everything anew.
    controller.kill().await;
    ingest.delete_secret(AUTHORITY).await;
    ingest.delete_secret(LEAF).await;
    maps.delete(AUTHORITY, &DeleteParams::default()).await.unwrap();
    let _controller = ingest.controller();
    let third = ingest.made(Some(&second)).await;
    assert_eq!(certificates(&std::fs::read_to_string(&third.bundle).unwrap()).len(), 1);
    openssl_verifies(&third).await;
}

async fn what_is_edited_is_repaired(cluster: Arc<Cluster>) {
    let (ingest, another) = (Ingest::new(&cluster).await, Ingest::new(&cluster).await);
    let _controllers = (ingest.controller(), another.controller());
    let (mut made, anothers) = (ingest.made(None).await, another.made(None).await);
    let text = |secret: &Secret, key: &str| String::from_utf8(value(secret, key).unwrap().to_vec()).unwrap();
    for patch in [
        json!({ "stringData": { "tls.key": text(&anothers.secret, "tls.key") } }),
        json!({ "stringData": { "tls.crt": text(&anothers.secret, "tls.crt") } }),
        json!({ "stringData": { "ca.crt": text(&anothers.secret, "ca.crt") } }),
        json!({ "stringData": { "tls.crt": "", "tls.key": "" } }),
        json!({ "stringData": {
            "tls.crt": text(&anothers.secret, "tls.crt"),
            "tls.key": text(&anothers.secret, "tls.key"),
            "ca.crt": text(&anothers.secret, "ca.crt"),
        } }),
        json!({ "stringData": { "another.key": "x" } }),
    ] {
        let edited = ingest.patch("secret", LEAF, patch).await;
        made = ingest.repaired(&made, &edited).await;
        openssl_verifies(&made).await;
    }

    // Whom senders trust is what the controller says, and nobody else.
    let good = std::fs::read_to_string(&made.bundle).unwrap();
    let anothers = std::fs::read_to_string(&anothers.bundle).unwrap();
    let maps = ingest.namespace.api::<ConfigMap>();
    for edited in [format!("{good}{anothers}"), anothers, String::new()] {
        let version = maps.get(AUTHORITY).await.unwrap().resource_version();
        ingest.patch("configmap", AUTHORITY, json!({ "data": { "ca.crt": edited } })).await;
        let repaired = eventually::object(&maps, AUTHORITY, "it to be repaired", |map| {
            map.resource_version() != version && map.data.as_ref().unwrap()["ca.crt"] == good
        });
        repaired.await;
    }
    // What others note there for themselves stays.
    ingest.namespace.kubectl(["annotate", "configmap", AUTHORITY, "reflect=yes"]).await.succeeded();
    ingest.patch("configmap", AUTHORITY, json!({ "data": { "more": "x" } })).await;
    let is = |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data.len() == 1);
    let map = eventually::object(&maps, AUTHORITY, "its one key", is).await;
    assert_eq!(map.annotations()["reflect"], "yes");
}

async fn a_damaged_authority_is_replaced_and_told(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let controller = ingest.controller();
    let made = ingest.made(None).await;
    ingest.patch("secret", AUTHORITY, json!({ "stringData": { "tls.key": "x" } })).await;
    let event = ingest.event("AuthorityReplaced").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let note = event.note.unwrap();
    assert!(note.contains("the one before cannot be used: tls.key is not valid PEM"), "{note}");
    controller.line_with("AuthorityReplaced").await;
    let bundle = ingest.bundle("two authorities", |bundle| certificates(bundle).len() == 2).await;
    assert_eq!(send(serve(&made).await, NAME, &bundle).await, Ok(204));
    ingest.secret(AUTHORITY, "another key", |secret| value(secret, "tls.key") != Some(b"x")).await;

    // What is added is none of ours.
    ingest.patch("secret", AUTHORITY, json!({ "stringData": { "more": "x" } })).await;
    ingest.secret(AUTHORITY, "its own keys", |secret| value(secret, "more").is_none()).await;
    assert_eq!(ingest.event("AuthorityRepaired").await.type_.as_deref(), Some("Warning"));
    ingest.namespace.assert_no_secret_in("configmaps,events").await;
}

/// A leaf of the authority with a life of its own, as the controller would have written it.
async fn leaf_with_life(ingest: &Ingest, made: &Made, from: Timestamp, till: Timestamp) -> Secret {
    let authority = ingest.secret(AUTHORITY, "it", |_| true).await;
    let signs = String::from_utf8(value(&authority, "tls.key").unwrap().to_vec()).unwrap();
    let signs = PrivateKeyDer::from_pem_slice(signs.as_bytes()).unwrap();
    let signs = rcgen::KeyPair::try_from(&signs).unwrap();
    let der = CertificateDer::from_pem_slice(value(&authority, "tls.crt").unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&der, signs).unwrap();
    let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let at = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_second().try_into().unwrap())
    };
    (params.not_before, params.not_after) = (at(from), at(till));
    let key = rcgen::KeyPair::generate().unwrap();
    secrets::private_key("the key of a leaf with a life of its own", key.serialized_der());
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let pem = |label, der| pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap();
    let mut secret = made.secret.clone();
    let data = secret.data.as_mut().unwrap();
    data.insert("tls.crt".into(), ByteString(pem("CERTIFICATE", certificate.der()).into()));
    data.insert("tls.key".into(), ByteString(pem("PRIVATE KEY", key.serialized_der()).into()));
    (secret.metadata.resource_version, secret.metadata.managed_fields) = (None, None);
    ingest.namespace.api::<Secret>().replace(LEAF, &kube::api::PostParams::default(), &secret).await.unwrap()
}

async fn it_is_renewed_in_time(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let _controller = ingest.controller();
    let mut made = ingest.made(None).await;

    // Two thirds of its life are over in five seconds, and nothing else happens.
    let begun = Timestamp::now();
    let seconds = |seconds| begun + jiff::SignedDuration::from_secs(seconds);
    made.secret = leaf_with_life(&ingest, &made, seconds(-5), seconds(10)).await;
    let renewed = ingest.made(Some(&made)).await;
    let after = Timestamp::now().duration_since(begun).as_millis();
    // The API server's times are whole seconds.
    assert!((3_900..9_000).contains(&after), "after {after} ms");
    openssl_verifies(&renewed).await;
    assert!(renewed.facts.not_after > begun + jiff::SignedDuration::from_hours(89 * 24));

    // One that has expired, or is valid only later, is made again at once.
    made = renewed;
    for (from, till) in [(-7200, -3600), (3600, 7200)] {
        made.secret = leaf_with_life(&ingest, &made, seconds(from), seconds(till)).await;
        made = ingest.made(Some(&made)).await;
        openssl_verifies(&made).await;
    }
}

async fn other_names_need_another_leaf(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let controller = ingest.controller_for(&["old.example"]);
    let old = ingest.made(None).await;
    controller.terminate().await;
    let _controller = ingest.controller();
    let new = ingest.made(Some(&old)).await;
    assert_eq!(value(&new.secret, "ca.crt"), value(&old.secret, "ca.crt"));
    openssl_verifies(&new).await;
}

async fn what_is_somebody_elses_is_left_alone(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let manifest = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": LEAF, "annotations": { "cert-manager.io/certificate-name": "ingest" } },
        "stringData": { "tls.crt": "theirs", "tls.key": "theirs too" },
    });
    ingest.namespace.apply(&manifest.to_string()).await.succeeded();
    let theirs = ingest.secret(LEAF, "theirs", |_| true).await;
    let controller = ingest.controller();
    let line = controller.line_with("is not Postrider's").await;
    assert!(line.contains(r#"Secret \"postrider-ingest-tls\""#) && line.contains("WARN"), "{line}");
    // There is no event for what does not happen.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let secrets = ingest.namespace.api::<Secret>();
    assert_eq!(secrets.get(LEAF).await.unwrap().resource_version(), theirs.resource_version());
    assert!(secrets.get_opt(AUTHORITY).await.unwrap().is_none(), "nobody would trust what it signs");

    ingest.delete_secret(LEAF).await;
    let made = ingest.made(None).await;
    openssl_verifies(&made).await;

    // A ConfigMap that is taken over stays as well, and the leaf is taken care of.
    let label = ["label", "configmap", AUTHORITY, "app.kubernetes.io/managed-by=somebody", "--overwrite"];
    ingest.namespace.kubectl(label).await.succeeded();
    controller.line_with(r#"ConfigMap \"postrider-ingest-ca\" is not Postrider's"#).await;
    ingest.patch("configmap", AUTHORITY, json!({ "data": { "more": "x" } })).await;
    ingest.delete_secret(LEAF).await;
    ingest.made(Some(&made)).await;
    let map = ingest.namespace.api::<ConfigMap>().get(AUTHORITY).await.unwrap();
    assert_eq!(map.data.unwrap()["more"], "x");
}

async fn two_controllers_make_one_authority(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    let _controllers = [(); 3].map(|()| ingest.controller());
    let first = ingest.made(None).await;
    openssl_verifies(&first).await;
    // Of all that were made, the one that is kept has signed, and the loser has not signed after.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let versions = ingest.versions().await;
    let is = ingest.made(None).await;
    assert_eq!(value(&is.secret, "ca.crt"), value(&first.secret, "ca.crt"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ingest.versions().await, versions);
}

async fn nothing_is_asked_for_at_rest(cluster: Arc<Cluster>) {
    let ingest = Ingest::new(&cluster).await;
    // With a right to webhooks as well, or it would go on asking for it.
    let (namespace, account) = (ingest.namespace.name(), format!("{}:controller", ingest.namespace.name()));
    let role = "--clusterrole=postrider-controller";
    let account = format!("--serviceaccount={account}");
    chart::kubeconfig(&cluster, "controller", &json!({})).await;
    cluster.kubectl(["create", "clusterrolebinding", namespace, role, &account]).await.succeeded();
    let controller = Program::postrider("controller")
        .args(["--namespace", namespace, "--serving-certificate", "--serving-name", NAME])
        .env("KUBECONFIG", &ingest.kubeconfig)
        .env("POD_NAMESPACE", namespace)
        .env("POSTRIDER_LOG", "debug,hyper_util=info,tower=info")
        .start();
    let made = ingest.made(None).await;
    ingest.event("CertificateMade").await;
    let requests = || controller.lines().iter().filter(|line| line.contains("requesting")).count();
    // Until the watch has told it of its own last write.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = requests();
    assert!(before > 5, "{before} requests: they are not logged any more");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(requests(), before);
    cluster.kubectl(["delete", "clusterrolebinding", namespace]).await.succeeded();
    openssl_verifies(&made).await;
}
