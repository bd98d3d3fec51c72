//! Certificates and keystores, made and described by the real `openssl` and `keytool`.
//!
//! What a test compares with the operator's output comes from these programs' own words: [`Facts`] and
//! [`StoreEntry`].

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::HEXLOWER;
use jiff::{Timestamp, ToSpan, fmt::strtime, tz::TimeZone};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::OnceCell;

use super::{directory, secrets, tool::Tool};

/// The kind of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    EcP256,
    EcP384,
    Ed25519,
    Rsa2048,
    Rsa1024,
}

impl Key {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::EcP256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::EcP384 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::Ed25519 => &["-newkey", "ed25519"],
            Self::Rsa2048 => &["-newkey", "rsa:2048"],
            Self::Rsa1024 => &["-newkey", "rsa:1024"],
        }
    }
}

/// When a certificate is valid, seen from now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Validity {
    /// From an hour ago to a year from now.
    Year,
    /// It ended an hour ago.
    Expired,
    /// It begins in a day.
    NotYet,
    /// It ends that long from now, cut to seconds.
    ExpiresIn(Duration),
    /// From a moment ago to that long from now, cut to seconds: a life that is short in all.
    LivesFor(Duration),
    /// From two days ago to that long from now, cut to seconds.
    NearItsEnd(Duration),
}

impl Validity {
    fn bounds(self) -> (Timestamp, Timestamp) {
        let now = Timestamp::now();
        let hour = 1.hour();
        match self {
            Self::Year => (now - hour, now + (365 * 24).hours()),
            Self::Expired => (now - 48.hours(), now - hour),
            Self::NotYet => (now + 24.hours(), now + 48.hours()),
            Self::ExpiresIn(time) => (now - hour, now + time),
            Self::NearItsEnd(time) => (now - 48.hours(), now + time),
            Self::LivesFor(time) => (now - 1.second(), now + time),
        }
    }
}

/// A request for a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    subject: String,
    alt_names: String,
    usage: &'static str,
    key: Key,
    validity: Validity,
}

impl Request {
    /// For a client. The subject is in openssl's notation, most significant first: `/O=Example/CN=orders`.
    pub(crate) fn client(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            alt_names: String::new(),
            usage: "clientAuth",
            key: Key::EcP256,
            validity: Validity::Year,
        }
    }

    /// For a server on this machine: `localhost` and 127.0.0.1.
    pub(crate) fn server() -> Self {
        Self { usage: "serverAuth", ..Self::client("/CN=localhost") }.alt_names("DNS:localhost,IP:127.0.0.1")
    }

    pub(crate) fn key(self, key: Key) -> Self {
        Self { key, ..self }
    }

    pub(crate) fn validity(self, validity: Validity) -> Self {
        Self { validity, ..self }
    }

    /// In openssl's notation: `DNS:localhost,IP:127.0.0.1`.
    pub(crate) fn alt_names(self, names: &str) -> Self {
        Self { alt_names: names.to_owned(), ..self }
    }

    /// In openssl's notation: `clientAuth`, `serverAuth`, or both with a comma.
    pub(crate) fn usage(self, usage: &'static str) -> Self {
        Self { usage, ..self }
    }
}

/// A certificate, its key and what stands above it. Files are PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    directory: PathBuf,
    /// The certificate alone.
    pub(crate) leaf: PathBuf,
    pub(crate) key: PathBuf,
    /// The certificate and its intermediates, without the root: what a TLS peer presents.
    pub(crate) chain: PathBuf,
    /// Intermediates and root.
    pub(crate) issuers: PathBuf,
    pub(crate) facts: Facts,
}

/// A certificate that issues others.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    certificate: Certificate,
    /// The root above it, or itself.
    pub(crate) root: PathBuf,
    /// What a leaf presents beside itself: from this authority up, without the root.
    intermediates: Vec<PathBuf>,
}

impl Authority {
    /// A new root.
    pub(crate) async fn root(common_name: &str) -> Self {
        let directory = directory::unique_directory("root");
        let certificate = issue(directory, &authority_request(common_name), None, "authority").await;
        Self { root: certificate.leaf.clone(), intermediates: Vec::new(), certificate }
    }

    /// A new authority below this one.
    pub(crate) async fn intermediate(&self, common_name: &str) -> Self {
        let directory = directory::unique_directory("intermediate");
        let certificate = issue(directory, &authority_request(common_name), Some(self), "authority").await;
        let intermediates = [vec![certificate.leaf.clone()], self.intermediates.clone()].concat();
        Self { root: self.root.clone(), intermediates, certificate }
    }

    /// A new certificate below this authority.
    pub(crate) async fn issue(&self, request: &Request) -> Certificate {
        issue(directory::unique_directory("certificate"), request, Some(self), "leaf").await
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The root, for who is to trust it.
    pub(crate) fn root_pem(&self) -> String {
        read(&self.root)
    }
}

fn authority_request(common_name: &str) -> Request {
    Request::client(&format!("/O=Postrider tests/CN={common_name}"))
}

/// `openssl ca` is the one command of OpenSSL 3.0 that takes dates; a fresh database for each certificate
/// lets any number of them run at a time.
async fn issue(
    directory: PathBuf,
    request: &Request,
    issuer: Option<&Authority>,
    section: &str,
) -> Certificate {
    let alt_names = match request.alt_names.as_str() {
        "" => String::new(),
        names => format!("subjectAltName = {names}"),
    };
    let configuration = format!(
        "[req]\ndistinguished_name = nothing\n[nothing]\n\
         [ca]\ndefault_ca = issue\n\
         [issue]\ndatabase = index.txt\nnew_certs_dir = .\ndefault_md = sha256\npolicy = any\n\
         rand_serial = yes\nunique_subject = no\npreserve = yes\n\
         [any]\ncountryName = optional\nstateOrProvinceName = optional\nlocalityName = optional\n\
         organizationName = optional\norganizationalUnitName = optional\ncommonName = optional\n\
         emailAddress = optional\nserialNumber = optional\ndomainComponent = optional\nuserId = optional\n\
         [authority]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n\
         [leaf]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n\
         extendedKeyUsage = {}\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n{alt_names}\n",
        request.usage,
    );
    write(&directory.join("openssl.cnf"), &configuration);
    write(&directory.join("index.txt"), "");

    let openssl = || Tool::new("openssl").current_dir(&directory);
    openssl()
        .args(["req", "-new", "-nodes", "-config", "openssl.cnf", "-utf8", "-subj", &request.subject])
        .args(request.key.options())
        .args(["-keyout", "key.pem", "-out", "request.pem"])
        .succeed()
        .await;
    let (from, till) = request.validity.bounds();
    let mut command = openssl()
        .args(["ca", "-batch", "-notext", "-utf8", "-config", "openssl.cnf", "-extensions", section])
        .args(["-startdate", &asn1(from), "-enddate", &asn1(till)])
        .args(["-in", "request.pem", "-out", "leaf.pem"]);
    command = match issuer {
        Some(issuer) => {
            command.arg("-cert", &issuer.certificate.leaf).arg("-keyfile", &issuer.certificate.key)
        }
        None => command.args(["-selfsign", "-keyfile", "key.pem"]),
    };
    if request.key == Key::Ed25519 && issuer.is_none() {
        command = command.args(["-md", "null"]);
    }
    command.succeed().await;

    let (leaf, key) = (directory.join("leaf.pem"), directory.join("key.pem"));
    let intermediates: String =
        issuer.iter().flat_map(|issuer| &issuer.intermediates).map(|path| read(path)).collect();
    let root = issuer.map_or_else(String::new, Authority::root_pem);
    write(&directory.join("chain.pem"), &(read(&leaf) + &intermediates));
    write(&directory.join("issuers.pem"), &(intermediates + &root));
    let facts = Facts::of(&leaf).await;
    let der = PrivateKeyDer::from_pem_file(&key).unwrap_or_else(|error| panic!("{}: {error}", key.display()));
    secrets::private_key(&format!("the private key of {}", facts.subject), der.secret_der());
    Certificate {
        leaf,
        key,
        chain: directory.join("chain.pem"),
        issuers: directory.join("issuers.pem"),
        facts,
        directory,
    }
}

impl Certificate {
    pub(crate) fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.chain)
    }

    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key)
            .unwrap_or_else(|error| panic!("{}: {error}", self.key.display()))
    }

    pub(crate) fn leaf_pem(&self) -> String {
        read(&self.leaf)
    }

    pub(crate) fn chain_pem(&self) -> String {
        read(&self.chain)
    }

    pub(crate) fn key_pem(&self) -> String {
        read(&self.key)
    }

    /// A PKCS#12 store by `openssl pkcs12 -export`, with the algorithms that OpenSSL 3 takes by itself.
    pub(crate) async fn pkcs12(&self) -> Keystore {
        self.pkcs12_with(&new_password(), &[]).await
    }

    /// A PKCS#12 store as OpenSSL 1 and Java 8 made them: RC2-40, 3DES, a MAC by SHA-1.
    pub(crate) async fn pkcs12_legacy(&self) -> Keystore {
        self.pkcs12_with(&new_password(), &["-legacy"]).await
    }

    /// A PKCS#12 store with a password and further options of `openssl pkcs12 -export`.
    pub(crate) async fn pkcs12_with(&self, password: &str, options: &[&str]) -> Keystore {
        let path = directory::unique("keystore.p12");
        secrets::password("the password of a PKCS#12 store", password);
        Tool::new("openssl")
            .args(["pkcs12", "-export", "-name", ALIAS])
            .args(["-passout", &format!("pass:{password}")])
            .args(options)
            .arg("-inkey", &self.key)
            .arg("-in", &self.leaf)
            .arg("-certfile", &self.issuers)
            .arg("-out", &path)
            .succeed()
            .await;
        Keystore { path, format: Format::Pkcs12, password: password.to_owned(), key_password: None }
    }

    /// A JKS store by `keytool -importkeystore`; its key has the password of the store.
    pub(crate) async fn jks(&self) -> Keystore {
        let password = new_password();
        self.jks_with(&password, &password).await
    }

    /// A JKS store whose key has a password of its own.
    pub(crate) async fn jks_with(&self, password: &str, key_password: &str) -> Keystore {
        let path = directory::unique("keystore.jks");
        secrets::password("the password of a JKS store", password);
        secrets::password("the password of a key in a JKS store", key_password);
        let source = self.pkcs12().await;
        keytool()
            .args(["-importkeystore", "-noprompt", "-srcstoretype", "PKCS12", "-deststoretype", "JKS"])
            .arg("-srckeystore", &source.path)
            .args(["-srcstorepass", &source.password, "-srcalias", ALIAS])
            .arg("-destkeystore", &path)
            .args(["-deststorepass", password, "-destkeypass", key_password, "-destalias", ALIAS])
            .succeed()
            .await;
        let key_password = (key_password != password).then(|| key_password.to_owned());
        Keystore { path, format: Format::Jks, password: password.to_owned(), key_password }
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The alias of every key in a store made here.
pub(crate) const ALIAS: &str = "orders";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Pkcs12,
    Jks,
}

impl Format {
    /// As in `mtls.active.format`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pkcs12 => "PKCS12",
            Self::Jks => "JKS",
        }
    }

    /// The key of a Secret under which such a store is looked for.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Pkcs12 => "keystore.p12",
            Self::Jks => "keystore.jks",
        }
    }
}

/// A keystore file and what opens it.
#[derive(Clone, Debug)]
pub(crate) struct Keystore {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) password: String,
    /// The key's own password, where it differs from the store's.
    pub(crate) key_password: Option<String>,
}

impl Keystore {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// What `keytool -list -v` says of it, an item for each entry.
    pub(crate) async fn entries(&self) -> Vec<StoreEntry> {
        let listing = keytool()
            .args(["-list", "-v", "-storetype", self.format.name(), "-storepass", &self.password])
            .arg("-keystore", &self.path)
            .succeed()
            .await;
        StoreEntry::parse(&listing)
    }
}

fn keytool() -> Tool {
    Tool::new("keytool").args(["-J-Duser.language=en", "-J-Duser.country=US", "-J-Duser.timezone=UTC"])
}

/// A password that no other store of the run has.
pub(crate) fn new_password() -> String {
    format!("pass-{:016x}", rand::random::<u64>())
}

/// What `openssl x509` prints of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// RFC 2253, as `-nameopt RFC2253`.
    pub(crate) subject: String,
    /// RFC 2253, as `-nameopt RFC2253`.
    pub(crate) issuer: String,
    /// Upper-case hex.
    pub(crate) serial: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// SHA-256 of the DER, lower-case hex without colons.
    pub(crate) fingerprint_sha256: String,
}

impl Facts {
    /// Of the first certificate in a PEM file.
    pub(crate) async fn of(path: &Path) -> Self {
        let text = Tool::new("openssl")
            .args(["x509", "-noout", "-subject", "-issuer", "-serial", "-startdate", "-enddate"])
            .args(["-fingerprint", "-sha256", "-nameopt", "RFC2253", "-dateopt", "iso_8601"])
            .arg("-in", path)
            .succeed()
            .await;
        let value = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("openssl printed no {name}:\n{text}"))
        };
        let time = |name: &str| -> Timestamp {
            let value = value(name);
            value.parse().unwrap_or_else(|error| panic!("openssl printed the time {value}: {error}"))
        };
        Self {
            subject: value("subject").to_owned(),
            issuer: value("issuer").to_owned(),
            serial: value("serial").to_owned(),
            not_before: time("notBefore"),
            not_after: time("notAfter"),
            fingerprint_sha256: value("sha256 Fingerprint").replace(':', "").to_lowercase(),
        }
    }
}

/// What `keytool -list -v` prints of an entry of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreEntry {
    pub(crate) alias: String,
    /// `PrivateKeyEntry` or `trustedCertEntry`.
    pub(crate) kind: String,
    /// 0 where there is no key.
    pub(crate) chain_length: usize,
    /// Java's notation, which puts spaces after commas.
    pub(crate) owner: String,
    /// Lower-case hex.
    pub(crate) serial: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// SHA-256 of the DER, lower-case hex without colons.
    pub(crate) fingerprint_sha256: String,
}

impl StoreEntry {
    fn parse(listing: &str) -> Vec<Self> {
        listing.split("Alias name: ").skip(1).map(|entry| Self::parse_one(entry, listing)).collect()
    }

    /// The first certificate of an entry is the leaf.
    fn parse_one(entry: &str, listing: &str) -> Self {
        let optional = |name: &str| {
            let mut lines = entry.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(name)).map(str::trim)
        };
        let value =
            |name: &str| optional(name).unwrap_or_else(|| panic!("keytool printed no `{name}`:\n{listing}"));
        let (from, till) = value("Valid from:")
            .split_once(" until: ")
            .unwrap_or_else(|| panic!("keytool printed no end of validity:\n{listing}"));
        Self {
            alias: entry.lines().next().unwrap_or_default().trim().to_owned(),
            kind: value("Entry type:").to_owned(),
            chain_length: optional("Certificate chain length:").and_then(|n| n.parse().ok()).unwrap_or(0),
            owner: value("Owner:").to_owned(),
            serial: value("Serial number:").to_owned(),
            not_before: java_time(from),
            not_after: java_time(till),
            fingerprint_sha256: value("SHA256:").replace(':', "").to_lowercase(),
        }
    }
}

/// `Tue Nov 24 06:25:22 UTC 2026`
fn java_time(text: &str) -> Timestamp {
    strtime::parse("%a %b %d %H:%M:%S UTC %Y", text)
        .and_then(|time| time.to_datetime())
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .unwrap_or_else(|error| panic!("keytool printed the time `{text}`: {error}"))
        .timestamp()
}

/// `20261124062522Z`
fn asn1(time: Timestamp) -> String {
    time.strftime("%Y%m%d%H%M%SZ").to_string()
}

/// What most tests need, made once in a run and by the first that needs it.
pub(crate) struct Shared {
    /// Issued [`Shared::server`].
    pub(crate) server_authority: Authority,
    /// For `localhost` and 127.0.0.1.
    pub(crate) server: Certificate,
    /// An intermediate; servers trust its root.
    pub(crate) client_authority: Authority,
    /// `CN=orders,O=Example`
    pub(crate) client: Certificate,
    pkcs12: OnceCell<Keystore>,
    pkcs12_legacy: OnceCell<Keystore>,
    jks: OnceCell<Keystore>,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// The certificates that tests share.
pub(crate) async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            let server_authority = Authority::root("Server root").await;
            let server = server_authority.issue(&Request::server()).await;
            let client_root = Authority::root("Client root").await;
            let client_authority = client_root.intermediate("Client issuer").await;
            let client = client_authority.issue(&Request::client("/O=Example/CN=orders")).await;
            Shared {
                server_authority,
                server,
                client_authority,
                client,
                pkcs12: OnceCell::new(),
                pkcs12_legacy: OnceCell::new(),
                jks: OnceCell::new(),
            }
        })
        .await
}

impl Shared {
    /// [`Shared::client`] in a PKCS#12 store.
    pub(crate) async fn pkcs12(&self) -> &Keystore {
        self.pkcs12.get_or_init(|| self.client.pkcs12()).await
    }

    /// [`Shared::client`] in a PKCS#12 store with the algorithms of old.
    pub(crate) async fn pkcs12_legacy(&self) -> &Keystore {
        self.pkcs12_legacy.get_or_init(|| self.client.pkcs12_legacy()).await
    }

    /// [`Shared::client`] in a JKS store.
    pub(crate) async fn jks(&self) -> &Keystore {
        self.jks.get_or_init(|| self.client.jks()).await
    }
}

/// SHA-256 of a certificate, in the notation of [`Facts::fingerprint_sha256`].
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    HEXLOWER.encode(digest.as_ref())
}

pub(crate) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
