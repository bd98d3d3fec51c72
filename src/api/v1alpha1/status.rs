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
    /// `Ready` is the summary: it alone decides whether anything is sent.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTlsStatus>,
}

/// The client certificates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MutualTlsStatus {
    /// The certificate in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<CertificateStatus>,
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
