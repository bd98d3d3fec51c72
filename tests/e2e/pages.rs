//! The pages in `docs`, and the README: links lead somewhere, manifests are taken, commands work.
//!
//! A block that is marked `sh` is run, those of a page one after the other in one shell, as a person would who follows
//! the page; what is marked `console` is only shown.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use serde_json::json;

use crate::harness::{
    self,
    cluster::Cluster,
    pki::{self, Certificate},
    receiver::Receiver,
    scene::{Scene, active},
};

tests![each_link_leads_somewhere, each_manifest_is_taken, the_commands_work];

/// Pages whose commands make all that they need, but certificates.
const FROM_NOTHING: [&str; 1] = ["docs/keystores.md"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for people: path below the repository, and text.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "charts/postrider/README.md".to_owned()];
    for entry in fs::read_dir(repository().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(repository().join(&path)).unwrap()))
        .collect()
}

/// The blocks of a page that are marked so, in order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(marked), None) => open = Some((marked.trim(), String::new())),
            (Some(_), Some((marked, text))) => blocks.extend((marked == language).then_some(text)),
            (None, block) => open = block.map(|(marked, text)| (marked, text + line + "\n")),
        }
    }
    blocks
}

/// A page without its blocks and its code.
fn prose(page: &str) -> String {
    let mut inside = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    let text: Vec<_> = lines.collect();
    // Every second part stands between backticks.
    text.join("\n").split('`').step_by(2).collect()
}

/// The anchors of a page as GitHub makes them of its headings, and those that are written out.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        inside ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !inside) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
        anchors
            .extend(line.split("id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    anchors
}

/// What the links and pictures of a page lead to.
fn links(page: &str) -> Vec<String> {
    let text = prose(page);
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets.filter(|target| !target.contains("://")).collect()
}

async fn each_link_leads_somewhere(_: Arc<Cluster>) {
    let mut broken = Vec::new();
    let mut count = 0;
    for (path, text) in pages() {
        for link in links(&text) {
            count += 1;
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => repository().join(&path),
                file => repository().join(&path).with_file_name("").join(file),
            };
            if !target.exists() {
                broken.push(format!("{path}: {link}: there is no {}", target.display()));
            } else if let Some(anchor) = anchor {
                let page = fs::read_to_string(&target).unwrap();
                if !anchors(&page).contains(anchor) {
                    broken.push(format!("{path}: {link}: no heading makes this anchor"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 20, "only {count} links were seen");
}

async fn each_manifest_is_taken(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let of_pages = pages().into_iter().flat_map(|(path, text)| {
        blocks(&text, "yaml").into_iter().map(move |manifest| (path.clone(), manifest))
    });
    let manifests: Vec<_> = of_pages.chain(examples()).filter(|(_, text)| text.contains(WEBHOOK)).collect();
    assert!(manifests.len() >= 6, "only {} manifests were seen", manifests.len());
    for (path, text) in manifests {
        // Where it says a namespace, that is another one here.
        let text: Vec<_> = text.lines().filter(|line| !line.starts_with("  namespace: ")).collect();
        let file = harness::new_directory("manifest").join("manifest.yaml");
        fs::write(&file, text.join("\n")).unwrap();
        let applied = namespace.kubectl(["apply", "--dry-run=server", "-f", file.to_str().unwrap()]).await;
        assert!(applied.status.success(), "{path}: {}\n{}", applied.stderr, text.join("\n"));
    }
}

/// By what a manifest of ours is known; others may need what is not installed here.
const WEBHOOK: &str = "kind: OutboundWebhook\n";

/// Each manifest in `examples`, with the path of its file.
fn examples() -> Vec<(String, String)> {
    let entries = fs::read_dir(repository().join("examples")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let manifests = files.flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap() + "\n";
        let of_file = text.split("\n---\n").map(ToOwned::to_owned).collect::<Vec<_>>();
        of_file.into_iter().map(move |manifest| (path.display().to_string(), manifest))
    });
    manifests.collect()
}

async fn the_commands_work(cluster: Arc<Cluster>) {
    let pages = pages().into_iter().map(|(path, text)| (path, blocks(&text, "sh")));
    let pages: Vec<_> = pages.filter(|(_, commands)| !commands.is_empty()).collect();
    assert!(pages.len() >= 4, "only {} pages with commands were seen", pages.len());
    let followed = pages.iter().map(|(path, commands)| follow(Arc::clone(&cluster), path, commands));
    futures::future::join_all(followed).await;
}

/// Runs the commands of a page in a directory with certificates, and, unless it begins from nothing, in a namespace with a
/// webhook `orders` that delivers.
async fn follow(cluster: Arc<Cluster>, path: &str, commands: &[String]) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    let directory = harness::new_directory("page");
    let shared = pki::shared().await;
    let next = shared.client_authority.issue(&pki::Request::client("/O=Example/CN=orders-next")).await;
    files(&directory, "orders", &shared.client).await;
    files(&directory, "orders-next", &next).await;
    let authority = shared.client_authority.certificate();
    fs::copy(&authority.leaf, directory.join("authority.crt")).unwrap();
    fs::copy(&authority.key, directory.join("authority.key")).unwrap();
    if !FROM_NOTHING.contains(&path) {
        scene.keystore("orders", shared.pkcs12().await).await;
        let mtls = json!({ "mtls": { "active": active("orders", "PKCS12") } });
        scene.webhook("orders", &receiver.url(), mtls).await;
        scene.condition("orders", "Connected", "True", None).await;
    }
    fs::copy(scene.cluster().kubeconfig(), directory.join("kubeconfig")).unwrap();
    let script = format!(
        "cd {}\nexport KUBECONFIG=kubeconfig PATH=\"{}:$PATH\"\nkubectl config set-context --current --namespace {}\nset -x\n{}",
        directory.display(),
        Path::new(env!("CARGO_BIN_EXE_postrider")).parent().unwrap().display(),
        scene.namespace.name(),
        commands.concat(),
    );
    let ran = scene.cluster().typed(&script).await;
    assert!(ran.status.success(), "{path}:\n{}\n{}", ran.stdout, ran.stderr);
}

/// What a person has of a certificate: PEM files, a keystore and its password.
async fn files(directory: &Path, name: &str, certificate: &Certificate) {
    let keystore = certificate.pkcs12().await;
    fs::copy(&certificate.leaf, directory.join(format!("{name}.crt"))).unwrap();
    fs::copy(&certificate.key, directory.join(format!("{name}.key"))).unwrap();
    fs::copy(&certificate.issuers, directory.join("issuers.crt")).unwrap();
    fs::copy(&keystore.path, directory.join(format!("{name}.p12"))).unwrap();
    fs::write(directory.join(format!("{name}.password")), keystore.password).unwrap();
}
