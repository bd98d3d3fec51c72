//! What one peer may take of what all peers share. A peer is an IP address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::activity::Activity;
use crate::limits;

/// In all, and of one peer.
type Limit = (usize, usize);

/// A bound that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// That of the peer: others go on.
    Peer,
    /// That of all.
    All,
}

/// The bounds of a server; listeners may share them.
#[derive(Debug)]
pub(crate) struct Bounds {
    connections: Arc<Places>,
    handshakes: Arc<Shares>,
    requests: Arc<Shares>,
    /// Connections that were closed because of a bound, and have not been told of.
    closed: Mutex<Closed>,
}

#[derive(Debug, Default)]
struct Closed {
    connections: u64,
    told_at: Option<Instant>,
}

impl Bounds {
    pub(crate) fn new(connections: Limit, handshakes: Limit, requests: Limit) -> Self {
        Self {
            connections: Arc::new(Places { limit: connections, held: Mutex::default() }),
            handshakes: Shares::new(handshakes),
            requests: Shares::new(requests),
            closed: Mutex::default(),
        }
    }

    /// A place for a connection. Where there is none left in all, the peer that has the most gives one up for a peer
    /// that has fewer: nobody is kept out by who opens many.
    pub(super) fn connection(&self, peer: IpAddr) -> Option<Place> {
        let (place, made_room) = self.connections.take(peer);
        if let Some(other) = made_room {
            self.tell(other, "another peer needed its place");
        }
        match place {
            Ok(place) => return Some(place),
            Err(Over::Peer) => self.tell(peer, "its peer has too many"),
            Err(Over::All) => self.tell(peer, "there are too many"),
        }
        None
    }

    pub(super) fn handshake(&self, peer: IpAddr) -> Option<Taken> {
        let taken = self.handshakes.take(peer, 1).ok();
        if taken.is_none() {
            self.tell(peer, "too many TLS handshakes are under way");
        }
        taken
    }

    pub(super) fn request(&self, peer: IpAddr) -> Result<Taken, Over> {
        self.requests.take(peer, 1)
    }

    /// Counts, and speaks rarely: who opens many connections is not to fill the log as well.
    fn tell(&self, peer: IpAddr, reason: &str) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.connections += 1;
        if closed.told_at.is_none_or(|told_at| told_at.elapsed() >= limits::CLOSED_TOLD) {
            let connections = std::mem::take(&mut closed.connections);
            closed.told_at = Some(Instant::now());
            tracing::warn!(connections, last_peer = %peer, reason, "connections were closed because of a bound");
        }
    }
}

/// An amount of something that is shared.
#[derive(Debug)]
pub(crate) struct Shares {
    limit: Limit,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: usize,
    of_peers: HashMap<IpAddr, usize>,
}

impl Shares {
    pub(crate) fn new(limit: Limit) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so much, until what is returned is dropped.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr, amount: usize) -> Result<Taken, Over> {
        let mut taken = Taken { shares: Arc::clone(self), peer, amount: 0 };
        taken.more(amount)?;
        Ok(taken)
    }
}

/// So much of it is a peer's.
#[derive(Debug)]
pub(crate) struct Taken {
    shares: Arc<Shares>,
    peer: IpAddr,
    amount: usize,
}

impl Taken {
    /// Takes so much beside.
    pub(crate) fn more(&mut self, amount: usize) -> Result<(), Over> {
        let (in_all, of_peer) = self.shares.limit;
        let mut held = self.shares.held();
        let of_this_peer = held.of_peers.get(&self.peer).copied().unwrap_or_default();
        if of_this_peer + amount > of_peer {
            return Err(Over::Peer);
        }
        if held.in_all + amount > in_all {
            return Err(Over::All);
        }
        held.in_all += amount;
        if of_this_peer + amount > 0 {
            held.of_peers.insert(self.peer, of_this_peer + amount);
        }
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        held.in_all -= self.amount;
        if let Some(of_peer) = held.of_peers.get_mut(&self.peer) {
            *of_peer -= self.amount;
            if *of_peer == 0 {
                held.of_peers.remove(&self.peer);
            }
        }
    }
}

/// Places for connections.
#[derive(Debug)]
struct Places {
    limit: Limit,
    held: Mutex<Occupied>,
}

#[derive(Debug, Default)]
struct Occupied {
    taken: u64,
    in_all: usize,
    of_peers: HashMap<IpAddr, HashMap<u64, Arc<Activity>>>,
}

impl Places {
    fn held(&self) -> MutexGuard<'_, Occupied> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also returns whose place it was, where somebody had to make room.
    fn take(self: &Arc<Self>, peer: IpAddr) -> (Result<Place, Over>, Option<IpAddr>) {
        let (in_all, of_peer) = self.limit;
        let mut held = self.held();
        let own = held.of_peers.get(&peer).map_or(0, HashMap::len);
        if own >= of_peer {
            return (Err(Over::Peer), None);
        }
        let mut made_room = None;
        if held.in_all >= in_all {
            made_room = held.make_room(own);
            if made_room.is_none() {
                return (Err(Over::All), None);
            }
        }
        let activity = Arc::new(Activity::new());
        held.taken += 1;
        held.in_all += 1;
        let number = held.taken;
        held.of_peers.entry(peer).or_default().insert(number, Arc::clone(&activity));
        (Ok(Place { places: Arc::clone(self), peer, number, activity }), made_room)
    }
}

impl Occupied {
    /// Of the peer that has the most, the connection that does the least, if that peer has more than the one that
    /// comes will have.
    fn make_room(&mut self, own: usize) -> Option<IpAddr> {
        let (peer, connections) = self.of_peers.iter().max_by_key(|(_, connections)| connections.len())?;
        if connections.len() <= own + 1 {
            return None;
        }
        let (peer, (number, activity)) =
            (*peer, connections.iter().min_by_key(|(_, activity)| activity.rank())?);
        activity.make_room();
        let number = *number;
        self.leave(peer, number);
        Some(peer)
    }

    fn leave(&mut self, peer: IpAddr, number: u64) {
        let Some(connections) = self.of_peers.get_mut(&peer) else { return };
        if connections.remove(&number).is_some() {
            self.in_all -= 1;
        }
        if connections.is_empty() {
            self.of_peers.remove(&peer);
        }
    }
}

/// A connection's place, until it is dropped or another needs it.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
    number: u64,
    activity: Arc<Activity>,
}

impl Place {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held().leave(self.peer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_peer_has_its_share_and_all_together_theirs() {
        let shares = Shares::new((5, 2));
        let first = shares.take(peer(1), 2).unwrap();
        assert_eq!(shares.take(peer(1), 1).unwrap_err(), Over::Peer);
        let mut second = shares.take(peer(2), 1).unwrap();
        second.more(1).unwrap();
        assert_eq!(shares.take(peer(3), 2).unwrap_err(), Over::All);
        assert_eq!(second.more(1).unwrap_err(), Over::Peer);
        drop(first);
        drop((shares.take(peer(3), 2).unwrap(), second));
        let held = shares.held();
        assert_eq!((held.in_all, held.of_peers.len()), (0, 0), "nothing is kept of who has nothing");
    }

    #[tokio::test]
    async fn who_has_the_most_connections_makes_room_for_who_has_fewer() {
        let places = Arc::new(Places { limit: (4, 3), held: Mutex::default() });
        let place = |last| places.take(peer(last));
        let many: Vec<_> = (0..3).map(|_| place(1).0.unwrap()).collect();
        assert_eq!(place(1).0.unwrap_err(), Over::Peer);
        let other = place(2).0.unwrap();
        // The first has a request under way: it is the second that has done nothing for the longest time.
        let _exchange = many[0].activity().begin();
        let (third, made_room) = place(3);
        assert_eq!(made_room, Some(peer(1)));
        many[1].activity().made_room().await;
        // One more would have as many as who would have to make room.
        assert_eq!(place(3).0.unwrap_err(), Over::All);
        drop((many, other, third));
        let held = places.held();
        assert_eq!((held.in_all, held.of_peers.len()), (0, 0));
    }
}
