//! What a worker is to do, and which certificate it presents first.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Client, RetryPolicy};
use crate::limits;

/// What a worker is to do. Readers see it whole or not at all.
#[derive(Clone, Debug)]
pub enum Assignment {
    /// Send.
    Deliver(Arc<Target>),
    /// Keep what comes, and send nothing; why.
    Hold(&'static str),
}

/// Where to send, and how.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub url: reqwest::Url,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// Attempts under way at one time.
    pub max_in_flight: usize,
    /// When a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// The clients with the certificates that are loaded.
    pub clients: Arc<Clients>,
}

/// The clients of a webhook: the Active, and the other loaded certificates in the order in which they are
/// tried where the Active is refused.
///
/// Nothing is sent while the Active is not valid: the others only stand in for it.
#[derive(Debug)]
pub struct Clients {
    active: Arc<Client>,
    others: Vec<Arc<Client>>,
    /// Until when which of them is tried first.
    preferred: Mutex<Option<(Arc<Client>, Timestamp)>>,
}

impl Clients {
    /// Clients that start with the Active.
    pub fn new(active: Arc<Client>, others: Vec<Arc<Client>>) -> Self {
        Self { active, others, preferred: Mutex::new(None) }
    }

    /// The Active's, or the one without a certificate where none is asked for.
    pub fn active(&self) -> &Arc<Client> {
        &self.active
    }

    /// Whether these are the same clients.
    pub fn are(&self, active: &Arc<Client>, others: &[Arc<Client>]) -> bool {
        Arc::ptr_eq(&self.active, active)
            && self.others.len() == others.len()
            && self.others.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Those that may be tried at `now`, in order.
    pub(super) fn order(&self, now: Timestamp) -> Vec<Arc<Client>> {
        if !self.active.is_valid_at(now) {
            return Vec::new();
        }
        let preferred = self.preferred.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = preferred.filter(|(_, until)| now < *until).map(|(client, _)| client);
        let rest = std::iter::once(&self.active).chain(&self.others);
        let rest =
            rest.filter(|client| first.as_ref().is_none_or(|first| !Arc::ptr_eq(first, client))).cloned();
        first.clone().into_iter().chain(rest).filter(|client| client.is_valid_at(now)).collect()
    }

    /// The endpoint took this one after it had refused another: it is tried first for a while, so that a
    /// receiver that knows only one costs an extra attempt now and then, and not for every event.
    pub(super) fn prefer(&self, client: &Arc<Client>, now: Timestamp) {
        let until = now.checked_add(limits::PREFERENCE).unwrap_or(now);
        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(client), until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Trust, tests::identity_valid};

    fn client(name: &str, till: i64) -> Arc<Client> {
        let identity = Arc::new(identity_valid(name, 0, till));
        let trust = Trust { certificates: identity.chain().into(), system_roots: false };
        Arc::new(Client::new(Some(&identity), &trust).unwrap())
    }

    fn order(clients: &Clients, second: i64) -> Vec<String> {
        let order = clients.order(Timestamp::from_second(second).unwrap());
        order.iter().map(|client| client.identity().unwrap().identifier.clone()).collect()
    }

    #[test]
    fn the_active_is_first_and_what_was_taken_instead_is_for_a_while() {
        let (active, previous) = (client("CN=active", 9_000), client("CN=previous", 5_000));
        let clients = Clients::new(active, vec![Arc::clone(&previous), client("CN=new", 9_000)]);
        assert_eq!(order(&clients, 1_000), ["CN=active", "CN=previous", "CN=new"]);
        clients.prefer(&previous, Timestamp::from_second(1_000).unwrap());
        let end = 1_000 + i64::try_from(limits::PREFERENCE.as_secs()).unwrap();
        assert_eq!(order(&clients, end - 1), ["CN=previous", "CN=active", "CN=new"]);
        assert_eq!(order(&clients, end), ["CN=active", "CN=previous", "CN=new"]);
    }

    #[test]
    fn what_has_expired_is_never_tried_and_without_the_active_nothing_is() {
        let clients = Clients::new(client("CN=active", 9_000), vec![client("CN=previous", 5_000)]);
        assert_eq!(order(&clients, 5_001), ["CN=active"]);
        let clients = Clients::new(client("CN=active", 5_000), vec![client("CN=new", 9_000)]);
        assert_eq!(order(&clients, 5_001), Vec::<String>::new());
    }
}
