//! `status.test`: a connection test as a person is told of it.

use jiff::Timestamp;

use crate::{
    api::v1alpha1::{AlertStatus, CertificateWarning, ServerCertificateStatus, TestStatus},
    kubernetes::time,
    probe::Outcome,
};

/// A test of a certificate with these inputs.
pub(in crate::controller) fn test_status(
    outcome: &Outcome,
    fingerprint_sha256: Option<String>,
    inputs: &str,
    ended_at: Timestamp,
) -> TestStatus {
    let tls = outcome.tls.as_ref();
    TestStatus {
        fingerprint_sha256,
        time: time(ended_at),
        succeeded: outcome.succeeded(),
        reason: outcome.reason.as_str().to_owned(),
        message: outcome.message.clone(),
        layer: outcome.layer.map(|layer| layer.as_str().to_owned()),
        alert: outcome
            .alert
            .as_ref()
            .map(|alert| AlertStatus { number: i32::from(alert.number), name: alert.name.to_string() }),
        hint: outcome.hint.as_ref().map(|hint| CertificateWarning {
            reason: hint.reason.as_str().to_owned(),
            message: hint.message.clone(),
        }),
        tls_version: tls.and_then(|tls| tls.version).map(str::to_owned),
        cipher_suite: tls.and_then(|tls| tls.cipher_suite.clone()),
        client_certificate_requested: tls.map(|tls| tls.certificate_requested),
        accepted_authorities: tls.map(|tls| tls.accepted_authorities.clone()).unwrap_or_default(),
        issuer_accepted: tls.and_then(|tls| tls.issuer_accepted),
        server_chain: tls
            .map(|tls| {
                let chain = tls.server_chain.iter().map(|certificate| ServerCertificateStatus {
                    subject: certificate.subject.clone(),
                    valid_till: time(certificate.valid_till),
                    fingerprint_sha256: certificate.fingerprint_sha256.clone(),
                });
                chain.collect()
            })
            .unwrap_or_default(),
        http_status: outcome.http_status.map(i32::from),
        inputs: inputs.to_owned(),
    }
}
