//! What the dispatcher tells of deliveries: a refused certificate, in the status and as an Event. Both are for
//! people; no delivery waits for them.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    api::v1alpha1::{DeliveryStatus, OutboundWebhook, RefusalStatus},
    deliver::Refused,
    event::WebhookKey,
    limits,
};

/// The name under which the dispatcher owns fields.
const FIELD_MANAGER: &str = "postrider-dispatcher";

/// Tells refusals, each webhook's and certificate's once in a while.
pub(super) async fn run(client: Client, mut refused: mpsc::Receiver<Refused>) {
    let instance = std::env::var("HOSTNAME").ok();
    let recorder = Recorder::new(client.clone(), Reporter { controller: FIELD_MANAGER.to_owned(), instance });
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
        if let Err(error) = tell(&client, &recorder, &refused).await {
            tracing::warn!(%webhook, %error, "a refusal could not be told");
        }
    }
}

async fn tell(client: &Client, recorder: &Recorder, refused: &Refused) -> Result<(), kube::Error> {
    let WebhookKey { namespace, name } = &refused.webhook;
    let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), namespace);
    let Some(webhook) = webhooks.get_opt(name).await? else { return Ok(()) };
    let short = |fingerprint: &str| format!("{}…", fingerprint.get(..12).unwrap_or(fingerprint));
    let instead = match &refused.taken_fingerprint_sha256 {
        Some(taken) => format!("{} was taken instead", short(taken)),
        None => "no other loaded certificate was taken; the event is sent again".to_owned(),
    };
    let note = format!("{} was refused: {}; {instead}", short(&refused.fingerprint_sha256), refused.message);
    let event = Event {
        type_: EventType::Warning,
        reason: "ClientCertificateRefused".to_owned(),
        note: Some(note.chars().take(1000).collect()),
        // Not one series for all certificates: the first note would stand for all.
        action: format!("Deliver {:.12}", refused.fingerprint_sha256),
        secondary: None,
    };
    recorder.publish(&event, &webhook.object_ref(&())).await?;
    let delivery = DeliveryStatus {
        client_certificate_refused: Some(RefusalStatus {
            fingerprint_sha256: refused.fingerprint_sha256.clone(),
            taken_fingerprint_sha256: refused.taken_fingerprint_sha256.clone(),
            message: refused.message.clone(),
            time: Time(Timestamp::from_second(refused.at.as_second()).unwrap_or(refused.at)),
        }),
    };
    let patch = json!({
        "apiVersion": OutboundWebhook::api_version(&()),
        "kind": OutboundWebhook::kind(&()),
        "metadata": { "uid": webhook.metadata.uid },
        "status": { "delivery": delivery },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    webhooks.patch_status(name, &parameters, &Patch::Apply(patch)).await.map(drop)
}
