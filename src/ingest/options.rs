//! Where events are taken.

use std::net::SocketAddr;

use clap::Args;
use jiff::SignedDuration;

use super::access;
use crate::kubernetes::TlsSecret;

/// Where events are taken.
#[derive(Args, Clone, Debug)]
#[group(id = "ingest")]
pub struct Options {
    /// Where events of senders on this machine are taken, which are not asked who they are: a loopback address
    #[arg(long, env = "POSTRIDER_LISTEN", default_value = "127.0.0.1:8087", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where events of senders anywhere are taken, over TLS; nowhere without this
    #[arg(long, env = "POSTRIDER_SECURE_LISTEN", value_name = "ADDRESS", requires = "pod_namespace")]
    pub secure_listen: Option<SocketAddr>,
    /// The certificate for it
    #[command(flatten)]
    pub tls: TlsSecret,
    /// Who may send there
    #[command(flatten)]
    pub access: access::Options,
    /// After SIGTERM, how long requests are still taken while /readyz fails already
    #[arg(long, env = "POSTRIDER_SHUTDOWN_DELAY", default_value = "0s", value_name = "DURATION")]
    pub shutdown_delay: SignedDuration,
}

/// Why there is nowhere to take events.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Others than those on this machine would be served without being asked who they are.
    #[error(
        "--listen {0}: whoever reaches it is not asked who they are, so it has to be an address of this machine \
         alone, such as 127.0.0.1:8087; for senders elsewhere, give --secure-listen {0}"
    )]
    NotLoopback(SocketAddr),
}

impl Options {
    /// What can be told of them without trying.
    pub fn check(&self) -> Result<(), OptionsError> {
        let address = self.listen;
        if address.ip().to_canonical().is_loopback() {
            Ok(())
        } else {
            Err(OptionsError::NotLoopback(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Program::try_parse_from(["postrider"].iter().chain(arguments)).map(|program| program.options)
    }

    #[test]
    fn only_this_machine_is_served_without_a_question() {
        for address in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:8087", "[::ffff:127.0.0.1]:8087"] {
            options(&["--listen", address]).unwrap().check().unwrap();
        }
        for address in ["0.0.0.0:8087", "[::]:8087", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            let error = options(&["--listen", address]).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(&format!("give --secure-listen {address}")), "{error}");
        }
    }

    #[test]
    fn the_secret_of_the_certificate_has_a_namespace() {
        let error = options(&["--secure-listen", "0.0.0.0:8443"]).unwrap_err().to_string();
        assert!(error.contains("--pod-namespace"), "{error}");
        let secure = options(&["--secure-listen", "0.0.0.0:8443", "--pod-namespace", "postrider"]).unwrap();
        assert_eq!(secure.tls.tls_secret, "postrider-ingest-tls");
    }
}
