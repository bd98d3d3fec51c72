//! The conditions and their reasons: documented constants, as they stand in a status.

/// The types of condition.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumMessage, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum ConditionType {
    /// The summary: unless it is True nothing is sent.
    Ready,
    /// What `mtls.active` names can be used.
    CertificateValid,
    /// What `mtls.new` names can be used.
    NewCertificateValid,
    /// The last connection test passed.
    Connected,
    /// The certificate in use expires soon, and nothing waits to replace it.
    CertificateExpiring,
    /// Events go out. Written by the dispatcher.
    Delivering,
}

impl ConditionType {
    /// Those that the controller writes.
    pub const OF_CONTROLLER: [Self; 5] = [
        Self::Ready,
        Self::CertificateValid,
        Self::NewCertificateValid,
        Self::Connected,
        Self::CertificateExpiring,
    ];
}

impl ConditionType {
    /// The constant.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a condition has its status. A keystore adds its own: `keystore::Reason`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumMessage, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum Reason {
    /// All that the webhook names is there and can be used.
    Ready,
    /// The certificate can be used.
    Valid,
    /// What `mtls.active` names cannot be used; the certificate that was accepted before goes on.
    ActiveKept,
    /// No certificate that the webhook names may be used now.
    #[strum(serialize = "NoUsableCertificate")]
    NoCertificate,
    /// mTLS is off for the namespace until an administrator enables it.
    #[strum(serialize = "MTLSNotEnabled")]
    MtlsNotEnabled,
    /// A Secret that the webhook names does not exist.
    SecretNotFound,
    /// A ConfigMap that the webhook names does not exist.
    ConfigMapNotFound,
    /// A Secret or ConfigMap lacks the key that the webhook names.
    KeyNotFound,
    /// The CA bundle holds no certificate that can be read.
    #[strum(serialize = "InvalidCABundle")]
    InvalidCaBundle,
    /// A header cannot have the name or the value that is asked for.
    InvalidHeader,
    /// What the Secrets of `authorization` hold cannot be sent.
    InvalidAuthorization,
    /// What a Secret of `signature` holds is no secret of Standard Webhooks.
    InvalidSigningSecret,
    /// The endpoint is a URL to the API server, and none that can be dialled.
    #[strum(serialize = "InvalidURL")]
    InvalidUrl,
    /// An object that the controller would write belongs to somebody else.
    NotOwned,
    /// The certificate is to become the one in use, and waits for its test to pass.
    WaitsForTest,
    /// The certificate is to become the one in use, and waits for a person to ask for it.
    WaitsForPromotion,
    /// The certificate is the one in use by now.
    Promoted,
    /// The certificate in use has long to live, or another waits to replace it.
    NotSoon,
    /// The certificate in use expires soon, and nothing waits to replace it.
    NoReplacement,
    /// The webhook says that nothing is to be sent.
    Suspended,
    /// Events go out as they come.
    Delivering,
    /// Nothing is sent, and what comes is kept.
    OnHold,
    /// The endpoint fails all the time: only single trials are sent until one succeeds.
    EndpointFailing,
    /// The endpoint answered 410: nothing is sent until the webhook's spec, its certificates or its credentials
    /// change.
    EndpointGone,
}

impl Reason {
    /// The constant.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
