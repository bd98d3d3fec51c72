//! What a worker is to do, and which certificate it presents first.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Authorizer, Client, Hold, RetryPolicy};
use crate::{limits, probe::Refusal};

/// What a worker is to do. Readers see it whole or not at all.
#[derive(Clone, Debug)]
pub enum Assignment {
    /// Send.
    Deliver(Arc<Target>),
    /// Keep what comes, and send nothing.
    Hold(Hold),
}

/// Where to send, and how.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub url: url::Url,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// Attempts under way at one time.
    pub max_in_flight: usize,
    /// Attempts that may begin in a second.
    pub rate: Option<NonZeroU32>,
    /// When a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// What is added to each request.
    pub authorizer: Arc<Authorizer>,
    /// Statuses that end an event: it would get them again.
    pub non_retryable: Vec<u16>,
    /// Of the webhook's spec: what an endpoint said holds for one.
    pub generation: i64,
    /// The clients with the certificates that are loaded.
    pub clients: Arc<Clients>,
}

impl Target {
    /// Whether this is the same endpoint with the same certificates and credentials, in an unchanged spec.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.generation == other.generation
            && Arc::ptr_eq(&self.clients, &other.clients)
            && Arc::ptr_eq(&self.authorizer, &other.authorizer)
    }
}

/// The clients of a webhook, a certificate each.
///
/// The Active is tried first, the others where the endpoint refuses it. Once the Active has expired a New
/// stands in for it, whoever is to promote it may be away; a Previous never does.
#[derive(Debug)]
pub struct Clients {
    active: Arc<Client>,
    new: Option<Arc<Client>>,
    previous: Option<Arc<Client>>,
    preference: Mutex<Preference>,
}

#[derive(Debug, Default)]
struct Preference {
    /// Which is tried first, until when.
    first: Option<(Arc<Client>, Timestamp)>,
    /// Refusals of the Active in a row that may as well have been something else.
    possible: u32,
}

impl Clients {
    /// The clients of what is loaded; where no certificate is asked for, the Active's has none.
    pub fn new(active: Arc<Client>, new: Option<Arc<Client>>, previous: Option<Arc<Client>>) -> Self {
        Self { active, new, previous, preference: Mutex::default() }
    }

    /// The Active's.
    pub fn active(&self) -> &Arc<Client> {
        &self.active
    }

    /// Whether these are the same clients, in the same places.
    pub fn are(&self, other: &Self) -> bool {
        let same = |one: Option<&Arc<Client>>, other: Option<&Arc<Client>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.active, &other.active)
            && same(self.new.as_ref(), other.new.as_ref())
            && same(self.previous.as_ref(), other.previous.as_ref())
    }

    /// Those that may be tried at `now`, in order.
    pub(super) fn order(&self, now: Timestamp) -> Vec<Arc<Client>> {
        if self.active.identity().is_some_and(|facts| facts.is_expired_at(now)) {
            return self.new.iter().filter(|new| new.is_valid_at(now)).cloned().collect();
        }
        let preferred = self.preference.lock().unwrap_or_else(PoisonError::into_inner).first.clone();
        let first = preferred.filter(|(_, until)| now < *until).map(|(client, _)| client);
        let rest = std::iter::once(&self.active).chain(&self.previous).chain(&self.new);
        let rest =
            rest.filter(|client| first.as_ref().is_none_or(|first| !Arc::ptr_eq(first, client))).cloned();
        first.clone().into_iter().chain(rest).filter(|client| client.is_valid_at(now)).collect()
    }

    /// When the next of them becomes valid, if that lies ahead.
    pub(super) fn valid_from(&self, now: Timestamp) -> Option<Timestamp> {
        let standing = std::iter::once(&self.active).chain(&self.new);
        let from = standing.filter_map(|client| Some(client.identity()?.valid_from));
        from.filter(|from| *from > now).min()
    }

    /// The endpoint took this one after it had refused another: it is tried first for a while, so that a
    /// receiver that knows only one costs an extra attempt now and then, and not for every event. A refusal
    /// that may have been something else, such as a restart, has to come a few times in a row.
    pub(super) fn took_instead(&self, client: &Arc<Client>, refusal: Refusal, now: Timestamp) {
        let mut preference = self.preference.lock().unwrap_or_else(PoisonError::into_inner);
        preference.possible += 1;
        if refusal == Refusal::Certain || preference.possible >= limits::POSSIBLE_REFUSALS {
            let until = now.checked_add(limits::PREFERENCE).unwrap_or(now);
            preference.first = Some((Arc::clone(client), until));
        }
    }

    /// The endpoint took the first that it was shown.
    pub(super) fn took_at_once(&self, client: &Arc<Client>) {
        if Arc::ptr_eq(client, &self.active) {
            self.preference.lock().unwrap_or_else(PoisonError::into_inner).possible = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::tests::loopback,
        identity::{Trust, tests::identity_valid},
    };

    fn client(name: &str, till: i64) -> Arc<Client> {
        let identity = Arc::new(identity_valid(name, 0, till));
        let trust = Trust { certificates: identity.chain().into(), system_roots: false };
        Arc::new(Client::new(Some(&identity), &trust, &loopback()).unwrap())
    }

    fn order(clients: &Clients, second: i64) -> Vec<String> {
        let order = clients.order(Timestamp::from_second(second).unwrap());
        order.iter().map(|client| client.identity().unwrap().identifier.clone()).collect()
    }

    #[test]
    fn the_active_is_first_and_what_was_taken_instead_is_for_a_while() {
        let (active, previous) = (client("CN=active", 9_000), client("CN=previous", 5_000));
        let clients = Clients::new(active, Some(client("CN=new", 9_000)), Some(Arc::clone(&previous)));
        assert_eq!(order(&clients, 1_000), ["CN=active", "CN=previous", "CN=new"]);
        clients.took_instead(&previous, Refusal::Certain, Timestamp::from_second(1_000).unwrap());
        let end = 1_000 + i64::try_from(limits::PREFERENCE.as_secs()).unwrap();
        assert_eq!(order(&clients, end - 1), ["CN=previous", "CN=active", "CN=new"]);
        assert_eq!(order(&clients, end), ["CN=active", "CN=previous", "CN=new"]);
    }

    #[test]
    fn what_may_have_been_something_else_has_to_come_a_few_times_in_a_row() {
        let (active, previous) = (client("CN=active", 9_000), client("CN=previous", 9_000));
        let clients = Clients::new(Arc::clone(&active), None, Some(Arc::clone(&previous)));
        let now = Timestamp::from_second(1_000).unwrap();
        for _ in 1..limits::POSSIBLE_REFUSALS {
            clients.took_instead(&previous, Refusal::Possible, now);
        }
        clients.took_at_once(&active);
        clients.took_instead(&previous, Refusal::Possible, now);
        assert_eq!(order(&clients, 1_000), ["CN=active", "CN=previous"]);
        for _ in 1..limits::POSSIBLE_REFUSALS {
            clients.took_instead(&previous, Refusal::Possible, now);
        }
        assert_eq!(order(&clients, 1_000), ["CN=previous", "CN=active"]);
    }

    #[test]
    fn what_has_expired_is_never_tried_and_a_new_stands_in_for_the_active() {
        let clients = Clients::new(client("CN=active", 9_000), None, Some(client("CN=previous", 5_000)));
        assert_eq!(order(&clients, 5_001), ["CN=active"]);
        let new = Some(client("CN=new", 9_000));
        let clients = Clients::new(client("CN=active", 5_000), new, Some(client("CN=previous", 9_000)));
        assert_eq!(order(&clients, 5_001), ["CN=new"]);
        let clients = Clients::new(client("CN=active", 5_000), None, Some(client("CN=previous", 9_000)));
        assert_eq!(order(&clients, 5_001), Vec::<String>::new());
    }
}
