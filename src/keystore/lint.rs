//! What works and yet deserves a look: each check reads one thing, in the order in which a person would
//! mend them. None of them refuses; what must be refused is a [`Fault`](super::fault::Fault).

use jiff::Timestamp;
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use super::{
    Request, Warning, WarningReason, chain, fault::quoted, select::Selected, select::subject, store::Store,
};
use crate::identity::Facts;

/// Signature algorithms that no one should rely on: MD2, MD5 and SHA-1 with RSA, DSA and ECDSA.
const WEAK_SIGNATURES: [(&str, &str); 7] = [
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.3.14.3.2.29", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.3.14.3.2.27", "SHA-1"),
];

/// All that a loaded store is warned of.
pub(crate) fn lint(
    request: &Request<'_>,
    store: &Store,
    selected: &Selected<'_>,
    password_without_newline: bool,
) -> Vec<Warning> {
    let chain: Vec<&X509Certificate<'_>> =
        selected.chain.order.iter().filter_map(|index| selected.certificates.get(*index)).collect();
    let Some(leaf) = chain.first().copied() else { return Vec::new() };
    let found = [
        format_mismatch(request, store),
        trailing_newline(password_without_newline || selected.without_newline),
        no_integrity(store),
        unusable_keys(selected),
        certificate_authority(leaf),
        client_auth_missing(leaf),
        chain_incomplete(&chain, selected),
        weak_signature(&chain),
        expires_soon(request.now, selected.identity.facts()),
    ];
    let warning = |(reason, text)| Warning { reason, message: format!("{}: {text}", request.file) };
    found.into_iter().flatten().map(warning).collect()
}

type Found = Option<(WarningReason, String)>;

fn format_mismatch(request: &Request<'_>, store: &Store) -> Found {
    let declared = request.declared.filter(|declared| *declared != store.format)?;
    let text = format!(
        "the content is {}, and format says {declared}; set format to {}",
        store.format, store.format
    );
    Some((WarningReason::FormatMismatch, text))
}

fn trailing_newline(without_newline: bool) -> Found {
    let text = "the password works only without the newline at its end; take it out of the Secret";
    without_newline.then(|| (WarningReason::PasswordTrailingNewline, text.to_owned()))
}

fn no_integrity(store: &Store) -> Found {
    let text = "the keystore has no MAC: nothing shows whether it was changed after it was written";
    (!store.integrity).then(|| (WarningReason::NoIntegrity, text.to_owned()))
}

fn unusable_keys(selected: &Selected<'_>) -> Found {
    if selected.unusable.is_empty() {
        return None;
    }
    let keys: Vec<_> =
        selected.unusable.iter().map(|(name, fault)| format!("{name} ({})", fault.reason())).collect();
    let text = format!("keys that cannot be used were left aside: {}; choose with alias", keys.join(", "));
    Some((WarningReason::UnusableKeys, text))
}

fn certificate_authority(leaf: &X509Certificate<'_>) -> Found {
    let text = "the certificate is one of a certificate authority, which clients should not present";
    leaf.is_ca().then(|| (WarningReason::CertificateAuthority, text.to_owned()))
}

/// RFC 5280, 4.2.1.12: without the extension every purpose is allowed.
fn client_auth_missing(leaf: &X509Certificate<'_>) -> Found {
    let usage = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::ExtendedKeyUsage(usage) => Some(usage),
        _ => None,
    })?;
    let text = "the certificate's extended key usage does not include clientAuth; \
                most servers refuse it as a client certificate";
    (!usage.client_auth && !usage.any).then(|| (WarningReason::ClientAuthMissing, text.to_owned()))
}

/// A root need not be sent (RFC 8446, 4.4.2), so a chain that ends in an intermediate is complete.
fn chain_incomplete(chain: &[&X509Certificate<'_>], selected: &Selected<'_>) -> Found {
    let last = chain.last()?;
    if selected.chain.rooted {
        return None;
    }
    let issuer = quoted(&crate::identity::rfc4514(last.issuer()));
    let others = selected
        .certificates
        .iter()
        .enumerate()
        .any(|(index, other)| !selected.chain.order.contains(&index) && other.is_ca());
    if others {
        let text = format!(
            "the chain breaks at {}: its issuer {issuer} is not in the keystore, while other \
             authorities are; add the missing intermediate",
            quoted(&subject(last))
        );
        return Some((WarningReason::IntermediateMissing, text));
    }
    let text = format!(
        "the keystore holds the certificate without its issuer {issuer}; \
         unless that is a root that the server trusts, add the chain"
    );
    (chain.len() == 1).then_some((WarningReason::ChainIncomplete, text))
}

/// A root's own signature is not relied on.
fn weak_signature(chain: &[&X509Certificate<'_>]) -> Found {
    let (certificate, digest) =
        chain.iter().filter(|c| !chain::is_self_issued(c)).find_map(|certificate| {
            let oid = certificate.signature_algorithm.algorithm.to_id_string();
            let (_, digest) = WEAK_SIGNATURES.iter().find(|(weak, _)| *weak == oid)?;
            Some((certificate, digest))
        })?;
    let text = format!(
        "the certificate {} is signed with {digest}, which many servers refuse; have it issued again",
        quoted(&subject(certificate))
    );
    Some((WarningReason::WeakSignature, text))
}

fn expires_soon(now: Timestamp, leaf: &Facts) -> Found {
    let left = leaf.valid_till.as_second().saturating_sub(now.as_second());
    let text = || match left / (24 * 3600) {
        0 => "the certificate expires within a day; replace it".to_owned(),
        1 => "the certificate expires in 1 day; replace it".to_owned(),
        days => format!("the certificate expires in {days} days; replace it"),
    };
    (now >= leaf.expires_soon_at()).then(|| (WarningReason::ExpiresSoon, text()))
}
