//! Why nothing is sent.

/// Why nothing is sent, and what comes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Hold {
    /// Nobody has said yet what is to be done.
    #[strum(serialize = "starting")]
    Starting,
    /// The webhook's owner asked for that.
    #[strum(serialize = "suspended")]
    Suspended,
    /// The controller has found something wrong, or nothing yet.
    #[strum(serialize = "not ready")]
    NotReady,
    /// The controller has not accepted yet what the spec names now.
    #[strum(serialize = "the identities for this endpoint are not there yet")]
    NotThere,
    /// What the controller has accepted is without a certificate.
    #[strum(serialize = "no certificate has been accepted")]
    NoCertificate,
    /// Likewise, without what else the webhook asks for.
    #[strum(serialize = "no headers, authorization or signing secrets have been accepted")]
    NoCredentials,
    /// What the controller has accepted cannot be read, or no client can be made of it.
    #[strum(serialize = "what was accepted cannot be used")]
    Unusable,
    /// A clock may lag behind the one that accepted it, or nobody has replaced what has expired.
    #[strum(serialize = "its certificate is not valid at this time")]
    NotValid,
}

impl Hold {
    /// Whether the controller tells of it, or somebody asked for it.
    pub fn is_told_elsewhere(self) -> bool {
        matches!(self, Self::Suspended | Self::NotReady)
    }
}
