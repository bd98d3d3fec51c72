//! `doctor`: what keeps the webhooks of a namespace from working, each finding with its fix.
//!
//! It looks with the person's own rights: what they may not see is said to be unknown, and is no finding.

use std::time::Duration;

use clap::Args;
use http::{HeaderValue, Request};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        authorization::v1::ResourceAttributes,
        coordination::v1::Lease,
        core::v1::{Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, CustomResourceExt, ResourceExt, api::ListParams, client::Body};
use serde::Serialize;
use serde_json::json;

use super::{
    advice::{enables, is_observed, not_connected},
    cluster::Connection,
    dispatcher::{self, Right, who_am_i},
    failure::Failure,
    installation::{Installed, SELECTOR, installed},
    output::{self, Output, count},
    paint::{State, Text, bad, bold, good},
    typed::kubectl,
};
use crate::{
    api::v1alpha1::{
        ConditionType, ENABLED, MTLS_LABEL, OutboundWebhook, Reason, custom_resource_definition,
    },
    clock::rough,
    controller::LEASE,
    limits,
};

/// From a checkout.
const INSTALL: &str = "helm install postrider charts/postrider --namespace postrider --create-namespace --wait \
                       --set image.repository=REPOSITORY";

#[derive(Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    dispatcher: dispatcher::Options,
}

/// What was looked at, and how it is.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    seen: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

fn finding(what: &'static str, state: State, seen: impl Into<String>) -> Finding {
    Finding { what, state, seen: seen.into(), fix: None }
}

impl Finding {
    fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// What could not be seen: a right that is missing is no finding, all else is.
fn unseen(what: &'static str, failure: &Failure) -> Finding {
    match failure {
        Failure::Forbidden(message) => {
            finding(what, State::Unknown, format!("you may not look: {}", message.as_str()))
        }
        Failure::Tried(message) | Failure::NotFound(message) | Failure::Usage(message) => {
            finding(what, State::Bad, message.as_str())
        }
        failure => finding(what, State::Bad, format!("{failure:?}")),
    }
}

impl Doctor {
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Connection, Failure>,
        output: Output,
    ) -> Result<(), Failure> {
        let connection = connect().await?;
        let mut findings = vec![api_server(&connection).await];
        if findings.iter().all(|finding| finding.state != State::Bad) {
            let installed_in = &self.dispatcher.installed_in;
            findings.push(clock(&connection).await);
            let definition = definition(&connection).await;
            let defined = definition.state != State::Bad;
            findings.push(definition);
            let pods: Api<Pod> = Api::namespaced(connection.client.clone(), installed_in);
            let pods = installed(&pods, &[]).await;
            let selector = pods.as_ref().map_or(SELECTOR, |pods| pods.selector);
            findings.push(installation(&connection, installed_in, pods).await);
            findings.push(leader(&connection, installed_in, selector).await);
            findings.push(rights(&connection, installed_in).await);
            if defined {
                findings.extend(webhooks(&connection).await);
            }
            findings.push(self.reachable(&connection, selector).await);
        }
        output.print(&json!({ "namespace": connection.namespace, "findings": findings }), [], || {
            findings.iter().map(text).collect::<Text>() + summary(&findings)
        })?;
        if findings.iter().any(|finding| finding.state == State::Bad) { Err(Failure::No) } else { Ok(()) }
    }

    /// Whether the dispatcher answers, and asks who one is.
    async fn reachable(&self, connection: &Connection, selector: &str) -> Finding {
        const WHAT: &str = "Dispatcher";
        let mut door = match self.dispatcher.reach(connection).await {
            Ok(door) => door,
            Err(failure) => {
                let installed_in = &self.dispatcher.installed_in;
                let finding = unseen(WHAT, &failure);
                let looks = kubectl(&["-n", installed_in, "get", "pods,services", "-l", selector]);
                return if finding.state == State::Bad { finding.fixed_by(looks) } else { finding };
            }
        };
        match door.status(&format!("namespaces/{}/events", connection.namespace)).await {
            Ok(status) if status.as_u16() == 401 => {
                finding(WHAT, State::Good, format!("answers {}, and asks who you are", self.dispatcher.way()))
            }
            Ok(status) => {
                finding(WHAT, State::Bad, format!("answers {status} to who has not said who they are"))
                    .fixed_by("another program listens there: check --dispatcher")
            }
            Err(failure) => unseen(WHAT, &failure),
        }
    }
}

fn text(finding: &Finding) -> Text {
    let Finding { what, state, seen, fix } = finding;
    let first = state.mark() + format!(" {what:<14} ");
    let indent = " ".repeat(17);
    let lines = fix.iter().flat_map(|fix| fix.lines()).map(|line| (Text::from(&indent) + bold(line)).line());
    output::paragraph(seen, first, &indent) + lines.collect::<Text>()
}

fn summary(findings: &[Finding]) -> Text {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (broken, warnings) = (count(State::Bad), count(State::Warning));
    let summary = match (broken, warnings) {
        (0, 0) => good("All is well."),
        (0, warnings) => format!("Nothing is broken; {warnings} to look at.").into(),
        (broken, _) => bad(format!("{broken} to be mended.")),
    };
    Text::default().line() + summary.line()
}

async fn api_server(connection: &Connection) -> Finding {
    const WHAT: &str = "API server";
    let version = match connection.client.apiserver_version().await {
        Ok(version) => version.git_version,
        Err(error) => {
            let fix = "kubectl version; check KUBECONFIG, --context and the network";
            return unseen(WHAT, &Failure::from(error)).fixed_by(fix);
        }
    };
    match who_am_i(connection).await {
        Ok(user) => {
            finding(WHAT, State::Good, format!("{version} at {}, where you are {user:?}", connection.server))
        }
        Err(failure) => unseen(WHAT, &failure),
    }
}

async fn date(connection: &Connection) -> kube::Result<Option<HeaderValue>> {
    let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
    let response = connection.client.send(request).await?;
    Ok(response.headers().get(http::header::DATE).cloned())
}

/// This machine's clock beside that of the API server, to the second: by it days left and tokens are judged here.
async fn clock(connection: &Connection) -> Finding {
    const WHAT: &str = "Clock";
    let told = match date(connection).await {
        Ok(Some(date)) => date.to_str().ok().and_then(|date| httpdate::parse_http_date(date).ok()),
        Ok(None) => None,
        Err(error) => return unseen(WHAT, &Failure::from(error)),
    };
    let Some(told) = told.and_then(|told| Timestamp::try_from(told).ok()) else {
        return finding(WHAT, State::Unknown, "the API server does not tell the time");
    };
    let skew = Timestamp::now().duration_since(told).unsigned_abs();
    let (equal, far) = limits::PLUGIN_CLOCK_SKEW;
    let differs = format!("differs from the API server's by {} s", skew.as_secs());
    let fix = "let this machine keep its time by NTP: timedatectl set-ntp true";
    if skew < equal {
        finding(WHAT, State::Good, "the API server's and this machine's are the same")
    } else if skew < far {
        finding(WHAT, State::Warning, differs).fixed_by(fix)
    } else {
        finding(WHAT, State::Bad, differs).fixed_by(fix)
    }
}

/// Whether the resource is known, and in the version that this plugin speaks.
async fn definition(connection: &Connection) -> Finding {
    const WHAT: &str = "Definition";
    let name = OutboundWebhook::crd_name();
    let definitions: Api<CustomResourceDefinition> = Api::all(connection.client.clone());
    match definitions.get(name).await {
        Ok(there) => {
            let schema = |definition: &CustomResourceDefinition| {
                let version = definition.spec.versions.iter().find(|version| version.name == "v1alpha1");
                version.and_then(|version| serde_json::to_value(&version.schema).ok())
            };
            let established = there.status.as_ref().is_some_and(|status| {
                let mut conditions = status.conditions.iter().flatten();
                conditions.any(|condition| condition.type_ == "Established" && condition.status == "True")
            });
            if !established {
                finding(WHAT, State::Bad, format!("{name} is there and not established"))
                    .fixed_by(kubectl(&["describe", "crd", name]))
            } else if schema(&there) == schema(&custom_resource_definition()) {
                finding(WHAT, State::Good, format!("{name}, v1alpha1, as in this plugin"))
            } else {
                let version = env!("CARGO_PKG_VERSION");
                finding(
                    WHAT,
                    State::Warning,
                    format!("{name} differs from that of this plugin ({version}): one of the two is older"),
                )
                .fixed_by(
                    "bring chart and plugin to one version: helm upgrade, or kubectl krew upgrade postrider",
                )
            }
        }
        Err(error) => match Failure::from(error) {
            Failure::NotFound(_) => {
                finding(WHAT, State::Bad, format!("{name} is not installed")).fixed_by(INSTALL)
            }
            // Who sees webhooks and no definitions sees enough.
            Failure::Forbidden(_) => {
                let listed = connection.api::<OutboundWebhook>().list(&ListParams::default().limit(1)).await;
                match listed.map_err(Failure::from) {
                    Ok(_) => {
                        finding(WHAT, State::Good, format!("{name} is served; you may not see its version"))
                    }
                    Err(Failure::NotFound(_)) => {
                        finding(WHAT, State::Bad, format!("{name} is not installed")).fixed_by(INSTALL)
                    }
                    Err(failure) => unseen(WHAT, &failure),
                }
            }
            failure => unseen(WHAT, &failure),
        },
    }
}

async fn installation(
    connection: &Connection,
    installed_in: &str,
    pods: kube::Result<Installed<Pod>>,
) -> Finding {
    const WHAT: &str = "Installation";
    let found = match pods {
        Ok(pods) => pods.objects,
        Err(error) => return unseen(WHAT, &error.into()),
    };
    if found.is_empty() {
        return absent(connection, installed_in).await;
    }
    for pod in &found {
        let name = pod.name_any();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let waiting: Vec<_> = statuses
            .into_iter()
            .flatten()
            .filter(|status| !status.ready)
            .map(|status| status.name.clone())
            .collect();
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if phase != "Running" || !waiting.is_empty() {
            let seen = format!("Pod {name} is {phase}; not ready: {}", waiting.join(", "));
            return finding(WHAT, State::Bad, seen).fixed_by(kubectl(&[
                "-n",
                installed_in,
                "describe",
                "pod",
                &name,
            ]));
        }
    }
    finding(WHAT, State::Good, format!("{} in namespace {installed_in} runs", found[0].name_any()))
}

/// Why there is no Pod: it has none, it is somewhere else, or nowhere.
async fn absent(connection: &Connection, installed_in: &str) -> Finding {
    let bad = |seen: String| finding("Installation", State::Bad, seen);
    let sets: Api<StatefulSet> = Api::namespaced(connection.client.clone(), installed_in);
    if let Some(set) = installed(&sets, &[]).await.ok().and_then(|sets| sets.objects.into_iter().next()) {
        let name = set.name_any();
        let seen = format!("StatefulSet {name} in namespace {installed_in} has no Pod");
        return bad(seen).fixed_by(if set.spec.replicas == Some(0) {
            kubectl(&["-n", installed_in, "scale", "statefulset", &name, "--replicas", "1"])
        } else {
            kubectl(&["-n", installed_in, "describe", "statefulset", &name])
        });
    }
    let pods: Api<Pod> = Api::all(connection.client.clone());
    let elsewhere = installed(&pods, &[]).await.ok().and_then(|pods| pods.objects.first()?.namespace());
    let seen = format!("no Pod of Postrider in namespace {installed_in}");
    match elsewhere {
        Some(elsewhere) => bad(format!("{seen}; there is one in {elsewhere}"))
            .fixed_by(connection.command(&["doctor", "--installed-in", &elsewhere])),
        None => bad(seen).fixed_by(INSTALL),
    }
}

/// Whether a controller works.
async fn leader(connection: &Connection, installed_in: &str, selector: &str) -> Finding {
    const WHAT: &str = "Controller";
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), installed_in);
    let lease = match leases.get_opt(LEASE).await {
        Ok(lease) => lease,
        Err(error) => return unseen(WHAT, &error.into()),
    };
    let logs = kubectl(&["-n", installed_in, "logs", "-l", selector, "-c", "controller", "--tail", "20"]);
    let spec = lease.and_then(|lease| lease.spec);
    let Some(spec) =
        spec.filter(|spec| spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty()))
    else {
        // One that runs by hand has none.
        return finding(
            WHAT,
            State::Warning,
            format!("nobody holds the Lease {LEASE} in namespace {installed_in}"),
        )
        .fixed_by(logs);
    };
    let holder = spec.holder_identity.unwrap_or_default();
    let silent = spec.renew_time.map(|renewed| Timestamp::now().duration_since(renewed.0));
    let bound = Duration::from_secs(limits::LEASE_SECONDS) + limits::PLUGIN_CLOCK_SKEW.0;
    match silent {
        Some(silent) if !silent.is_negative() && silent.unsigned_abs() > bound => {
            finding(WHAT, State::Bad, format!("{holder} has been silent for {}", rough(silent)))
                .fixed_by(logs)
        }
        Some(silent) if silent.is_negative() && silent.unsigned_abs() > limits::PLUGIN_CLOCK_SKEW.1 => {
            finding(
                WHAT,
                State::Bad,
                format!("the clock of {holder} is {} ahead of this machine's", rough(-silent)),
            )
            .fixed_by("let the node keep its time by NTP")
        }
        _ => finding(WHAT, State::Good, format!("{holder} leads")),
    }
}

/// What each command takes; what is missing is missing for these.
async fn rights(connection: &Connection, installed_in: &str) -> Finding {
    const WHAT: &str = "Your rights";
    let namespace = connection.namespace.as_str();
    let webhook = |verb, subresource| Right { verb, subresource }.on(namespace, None);
    let core = |namespace: &str, verb: &str, resource: &str, subresource: Option<&str>| ResourceAttributes {
        group: Some(String::new()),
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: subresource.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let needed = [
        ("status, list, pending", webhook("list", "")),
        ("to follow what happens", webhook("watch", "")),
        ("test, promote, pause, resume, rotate", webhook("patch", "")),
        ("rotate", core(namespace, "create", "secrets", None)),
        ("certificate", core(namespace, "get", "configmaps", None)),
        ("send", webhook("create", "events")),
        ("dead", webhook("get", "deadletters")),
        ("send, dead", core(installed_in, "list", "pods", None)),
        ("send, dead", core(installed_in, "list", "services", None)),
        ("send, dead", core(installed_in, "get", "configmaps", None)),
        // A WebSocket takes both.
        ("send, dead", core(installed_in, "get", "pods", Some("portforward"))),
        ("send, dead", core(installed_in, "create", "pods", Some("portforward"))),
        ("send, dead", core(namespace, "create", "serviceaccounts", Some("token"))),
    ];
    let (mut missing, mut here, mut there) = (Vec::new(), false, false);
    for (command, right) in needed {
        let is_here = right.namespace.as_deref() == Some(namespace);
        let words = format!(
            "{} {}{}{} ({command})",
            right.verb.as_deref().unwrap_or_default(),
            right.resource.as_deref().unwrap_or_default(),
            right.subresource.as_ref().map_or_else(String::new, |subresource| format!("/{subresource}")),
            if is_here { String::new() } else { format!(" in {installed_in}") },
        );
        match connection.may(right).await {
            Ok(true) => {}
            Ok(false) => {
                missing.push(words);
                here |= is_here;
                there |= !is_here;
            }
            Err(failure) => return unseen(WHAT, &failure),
        }
    }
    if missing.is_empty() {
        return finding(WHAT, State::Good, format!("enough for every command in namespace {namespace}"));
    }
    let user = who_am_i(connection).await.unwrap_or_default();
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => ["--serviceaccount", account],
        None => ["--user", &user],
    };
    let binding = |namespace: &str, name: &str, role: [&str; 2]| {
        kubectl(&[&["-n", namespace, "create", "rolebinding", name][..], &role, &subject].concat())
    };
    let mut fix = Vec::new();
    if here {
        fix.push(binding(namespace, "postrider-operator", ["--clusterrole", "edit"]));
    }
    if there {
        let role = ["--verb", "get,create", "--resource", "pods/portforward"];
        let name = "postrider-forward";
        fix.push(kubectl(&[&["-n", installed_in, "create", "role", name][..], &role].concat()));
        fix.push(binding(installed_in, name, ["--role", name]));
        fix.push(binding(installed_in, "postrider-operator", ["--clusterrole", "view"]));
    }
    let fix = fix.join("\n");
    finding(WHAT, State::Warning, format!("you may not: {}", missing.join("; "))).fixed_by(fix)
}

/// The gate of the namespace, and its webhooks.
async fn webhooks(connection: &Connection) -> Vec<Finding> {
    let all = match connection.webhooks(false).await {
        Ok(all) => all,
        Err(failure) => return vec![unseen("Webhooks", &failure)],
    };
    vec![
        gate(connection, &all).await,
        seen(connection, &all),
        ready(connection, &all),
        connections(connection, &all),
        certificates(connection, &all),
    ]
}

async fn gate(connection: &Connection, all: &[OutboundWebhook]) -> Finding {
    const WHAT: &str = "mTLS gate";
    let namespace = &connection.namespace;
    let fix = enables(namespace);
    let refused = all.iter().filter_map(|webhook| webhook.condition(ConditionType::Ready));
    let refused = refused.filter(|ready| ready.reason == Reason::MtlsNotEnabled.as_str()).count();
    if refused > 0 {
        let seen = format!(
            "mTLS is off for namespace {namespace}, and is asked for by {}",
            count(refused as u64, "webhook")
        );
        return finding(WHAT, State::Bad, seen).fixed_by(fix);
    }
    let namespaces: Api<Namespace> = Api::all(connection.client.clone());
    match namespaces.get_metadata(namespace).await {
        Ok(there) if there.labels().get(MTLS_LABEL).is_some_and(|value| value == ENABLED) => {
            finding(WHAT, State::Good, format!("mTLS is enabled for namespace {namespace}"))
        }
        // A controller with Always asks nobody.
        Ok(_) if all.iter().any(|webhook| webhook.spec.mtls.is_some()) => {
            finding(WHAT, State::Good, "mTLS needs no label here")
        }
        Ok(_) => finding(WHAT, State::Warning, format!("namespace {namespace} is not labelled for mTLS"))
            .fixed_by(fix),
        Err(error) => unseen(WHAT, &error.into()),
    }
}

fn seen(connection: &Connection, all: &[OutboundWebhook]) -> Finding {
    const WHAT: &str = "Reconciled";
    let unseen: Vec<_> =
        all.iter().filter(|webhook| !is_observed(webhook)).map(ResourceExt::name_any).collect();
    if unseen.is_empty() {
        return finding(WHAT, State::Good, format!("{}, as written now", count(all.len() as u64, "webhook")));
    }
    let seen = format!(
        "no controller has looked at {} as they are now: does one run, and does it serve {}?",
        unseen.join(", "),
        connection.namespace
    );
    let lease = format!("metadata.name={LEASE}");
    finding(WHAT, State::Bad, seen).fixed_by(kubectl(&["get", "leases", "-A", "--field-selector", &lease]))
}

fn ready(connection: &Connection, all: &[OutboundWebhook]) -> Finding {
    const WHAT: &str = "Ready";
    let not_ready: Vec<_> = all
        .iter()
        .filter_map(|webhook| {
            let ready = webhook.condition(ConditionType::Ready).filter(|ready| ready.status != "True")?;
            Some((webhook.name_any(), ready.reason.clone()))
        })
        .collect();
    let Some((first, _)) = not_ready.first() else {
        return finding(WHAT, State::Good, "all webhooks send");
    };
    let deliberate = not_ready.iter().all(|(_, reason)| reason == Reason::Suspended.as_str());
    let state = if deliberate { State::Warning } else { State::Bad };
    let names: Vec<_> = not_ready.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    finding(WHAT, state, format!("nothing is sent for {}", names.join(", ")))
        .fixed_by(connection.command(&["status", first]))
}

/// Those that may send, and get nothing through.
fn connections(connection: &Connection, all: &[OutboundWebhook]) -> Finding {
    const WHAT: &str = "Connections";
    let fails = |webhook: &OutboundWebhook| {
        webhook.condition(ConditionType::Ready).filter(|ready| ready.status == "True")?;
        let delivering = webhook.condition(ConditionType::Delivering);
        let failure = delivering.filter(|it| it.status == "False").or_else(|| not_connected(webhook))?;
        Some((webhook.name_any(), failure.reason.clone()))
    };
    let failing: Vec<_> = all.iter().filter_map(fails).collect();
    let Some((first, _)) = failing.first() else {
        return finding(WHAT, State::Good, "no test and no delivery fails");
    };
    let names: Vec<_> = failing.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    finding(WHAT, State::Bad, format!("nothing gets through for {}", names.join(", ")))
        .fixed_by(connection.command(&["status", first]))
}

fn certificates(connection: &Connection, all: &[OutboundWebhook]) -> Finding {
    const WHAT: &str = "Certificates";
    let expires = |webhook: &&OutboundWebhook| {
        let condition = webhook.condition(ConditionType::CertificateExpiring);
        condition.is_some_and(|condition| condition.status == "True")
    };
    let names: Vec<_> = all.iter().filter(expires).map(ResourceExt::name_any).collect();
    let Some(first) = names.first() else {
        return finding(WHAT, State::Good, "none expires soon without one to replace it");
    };
    finding(
        WHAT,
        State::Warning,
        format!("expires soon, and nothing waits to replace it: {}", names.join(", ")),
    )
    .fixed_by(connection.command(&["status", first]))
}
