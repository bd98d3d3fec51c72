//! Refusals of client certificates, as Events.

use std::collections::HashMap;

use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::events::{Event, EventType},
};
use tokio::sync::mpsc;

use super::events::{publish, recorder};
use crate::{
    api::v1alpha1::{EventReason, OutboundWebhook},
    deliver::Refused,
    event::WebhookKey,
    kubernetes::note_of,
    limits,
};

/// Tells them, each webhook's and certificate's once in a while.
pub(in crate::dispatcher) async fn refusals(client: Client, mut refused: mpsc::Receiver<Refused>) {
    let recorder = recorder(&client);
    let mut told: HashMap<(WebhookKey, String, Option<String>), Timestamp> = HashMap::new();
    while let Some(refused) = refused.recv().await {
        let since = refused.at.checked_sub(limits::REFUSAL_TOLD).unwrap_or(refused.at);
        told.retain(|_, at| *at > since);
        let what = (
            refused.webhook.clone(),
            refused.fingerprint_sha256.clone(),
            refused.taken_fingerprint_sha256.clone(),
        );
        if told.contains_key(&what) {
            continue;
        }
        told.insert(what, refused.at);
        let webhook = &refused.webhook;
        tracing::warn!(
            %webhook,
            refused = refused.fingerprint_sha256,
            taken = refused.taken_fingerprint_sha256,
            error = refused.message,
            "the endpoint refused a client certificate"
        );
        let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), &webhook.namespace);
        match webhooks.get_opt(&webhook.name).await {
            Ok(Some(there)) => publish(&recorder, &of_refusal(&refused), &there).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%webhook, %error, "a refusal could not be told"),
        }
    }
}

fn of_refusal(refused: &Refused) -> Event {
    let short = |fingerprint: &str| format!("{}…", fingerprint.get(..12).unwrap_or(fingerprint));
    let instead = match &refused.taken_fingerprint_sha256 {
        Some(taken) => format!("{} was taken instead", short(taken)),
        None => "no other loaded certificate was taken; the event is sent again".to_owned(),
    };
    let note = format!("{} was refused: {}; {instead}", short(&refused.fingerprint_sha256), refused.message);
    Event {
        type_: EventType::Warning,
        reason: EventReason::ClientCertificateRefused.as_str().to_owned(),
        note: Some(note_of(&note)),
        // Not one series for all certificates: the first note would stand for all.
        action: format!("Deliver {:.12}", refused.fingerprint_sha256),
        secondary: None,
    }
}
