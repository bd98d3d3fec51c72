//! Step two: the keystore becomes an identity, or a problem.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::{
    Context, Error, Problem,
    fetch::{Keystore, TrustStore},
};
use crate::{
    api::v1alpha1::{Reason, Source},
    identity::Trust,
    keystore::{self, Loaded as Opened, Refusal, Request, Warning},
    rotation::Found,
};

/// What the keystore turned out to be.
pub(super) struct Loaded {
    pub(super) found: Found,
    /// Why nothing usable was found.
    pub(super) problem: Option<Problem>,
    /// Where it was read, once something was.
    pub(super) source: Option<Source>,
    pub(super) warnings: Vec<Warning>,
}

/// What both keystores of a webhook turned out to be.
pub(super) struct Keystores {
    pub(super) active: Loaded,
    pub(super) new: Loaded,
}

impl Loaded {
    fn not(problem: Option<Problem>) -> Self {
        let found = if problem.is_some() { Found::Unusable(None) } else { Found::NotAsked };
        Self { found, problem, source: None, warnings: Vec::new() }
    }
}

/// Opens both keystores.
pub(super) async fn load_all(
    context: &Context,
    active: Option<Result<Keystore, Problem>>,
    new: Option<Result<Keystore, Problem>>,
    now: Timestamp,
) -> Result<Keystores, Error> {
    Ok(Keystores { active: load(context, active, now).await?, new: load(context, new, now).await? })
}

/// Opens the keystore off the async threads, a fixed number at a time.
async fn load(
    context: &Context,
    keystore: Option<Result<Keystore, Problem>>,
    now: Timestamp,
) -> Result<Loaded, Error> {
    let keystore = match keystore {
        None => return Ok(Loaded::not(None)),
        Some(Err(problem)) => return Ok(Loaded::not(Some(problem))),
        Some(Ok(keystore)) => keystore,
    };
    let permit = Arc::clone(&context.loads).acquire_owned().await.map_err(|_| Error::Load)?;
    let source = keystore.source.clone();
    let opened = spawn_blocking(move || {
        let _permit = permit;
        open(&keystore, now)
    });
    Ok(match opened.await.map_err(|_| Error::Load)? {
        Ok(Opened { identity, warnings, .. }) => {
            Loaded { found: Found::Usable(Arc::new(identity)), problem: None, source: Some(source), warnings }
        }
        Err(Refusal { reason, message, facts }) => Loaded {
            found: Found::Unusable(facts),
            problem: Some(Problem {
                reason: reason.as_str().into(),
                message: format!("Secret {:?}: {message}", source.secret),
            }),
            source: Some(source),
            warnings: Vec::new(),
        },
    })
}

/// Adds what is in the trust store to whom is trusted.
pub(super) async fn trust_store(
    context: &Context,
    store: Option<Result<TrustStore, Problem>>,
    trust: &mut Result<Option<Trust>, Problem>,
    now: Timestamp,
) -> Result<(), Error> {
    let (store, trusted) = match (store, &mut *trust) {
        (Some(Ok(store)), Ok(Some(trusted))) => (store, trusted),
        (Some(Err(problem)), Ok(_)) => {
            *trust = Err(problem);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let permit = Arc::clone(&context.loads).acquire_owned().await.map_err(|_| Error::Load)?;
    let (name, key) = store.source.clone();
    let opened = spawn_blocking(move || {
        let _permit = permit;
        keystore::load_trust_store(&Request {
            bytes: &store.bytes,
            password: &store.password,
            key_password: None,
            alias: None,
            declared: None,
            file: &store.source.1,
            now,
        })
    });
    let field = "endpoint.trust.trustStoreRef";
    let problem = match opened.await.map_err(|_| Error::Load)? {
        Ok(certificates) => {
            trusted.certificates.extend(certificates);
            // Each has to be an anchor of trust, as those of a bundle.
            let Err(error) = trusted.check() else { return Ok(()) };
            Problem::new(Reason::InvalidCaBundle, format!("{field}: {name}/{key} {error}"))
        }
        Err(Refusal { reason, message, .. }) => {
            Problem { reason: reason.as_str().into(), message: format!("{field}: {name}: {message}") }
        }
    };
    *trust = Err(problem);
    Ok(())
}

fn open(keystore: &Keystore, now: Timestamp) -> Result<Opened, Refusal> {
    keystore::load(&Request {
        bytes: &keystore.bytes,
        password: &keystore.password,
        key_password: keystore.key_password.as_ref().map(|password| password.as_slice()),
        alias: keystore.alias.as_deref(),
        declared: Some(keystore.declared),
        file: &keystore.source.key,
        now,
    })
}
