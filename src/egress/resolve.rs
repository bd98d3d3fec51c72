//! From a host to the addresses that may be dialled.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{net::lookup_host, time::timeout};

use super::{Egress, Error, Refused};
use crate::limits;

/// Addresses that have passed the policy. There is no other way to make one, and nothing else is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked(Vec<SocketAddr>);

impl Checked {
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// Where names are looked up.
pub(super) enum Names {
    /// Where the system looks: its hosts file, its DNS.
    System,
    /// One answer after the other, whatever the name.
    #[cfg(test)]
    Scripted(std::sync::Mutex<std::collections::VecDeque<Vec<IpAddr>>>),
}

impl Names {
    /// The addresses of a host, a bounded number in a bounded time; it may be an address itself, also in
    /// brackets.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = match timeout(limits::RESOLVE_TIMEOUT, self.look_up(host)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Error::NoAddress(error.to_string())),
            Err(_) => return Err(Error::NotResolved),
        };
        if found.is_empty() {
            return Err(Error::NoAddress("the answer is empty".to_owned()));
        }
        Ok(found)
    }

    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let found = lookup_host((name, 0)).await?;
                Ok(found.take(limits::EGRESS_ADDRESSES).map(|address| address.ip()).collect())
            }
            #[cfg(test)]
            Self::Scripted(answers) => Ok(answers.lock().unwrap().pop_front().unwrap()),
        }
    }
}

impl Egress {
    /// The addresses of a host that may be dialled: at least one. Those that may not are left out.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Checked, Error> {
        let mut refused = None;
        let mut checked = Vec::new();
        for address in self.0.names.addresses(host).await? {
            match self.0.policy.check(address) {
                Ok(()) => checked.push(SocketAddr::new(address, port)),
                Err(why) => drop(refused.get_or_insert((address, why))),
            }
        }
        match refused {
            Some((address, why)) if checked.is_empty() => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Err(Error::Refused(Refused { host, address, why }))
            }
            _ => Ok(Checked(checked)),
        }
    }
}
