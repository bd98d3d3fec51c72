//! The serving certificate of the dispatcher's secure listener, where the controller is asked to make it: an authority,
//! its certificate in a ConfigMap for senders, and a leaf.
//!
//! The three [`objects`] are watched. Whatever changes, and whenever the time comes, the [`plan`] says what is next; it
//! is written, and the watch tells of it. A write is for the version that was read: who comes too late is told so,
//! and looks again. So two controllers make one authority between them.

mod objects;
mod pki;
mod plan;

use std::{collections::BTreeSet, fmt::Debug, num::NonZeroU32, time::Duration};

use clap::Args;
use futures::{Stream, StreamExt as _, TryFutureExt as _};
use governor::{DefaultDirectRateLimiter, Quota};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::PostParams,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt as _, events::EventType, watcher::watch_object},
};
use rustls::pki_types::DnsName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    FIELD_MANAGER,
    events::{Story, event},
    until,
};
use crate::{
    api::v1alpha1::EventReason,
    backoff::backoff,
    clock::Clock,
    identity::{Facts, PemError},
    kubernetes::{SERVING_AUTHORITY, TlsSecret, WatchBackoff},
    limits,
};
use objects::Owned;
use plan::{Authorities, Fault, Found, Step};

/// Whether the controller makes the serving certificate.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "serving")]
pub struct Options {
    /// Make and renew the serving certificate of the dispatcher's secure listener
    ///
    /// Without it the Secret is somebody else's, cert-manager's for instance.
    #[arg(long, requires_all = ["serving_name", "pod_namespace"])]
    pub serving_certificate: bool,
    /// A name that senders know the listener by, such as postrider.postrider.svc
    #[arg(long, env = "POSTRIDER_SERVING_NAME", value_name = "DNS", value_delimiter = ',', value_parser = name)]
    pub serving_name: Vec<String>,
}

fn name(text: &str) -> Result<String, String> {
    let name = DnsName::try_from(text).map_err(|_| "not a DNS name".to_owned())?;
    Ok(name.as_ref().to_ascii_lowercase())
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] super::Error),
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error("it cannot be written as PEM: {0}")]
    Pem(#[from] PemError),
}

/// Makes and renews it until `stop`, where that is asked for.
pub(super) async fn run(
    client: Client,
    options: Options,
    TlsSecret { tls_secret: secret, pod_namespace }: TlsSecret,
    clock: impl Clock,
    stop: CancellationToken,
) {
    let Some(namespace) = pod_namespace.filter(|_| options.serving_certificate) else { return };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let mut authorities = watch(secrets.clone(), SERVING_AUTHORITY).boxed();
    let mut bundle = watch(config_maps.clone(), SERVING_AUTHORITY).boxed();
    let mut leaf = watch(secrets.clone(), &secret).boxed();
    let per_minute = NonZeroU32::new(limits::SERVING_WRITES_PER_MINUTE).unwrap_or(NonZeroU32::MIN);
    let writes = DefaultDirectRateLimiter::direct(Quota::per_minute(per_minute));
    let names = options.serving_name.into_iter().collect();
    let maker = Maker { secrets, config_maps, secret, names, clock, writes, story: Story::new(client) };

    let mut there = tokio::select! {
        () = stop.cancelled() => return,
        (authorities, bundle, leaf) = async { tokio::join!(authorities.next(), bundle.next(), leaf.next()) } => {
            There { authorities: authorities.flatten(), bundle: bundle.flatten(), leaf: leaf.flatten() }
        }
    };
    let (mut failures, mut told) = (0, Vec::new());
    loop {
        let again_in = match timeout(limits::RECONCILE, maker.look(&mut there, &mut told)).await {
            Ok(Ok(again_in)) => {
                failures = 0;
                again_in
            }
            failed => {
                failures += 1;
                let (first, longest) = limits::RECONCILE_RETRY;
                let again_in = backoff(first, longest, failures);
                let error = failed.unwrap_or(Err(super::Error::TimedOut.into())).err();
                let error = error.map(|error| error.to_string());
                tracing::warn!(error, ?again_in, "the serving certificate is not taken care of");
                again_in
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Some(found) = authorities.next() => there.authorities = found,
            Some(found) = bundle.next() => there.bundle = found,
            Some(found) = leaf.next() => there.leaf = found,
            () = sleep(again_in) => {}
        }
    }
}

/// The object with this name, whenever it changes.
fn watch<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<K>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let changes = watch_object(api, name).backoff(WatchBackoff::default());
    let name = name.to_owned();
    changes.filter_map(move |change| {
        let failed = |error: &_| tracing::warn!(%error, name, "a watch failed; it is taken up again");
        std::future::ready(change.inspect_err(failed).ok())
    })
}

/// The objects as they were seen last.
struct There {
    authorities: Option<Secret>,
    bundle: Option<ConfigMap>,
    leaf: Option<Secret>,
}

impl There {
    fn found(&self) -> Found {
        Found {
            authorities: objects::authorities(self.authorities.as_ref()),
            bundle: objects::bundle(self.bundle.as_ref()),
            leaf: objects::leaf(self.leaf.as_ref()),
        }
    }
}

/// Somebody else's object, by kind and name.
fn foreign<K: Owned>(object: Option<&K>) -> Option<String> {
    let foreign = object.filter(|object| !object.is_ours())?;
    Some(format!("{} {:?}", K::kind(&()), foreign.name_any()))
}

struct Maker<C> {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    /// Name of the listener's Secret.
    secret: String,
    names: BTreeSet<String>,
    clock: C,
    writes: DefaultDirectRateLimiter,
    story: Story,
}

impl<C: Clock> Maker<C> {
    /// Does what is next, and says when to look again if nothing changes before. `told` are the foreign objects
    /// that are in the log already.
    async fn look(&self, there: &mut There, told: &mut Vec<String>) -> Result<Duration, Error> {
        if there.found().authorities.is_err() {
            // Each is watched by itself, so that an authority may be seen to be gone before it is seen where it was
            // published. Whoever begins anew on that forgets whom senders trust.
            *there = self.read().await?;
        }
        let secrets = [foreign(there.authorities.as_ref()), foreign(there.leaf.as_ref())];
        // Without a leaf of ours an authority would only mislead senders.
        let stands_still = secrets.iter().any(Option::is_some);
        let foreign: Vec<String> =
            secrets.into_iter().chain([foreign(there.bundle.as_ref())]).flatten().collect();
        for object in foreign.iter().filter(|object| !told.contains(object)) {
            tracing::warn!(
                "{object} is not Postrider's and stays as it is: delete it, or do without --serving-certificate"
            );
        }
        *told = foreign;
        if stands_still {
            return Ok(limits::SERVING_LOOK);
        }
        let (found, now) = (there.found(), self.clock.now());
        match plan::next(&found, &self.names, now) {
            Step::Wait(moment) => Ok(until(moment, now).min(limits::SERVING_LOOK)),
            step => {
                self.writes.until_ready().await;
                self.take(&step, &found, there, now).await?;
                // The watch tells of it, whoever wrote; and if it does not, this is looked at again.
                Ok(limits::RECONCILE)
            }
        }
    }

    /// The objects as they are.
    async fn read(&self) -> Result<There, super::Error> {
        use super::Error;
        let (authorities, bundle, leaf) = tokio::try_join!(
            self.secrets.get_opt(SERVING_AUTHORITY).map_err(Error::api::<Secret>("read", SERVING_AUTHORITY)),
            self.config_maps
                .get_opt(SERVING_AUTHORITY)
                .map_err(Error::api::<ConfigMap>("read", SERVING_AUTHORITY)),
            self.secrets.get_opt(&self.secret).map_err(Error::api::<Secret>("read", &self.secret)),
        )?;
        Ok(There { authorities, bundle, leaf })
    }

    async fn take(&self, step: &Step, found: &Found, there: &There, now: Timestamp) -> Result<(), Error> {
        if let Some(authorities) = found.authorities_after(step, now)? {
            let wanted = objects::authority_secret(&authorities)?;
            let written = write(&self.secrets, there.authorities.as_ref(), wanted).await?;
            self.tell(step, written, &of_authorities(step, &authorities)).await;
            return Ok(());
        }
        let Ok(authorities) = &found.authorities else { return Ok(()) };
        match step {
            Step::Publish(since) => {
                let published = authorities.published();
                let wanted = objects::bundle_map(&published, *since);
                let written = write(&self.config_maps, there.bundle.as_ref(), wanted).await?;
                let note = format!("{} to trust, the newest since {since}", published.len());
                self.tell(step, written, &note).await;
            }
            Step::Issue(fault) => {
                let leaf = pki::leaf(&authorities.signing, &self.names, now)?;
                let wanted = objects::leaf_secret(&self.secret, &leaf, authorities.signing())?;
                let written = write(&self.secrets, there.leaf.as_ref(), wanted).await?;
                let names = self.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let till = leaf.facts().valid_till;
                self.tell(step, written, &format!("for {names}, valid till {till}: {fault}")).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// In the log, and as an Event of what was written. `None` was written where somebody else was faster.
    async fn tell<K>(&self, step: &Step, written: Option<K>, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let Some(object) = written else {
            tracing::debug!(?step, "somebody else was faster; it is looked at again");
            return;
        };
        let (type_, reason) = of_step(step);
        let name = format!("{} {:?}", K::kind(&()), object.name_any());
        match type_ {
            EventType::Normal => tracing::info!(reason = reason.as_str(), note, "{name} is written"),
            EventType::Warning => tracing::warn!(reason = reason.as_str(), note, "{name} is written"),
        }
        let version = object.resource_version().unwrap_or_default();
        self.story
            .publish(&event(type_, reason, reason.as_str(), &version, note), &object.object_ref(&()))
            .await;
    }
}

/// Creates the object, or replaces the one that was read; `None` where that is not there any more as it was.
async fn write<K>(api: &Api<K>, before: Option<&K>, mut wanted: K) -> Result<Option<K>, super::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let name = wanted.name_any();
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let written = match before {
        None => api.create(&parameters, &wanted).await,
        Some(before) => {
            objects::take_over(before.meta(), wanted.meta_mut());
            api.replace(&name, &parameters, &wanted).await
        }
    };
    match written {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 && before.is_some() => Ok(None),
        Err(error) => Err(super::Error::api::<K>("write", &name)(error)),
    }
}

/// What an Event of the step is called. A warning is what senders may notice, or what somebody has broken.
fn of_step(step: &Step) -> (EventType, EventReason) {
    use EventReason::{
        AuthorityForgotten, AuthorityMade, AuthorityPrepared, AuthorityPromoted, AuthorityPublished,
        AuthorityRepaired, AuthorityReplaced, CertificateMade, CertificateReplaced,
    };
    use EventType::{Normal, Warning};
    match step {
        Step::Begin(Fault::Missing) => (Normal, AuthorityMade),
        Step::Begin(_) => (Warning, AuthorityReplaced),
        Step::Prepare => (Normal, AuthorityPrepared),
        Step::Promote => (Normal, AuthorityPromoted),
        Step::Forget => (Normal, AuthorityForgotten),
        Step::Tidy => (Warning, AuthorityRepaired),
        Step::Publish(_) => (Normal, AuthorityPublished),
        Step::Issue(Fault::Damaged(_) | Fault::Stranger | Fault::Expired) => (Warning, CertificateReplaced),
        Step::Issue(_) | Step::Wait(_) => (Normal, CertificateMade),
    }
}

fn of_authorities(step: &Step, authorities: &Authorities) -> String {
    let named = |facts: &Facts| format!("{} (valid till {})", facts.identifier, facts.valid_till);
    let signing = named(authorities.signing.facts());
    let until = authorities.retired_until;
    match step {
        Step::Begin(fault) if authorities.retired.is_empty() => {
            format!("{signing} signs serving certificates: {fault}")
        }
        Step::Begin(fault) => {
            format!(
                "{signing} is to sign serving certificates: {fault}; its certificate is trusted until {until}"
            )
        }
        Step::Promote => format!("{signing} signs from now on; the one before is trusted until {until}"),
        _ => match &authorities.next {
            Some(next) => format!("{signing} signs, and {} is to follow", named(next.facts())),
            None => format!("{signing} signs"),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Options;
    use crate::kubernetes::TlsSecret;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        serving: Options,
        #[command(flatten)]
        tls: TlsSecret,
    }

    fn parsed(arguments: &[&str]) -> Result<Program, String> {
        Program::try_parse_from(["program"].iter().chain(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_a_namespace_are_needed_to_make_a_certificate() {
        assert!(!parsed(&[]).unwrap().serving.serving_certificate);
        let error = parsed(&["--serving-certificate"]).unwrap_err();
        assert!(error.contains("--serving-name <DNS>") && error.contains("--pod-namespace"), "{error}");
        let arguments = ["--serving-certificate", "--serving-name=Ingest.example", "--serving-name=a,b"];
        let error = parsed(&arguments).unwrap_err();
        assert!(error.contains("not provided:\n  --pod-namespace <NAME>\n"), "{error}");
        let program = parsed(&[&arguments[..], &["--pod-namespace=postrider"]].concat()).unwrap();
        assert_eq!(program.serving.serving_name, ["ingest.example", "a", "b"]);
        assert_eq!(program.tls.tls_secret, "postrider-ingest-tls");
    }

    #[test]
    fn the_leaf_is_not_written_over_the_authority() {
        let error = parsed(&["--tls-secret", "postrider-ingest-ca"]).unwrap_err();
        assert!(error.contains("is the Secret of the authority"), "{error}");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "*.example", "a b", "127.0.0.1", "::1", "https://a"] {
            let error = parsed(&["--serving-name", name]).unwrap_err();
            assert!(error.contains("not a DNS name"), "{name}: {error}");
        }
    }
}
