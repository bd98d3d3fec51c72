//! What to do next, by what the status says: its conditions, in the order in which a person would mend things.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde::Serialize;

use super::typed::{kubectl, postrider};
use crate::{
    api::v1alpha1::{
        ConditionType, DeliveryStatus, ENABLED, MTLS_LABEL, OutboundWebhook, Reason, TestStatus,
    },
    keystore, limits,
    probe::Layer,
};

/// One thing to do, or to know.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Advice {
    /// Why.
    pub(super) message: String,
    /// What to type, where there is a command for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
}

/// All of it; nothing where all is well.
pub(super) fn advice(webhook: &OutboundWebhook) -> Vec<Advice> {
    let namespace = webhook.namespace().unwrap_or_default();
    let name = webhook.name_any();
    let line = |words: &[&str]| Some(postrider(&namespace, words));
    let rotate = || line(&["rotate", &name, "--keystore", "FILE", "--password-file", "FILE"]);
    let test = || line(&["test", &name]);
    // Where the receiver refuses the certificate its people need it, and else a test shows at which layer it fails.
    let after = |failed: &TestStatus, slot: &[&str]| {
        let refused = failed.layer.as_deref() == Some(Layer::TlsClient.as_str());
        let certificate = || line(&[&["certificate", &name], slot, &["--part", "chain"]].concat());
        if refused { certificate() } else { test() }
    };
    let mut all = Vec::new();
    let mut add = |message: &str, command| all.push(Advice { message: message.to_owned(), command });

    let ready = webhook.condition(ConditionType::Ready);
    let tests = webhook.status.as_ref().and_then(|status| status.test.as_ref());
    if !is_observed(webhook) {
        add("the controller has not said a word about it as it is now", line(&["doctor"]));
        return all;
    }
    let is = |reason: &str, wanted: Reason| reason == wanted.as_str();
    if let Some(ready) = ready.filter(|ready| ready.status != "True") {
        let expired = [Reason::NoCertificate.as_str(), keystore::Reason::Expired.as_str()];
        let mends = match ready.reason.as_str() {
            reason if is(reason, Reason::Suspended) => line(&["resume", &name]),
            reason if is(reason, Reason::MtlsNotEnabled) => Some(enables(&namespace)),
            reason if expired.contains(&reason) => rotate(),
            _ => None,
        };
        // Some messages end with it.
        let message = mends.as_deref().and_then(|mends| ready.message.strip_suffix(mends));
        add(message.map_or(ready.message.as_str(), str::trim_end), mends);
    }
    if let Some(kept) = ready.filter(|ready| is(&ready.reason, Reason::ActiveKept)) {
        add(&kept.message, None);
    }
    if let Some(expiring) =
        webhook.condition(ConditionType::CertificateExpiring).filter(|it| it.status == "True")
    {
        add(&expiring.message, rotate());
    }
    if let Some(new) = webhook.condition(ConditionType::NewCertificateValid) {
        let failed = tests.and_then(|tests| tests.new.as_ref()).filter(|test| !test.succeeded);
        if new.status != "True" {
            add(&new.message, None);
        } else if is(&new.reason, Reason::WaitsForPromotion) {
            add("the New certificate has passed its test, and waits for you", line(&["promote", &name]));
        } else if let Some(failed) = failed.filter(|_| is(&new.reason, Reason::WaitsForTest)) {
            add(&new.message, after(failed, &["--slot", "new"]));
        } else if is(&new.reason, Reason::Promoted) {
            add("the New certificate is the one in use: move mtls.new to mtls.active in the manifest", None);
        }
    }
    if let Some(connected) = not_connected(webhook) {
        let failed = tests.and_then(|tests| tests.active.as_ref());
        let command = failed.map_or_else(test, |failed| after(failed, &[]));
        add(&format!("{}: {}", connected.reason, connected.message), command);
    }
    let on_hold =
        |reason: &str| is(reason, Reason::OnHold) && ready.is_none_or(|ready| ready.status != "True");
    let delivering = webhook.condition(ConditionType::Delivering);
    if let Some(delivering) = delivering.filter(|it| it.status != "True" && !on_hold(&it.reason)) {
        add(&delivering.message, test());
    }
    if let Some(dead) = webhook.status.as_ref().and_then(|status| status.delivery.as_ref()).map(|it| it.dead)
        && dead > 0
    {
        let message = match dead {
            1 => "1 event was given up, and is kept".to_owned(),
            dead => format!("{dead} events were given up, and are kept"),
        };
        // The account is for the person to fill in, as a FILE is.
        add(&message, line(&["dead", "list", &name, "--service-account", "NAME"]));
    }
    all
}

/// The test of the Active that failed, unless an event was delivered since: the test does not know of that.
pub(super) fn not_connected(webhook: &OutboundWebhook) -> Option<&Condition> {
    let status = webhook.status.as_ref()?;
    let connected = webhook.condition(ConditionType::Connected).filter(|it| it.status != "True")?;
    let test = status.test.as_ref().and_then(|tests| tests.active.as_ref());
    let delivered = test.zip(status.delivery.as_ref()).is_some_and(|(test, delivery)| {
        let taken = delivery.last_success.as_ref().filter(|taken| taken.0 > test.time.0);
        taken.is_some_and(|taken| !is_by_another(test, delivery, taken.0))
    });
    (!delivered).then_some(connected)
}

/// Whether what was delivered then may have gone with another certificate, for the endpoint had refused this one.
fn is_by_another(test: &TestStatus, delivery: &DeliveryStatus, delivered: Timestamp) -> bool {
    delivery.client_certificate_refused.as_ref().is_some_and(|refused| {
        let till = refused.time.0.checked_add(limits::PREFERENCE).unwrap_or(Timestamp::MAX);
        Some(&refused.fingerprint_sha256) == test.fingerprint_sha256.as_ref() && delivered <= till
    })
}

/// What an administrator types for a namespace in which mTLS is off.
pub(super) fn enables(namespace: &str) -> String {
    kubectl(&["label", "namespace", namespace, &format!("{MTLS_LABEL}={ENABLED}")])
}

/// Whether the status speaks of the webhook as it is written now.
pub(super) fn is_observed(webhook: &OutboundWebhook) -> bool {
    let observed = webhook.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed == webhook.metadata.generation
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(conditions: &[(&str, &str, &str)], dead: i64) -> OutboundWebhook {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({ "type": type_, "status": status, "reason": reason, "message": format!("{type_} says {reason}"),
                    "lastTransitionTime": "2026-11-24T00:00:00Z" })
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
            "metadata": { "name": "orders", "namespace": "shop", "generation": 3 },
            "spec": { "endpoint": { "url": "https://partner.example" } },
            "status": { "observedGeneration": 3, "conditions": conditions, "delivery": { "dead": dead } },
        }))
        .unwrap()
    }

    fn commands(webhook: &OutboundWebhook) -> Vec<String> {
        let words = |advice: Advice| advice.command.unwrap_or(advice.message);
        advice(webhook).into_iter().map(words).collect()
    }

    #[test]
    fn nothing_is_to_be_done_where_all_is_well() {
        let well = [
            ("Ready", "True", "Ready"),
            ("Connected", "True", "Succeeded"),
            ("Delivering", "True", "Delivering"),
        ];
        assert!(advice(&webhook(&well, 0)).is_empty());
    }

    #[test]
    fn what_is_wrong_has_its_command() {
        for (condition, command) in [
            (("Ready", "False", "Suspended"), "resume orders"),
            (("Ready", "False", "Expired"), "rotate orders --keystore FILE --password-file FILE"),
            (
                ("CertificateExpiring", "True", "NoReplacement"),
                "rotate orders --keystore FILE --password-file FILE",
            ),
            (("NewCertificateValid", "True", "WaitsForPromotion"), "promote orders"),
            (("Connected", "False", "ClientCertificateRejected"), "test orders"),
            (("Delivering", "False", "EndpointGone"), "test orders"),
        ] {
            assert_eq!(commands(&webhook(&[condition], 0)), [format!("kubectl postrider -n shop {command}")]);
        }
        let label = "kubectl label namespace shop postrider.dev/mtls=enabled";
        assert_eq!(commands(&webhook(&[("Ready", "False", "MTLSNotEnabled")], 0)), [label]);
        let dead = "kubectl postrider -n shop dead list orders --service-account NAME";
        assert_eq!(commands(&webhook(&[], 2)), [dead]);
        assert_eq!(advice(&webhook(&[], 1))[0].message, "1 event was given up, and is kept");
        let told =
            commands(&webhook(&[("Ready", "False", "SecretNotFound"), ("Delivering", "False", "OnHold")], 0));
        assert_eq!(told, ["Ready says SecretNotFound"], "what holds it is told once");
    }

    #[test]
    fn a_name_does_nothing_to_a_shell() {
        for condition in [("Ready", "False", "Suspended"), ("Ready", "False", "MTLSNotEnabled")] {
            let mut webhook = webhook(&[condition], 0);
            webhook.metadata.namespace = Some("a;reboot".to_owned());
            webhook.metadata.name = Some("$(reboot)".to_owned());
            let [command] = &commands(&webhook)[..] else { panic!("one command") };
            assert!(command.contains(" 'a;reboot' "), "{command}");
            assert!(!shlex::split(command).unwrap().iter().any(|word| word == "reboot"), "{command}");
        }
    }

    #[test]
    fn who_is_refused_is_told_how_to_print_the_certificate() {
        let refused = json!({ "succeeded": false, "layer": "TLSClient", "reason": "ClientCertificateRejected",
            "message": "it is refused", "inputs": "x", "time": "2026-11-24T00:00:00Z" });
        let conditions = [
            ("NewCertificateValid", "True", "WaitsForTest"),
            ("Connected", "False", "ClientCertificateRejected"),
        ];
        let mut webhook = webhook(&conditions, 0);
        let tests = json!({ "active": refused, "new": refused });
        webhook.status.as_mut().unwrap().test = Some(serde_json::from_value(tests).unwrap());
        let line = |part: &str| format!("kubectl postrider -n shop certificate orders {part}");
        assert_eq!(commands(&webhook), [line("--slot new --part chain"), line("--part chain")]);
    }

    #[test]
    fn a_delivery_says_more_than_an_earlier_test() {
        let mut webhook = webhook(&[("Connected", "False", "ConnectFailed")], 0);
        let mut tell = |delivery: serde_json::Value| {
            let failed = json!({ "fingerprintSHA256": "a", "succeeded": false, "layer": "Connect", "reason": "ConnectFailed",
                "message": "it is away", "inputs": "x", "time": "2026-11-24T08:00:00Z" });
            let status = json!({ "conditions": webhook.status.as_ref().unwrap().conditions,
                "test": { "active": failed }, "delivery": delivery });
            webhook.status = Some(serde_json::from_value(status).unwrap());
            not_connected(&webhook).is_some()
        };
        assert!(tell(json!({})));
        assert!(tell(json!({ "lastSuccess": "2026-11-24T07:59:59Z" })));
        assert!(!tell(json!({ "lastSuccess": "2026-11-24T08:00:01Z" })));
        let refused = json!({ "fingerprintSHA256": "a", "takenFingerprintSHA256": "b", "message": "refused",
            "time": "2026-11-24T08:01:00Z" });
        assert!(tell(json!({ "lastSuccess": "2026-11-24T08:01:01Z", "clientCertificateRefused": refused })));
        assert!(!tell(json!({ "lastSuccess": "2026-11-24T08:07:00Z", "clientCertificateRefused": refused })));
    }

    #[test]
    fn a_status_of_an_earlier_generation_is_not_believed() {
        let mut webhook = webhook(&[("Ready", "True", "Ready")], 0);
        webhook.metadata.generation = Some(4);
        assert_eq!(commands(&webhook), ["kubectl postrider -n shop doctor"]);
    }
}
