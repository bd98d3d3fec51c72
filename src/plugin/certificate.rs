//! `certificate`: the public certificates of a webhook, as the controller has published them.

use clap::{Args, ValueEnum};
use data_encoding::BASE64;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use super::{cluster::Connection, failure::Failure, output::Output, paint::Text};
use crate::{
    api::v1alpha1::{BUNDLE, OutboundWebhook},
    identity::{Facts, Slot, chain_to_pem},
    kubernetes::is_controlled_by,
    limits,
};

#[derive(Args)]
pub(super) struct Certificate {
    /// The webhook
    name: String,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    part: Part,
    /// Of which certificate
    #[arg(long, value_enum, default_value_t)]
    slot: Of,
    /// Print DER, which holds one certificate: a leaf
    #[arg(long)]
    der: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The client certificate alone
    #[default]
    Leaf,
    /// It and the authorities above it
    Chain,
    /// All that is loaded, each once: for a receiver that takes a single file
    Bundle,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Of {
    /// The one in use
    #[default]
    Active,
    /// The one that is to replace it
    New,
    /// The one that was replaced
    Previous,
}

impl From<Of> for Slot {
    fn from(of: Of) -> Self {
        match of {
            Of::Active => Self::Active,
            Of::New => Self::New,
            Of::Previous => Self::Previous,
        }
    }
}

impl Certificate {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        if self.der && (self.part != Part::Leaf || output.is_for_programs()) {
            let message = "DER holds one certificate and nothing else: --der goes with --part leaf, and without --output";
            return Err(Failure::usage(message));
        }
        let webhook = connection.webhook(&self.name).await?;
        let mut chain = self.published(connection, &webhook).await?;
        if self.part == Part::Leaf {
            chain.truncate(1);
        }
        if self.der {
            let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
            return std::io::Write::write_all(&mut std::io::stdout(), leaf)
                .map_err(|error| Failure::tried(format!("cannot write: {error}")));
        }
        let facts = chain.iter().map(|one| {
            let facts = Facts::of(std::slice::from_ref(one), None).ok();
            let facts = facts.map(|facts| crate::inspect::facts_json(&facts));
            json!({ "facts": facts, "derBase64": BASE64.encode(one) })
        });
        let facts: Vec<_> = facts.collect();
        output.print(&facts, [self.name.as_str()], || Text::lines(&chain_to_pem(&chain)))
    }

    /// Never from a ConfigMap that has the name by accident, or by somebody's intent.
    async fn published(
        &self,
        connection: &Connection,
        webhook: &OutboundWebhook,
    ) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let status = webhook.status.as_ref().and_then(|status| status.mtls.as_ref());
        let Some(reference) = status.and_then(|mtls| mtls.client_certificate_ref.as_ref()) else {
            let message =
                format!("{} has no certificate that could be used: kubectl postrider status", self.name);
            return Err(Failure::not_found(message));
        };
        let map = connection.api::<ConfigMap>().get(&reference.name).await?;
        if !is_controlled_by(&map, webhook.metadata.uid.as_ref()) {
            let message = format!("ConfigMap {:?} is not the webhook's own", reference.name);
            return Err(Failure::tried(message));
        }
        let slot = Slot::from(self.slot);
        let key = if self.part == Part::Bundle { BUNDLE } else { slot.certificate_key() };
        let Some(pem) = map.data.as_ref().and_then(|data| data.get(key)) else {
            return Err(Failure::not_found(format!("{} has no {} certificate", self.name, slot.as_str())));
        };
        let chain =
            CertificateDer::pem_slice_iter(pem.as_bytes()).take(limits::CHAIN_LENGTH * Slot::ALL.len());
        chain.collect::<Result<Vec<_>, _>>().map_err(|_| {
            Failure::tried(format!(
                "{key} of ConfigMap {:?} is no PEM: somebody has changed it",
                reference.name
            ))
        })
    }
}
