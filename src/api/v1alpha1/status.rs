//! What was found.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OutboundWebhookStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` is the summary: unless it is True nothing is sent.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTlsStatus>,
    /// The last connection test of each certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestsStatus>,
    /// What the dispatcher tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryStatus>,
}

/// The last connection test of each certificate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TestsStatus {
    /// With the certificate in use, or without one where none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<TestStatus>,
    /// With the certificate that is to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<TestStatus>,
}

/// A connection test.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TestStatus {
    /// The certificate that was presented, as in status.mtls.
    #[serde(rename = "fingerprintSHA256", default, skip_serializing_if = "Option::is_none")]
    pub fingerprint_sha256: Option<String>,
    /// When it ended.
    pub time: Time,
    /// Whether deliveries may be expected to arrive.
    pub succeeded: bool,
    /// A documented constant.
    pub reason: String,
    /// What was seen, which side, and what to do.
    pub message: String,
    /// Where it failed: `DNS`, `Connect`, `TLS`, `TLSServer`, `TLSClient`, `HTTP` or `Timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The TLS alert that the server sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<AlertStatus>,
    /// What may explain a failure, or deserves a look beside success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<CertificateWarning>,
    /// TLSv1.2 or TLSv1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<String>,
    /// By its name in the registry of IANA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher_suite: Option<String>,
    /// Whether the server asked for a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_requested: Option<bool>,
    /// The authorities whose certificates the server says it accepts (RFC 4514), the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_authorities: Vec<String>,
    /// Whether ours is under one of them. Absent where the server names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_accepted: Option<bool>,
    /// What the server presented, leaf first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_chain: Vec<ServerCertificateStatus>,
    /// Status of the response, where a request was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i32>,
    /// Changes with what the test depends on: the endpoint, its trust, and the wish for a test.
    pub inputs: String,
}

/// A TLS alert.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
}

/// A certificate that a server presented.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerCertificateStatus {
    /// Subject (RFC 4514).
    pub subject: String,
    /// When it expires.
    pub valid_till: Time,
    /// SHA-256 of the certificate, lower-case hex.
    #[serde(rename = "fingerprintSHA256")]
    pub fingerprint_sha256: String,
}

/// What the dispatcher tells: written every ten seconds at most, and only on change.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// Events that wait to be delivered, those under way included.
    #[serde(default)]
    pub pending: i64,
    /// Events that were delivered so far.
    #[serde(default)]
    pub delivered: i64,
    /// Events that were given up, and are kept.
    #[serde(default)]
    pub dead: i64,
    /// When an event was last delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// The last attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureStatus>,
    /// The last time that the endpoint refused a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_refused: Option<RefusalStatus>,
}

/// An attempt that failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// When.
    pub time: Time,
    /// Where it failed: DNS, Connect, TLS, TLSServer, TLSClient, HTTP, Authorization, Timeout.
    pub layer: String,
    /// A documented constant.
    pub reason: String,
    /// What was seen.
    pub message: String,
}

/// An endpoint refused a client certificate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// The certificate that was refused.
    #[serde(rename = "fingerprintSHA256")]
    pub fingerprint_sha256: String,
    /// The certificate that was taken instead, where one was.
    #[serde(rename = "takenFingerprintSHA256", default, skip_serializing_if = "Option::is_none")]
    pub taken_fingerprint_sha256: Option<String>,
    /// What was seen.
    pub message: String,
    /// When.
    pub time: Time,
}

/// The client certificates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MutualTlsStatus {
    /// The certificate in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<CertificateStatus>,
    /// The certificate that is to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<CertificateStatus>,
    /// The certificate that was replaced, until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<CertificateStatus>,
    /// The ConfigMap with the public certificates: what is installed in the receiving server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<LocalRef>,
}

/// A client certificate, as found in its keystore.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Subject (RFC 4514); without a subject the first alternative name, else the serial number.
    pub identifier: String,
    /// When it expires.
    pub valid_till: Time,
    /// Since when it is valid.
    pub valid_from: Time,
    /// Upper-case hex.
    pub serial_number: String,
    /// Issuer (RFC 4514).
    pub issuer: String,
    /// SHA-256 of the certificate, lower-case hex.
    #[serde(rename = "fingerprintSHA256")]
    pub fingerprint_sha256: String,
    /// The name of the entry in the keystore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Type and size of the key.
    pub key_algorithm: String,
    /// Certificates in the chain, this one included.
    pub chain_length: i32,
    /// Where it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What works and yet deserves a look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<CertificateWarning>,
}

/// Where a certificate was read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name of the Secret.
    pub secret: String,
    /// Key in the Secret.
    pub key: String,
    /// Version of the Secret.
    pub resource_version: String,
}

/// What works and yet deserves a look.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateWarning {
    /// A documented constant.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// An object in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Its name.
    pub name: String,
}
