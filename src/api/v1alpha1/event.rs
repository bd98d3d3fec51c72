//! The reasons of Events: documented constants, as `kubectl describe` and `kubectl events` show them.

/// What happened. About webhooks, but for the last nine, which are about the serving certificate.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumMessage, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum EventReason {
    /// The first certificate was accepted: it is the Active one.
    Accepted,
    /// A certificate is loaded as New, and waits to become Active.
    NewCertificate,
    /// A New is not to follow any more: the webhook does not name it now.
    NewWithdrawn,
    /// The New is the Active from now on.
    Promoted,
    /// The certificate in use expires soon, or has expired days ago.
    CertificateExpiring,
    /// The certificate in use has expired, and nothing has replaced it.
    ActiveExpired,
    /// A certificate that was not in use any more has expired.
    CertificateExpired,
    /// The webhook asks for no client certificate any more.
    Dropped,
    /// A connection test has passed.
    TestPassed,
    /// A connection test has failed.
    TestFailed,
    /// An endpoint refused a client certificate when an event was delivered.
    ClientCertificateRefused,
    /// An endpoint fails all the time: only single trials are sent until one succeeds.
    EndpointFailing,
    /// An endpoint answered 410: nothing is sent until the webhook changes.
    EndpointGone,
    /// Nothing is sent, though the webhook is ready.
    OnHold,
    /// Something is wrong for which nothing is sent.
    NotReady,
    /// What `mtls.active` names cannot be used; the certificate that was accepted before goes on.
    CertificateInvalid,
    /// What `mtls.new` names cannot be used; nothing that is sent changes.
    NewCertificateInvalid,
    /// What was wrong is not any more.
    Mended,
    /// There is an authority that signs serving certificates.
    AuthorityMade,
    /// The authority could not be used any more, and another was made.
    AuthorityReplaced,
    /// The authority that is to follow was made, and is going to be published.
    AuthorityPrepared,
    /// The authority that was prepared signs from now on.
    AuthorityPromoted,
    /// Authorities are not published any more: all that they signed has expired.
    AuthorityForgotten,
    /// The authorities were changed by somebody else, and are as they were.
    AuthorityRepaired,
    /// The certificates of the authorities are published for senders.
    AuthorityPublished,
    /// A serving certificate was made, or renewed.
    CertificateMade,
    /// The serving certificate could not be used any more, and another was made.
    CertificateReplaced,
}

impl EventReason {
    /// The constant.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
