//! The rights that the chart gives are enough, and no more: by the API server's own log of who asked for what.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    events::v1::Event,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    harness::{
        audit::{self, Asked},
        chart::{self, RELEASE},
        cluster::Cluster,
        eventually,
        pki::{self, Authority},
        process::Program,
        receiver::{ClientAuth, Options, Receiver, TO_RECEIVERS},
        scene::{Dispatcher, Scene, active, start_controller_with},
        secrets,
    },
    ingest_server::secure_address,
};

tests![every_right_is_used_and_none_is_missing, one_namespace_is_served_without_a_right_in_the_cluster];

/// That of the release.
const POD_NAMESPACE: &str = "--pod-namespace=postrider";

/// A rule, and where it holds: everywhere, where there is no namespace.
struct Granted {
    rule: PolicyRule,
    namespace: Option<String>,
}

/// What the API server has logged of these programs.
fn log(cluster: &Cluster) -> Vec<Asked> {
    let all = audit::Log::of(cluster).news().into_iter();
    all.filter(|asked| asked.account(RELEASE).is_some()).collect()
}

async fn list<K>(api: Api<K>) -> Vec<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + kube::Resource,
{
    api.list(&ListParams::default()).await.unwrap().items
}

/// What a program is granted, by whichever binding.
async fn granted(cluster: &Cluster, program: &str) -> Vec<Granted> {
    let is_subject = |subjects: Option<Vec<Subject>>| {
        let wanted = |subject: &Subject| {
            subject.kind == "ServiceAccount"
                && subject.name == program
                && subject.namespace.as_deref() == Some(RELEASE)
        };
        subjects.is_some_and(|subjects| subjects.iter().any(wanted))
    };
    let client = cluster.client();
    let mut bound: Vec<(RoleRef, Option<String>)> = Vec::new();
    for binding in list(Api::<ClusterRoleBinding>::all(client.clone())).await {
        if is_subject(binding.subjects) {
            bound.push((binding.role_ref, None));
        }
    }
    for RoleBinding { metadata: ObjectMeta { namespace, .. }, role_ref, subjects } in
        list(Api::<RoleBinding>::all(client.clone())).await
    {
        if is_subject(subjects) {
            bound.push((role_ref, namespace));
        }
    }
    let mut all = Vec::new();
    for (role, namespace) in bound {
        let rules = if role.kind == "ClusterRole" {
            Api::<ClusterRole>::all(client.clone()).get(&role.name).await.unwrap().rules
        } else {
            let namespace = namespace.as_deref().unwrap();
            Api::<Role>::namespaced(client.clone(), namespace).get(&role.name).await.unwrap().rules
        };
        let rules = rules.unwrap_or_default().into_iter();
        all.extend(rules.map(|rule| Granted { rule, namespace: namespace.clone() }));
    }
    all
}

/// Each right of the rule that nothing in the log needed: verb, resource and name.
fn unused(Granted { rule, namespace }: &Granted, log: &[&Asked]) -> Vec<String> {
    let each = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let names: Vec<Option<String>> = match rule.resource_names.clone() {
        Some(names) => names.into_iter().map(Some).collect(),
        None => vec![None],
    };
    let mut unused = Vec::new();
    for group in each(&rule.api_groups) {
        for resource in each(&rule.resources) {
            for verb in &rule.verbs {
                for name in &names {
                    let (plain, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
                    let needed = |asked: &&Asked| {
                        asked.object_ref.as_ref().is_some_and(|object| {
                            object.api_group == group
                                && object.resource == plain
                                && object.subresource == subresource
                                && namespace.as_ref().is_none_or(|namespace| object.namespace == *namespace)
                                && name.as_ref().is_none_or(|name| object.name == *name)
                        }) && asked.verbs().any(|asked| asked == verb)
                    };
                    if !log.iter().any(needed) {
                        let group = if group.is_empty() { "core" } else { &group };
                        let name = name.as_deref().unwrap_or_default();
                        unused.push(format!("{verb} {group}/{resource} {name}").trim_end().to_owned());
                    }
                }
            }
        }
    }
    unused
}

/// Fails when something was refused; returns what is granted and was not needed.
async fn balance(cluster: &Cluster) -> BTreeSet<String> {
    let log = log(cluster);
    let refused: Vec<_> = log.iter().filter(|asked| asked.is_refused()).collect();
    assert!(refused.is_empty(), "asked for, and not granted: {refused:#?}");
    let mut all = BTreeSet::new();
    for program in ["controller", "dispatcher"] {
        let of_program: Vec<_> = log.iter().filter(|asked| asked.account(RELEASE) == Some(program)).collect();
        assert!(!of_program.is_empty(), "the {program} is not in the API server's log");
        let granted = granted(cluster, program).await;
        assert!(!granted.is_empty(), "nothing is granted to the {program}");
        let unused = granted.iter().flat_map(|granted| unused(granted, &of_program));
        all.extend(unused.map(|right| format!("{program}: {right}")));
    }
    all
}

/// Waits for an Event that was told more than once, which is another right than to tell it.
async fn told_again(scene: &Scene, reason: &str) {
    let what = format!("a second {reason}");
    eventually::objects(
        &scene.namespace.api::<Event>(),
        &ListParams::default(),
        &what,
        |events: &[Event]| {
            events.iter().any(|event| event.reason.as_deref() == Some(reason) && event.series.is_some())
        },
    )
    .await;
}

async fn test_now(scene: &Scene, value: &str) {
    let annotation = format!("postrider.dev/test={value}");
    scene.namespace.kubectl(["annotate", "--overwrite", "owh", "taken", &annotation]).await.succeeded();
}

async fn mtls_is_removed(scene: &Scene, name: &str) {
    let patch = json!({ "spec": { "mtls": null } }).to_string();
    scene.namespace.kubectl(["patch", "owh", name, "--type=merge", "-p", &patch]).await.succeeded();
    eventually::gone(&scene.namespace.api::<ConfigMap>(), &format!("{name}-client-certificate")).await;
    eventually::gone(&scene.namespace.api::<Secret>(), &format!("{name}-identities")).await;
}

async fn every_right_is_used_and_none_is_missing(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let shared = pki::shared().await;
    let taking = || Options::new(&shared.server, ClientAuth::Required(&shared.client_authority));
    let receiver = taking().start().await;
    let stranger = Authority::root("Somebody Else").await;
    let refusing = Options::new(&shared.server, ClientAuth::Required(&stranger)).start().await;
    let own = ["--leader-election", "--serving-certificate", "--serving-name=localhost", POD_NAMESPACE];
    let _controller = start_controller_with(&cluster, &[&TO_RECEIVERS[..], &own].concat()).await;
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    scene.enable(true).await;
    for name in ["taken", "refused", "bare"] {
        scene.keystore(name, shared.pkcs12().await).await;
    }
    scene.mtls_webhook("taken", &receiver.url(), "PKCS12").await;
    // A refusal is told again after ten seconds: soon after there has to be one.
    let retry = json!({ "retry": { "initialSeconds": 1, "maxSeconds": 1 } });
    let refused = json!({ "mtls": { "active": active("refused", "PKCS12") }, "delivery": retry });
    scene.webhook("refused", &refusing.url(), refused).await;
    scene.ready("taken").await;
    scene.ready("refused").await;

    let secure = ["--secure-listen=127.0.0.1:0", POD_NAMESPACE];
    let dispatcher = scene.dispatcher_with(&[&TO_RECEIVERS[..], &secure].concat()).await;
    dispatcher.post("taken", "x").await;
    receiver.wait_for(1).await;
    sent_with_a_token(&scene, &dispatcher).await;
    dispatcher.post("refused", "x").await;
    told_again(&scene, "ClientCertificateRefused").await;
    // A test that passes is told again once one has failed.
    let address = receiver.address();
    receiver.stop().await;
    test_now(&scene, "away").await;
    scene.condition("taken", "Connected", "False", None).await;
    let receiver = taking().address(address).start().await;
    test_now(&scene, "back").await;
    told_again(&scene, "TestPassed").await;

    // Without any trust of its own either, nothing is left to be kept for it.
    let nothing_else =
        json!({ "endpoint": { "trust": null }, "mtls": { "active": active("bare", "PKCS12") } });
    scene.webhook("bare", &receiver.url(), nothing_else).await;
    scene.ready("bare").await;
    mtls_is_removed(&scene, "bare").await;

    what_is_damaged_is_repaired(&cluster).await;
    let unused = balance(&cluster).await;
    assert!(unused.is_empty(), "granted, and not needed: {unused:#?}");
}

/// Whose token it is, and what they may, is asked; they may not.
async fn sent_with_a_token(scene: &Scene, dispatcher: &Dispatcher) {
    let token = scene.namespace.kubectl(["create", "token", "default", "--audience=postrider"]).await;
    let token = token.succeeded();
    secrets::token("the token of a sender", &token);
    let bundles = Api::<ConfigMap>::namespaced(scene.cluster().client(), RELEASE);
    let bundle = bundles.get("postrider-ingest-ca").await.unwrap().data.unwrap();
    let roots = reqwest::Certificate::from_pem_bundle(bundle["ca.crt"].as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(roots).build().unwrap();
    let port = secure_address(&dispatcher.process).await.port();
    let namespace = scene.namespace.name();
    let url = format!("https://localhost:{port}/v1/namespaces/{namespace}/outboundwebhooks/taken/events");
    let response = client.post(url).bearer_auth(token.trim()).body("x").send().await.unwrap();
    assert_eq!(response.status(), 403);
}

/// What somebody has damaged is made again: the authority, with what senders are told of it, and the leaf.
async fn what_is_damaged_is_repaired(cluster: &Cluster) {
    const AUTHORITY: &str = "postrider-ingest-ca";
    let secrets = Api::<Secret>::namespaced(cluster.client(), RELEASE);
    let bundles = Api::<ConfigMap>::namespaced(cluster.client(), RELEASE);
    let bundle = bundles.get(AUTHORITY).await.unwrap().data;
    for name in [AUTHORITY, "postrider-ingest-tls"] {
        let damaged = json!({ "stringData": { "tls.key": "x" } });
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(damaged)).await.unwrap();
        let is_repaired = |secret: &Secret| secret.data.as_ref().unwrap()["tls.key"].0 != b"x";
        eventually::object(&secrets, name, "a key", is_repaired).await;
    }
    eventually::object(&bundles, AUTHORITY, "another authority", |is| is.data != bundle).await;
}

async fn one_namespace_is_served_without_a_right_in_the_cluster(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let (receiver, scene) = (Receiver::start().await, Scene::without_controller(Arc::clone(&cluster)).await);
    let values = json!({
        "watchNamespaces": [scene.namespace.name()],
        "mtls": { "availability": "Always" },
        "rbac": { "authDelegator": false },
    });
    let kubeconfig = chart::kubeconfig(&cluster, "controller", &values).await;
    let _controller = Program::postrider("controller")
        .args(["--namespace", scene.namespace.name(), "--mtls-availability", "Always"])
        .args(TO_RECEIVERS)
        .env("KUBECONFIG", kubeconfig)
        .start();
    chart::kubeconfig(&cluster, "dispatcher", &values).await; // that is the one which the next line starts it with
    let dispatcher = scene.dispatcher().await;

    scene.keystore("shop", pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook("shop", &receiver.url(), "PKCS12").await;
    scene.ready("shop").await;
    dispatcher.post("shop", "x").await;
    receiver.wait_for(1).await;

    let client = cluster.client();
    for binding in list(Api::<ClusterRoleBinding>::all(client)).await {
        let ours = |subject: &Subject| subject.namespace.as_deref() == Some(RELEASE);
        assert!(!binding.subjects.iter().flatten().any(ours), "{binding:?}");
    }
    // Not all that may happen has happened here, but nothing was refused.
    balance(&cluster).await;
}
