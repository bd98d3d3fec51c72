//! What a person asks for.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    OutboundWebhookStatus,
    delivery::{Delivery, Events, seconds},
};

/// Where events go, and the client certificate that is shown there.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "postrider.dev",
    version = "v1alpha1",
    kind = "OutboundWebhook",
    plural = "outboundwebhooks",
    shortname = "owh",
    category = "postrider",
    namespaced,
    status = "OutboundWebhookStatus",
    derive = "PartialEq",
    doc = "An endpoint that events are delivered to, with mutual TLS where it asks for it.",
    validation = Rule::new("self.metadata.name.size() <= 230")
        .message("metadata.name must have at most 230 characters: objects named after it add a suffix"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.endpoint.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(
        name = "Identifier",
        type_ = "string",
        json_path = ".status.mtls.active.identifier",
        description = "Subject of the certificate in use"
    ),
    printcolumn(
        name = "Valid Till",
        type_ = "string",
        json_path = ".status.mtls.active.validTill",
        description = "When the certificate in use expires"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "New Identifier",
        type_ = "string",
        json_path = ".status.mtls.new.identifier",
        description = "Subject of the certificate that is to replace the one in use",
        priority = 1
    ),
    printcolumn(
        name = "New Valid Till",
        type_ = "string",
        json_path = ".status.mtls.new.validTill",
        description = "When the certificate that is to replace the one in use expires",
        priority = 1
    ),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Connected\")].reason",
        description = "Result of the last connection test",
        priority = 1
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.delivery.pending",
        description = "Events that wait to be delivered",
        priority = 1
    )
)]
#[x_kube(validation = Rule::new(
    "!has(self.authorization) || !has(self.endpoint.headers) \
     || self.endpoint.headers.all(h, h.name.lowerAscii() != 'authorization')"
).message("endpoint.headers must not have Authorization beside spec.authorization: use one of the two"))]
#[x_kube(validation = Rule::new(
    "!has(self.authorization) || !has(self.authorization.header) || !has(self.endpoint.headers) \
     || self.endpoint.headers.all(h, h.name.lowerAscii() != self.authorization.header.name.lowerAscii())"
).message("authorization.header.name must not be in endpoint.headers as well"))]
#[serde(rename_all = "camelCase")]
pub struct OutboundWebhookSpec {
    /// Where events go, and whom to trust there.
    pub endpoint: Endpoint,
    /// The client certificate. Without it events go over plain HTTPS; with it nothing is ever sent
    /// without the certificate that is named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// How the endpoint knows the sender in HTTP, beside its certificate. Nothing is ever sent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// How each request is signed. Nothing is ever sent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Which events it takes. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Events>,
    /// How events are sent and repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Events are accepted and kept, and none is sent.
    #[serde(default)]
    pub suspend: bool,
}

/// A URL that is dialled.
const HTTPS_URL: &str = "isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != ''";
const NO_CREDENTIALS: &str = "!self.matches('^[^/]*//[^/?]*@')";
const NO_CREDENTIALS_MESSAGE: &str =
    "must not hold credentials: they would stand in clear text in this object";
const NO_FRAGMENT: &str = "!self.contains('#')";
const NO_FRAGMENT_MESSAGE: &str = "must not have a fragment: it is never sent";

/// Where events go, and whom to trust there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// An https URL; path and query are allowed, credentials and a fragment are not.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(HTTPS_URL)
        .message("must be an https URL with a host, such as https://partner.example/hooks"))]
    #[x_kube(validation = Rule::new(NO_CREDENTIALS).message(NO_CREDENTIALS_MESSAGE))]
    #[x_kube(validation = Rule::new(NO_FRAGMENT).message(NO_FRAGMENT_MESSAGE))]
    pub url: String,
    /// Time for a whole attempt, seconds.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
    /// Sent with every event. A connection test sends none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(
        "self.all(h, self.exists_one(other, other.name.lowerAscii() == h.name.lowerAscii()))"
    ).message("must not name a header twice; upper and lower case are the same"))]
    pub headers: Vec<Header>,
    /// Who the server may be. Default: whom the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// How the connection is tested. No test sends an event, a header of `headers`, authorization or signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<ConnectionTest>,
}

/// The name of a header: RFC 9110, 5.1.
const HEADER_NAME: &str = "self.matches('^[A-Za-z0-9!#$%&*+.^_`|~\\'-]+$')";
const HEADER_NAME_MESSAGE: &str = "must be the name of an HTTP header: letters, digits and !#$%&'*+-.^_`|~";
/// Those that the program sets itself, and those that are about a connection and no request.
const NOT_RESERVED: &str = "!(self.lowerAscii() in ['host', 'content-length', 'content-type', 'transfer-encoding', \
     'connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'upgrade', 'expect']) \
     && !self.lowerAscii().startsWith('webhook-') && !self.lowerAscii().startsWith('ce-')";
const NOT_RESERVED_MESSAGE: &str = "is reserved: Host, Content-Length, Content-Type, Transfer-Encoding, Connection \
     and others of a connection, webhook-* and ce-* are set by Postrider";

/// A header with its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)")
    .message("exactly one of value and valueFrom must be set"))]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name; upper and lower case are the same.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(HEADER_NAME).message(HEADER_NAME_MESSAGE))]
    #[x_kube(validation = Rule::new(NOT_RESERVED).message(NOT_RESERVED_MESSAGE))]
    pub name: String,
    /// Its value, which everybody may read who may read this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]([ -~\\t]*[!-~])?$')")
        .message("must be printable ASCII without a space at either end"))]
    pub value: Option<String>,
    /// Where its value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderValueSource>,
}

/// Where the value of a header is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HeaderValueSource {
    /// A key of a Secret. One line break at the end of the value is left out.
    pub secret_key_ref: SecretKeyRef,
}

/// How the connection is tested.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionTest {
    /// What is sent once TLS is up. Some servers refuse a certificate only in HTTP.
    #[serde(default)]
    pub request: TestRequest,
}

/// What a test sends once TLS is up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TestRequest {
    /// Nothing: the handshake and a first read.
    #[default]
    None,
    /// A HEAD request.
    Head,
    /// An OPTIONS request.
    Options,
}

fn default_timeout_seconds() -> i32 {
    10
}

/// Who the server may be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new(
    "has(self.caBundleRef) || has(self.trustStoreRef) || (has(self.includeSystemRoots) && self.includeSystemRoots)"
).message("trusts nobody: set caBundleRef, trustStoreRef or includeSystemRoots"))]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Certificates of the authorities (or of the server itself) to trust, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<BundleRef>,
    /// A trust store: the certificates that it trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_store_ref: Option<TrustStoreRef>,
    /// Trust the system's authorities as well.
    #[serde(default)]
    pub include_system_roots: bool,
}

/// A key of a Secret or ConfigMap in the webhook's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// What holds the bundle.
    #[serde(default)]
    pub kind: BundleKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "default_bundle_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A trust store in a Secret or ConfigMap in the webhook's namespace: PKCS#12 or JKS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrustStoreRef {
    /// What holds the store.
    #[serde(default)]
    pub kind: BundleKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it. Default: the first of truststore.p12 and truststore.jks that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// The password of the store: exact bytes.
    pub password_secret_ref: SecretKeyRef,
}

fn default_bundle_key() -> String {
    "ca.crt".to_owned()
}

/// What holds a bundle of certificates.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::IntoStaticStr,
)]
pub enum BundleKind {
    /// A ConfigMap.
    #[default]
    ConfigMap,
    /// A Secret.
    Secret,
}

impl BundleKind {
    /// As the API server calls it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Mutual TLS: the client certificate that the endpoint demands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MutualTls {
    /// The client certificate in use.
    pub active: Certificate,
    /// The client certificate that is to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Certificate>,
    /// How one replaces the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// How a new client certificate replaces the one in use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// When the new certificate becomes the one in use.
    #[serde(default)]
    pub promotion: Promotion,
}

/// When the new certificate becomes the one in use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promotion {
    /// Once it has passed its connection test.
    #[default]
    Automatic,
    /// Once the annotation postrider.dev/promote names its fingerprint.
    Manual,
}

/// A client certificate in a keystore.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The Secret that holds the keystore.
    pub secret_ref: KeystoreRef,
    /// The keystore's format. The file is recognised by its content; one that differs is a warning.
    pub format: KeystoreFormat,
    /// The password of the store: exact bytes.
    pub password_secret_ref: SecretKeyRef,
    /// The entry to take, where the store holds several keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub alias: Option<String>,
    /// The password of the key, where it is not the store's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_password_secret_ref: Option<SecretKeyRef>,
}

/// A Secret that holds a keystore, in the webhook's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeystoreRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it. Default: the first of `keystore.p12`, `keystore.jks` and `user.p12` that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A key of a Secret in the webhook's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The formats that are taken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeystoreFormat {
    /// PKCS#12, RFC 7292.
    #[serde(rename = "PKCS12")]
    Pkcs12,
    /// Java KeyStore.
    #[serde(rename = "JKS")]
    Jks,
}

/// How the endpoint knows the sender in HTTP. One line break at the end of a value in a Secret is left out. A
/// connection test sends none of this.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new(
    "[has(self.basic), has(self.bearer), has(self.header), has(self.oauth2ClientCredentials)].filter(is, is).size() == 1"
).message("exactly one of basic, bearer, header and oauth2ClientCredentials must be set"))]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// A user and a password: RFC 7617.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuthorization>,
    /// A token that does not change by itself: RFC 6750.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuthorization>,
    /// A header of the endpoint's own, such as X-API-Key, or Authorization with another scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderAuthorization>,
    /// A token that an authorization server gives: RFC 6749, 4.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2_client_credentials: Option<ClientCredentials>,
}

/// A user and a password.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuthorization {
    /// The user's name, without a colon.
    pub username_secret_ref: SecretKeyRef,
    /// The password.
    pub password_secret_ref: SecretKeyRef,
}

/// A token that does not change by itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuthorization {
    /// The token, without the word Bearer.
    pub token_secret_ref: SecretKeyRef,
}

/// A header of the endpoint's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HeaderAuthorization {
    /// Its name; upper and lower case are the same.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(HEADER_NAME).message(HEADER_NAME_MESSAGE))]
    #[x_kube(validation = Rule::new(NOT_RESERVED).message(NOT_RESERVED_MESSAGE))]
    pub name: String,
    /// Its whole value.
    pub value_secret_ref: SecretKeyRef,
}

/// A token that an authorization server gives. It is kept until shortly before it expires, and fetched anew
/// once where the endpoint answers 401. The token endpoint has ten seconds to answer, beside the time of the
/// attempt that waits for it; while it gives no token, nothing is sent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCredentials {
    /// The token endpoint, an https URL. Who its server may be says endpoint.trust, as for the endpoint itself:
    /// set includeSystemRoots there where one of them is public and the other is not. No client certificate is
    /// shown to it, and its redirects are not followed.
    #[serde(rename = "tokenURL")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(HTTPS_URL)
        .message("must be an https URL with a host, such as https://login.example/oauth2/token"))]
    #[x_kube(validation = Rule::new(NO_CREDENTIALS).message(NO_CREDENTIALS_MESSAGE))]
    #[x_kube(validation = Rule::new(NO_FRAGMENT).message(NO_FRAGMENT_MESSAGE))]
    pub token_url: String,
    /// The client's id.
    #[serde(rename = "clientIDSecretRef")]
    pub client_id_secret_ref: SecretKeyRef,
    /// The client's secret.
    pub client_secret_secret_ref: SecretKeyRef,
    /// What the token is to be good for. Default: what the authorization server says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new("self.all(scope, scope.matches('^[!#-\\\\[\\\\]-~]+$'))")
        .message("each scope must be printable ASCII without spaces, quotes and backslashes"))]
    pub scopes: Vec<String>,
    /// Whom the token is for: the parameter audience, which some authorization servers ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// How the token endpoint is told the id and the secret.
    #[serde(default)]
    pub token_endpoint_auth_method: TokenEndpointAuthMethod,
}

/// How a token endpoint is told the client's id and secret: RFC 6749, 2.3.1.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenEndpointAuthMethod {
    /// In the header Authorization.
    #[default]
    ClientSecretBasic,
    /// In the body of the request.
    ClientSecretPost,
}

/// Standard Webhooks: the header webhook-signature, with v1 (HMAC-SHA256) over id, timestamp and body.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// The secrets: each whsec_ and the base64 of 24 to 64 bytes. With two, each request has a signature of each,
    /// so that the receiver can change from one to the other at its own time.
    #[schemars(length(min = 1, max = 2))]
    pub secret_refs: Vec<SecretKeyRef>,
}

impl OutboundWebhookSpec {
    /// Whether a request carries anything from a Secret, or anything that a person has chosen.
    pub fn asks_for_credentials(&self) -> bool {
        !self.endpoint.headers.is_empty() || self.authorization.is_some() || self.signature.is_some()
    }

    /// The Secrets behind `endpoint.headers`, `authorization` and `signature`.
    pub fn credential_refs(&self) -> Vec<&SecretKeyRef> {
        let of_headers = self.endpoint.headers.iter().filter_map(|header| header.value_from.as_ref());
        let mut refs: Vec<_> = of_headers.map(|source| &source.secret_key_ref).collect();
        if let Some(Authorization { basic, bearer, header, oauth2_client_credentials }) = &self.authorization
        {
            refs.extend(basic.iter().flat_map(|b| [&b.username_secret_ref, &b.password_secret_ref]));
            refs.extend(bearer.iter().map(|bearer| &bearer.token_secret_ref));
            refs.extend(header.iter().map(|header| &header.value_secret_ref));
            let oauth2 = oauth2_client_credentials.iter();
            refs.extend(oauth2.flat_map(|o| [&o.client_id_secret_ref, &o.client_secret_secret_ref]));
        }
        refs.extend(self.signature.iter().flat_map(|signature| &signature.secret_refs));
        refs
    }
}

impl Endpoint {
    /// Time for a whole attempt.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }
}
