//! What an administrator says of addresses and of the proxy.

use std::{fmt, str::FromStr};

use clap::Args;
use zeroize::Zeroizing;

use super::{Policy, Range, proxy::Proxy};
use crate::limits;

/// What may be dialled, and through which proxy. The same for the controller, which tests connections, and for
/// the dispatcher.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "egress")]
pub struct Options {
    /// Addresses (CIDRs) that endpoints may have although they are refused by default: loopback, link-local,
    /// metadata services of clouds, multicast and the like
    #[arg(long, env = "POSTRIDER_EGRESS_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub egress_allow: Vec<Range>,
    /// Addresses (CIDRs) that no endpoint may have, whatever else allows them
    #[arg(long, env = "POSTRIDER_EGRESS_DENY", value_name = "CIDR", value_delimiter = ',')]
    pub egress_deny: Vec<Range>,
    /// HTTP proxy for all connections to endpoints: http://[USER:PASSWORD@]HOST[:PORT], or https://
    ///
    /// It is asked (CONNECT) for the address of an endpoint, never for its name. With https:// it is trusted as
    /// the system trusts (SSL_CERT_FILE). A password belongs into the variable: others see a command line.
    /// HTTP_PROXY and the like are not read.
    #[arg(long, env = "POSTRIDER_EGRESS_PROXY", value_name = "URL", hide_env_values = true)]
    pub egress_proxy: Option<ProxyUrl>,
}

/// The URL of a proxy: it may hold a password, and is shown to nobody. It is taken as it is, and read later: an
/// error of the command line would repeat it.
#[derive(Clone)]
pub struct ProxyUrl(Zeroizing<String>);

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A list is too long.
    #[error("--egress-{0} has more than {max} entries", max = limits::EGRESS_RANGES)]
    TooMany(&'static str),
    /// The proxy's URL; what is wrong with it, without what stands in it.
    #[error("--egress-proxy {0}")]
    Proxy(&'static str),
    /// Whom to trust as the proxy.
    #[error("--egress-proxy cannot be connected to over TLS: {0}")]
    ProxyTls(#[from] crate::identity::TlsError),
}

impl Options {
    pub(super) fn policy(&self) -> Result<Policy, OptionsError> {
        for (name, list) in [("allow", &self.egress_allow), ("deny", &self.egress_deny)] {
            if list.len() > limits::EGRESS_RANGES {
                return Err(OptionsError::TooMany(name));
            }
        }
        Ok(Policy::new(self.egress_allow.clone(), self.egress_deny.clone()))
    }

    pub(super) fn proxy(&self) -> Result<Option<Proxy>, OptionsError> {
        self.egress_proxy.as_ref().map(|url| Proxy::new(&url.0)).transpose()
    }
}

impl FromStr for ProxyUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::egress::Egress;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        egress: Options,
    }

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Program::try_parse_from(["program"].iter().chain(arguments)).map(|program| program.egress)
    }

    #[test]
    fn lists_are_repeated_or_separated() {
        let options = parsed(&["--egress-allow=127.0.0.0/8,::1", "--egress-allow", "10.0.0.0/8"]).unwrap();
        let ranges: Vec<_> = options.egress_allow.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]);
        let error = parsed(&["--egress-deny=10.0.0/8"]).unwrap_err().to_string();
        assert!(error.contains("neither a CIDR"), "{error}");
    }

    #[test]
    fn lists_are_bounded() {
        let range: Range = "10.0.0.0/8".parse().unwrap();
        let list = vec![range; limits::EGRESS_RANGES];
        let options = Options { egress_deny: list.clone(), ..Options::default() };
        assert!(Egress::new(&options).is_ok());
        let options = Options { egress_deny: [list, vec![range]].concat(), ..Options::default() };
        assert!(matches!(Egress::new(&options), Err(OptionsError::TooMany("deny"))));
    }

    #[test]
    fn what_is_wrong_with_a_proxy_is_told_without_its_url() {
        for (url, says) in [
            ("", "no URL"),
            ("proxy.example:3128", "http:// or https://"),
            ("user:opensesame@proxy.example:3128", "http:// or https://"),
            ("socks5://user:opensesame@proxy.example", "http:// or https://"),
            ("http://user:opensesame@", "no URL"),
            ("http://user:opensesame@proxy.example:99999", "no URL"),
            ("http://user:opensesame@proxy.example/path", "nothing after the port"),
            ("http://user:opensesame@proxy.example/?opensesame", "nothing after the port"),
            (&format!("http://{}", "opensesame".repeat(1000)), "longer than"),
        ] {
            let options = parsed(&[&format!("--egress-proxy={url}")]).unwrap();
            let error = Egress::new(&options).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("opensesame"), "{url}: {error}");
            assert!(!format!("{options:?}").contains("opensesame"));
        }
    }

    #[test]
    fn the_credentials_of_a_proxy_are_never_shown() {
        let options = parsed(&["--egress-proxy=http://user:open%20sesame@proxy.example"]).unwrap();
        let egress = Egress::new(&options).unwrap();
        assert_eq!(egress.proxy(), Some("http://proxy.example:80"));
        for shown in [format!("{egress:?}"), format!("{options:?}")] {
            assert!(!shown.contains("sesame") && !shown.contains("user"), "{shown}");
        }
        // A value from the environment is not told by --help.
        let command = Program::command();
        let argument = command.get_arguments().find(|argument| argument.get_id() == "egress_proxy").unwrap();
        assert!(argument.is_hide_env_values_set());
    }
}
