//! The documented constants: why a keystore is refused, and what it is warned of.

/// Why a keystore is refused.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum Reason {
    /// The store password is wrong, or the file was changed after it was written.
    WrongPasswordOrCorrupt,
    /// The store opened, the key has a password of its own.
    WrongKeyPassword,
    /// The file is incomplete or damaged.
    Corrupt,
    /// The file is something else.
    NotAKeystore,
    /// A keystore, in a format that is not taken.
    UnsupportedFormat,
    /// The store holds certificates only.
    NoPrivateKey,
    /// The store holds keys only.
    NoCertificate,
    /// No certificate in the store belongs to the key.
    KeyMismatch,
    /// Several keys, and no alias that chooses.
    MultipleKeys,
    /// No entry has the alias.
    AliasNotFound,
    /// The certificate's validity is over.
    Expired,
    /// The certificate's validity has not begun.
    NotYetValid,
    /// A type or size of key that is not taken.
    UnsupportedKey,
    /// An algorithm that is not taken.
    UnsupportedAlgorithm,
    /// A bound was exceeded.
    LimitExceeded,
}

impl Reason {
    /// The constant as it stands in a status.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a keystore that works is warned of.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum WarningReason {
    /// The content is of another format than declared.
    FormatMismatch,
    /// The password worked only without the newline at its end.
    PasswordTrailingNewline,
    /// The store has no MAC.
    NoIntegrity,
    /// Keys beside the chosen one cannot be used.
    UnusableKeys,
    /// The leaf is a certificate authority's.
    CertificateAuthority,
    /// The leaf's extended key usage has no clientAuth.
    ClientAuthMissing,
    /// The leaf stands alone, and is not its own issuer.
    ChainIncomplete,
    /// The chain breaks, while certificates of other authorities are in the store.
    IntermediateMissing,
    /// A certificate of the chain is signed over SHA-1 or MD5.
    WeakSignature,
    /// Under 30 days are left.
    ExpiresSoon,
}

impl WarningReason {
    /// The constant as it stands in a status.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
