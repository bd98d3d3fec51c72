//! What may be dialled, and the dialling of it: the same for deliveries and for the connection test.
//!
//! A name is resolved here, each of its addresses is checked against the [`Policy`], and a connection is made
//! to one of those that passed. Nothing resolves the name a second time: a name that gives a permitted address
//! now and another one later gets nowhere. A URL with an address instead of a name goes the same way.
//!
//! With a proxy, it is asked for the address that was checked, not for the name: it has nothing to resolve, and
//! a name that it would resolve otherwise gets nowhere there either. TLS with the endpoint, the client
//! certificate included, runs through the tunnel, under the endpoint's name.

mod dial;
mod options;
mod policy;
mod proxy;
mod resolve;

use std::{net::IpAddr, sync::Arc};

pub use dial::Stream;
pub use options::{Options, OptionsError};
pub use policy::{Class, Policy, Range, Why};
pub use resolve::Checked;

use proxy::Proxy;
use resolve::{Names, System};

use crate::telemetry::metrics::Connections;

/// What may be dialled, and how.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    policy: Policy,
    names: Names,
    proxy: Option<Proxy>,
    connections: Connections,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host's name has no address; why.
    #[error("{0}")]
    NoAddress(String),
    /// The host's name was not resolved in time.
    #[error("the name was not resolved in time")]
    NotResolved,
    /// The host has only addresses that are refused; nothing was dialled.
    #[error(transparent)]
    Refused(Refused),
    /// No address could be connected to; why, for each.
    #[error("{0}")]
    NotConnected(String),
    /// No address answered in time.
    #[error("no TCP connection in time")]
    NoAnswer,
    /// The proxy is away, or does not do what it is asked for.
    #[error("the proxy {proxy} {what}")]
    Proxy {
        /// Its scheme, host and port.
        proxy: String,
        /// What it did, or did not do.
        what: String,
    },
}

/// An address that is refused, and to whom it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The host of the URL.
    pub host: String,
    /// Its address; the first, where it has several.
    pub address: IpAddr,
    /// Why.
    pub why: Why,
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, address, why } = self;
        if *host == address.to_string() {
            write!(f, "{address} is ")?;
        } else {
            write!(f, "{host} has the address {address}, ")?;
        }
        match why {
            Why::Default(class) => write!(
                f,
                "{class}, and nothing was sent: such an address is dialled only where the administrator of \
                 Postrider permits it, by --egress-allow {}",
                Range::from(*address)
            ),
            Why::Denied(range) => write!(
                f,
                "an address that the administrator of Postrider denies by --egress-deny {range}, and nothing was \
                 sent"
            ),
        }
    }
}

impl Egress {
    /// As an administrator has said it.
    pub fn new(options: &Options) -> Result<Self, OptionsError> {
        let proxy = options.proxy()?;
        Ok(Self(Arc::new(Inner {
            policy: options.policy()?,
            names: Names::System(System::default()),
            proxy,
            connections: Connections::default(),
        })))
    }

    /// What is counted of connections.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// The proxy that is gone through: its scheme, host and port.
    pub fn proxy(&self) -> Option<&str> {
        self.0.proxy.as_ref().map(Proxy::origin)
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("policy", &self.0.policy).field("proxy", &self.proxy()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
