//! Watches the Secret with the serving certificate, and publishes what can be served with.
//!
//! What cannot be used changes nothing but what is told: the last good one goes on.

use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use rustls::ServerConfig;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::Clock,
    identity::{Facts, rfc3339},
    ingest::certificate::{self, CERTIFICATE, Certificate, CertificateError, PRIVATE_KEY},
    kubernetes, limits,
    telemetry::health::Finding,
};

/// The type that such a Secret has.
const TYPE: &str = "kubernetes.io/tls";

/// What is served with, and what is wrong with the Secret as it is now.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    facts: Option<Facts>,
    problem: Option<String>,
}

/// What the two of them are told of.
pub(super) struct Published {
    /// For the listener.
    pub(super) tls: watch::Sender<Option<Arc<ServerConfig>>>,
    /// For people.
    pub(super) serving: watch::Sender<Serving>,
}

impl Default for Published {
    fn default() -> Self {
        let serving = Serving { facts: None, problem: Some("the Secret has not been read yet".to_owned()) };
        Self { tls: watch::Sender::new(None), serving: watch::Sender::new(serving) }
    }
}

impl Serving {
    /// Whether senders can be served now.
    pub(super) fn finding(&self, now: Timestamp) -> Finding {
        let till = |facts: &Facts| rfc3339(facts.valid_till);
        match (&self.facts, &self.problem) {
            (None, problem) => Finding::Failed(problem.clone().unwrap_or_default()),
            (Some(facts), problem) if facts.is_expired_at(now) => Finding::Failed(match problem {
                Some(problem) => format!("the certificate expired at {}; {problem}", till(facts)),
                None => format!("the certificate expired at {}", till(facts)),
            }),
            (Some(facts), Some(problem)) => Finding::OkBut(format!(
                "goes on with {}, valid till {}; {problem}",
                facts.identifier,
                till(facts)
            )),
            (Some(_), None) => Finding::Ok,
        }
    }
}

/// Why the Secret cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("is not there")]
    Missing,
    #[error("is of type {0:?}, not {TYPE}")]
    Type(String),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Watches until it is dropped.
pub(super) async fn watch(
    client: Client,
    namespace: String,
    name: String,
    clock: impl Clock,
    published: Published,
) {
    let secret_name = format!("Secret {namespace}/{name}");
    // Of one name alone: a right to that one is enough.
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut changes = watch_object(secrets, &name).backoff(kubernetes::WatchBackoff::default()).boxed();
    let mut look = interval(limits::CERTIFICATE_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut found: Option<Option<Secret>> = None;
    loop {
        tokio::select! {
            Some(change) = changes.next() => match change {
                Ok(secret) => found = Some(secret),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch {secret_name}; the listener goes on with what it has");
                    continue;
                }
            },
            // Time alone makes one valid that was not yet.
            _ = look.tick() => if published.serving.borrow().problem.is_none() { continue },
        }
        let Some(secret) = &found else { continue };
        let usable = read(secret.as_ref(), clock.now());
        publish(&published, &secret_name, usable);
    }
}

fn read(secret: Option<&Secret>, now: Timestamp) -> Result<Certificate, Unusable> {
    let secret = secret.ok_or(Unusable::Missing)?;
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if type_ != TYPE {
        return Err(Unusable::Type(type_.to_owned()));
    }
    let value = |key| secret.data.as_ref()?.get(key).map(|value| value.0.as_slice());
    Ok(certificate::read(value(CERTIFICATE), value(PRIVATE_KEY), now)?)
}

fn publish(published: &Published, secret: &str, usable: Result<Certificate, Unusable>) {
    match usable {
        Ok(Certificate { config, facts }) => {
            let serving = Serving { facts: Some(facts.clone()), problem: None };
            published.tls.send_replace(Some(config));
            let before = published.serving.send_replace(serving);
            let shown = |facts: &Facts| facts.fingerprint_sha256.clone();
            if before.problem.is_some() || before.facts.as_ref().map(shown) != Some(shown(&facts)) {
                tracing::info!(
                    secret,
                    identifier = facts.identifier,
                    serial_number = facts.serial_number,
                    fingerprint = facts.fingerprint_sha256,
                    valid_till = rfc3339(facts.valid_till),
                    "new connections are shown this certificate"
                );
            }
        }
        Err(unusable) => {
            let problem = format!("{secret}: {unusable}");
            let mut told = true;
            published.serving.send_modify(|serving| {
                told = serving.problem.as_ref() == Some(&problem);
                serving.problem = Some(problem.clone());
            });
            let serving = published.tls.borrow().is_some();
            match serving {
                _ if told => {}
                true => tracing::error!(%problem, "the certificate before it goes on being shown"),
                false => tracing::error!(%problem, "nobody is served over TLS before there is a certificate"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::identity::{Identity, chain_to_pem, tests::identity_valid};

    fn secret(type_: &str, identity: &Identity) -> Secret {
        let key = identity.key();
        let key =
            pem_rfc7468::encode_string("PRIVATE KEY", pem_rfc7468::LineEnding::LF, key.secret_pkcs8_der());
        let data = [(CERTIFICATE, chain_to_pem(identity.chain())), (PRIVATE_KEY, key.unwrap())];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
        Secret { type_: Some(type_.to_owned()), data: Some(BTreeMap::from(data)), ..Secret::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_good_one_goes_on_and_what_is_wrong_is_told() {
        let published = Published::default();
        let (one, next) = (identity_valid("CN=one", 1_000, 2_000), identity_valid("CN=next", 1_000, 3_000));
        let then = |secret: Option<&Secret>, now| {
            publish(&published, "Secret postrider/tls", read(secret, at(now)));
            let shown = published.tls.borrow().as_ref().map(Arc::as_ptr);
            (published.serving.borrow().finding(at(now)), shown)
        };
        let missing = "Secret postrider/tls: is not there";
        assert_eq!(then(None, 1_500), (Finding::Failed(missing.to_owned()), None));
        let opaque = secret("Opaque", &one);
        let told = "Secret postrider/tls: is of type \"Opaque\", not kubernetes.io/tls";
        assert_eq!(then(Some(&opaque), 1_500), (Finding::Failed(told.to_owned()), None));
        let (finding, first) = then(Some(&secret(TYPE, &one)), 1_500);
        assert_eq!((finding, first.is_some()), (Finding::Ok, true));

        let mut not_a_pair = secret(TYPE, &next);
        let key = secret(TYPE, &one).data.unwrap().remove(PRIVATE_KEY).unwrap();
        not_a_pair.data.as_mut().unwrap().insert(PRIVATE_KEY.to_owned(), key);
        let (finding, shown) = then(Some(&not_a_pair), 1_500);
        let Finding::OkBut(told) = finding else { panic!("{finding:?}") };
        assert_eq!(
            told,
            "goes on with CN=one, valid till 1970-01-01T00:33:20Z; Secret postrider/tls: tls.key is not the key of \
             the first certificate in tls.crt"
        );
        assert_eq!(shown, first);
        let (finding, shown) = then(None, 2_001);
        let Finding::Failed(told) = finding else { panic!("{finding:?}") };
        assert_eq!(told, format!("the certificate expired at 1970-01-01T00:33:20Z; {missing}"));
        assert_eq!(shown, first);
        let (finding, shown) = then(Some(&secret(TYPE, &next)), 2_001);
        assert_eq!((finding, shown != first), (Finding::Ok, true));
    }
}
