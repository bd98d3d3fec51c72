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
    /// The store opened, but the key has a password of its own.
    WrongKeyPassword,
    /// The file is incomplete or damaged.
    Corrupt,
    /// The file is no keystore.
    NotAKeystore,
    /// The file is a keystore of a format that is not taken: PKCS#12 and JKS are.
    UnsupportedFormat,
    /// The store holds no private key.
    NoPrivateKey,
    /// The store holds no certificate: none for its key, or, as a trust store, none to trust.
    NoCertificate,
    /// No certificate in the store belongs to the key.
    KeyMismatch,
    /// The store holds several keys that can be used, and no alias chooses.
    MultipleKeys,
    /// No key in the store has the alias.
    AliasNotFound,
    /// The certificate's validity is over.
    Expired,
    /// The certificate's validity has not begun.
    NotYetValid,
    /// The key is of a type or size that is not taken.
    UnsupportedKey,
    /// The file is protected by an algorithm that is not taken.
    UnsupportedAlgorithm,
    /// The file exceeds a bound: its size, or the work to open it.
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
    /// The certificate expires within 30 days, or is in the last quarter of a shorter life.
    ExpiresSoon,
}

impl WarningReason {
    /// The constant as it stands in a status.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
