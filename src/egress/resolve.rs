//! From a host to the addresses that may be dialled.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{net::lookup_host, sync::Semaphore, time::timeout};

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
    System(System),
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
            Ok(Err(why)) => return Err(Error::NoAddress(why)),
            Err(_) => return Err(Error::NotResolved),
        };
        if found.is_empty() {
            return Err(Error::NoAddress("the answer is empty".to_owned()));
        }
        Ok(found)
    }

    async fn look_up(&self, name: &str) -> Found {
        match self {
            Self::System(system) => system.look_up(name).await,
            #[cfg(test)]
            Self::Scripted(answers) => Ok(answers.lock().unwrap().pop_front().unwrap()),
        }
    }
}

/// The addresses of a name, or why there are none.
type Found = Result<Vec<IpAddr>, String>;

/// The system's lookup takes a thread and cannot be ended. So a name is looked up once at a time, and who asks for
/// it meanwhile shares the answer: a name whose DNS hangs holds one thread, however many deliveries wait for it.
#[derive(Clone)]
pub(super) struct System {
    under_way: Arc<Mutex<HashMap<String, Shared<BoxFuture<'static, Found>>>>>,
    places: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self { under_way: Arc::default(), places: Arc::new(Semaphore::new(limits::LOOKUPS_AT_ONCE)) }
    }
}

impl System {
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Shared<BoxFuture<'static, Found>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, name: &str) -> Shared<BoxFuture<'static, Found>> {
        let mut under_way = self.under_way();
        if let Some(shared) = under_way.get(name) {
            return shared.clone();
        }
        // It goes on when nobody waits for it any more.
        let looking = tokio::spawn(self.clone().look_up_alone(name.to_owned()));
        let shared =
            looking.map(|ended| ended.unwrap_or_else(|error| Err(error.to_string()))).boxed().shared();
        under_way.insert(name.to_owned(), shared.clone());
        shared
    }

    async fn look_up_alone(self, name: String) -> Found {
        let _place = self.places.acquire().await;
        let found = lookup_host((name.as_str(), 0)).await;
        self.under_way().remove(&name);
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.take(limits::EGRESS_ADDRESSES).map(|address| address.ip()).collect())
    }
}

impl Egress {
    /// The addresses of a host that may be dialled: at least one. Those that may not are left out.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Checked, Error> {
        let checked = self.checked(host, port).await;
        if checked.is_err() {
            self.connections().dialled(false);
        }
        checked
    }

    async fn checked(&self, host: &str, port: u16) -> Result<Checked, Error> {
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

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time_and_anew_after_that() {
        let system = System::default();
        for _ in 0..2 {
            let asked: Vec<_> = (0..100).map(|_| system.look_up("localhost")).collect();
            assert_eq!(system.under_way().len(), 1);
            let found = join_all(asked).await;
            assert!(found[0].as_ref().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
            assert!(found.iter().all(|answer| *answer == found[0]));
            assert!(system.under_way().is_empty());
        }
    }

    #[tokio::test]
    async fn so_many_names_at_once_and_another_waits() {
        let system = System::default();
        let places = Arc::clone(&system.places);
        let all = places.acquire_many(u32::try_from(limits::LOOKUPS_AT_ONCE).unwrap()).await.unwrap();
        let waiting = system.look_up("localhost");
        tokio::task::yield_now().await;
        assert!(waiting.clone().now_or_never().is_none());
        drop(all);
        assert!(waiting.await.is_ok());
    }
}
