//! One webhook, the server that it goes to, and the certificates that it is given.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    api::ApiServer,
    harness::{
        pki::{Authority, Certificate, Format, Keystore, Request, Validity, new_password},
        scene,
    },
    ledger::Ledger,
    receivers::{Kind, Receiver},
};

/// Who issues client certificates.
pub(crate) struct Authorities {
    /// Servers trust all of them, and sometimes one alone. They take turns, three of them so that neither
    /// Active nor Previous was issued by the one whose turn it is.
    pub(crate) trusted: [Authority; 3],
    /// Nobody trusts it.
    pub(crate) stranger: Authority,
}

impl Authorities {
    pub(crate) async fn new() -> Self {
        Self {
            trusted: [authority("First").await, authority("Second").await, authority("Third").await],
            stranger: authority("Stranger").await,
        }
    }

    pub(crate) fn all(&self) -> [&Authority; 3] {
        self.trusted.each_ref()
    }
}

/// As in most organisations: an issuer below a root.
async fn authority(name: &str) -> Authority {
    Authority::root(&format!("{name} root")).await.intermediate(&format!("{name} issuer")).await
}

/// A webhook and its server.
pub(crate) struct Partner {
    pub(crate) receiver: Receiver,
    pub(crate) ledger: Arc<Ledger>,
    /// From the status that tells of a promotion to the first event with that certificate, at most,
    /// milliseconds.
    pub(crate) longest_takeover_ms: AtomicU64,
    /// One disturbance of a webhook at a time.
    pub(crate) held: Mutex<Held>,
}

/// What the manifest of a webhook names.
pub(crate) struct Held {
    /// The Secrets `<slot>-keystore` and `<slot>-password` behind `mtls.active`.
    pub(crate) slot: String,
    pub(crate) password: String,
    pub(crate) certificate: Certificate,
    /// Which of [`Authorities::trusted`] issued it.
    pub(crate) authority: usize,
    /// Counts the certificates of this webhook.
    issued: u32,
}

impl Held {
    pub(crate) fn fingerprint(&self) -> &str {
        &self.certificate.facts.fingerprint_sha256
    }

    /// Whose turn it is to issue the next one.
    pub(crate) fn next_authority(&self) -> usize {
        (self.authority + 1) % 3
    }

    pub(crate) fn lives_for(&self) -> SignedDuration {
        self.certificate.facts.not_after.duration_since(Timestamp::now())
    }
}

impl Partner {
    /// Starts the server and applies a webhook with a first certificate.
    pub(crate) async fn start(
        kind: Kind,
        authorities: &Authorities,
        api: &ApiServer,
        life: Validity,
    ) -> Result<Self, String> {
        let ledger = Arc::new(Ledger::new());
        let receiver = Receiver::start(kind, Arc::clone(&ledger), &authorities.all()).await;
        let subject = Request::client(&format!("/O=Example/CN={}-0", kind.name())).validity(life);
        let held = Held {
            slot: format!("{}-0", kind.name()),
            password: new_password(),
            certificate: authorities.trusted[0].issue(&subject).await,
            authority: 0,
            issued: 1,
        };
        ledger.asks_for(held.fingerprint(), held.certificate.facts.not_after);
        let partner =
            Self { receiver, ledger, longest_takeover_ms: AtomicU64::new(0), held: Mutex::new(held) };
        let held = partner.held.lock().await;
        let keystore = partner.keystore(&held.certificate, &held.password).await;
        api.password(&held.slot, &held.password).await?;
        api.keystore(&held.slot, &keystore).await?;
        api.webhook(partner.name(), &partner.spec(&held.slot, None)).await?;
        drop(held);
        Ok(partner)
    }

    /// Of the webhook and of the server.
    pub(crate) fn name(&self) -> &'static str {
        self.receiver.kind().name()
    }

    pub(crate) fn format(&self) -> Format {
        if self.receiver.kind() == Kind::Java { Format::Jks } else { Format::Pkcs12 }
    }

    /// A new certificate, and the name for Secrets that are to hold it.
    pub(crate) async fn issue(
        &self,
        held: &mut Held,
        authority: &Authority,
        life: Validity,
    ) -> (Certificate, String) {
        let slot = format!("{}-{}", self.name(), held.issued);
        held.issued += 1;
        let request = Request::client(&format!("/O=Example/CN={slot}")).validity(life);
        let certificate = authority.issue(&request).await;
        self.ledger.asks_for(&certificate.facts.fingerprint_sha256, certificate.facts.not_after);
        (certificate, slot)
    }

    /// Encodes a certificate and its key; each time the bytes are others.
    pub(crate) async fn keystore(&self, certificate: &Certificate, password: &str) -> Keystore {
        match self.format() {
            Format::Pkcs12 => certificate.pkcs12_with(password, &[]).await,
            Format::Jks => certificate.jks_with(password, password).await,
        }
    }

    /// The webhook's spec with the Secrets of `slot` as Active and those of `new` as New, with its promotion.
    pub(crate) fn spec(&self, slot: &str, new: Option<(&str, &str)>) -> Value {
        let mut spec = json!({
            "endpoint": {
                "url": self.receiver.url(),
                "timeoutSeconds": 5,
                "trust": { "caBundleRef": { "name": "partner-ca" } },
            },
            "mtls": { "active": scene::active(slot, self.format().name()) },
            "delivery": { "retry": { "initialSeconds": 1, "maxSeconds": 2 } },
        });
        if self.receiver.kind() == Kind::Nginx {
            // nginx refuses a certificate with an answer, and not in the handshake.
            spec["endpoint"]["test"] = json!({ "request": "Head" });
        }
        if let Some((new, promotion)) = new {
            spec["mtls"]["new"] = scene::active(new, self.format().name());
            spec["mtls"]["rotation"] = json!({ "promotion": promotion });
        }
        spec
    }

    /// Waits until the certificate serves: the status says that it is Active, and an event came with it.
    pub(crate) async fn serves(&self, api: &ApiServer, fingerprint: &str) -> Result<(), String> {
        let what = format!("{fingerprint} to be active");
        api.until(self.name(), &what, |webhook| webhook.holds("active") == Some(fingerprint)).await?;
        let promoted = Instant::now();
        self.accepted_with(fingerprint).await?;
        let took = u64::try_from(promoted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.longest_takeover_ms.fetch_max(took, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until an event came with it.
    pub(crate) async fn accepted_with(&self, fingerprint: &str) -> Result<(), String> {
        const BOUND: Duration = Duration::from_secs(30);
        let accepted = tokio::time::timeout(BOUND, self.ledger.accepted_with(fingerprint)).await;
        accepted.map_err(|_| format!("{}: no event came with {fingerprint} within {BOUND:?}", self.name()))
    }
}
