//! `OutboundWebhook`, group `postrider.dev`, version `v1alpha1`.
//!
//! The generated `crds/outboundwebhooks.yaml` comes from these types; `postrider crd` prints it. What a
//! person reads in `kubectl explain` are the comments here, and every rule that the API server can
//! check is written beside the field that it guards.

mod condition;
mod delivery;
mod event;
mod spec;
mod status;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::CustomResourceExt as _;

pub use condition::{ConditionType, Reason};
pub use delivery::{Delivery, Events, Ordering, Retry};
pub use event::EventReason;
pub use spec::{
    Authorization, BasicAuthorization, BearerAuthorization, BundleKind, BundleRef, Certificate,
    ClientCredentials, ConnectionTest, Endpoint, Header, HeaderAuthorization, HeaderValueSource,
    KeystoreFormat, KeystoreRef, MutualTls, OutboundWebhook, OutboundWebhookSpec, Promotion, Rotation,
    SecretKeyRef, Signature, TestRequest, TokenEndpointAuthMethod, Trust, TrustStoreRef,
};
pub use status::{
    AlertStatus, CertificateStatus, CertificateWarning, DeliveryStatus, FailureStatus, LocalRef,
    MutualTlsStatus, OutboundWebhookStatus, RefusalStatus, ServerCertificateStatus, Source, TestStatus,
    TestsStatus,
};

/// The label by which an administrator enables mTLS for a namespace, with the value [`ENABLED`].
pub const MTLS_LABEL: &str = "postrider.dev/mtls";
/// The value of [`MTLS_LABEL`].
pub const ENABLED: &str = "enabled";

/// On a Secret of identities: the origin of the endpoint (scheme, host, port) that they were accepted for.
pub const ENDPOINT_ANNOTATION: &str = "postrider.dev/endpoint-origin";
/// On a Secret of identities: what the webhook said of trust when it was written, as a hash.
pub const TRUST_ANNOTATION: &str = "postrider.dev/trust";
/// On a Secret of identities: what the webhook said of headers, authorization and signature when it was written,
/// as a hash. Not there where it said nothing of them.
pub const CREDENTIALS_ANNOTATION: &str = "postrider.dev/credentials";
/// On a Secret of identities: the reminder of an expiry that was told last, as fingerprint and days.
pub const REMINDED_ANNOTATION: &str = "postrider.dev/reminded";
/// On a webhook: the fingerprint of the New that is to become Active now.
pub const PROMOTE_ANNOTATION: &str = "postrider.dev/promote";
/// On a webhook: any new value asks for a connection test now.
pub const TEST_ANNOTATION: &str = "postrider.dev/test";
/// On every object that the controller writes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "postrider");
/// On a Secret of identities.
pub const IDENTITIES: (&str, &str) = ("app.kubernetes.io/component", "identities");
/// Selects the Secrets of identities.
pub const IDENTITIES_SELECTOR: &str =
    "app.kubernetes.io/managed-by=postrider,app.kubernetes.io/component=identities";

/// In the ConfigMap with the public certificates: all of them in one file, for a receiver that trusts a single one.
pub const BUNDLE: &str = "bundle.crt";

const IDENTITIES_SUFFIX: &str = "-identities";

impl OutboundWebhook {
    /// Name of the Secret with the identities that the controller has accepted.
    pub fn identities_name(name: &str) -> String {
        format!("{name}{IDENTITIES_SUFFIX}")
    }

    /// Name of the webhook whose Secret of identities has this name.
    pub fn of_identities(secret_name: &str) -> Option<&str> {
        secret_name.strip_suffix(IDENTITIES_SUFFIX)
    }

    /// Name of the ConfigMap with the public certificates.
    pub fn client_certificate_name(name: &str) -> String {
        format!("{name}-client-certificate")
    }

    /// A condition, where it applies.
    pub fn condition(&self, condition: ConditionType) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions.iter().find(|found| found.type_ == condition.as_str())
    }

    /// Whether the controller publishes a Secret for the dispatcher: an identity, whom to trust, or credentials.
    pub fn needs_identities(&self) -> bool {
        self.spec.mtls.is_some() || self.spec.endpoint.trust.is_some() || self.spec.asks_for_credentials()
    }
}

/// The definition as `postrider crd` prints it.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    OutboundWebhook::crd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_in_crds_comes_from_the_types() {
        let generated = serde_saphyr::to_string(&custom_resource_definition()).unwrap();
        let kept = include_str!("../../../crds/outboundwebhooks.yaml");
        assert!(generated == kept, "crds/outboundwebhooks.yaml is not what the types say: run `make crds`");
    }
}
