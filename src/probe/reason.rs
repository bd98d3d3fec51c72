//! The documented constants of a test's result: how it ended, and in which layer.

use std::fmt;

use rustls::AlertDescription;

/// How a connection test ended, or an attempt to deliver.
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
    /// The server answered, and nothing spoke against the certificate.
    Succeeded,
    /// The server ended the connection with an alert about the client certificate, or answered in HTTP that
    /// it does not take it. Why, only the server knows.
    ClientCertificateRejected,
    /// The server wants a client certificate, and the webhook has none.
    ClientCertificateRequired,
    /// All went well, but the server never asked for the certificate. A warning: it may not know the client.
    ClientCertificateNotRequested,
    /// The server's list of authorities does not name the certificate's issuer. A hint: the list is often
    /// wrong.
    IssuerNotAccepted,
    /// The client certificate cannot be used with this server, or at all; nothing was sent.
    CertificateUnusable,
    /// The certificates that are to be trusted cannot be used; nothing was sent.
    TrustUnusable,
    /// The server's certificate is not one that the endpoint's trust covers.
    ServerUntrusted,
    /// The server's certificate is for another name.
    ServerNameMismatch,
    /// The server's certificate has expired.
    ServerCertificateExpired,
    /// The server's certificate is not valid yet.
    ServerCertificateNotYetValid,
    /// The host's name has no address.
    ResolveFailed,
    /// Every address of the host is one that must not be dialled; nothing was sent.
    AddressRefused,
    /// The proxy that an administrator has named is away, or did not connect.
    ProxyFailed,
    /// No TCP connection.
    ConnectFailed,
    /// The server ended the connection and said nothing.
    ConnectionClosed,
    /// It took too long.
    TimedOut,
    /// Client and server have no version of TLS in common.
    #[strum(serialize = "TLSVersion")]
    TlsVersion,
    /// The handshake failed in another way.
    #[strum(serialize = "TLSFailed")]
    TlsFailed,
    /// The server answered with an HTTP status that says no: a 403 to a test, or anything but 2xx to an event.
    #[strum(serialize = "HTTPStatus")]
    HttpStatus,
    /// What came back is no HTTP/1.1 response, or there was no request that could be sent.
    #[strum(serialize = "HTTPFailed")]
    HttpFailed,
    /// The token endpoint gave no token; nothing was sent.
    TokenRefused,
    /// The token endpoint could not be reached; nothing was sent.
    TokenEndpointUnreachable,
}

impl Reason {
    /// The constant as it stands in a status.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Where a connection failed.
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
pub enum Layer {
    /// Finding the host's address.
    #[strum(serialize = "DNS")]
    Dns,
    /// The TCP connection: none, or it broke.
    Connect,
    /// TLS itself.
    #[strum(serialize = "TLS")]
    Tls,
    /// TLS: what the server presented.
    #[strum(serialize = "TLSServer")]
    TlsServer,
    /// TLS: what the client presented.
    #[strum(serialize = "TLSClient")]
    TlsClient,
    /// The answer.
    #[strum(serialize = "HTTP")]
    Http,
    /// The token that authorizes the request could not be had.
    Authorization,
    /// The time ran out.
    Timeout,
}

impl Layer {
    /// The constant as it stands in a status.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A TLS alert that the server sent: RFC 8446, 6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert {
    /// Its number.
    pub number: u8,
    /// Its name in the registry of IANA.
    pub name: &'static str,
}

impl From<AlertDescription> for Alert {
    fn from(description: AlertDescription) -> Self {
        let number = u8::from(description);
        Self { number, name: alert_name(number) }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.name)
    }
}

fn alert_name(number: u8) -> &'static str {
    match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => "unassigned",
    }
}
