//! The chart: what the API server and the programs say of its manifests.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use crate::harness::{
    chart::{RELEASE, root, template},
    cluster::{Cluster, Namespace},
    eventually,
    tool::{Output, Tool},
};

tests![
    the_api_server_takes_every_manifest,
    the_programs_know_every_argument,
    people_have_the_roles_of_their_namespace,
];

/// The chart's values for tests.
fn values_files() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("charts/postrider/ci")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 1);
    files
}

/// With each of the chart's values for tests, in a namespace where only Pods may be that are `restricted`.
async fn the_api_server_takes_every_manifest(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace_with_labels(&[("pod-security.kubernetes.io/warn", "restricted")]).await;
    for file in values_files() {
        let rendered = template("dry-run", namespace.name(), &[]).arg("--values", &file).succeed().await;
        // The namespace that these values name, and kinds that others define.
        let rendered = rendered.replace("namespace: shop", &format!("namespace: {}", namespace.name()));
        let ours = |manifest: &&str| {
            !["ServiceMonitor", "Certificate"]
                .map(|kind| manifest.contains(&format!("\nkind: {kind}\n")))
                .contains(&true)
        };
        let manifests: Vec<_> = rendered.split("\n---\n").filter(ours).collect();
        let output = dry_run(&cluster, &manifests.join("\n---\n")).await;
        assert!(!output.stderr.contains("Warning"), "{}: {}", file.display(), output.stderr);
        output.succeeded();
    }
    // What this can tell: a field that is not known, and a Pod that may do too much.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "x", "namespace": namespace.name() },
        "spec": { "ports": [{ "port": 1 }], "publishNotReady": true },
    });
    assert!(dry_run(&cluster, &service.to_string()).await.stderr.contains("publishNotReady"));
    let loose =
        template("dry-run", namespace.name(), &["statefulset.yaml"]).arg("--set", "securityContext=null");
    let output = dry_run(&cluster, &loose.succeed().await).await;
    assert!(output.stderr.contains("would violate PodSecurity"), "{}", output.stderr);
}

/// Who is asked for help has read every argument before it.
async fn the_programs_know_every_argument(_: Arc<Cluster>) {
    for file in values_files() {
        let rendered =
            template(RELEASE, RELEASE, &["statefulset.yaml"]).arg("--values", &file).succeed().await;
        let pod: Value = serde_saphyr::from_str(&rendered).unwrap();
        for container in pod["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            let arguments = container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
            let program = Tool::new(env!("CARGO_BIN_EXE_postrider")).args(arguments);
            program.args(["--pod-namespace=x", "--help"]).succeed().await;
        }
    }
    let typo = Tool::new(env!("CARGO_BIN_EXE_postrider")).args(["controller", "--serving-nam=x", "--help"]);
    assert!(!typo.run().await.status.success());
}

async fn dry_run(cluster: &Cluster, manifests: &str) -> Output {
    let arguments =
        ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
    cluster.kubectl_with(arguments, manifests).await
}

async fn people_have_the_roles_of_their_namespace(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let roles = template(RELEASE, RELEASE, &["rbac-users.yaml"]).succeed().await;
    cluster.apply(&roles).await.succeeded();
    for role in ["admin", "view"] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={role}-of-shop"));
        namespace
            .kubectl(["create", "rolebinding", &user["--user=".len()..], &role, &user])
            .await
            .succeeded();
    }
    // The controller that puts roles together takes a moment.
    eventually::polled("an administrator of the namespace to let somebody send", || async {
        let grant = ["create", "rolebinding", "orders-sender", "--clusterrole=postrider-sender"];
        let to = format!("--serviceaccount={}:orders", namespace.name());
        let granted = namespace.kubectl(grant.into_iter().chain([to.as_str(), "--as=admin-of-shop"])).await;
        if granted.status.success() { Ok(()) } else { Err(granted.stderr) }
    })
    .await;
    let sender = format!("system:serviceaccount:{}:orders", namespace.name());
    assert!(can(&namespace, &sender, "create", "outboundwebhooks", "events").await);
    assert!(!can(&namespace, &sender, "get", "outboundwebhooks", "").await);
    assert!(can(&namespace, "admin-of-shop", "delete", "outboundwebhooks", "").await);
    assert!(can(&namespace, "admin-of-shop", "get", "outboundwebhooks", "deadletters").await);
    assert!(can(&namespace, "view-of-shop", "watch", "outboundwebhooks", "").await);
    assert!(!can(&namespace, "view-of-shop", "get", "outboundwebhooks", "deadletters").await);
    assert!(!can(&namespace, "view-of-shop", "create", "outboundwebhooks", "events").await);
}

async fn can(namespace: &Namespace, who: &str, verb: &str, resource: &str, subresource: &str) -> bool {
    let (who, subresource) = (format!("--as={who}"), format!("--subresource={subresource}"));
    let resource = format!("{resource}.postrider.dev");
    let output = namespace.kubectl(["auth", "can-i", verb, &resource, &subresource, &who]).await;
    output.stdout.trim() == "yes"
}
