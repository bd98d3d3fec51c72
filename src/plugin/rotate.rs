//! `rotate`: a keystore becomes the New of a webhook, and is followed until it is the certificate in use.
//!
//! Each step leaves a state that is whole: a Secret that nothing names yet, then a webhook that names it. From there
//! the controller goes on by itself, whoever stops watching. The same command again goes on where the last one
//! stopped, for the Secret has its name from the certificate.

use std::{cell::Cell, collections::BTreeMap, ops::ControlFlow, path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Resource as _, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Connection, FIELD_MANAGER},
    failure::Failure,
    follow::follow,
    output::{self, Output, Progress, marked, paragraph, tell},
    paint::{State, Text, bold, failure},
    promote::{active, in_short, mtls, promote},
    test,
    typed::kubectl,
};
use crate::{
    api::v1alpha1::{
        Certificate, CertificateStatus, ConditionType, KeystoreFormat, KeystoreRef, OutboundWebhook, Reason,
        SecretKeyRef,
    },
    inspect::{self, Files, Secrets},
    keystore::{Format, Loaded, Request, load},
    limits,
    probe::Layer,
};

/// Key of the store password in the Secret.
const PASSWORD: &str = "password";
/// Key of the key's password in the Secret, where it has one of its own.
const KEY_PASSWORD: &str = "key-password";

#[derive(Args)]
pub(super) struct Rotate {
    /// The webhook
    name: String,
    /// The keystore with the certificate that is to replace the one in use
    #[arg(long, value_name = "FILE")]
    keystore: PathBuf,
    #[command(flatten)]
    secrets: Secrets,
    /// With promotion: Manual, promote it once it has passed its test
    #[arg(long)]
    promote: bool,
    /// Take the place of another certificate that waits as New
    #[arg(long)]
    replace: bool,
    /// Do not wait for test and promotion
    #[arg(long)]
    no_wait: bool,
    /// How long to watch
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = output::duration)]
    timeout: Duration,
}

/// What has been done, for whoever interrupts it.
#[derive(Clone, Copy)]
enum Done {
    Nothing,
    Secret,
    Named,
}

/// How the watching ends, but for a failure.
enum Seen {
    InUse(CertificateStatus),
    WaitsForPromotion(CertificateStatus),
    /// It will not go on without a person.
    Stuck {
        why: Text,
        /// The receiver refuses the certificate.
        refused: bool,
    },
}

impl Rotate {
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Connection, Failure>,
        output: Output,
    ) -> Result<(), Failure> {
        let files = self.secrets.read(&self.keystore)?;
        let request = Request {
            bytes: &files.keystore,
            password: &files.password,
            key_password: files.key_password.as_deref().map(Vec::as_slice),
            alias: self.secrets.alias.as_deref(),
            declared: None,
            file: &files.name,
            now: Timestamp::now(),
        };
        let result = load(&request);
        let Ok(loaded) = &result else {
            output.print(&inspect::json(&result), [], || Text::lines(&inspect::text(&result, &request)))?;
            return Err(Failure::No);
        };
        let connection = connect().await?;
        let step = Step {
            rotate: self,
            connection: &connection,
            loaded,
            files: &files,
            done: Cell::new(Done::Nothing),
        };
        tokio::select! {
            result = step.run(output) => result,
            interrupted = tokio::signal::ctrl_c() => match interrupted {
                Ok(()) => Err(Failure::interrupted(step.left_behind())),
                Err(error) => Err(Failure::tried(format!("signals cannot be heard: {error}"))),
            },
        }
    }
}

/// What the steps work with.
struct Step<'a> {
    rotate: &'a Rotate,
    connection: &'a Connection,
    loaded: &'a Loaded,
    files: &'a Files,
    done: Cell<Done>,
}

impl Step<'_> {
    async fn run(&self, output: Output) -> Result<(), Failure> {
        let mut progress = Progress::new();
        let name = &self.rotate.name;
        let before = self.name_it(&mut progress).await?;
        if self.rotate.no_wait {
            drop(progress);
            return self.finish(output, before.as_ref(), None);
        }
        let seen = match self.watch(&mut progress).await? {
            Seen::WaitsForPromotion(new) if self.rotate.promote => {
                Seen::InUse(promote(self.connection, name, &new, self.rotate.timeout, &mut progress).await?)
            }
            seen => seen,
        };
        drop(progress);
        match seen {
            Seen::InUse(now) => self.finish(output, before.as_ref(), Some(&now)),
            Seen::WaitsForPromotion(_) => {
                let promote = self.connection.command(&["promote", name]);
                let told = State::Good.mark() + " it has passed its test, and waits for you:";
                tell(&told.above([bold(promote)]));
                Err(Failure::Waits)
            }
            Seen::Stuck { why, refused } => {
                tell(&(failure(why).line() + self.advice(refused)));
                Err(Failure::No)
            }
        }
    }

    fn is(&self, certificate: &CertificateStatus) -> bool {
        certificate.fingerprint_sha256 == self.loaded.identity.facts().fingerprint_sha256
    }

    /// Whether the webhook names the keystore already, or has it in use.
    fn is_named(&self, webhook: &OutboundWebhook) -> bool {
        let new = webhook.spec.mtls.as_ref().and_then(|mtls| mtls.new.as_ref());
        let names = new.is_some_and(|new| new.secret_ref.name == self.secret_name());
        let mtls = mtls(webhook);
        let known = mtls.into_iter().flat_map(|mtls| [&mtls.active, &mtls.new]).flatten();
        let mut known = known.filter(|known| self.is(known));
        names || known.next().is_some()
    }

    /// Makes the Secret, and the webhook name it. Returns the certificate that was in use before.
    async fn name_it(&self, progress: &mut Progress) -> Result<Option<CertificateStatus>, Failure> {
        let name = &self.rotate.name;
        for _ in 0..limits::PLUGIN_CONFLICTS {
            let webhook = self.connection.webhook(name).await?;
            let before = active(&webhook).cloned();
            if self.is_named(&webhook) {
                self.done.set(Done::Named);
                progress.say(State::Good, format!("{name} names this certificate already"));
                return Ok(before);
            }
            let patch = self.patch(&webhook)?;
            if matches!(self.done.get(), Done::Nothing) {
                self.done.set(Done::Secret);
                self.make_secret(&webhook).await?;
                progress.say(
                    State::Good,
                    format!("Secret {} holds the keystore and its password", self.secret_name()),
                );
            }
            if self.connection.patch_if_unchanged(name, patch).await? {
                self.done.set(Done::Named);
                progress.say(State::Good, format!("{name} names it in mtls.new"));
                return Ok(before);
            }
        }
        Err(Failure::tried(Text::from(format!("{name} changes all the time; ")) + self.left_behind()))
    }

    /// What makes the webhook name it, if it is still what was read.
    fn patch(&self, webhook: &OutboundWebhook) -> Result<Value, Failure> {
        let Some(mtls) = &webhook.spec.mtls else {
            let message =
                "asks for no client certificate: there is none to replace. Set spec.mtls.active first";
            return Err(Failure::usage(format!("{} {message}", self.rotate.name)));
        };
        let mut spec = json!({ "new": whole(&self.reference()) });
        if let Some(new) = &mtls.new {
            let said = webhook.condition(ConditionType::NewCertificateValid);
            if said.is_some_and(|said| said.reason == Reason::Promoted.as_str()) {
                // It is the one in use: with this it stays so also for whoever reads the manifest alone.
                spec["active"] = whole(new);
            } else if !self.rotate.replace {
                let waiting = &new.secret_ref.name;
                let message =
                    format!("another certificate waits as New (Secret {waiting}); --replace takes its place");
                return Err(Failure::usage(message));
            }
        }
        Ok(json!({ "metadata": { "resourceVersion": webhook.resource_version() }, "spec": { "mtls": spec } }))
    }

    /// The same for the same certificate.
    fn secret_name(&self) -> String {
        let fingerprint = &self.loaded.identity.facts().fingerprint_sha256;
        format!("{}-keystore-{}", self.rotate.name, fingerprint.get(..8).unwrap_or(fingerprint))
    }

    fn file_name(&self) -> &'static str {
        match self.loaded.format {
            Format::Pkcs12 => "keystore.p12",
            Format::Jks => "keystore.jks",
        }
    }

    fn reference(&self) -> Certificate {
        let key = |key: &str| SecretKeyRef { name: self.secret_name(), key: key.to_owned() };
        Certificate {
            secret_ref: KeystoreRef { name: self.secret_name(), key: Some(self.file_name().to_owned()) },
            format: match self.loaded.format {
                Format::Pkcs12 => KeystoreFormat::Pkcs12,
                Format::Jks => KeystoreFormat::Jks,
            },
            password_secret_ref: key(PASSWORD),
            alias: self.rotate.secrets.alias.clone(),
            key_password_secret_ref: self.files.key_password.as_ref().map(|_| key(KEY_PASSWORD)),
        }
    }

    /// One Secret for all of it, so that there is no moment at which half of it is there. It goes with the webhook.
    async fn make_secret(&self, webhook: &OutboundWebhook) -> Result<(), Failure> {
        let bytes = |bytes: &[u8]| ByteString(bytes.to_vec());
        let mut data = BTreeMap::from([
            (self.file_name().to_owned(), bytes(&self.files.keystore)),
            (PASSWORD.to_owned(), bytes(&self.files.password)),
        ]);
        if let Some(password) = &self.files.key_password {
            data.insert(KEY_PASSWORD.to_owned(), bytes(password));
        }
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.secret_name()),
                owner_references: webhook.owner_ref(&()).map(|owner| vec![owner]),
                labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let secrets = self.connection.api::<Secret>();
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match secrets.create(&parameters, &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = secrets.get(&self.secret_name()).await?;
                if there.data == secret.data {
                    return Ok(());
                }
                let name = self.secret_name();
                Err(Failure::tried(format!(
                    "there is a Secret {name} that holds something else: delete it first"
                )))
            }
            result => Ok(result.map(drop)?),
        }
    }

    async fn watch(&self, progress: &mut Progress) -> Result<Seen, Failure> {
        let mut told_new = false;
        let mut tested: Option<(Timestamp, u32)> = None;
        let rotate = self.rotate;
        progress.wait_for("the controller to read the keystore");
        follow(self.connection, &rotate.name, rotate.timeout, progress, |webhook, progress| {
            if let Some(now) = active(webhook).filter(|active| self.is(active)) {
                let result = webhook.status.as_ref().and_then(|status| status.test.as_ref()?.active.as_ref());
                if let Some(result) = result.filter(|result| tested.is_none() && result.succeeded) {
                    progress.say(test::state(result), format!("test passed: {}", result.message));
                }
                return ControlFlow::Break(Seen::InUse(now.clone()));
            }
            if !super::advice::is_observed(webhook) {
                return ControlFlow::Continue(());
            }
            let said = webhook.condition(ConditionType::NewCertificateValid);
            if let Some(said) = said.filter(|said| said.status != "True") {
                let why = format!("{}: {}", said.reason, said.message);
                return ControlFlow::Break(Seen::Stuck { why: why.into(), refused: false });
            }
            let Some(new) = mtls(webhook).and_then(|mtls| mtls.new.as_ref()).filter(|new| self.is(new))
            else {
                return ControlFlow::Continue(());
            };
            if !std::mem::replace(&mut told_new, true) {
                progress.say(State::Good, format!("New: {}", in_short(new)));
                progress.wait_for("its test");
            }
            let result = webhook.status.as_ref().and_then(|status| status.test.as_ref()?.new.as_ref());
            let fresh = result.filter(|result| tested.is_none_or(|(at, _)| at != result.time.0));
            if let Some(result) =
                fresh.filter(|result| result.fingerprint_sha256.as_ref() == Some(&new.fingerprint_sha256))
            {
                let failures =
                    if result.succeeded { 0 } else { tested.map_or(0, |(_, failures)| failures) + 1 };
                tested = Some((result.time.0, failures));
                if result.succeeded {
                    progress.say(test::state(result), format!("test passed: {}", result.message));
                    progress.wait_for("its promotion");
                } else {
                    let layer = result.layer.as_deref().unwrap_or_default();
                    progress.say(State::Bad, format!("test failed in {layer}: {}", result.reason));
                    if failures >= limits::PLUGIN_FAILED_TESTS {
                        let text = test::text(webhook, "New", result, Timestamp::now());
                        return ControlFlow::Break(Seen::Stuck {
                            why: (Text::from("its test does not pass").line() + text).trimmed(),
                            refused: layer == Layer::TlsClient.as_str(),
                        });
                    }
                    progress.wait_for("the controller to test it again");
                }
            }
            let waits = said.is_some_and(|said| said.reason == Reason::WaitsForPromotion.as_str());
            if waits {
                ControlFlow::Break(Seen::WaitsForPromotion(new.clone()))
            } else {
                ControlFlow::Continue(())
            }
        })
        .await
        .map_err(|failure| match failure {
            Failure::Unfinished(message) => Failure::unfinished(message.line() + self.left_behind()),
            failure => failure,
        })
    }

    fn finish(
        &self,
        output: Output,
        before: Option<&CertificateStatus>,
        now: Option<&CertificateStatus>,
    ) -> Result<(), Failure> {
        let name = &self.rotate.name;
        let before = before.filter(|before| !self.is(before));
        let value = json!({ "name": name, "secret": self.secret_name(), "before": before, "active": now });
        output.print(&value, [name.as_str()], || {
            let mut text = match now {
                Some(now) => marked(State::Good, format!("in use: {}", in_short(now))),
                None => marked(State::Good, "the controller tests it, and promotes it once it has passed"),
            };
            if let Some(before) = before {
                let before = format!("before: {}; it stays loaded until it expires", in_short(before));
                text += marked(State::Unknown, before);
            }
            let secret = self.secret_name();
            let manifest =
                format!("in the manifest, mtls.new is Secret {secret}; it can move to mtls.active");
            text + marked(State::Unknown, manifest)
        })
    }

    /// What a person can do who is stuck.
    fn advice(&self, refused: bool) -> Text {
        let name = &self.rotate.name;
        let text = paragraph(
            "The certificate before stays in use. The controller goes on testing the New, and promotes it once it passes.",
            "",
            "",
        );
        let line = |words: &str, command: String| Text::from(format!("{words:<14}")) + bold(command);
        let trusted = self.connection.command(&["certificate", name, "--slot", "new", "--part", "chain"]);
        let trusted = refused.then(|| line("hand over", trusted));
        let again = self.connection.command(&["test", name]);
        let always = [line("look again", again), line("take it back", self.take_back())];
        text.above(trusted.into_iter().chain(always))
    }

    fn take_back(&self) -> String {
        let (namespace, name) = (&self.connection.namespace, &self.rotate.name);
        let patch = json!({ "spec": { "mtls": { "new": null } } }).to_string();
        kubectl(&["-n", namespace, "patch", "outboundwebhook", name, "--type", "merge", "-p", &patch])
    }

    /// What goes on without us.
    fn left_behind(&self) -> Text {
        let (namespace, secret) = (&self.connection.namespace, self.secret_name());
        match self.done.get() {
            Done::Nothing => "nothing has been changed".into(),
            Done::Secret => Text::from(format!(
                "Secret {secret} may be there, and nothing names it. Run the same command again to go on, or"
            ))
            .above([kubectl(&["-n", namespace, "delete", "secret", &secret])]),
            Done::Named => Text::from(
                "the webhook names the new certificate; the controller tests and promotes it without you. Run the \
                 same command again to watch, or take it back:",
            )
            .above([self.take_back()]),
        }
    }
}

/// A reference for a merge patch: what it does not have is taken away.
fn whole(certificate: &Certificate) -> Value {
    let Certificate { secret_ref, format, password_secret_ref, alias, key_password_secret_ref } = certificate;
    json!({
        "secretRef": { "name": secret_ref.name, "key": secret_ref.key },
        "format": format,
        "passwordSecretRef": password_secret_ref,
        "alias": alias,
        "keyPasswordSecretRef": key_password_secret_ref,
    })
}
