//! Bounds for connections: all together, of those that have not logged in, of each address, and of each subscription.
//!
//! A connection takes a place before anything is known of it. Once somebody has logged in over it, it no longer counts
//! as unknown, so that idle connections of strangers leave half of the places to those who have a password.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::Extensions;

use crate::origin::network_of;

/// All connections of this replica.
pub(crate) struct Connections {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    unknown: usize,
    by_address: HashMap<IpAddr, usize>,
    by_user: HashMap<String, usize>,
}

/// One connection; its place is free when this is dropped. The server puts it into each request.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    address: IpAddr,
    connections: Arc<Connections>,
    /// A std lock: nothing awaits under it, and it is taken before that of the places.
    counts_as: Mutex<CountsAs>,
}

enum CountsAs {
    Unknown,
    /// Beyond the bound of all: it is told so.
    Nothing,
    Known,
    User(String),
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many connections as there may be.
    All,
    /// There are as many that have not logged in.
    Unknown,
    /// There are as many of this address that have not logged in.
    Address,
}

impl Connections {
    /// Bounds of this many connections.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Takes a place. Of an address that is `shared`, as that of a proxy, only all together are bounded.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, shared: bool) -> Result<Connection, Full> {
        let mut taken = self.taken();
        if taken.all >= self.most {
            return Err(Full::All);
        }
        if taken.unknown >= half(self.most) {
            return Err(Full::Unknown);
        }
        let of_address = taken.by_address.entry(network_of(address)).or_default();
        if !shared && *of_address >= half(half(self.most)) {
            return Err(Full::Address);
        }
        *of_address += 1;
        taken.all += 1;
        taken.unknown += 1;
        Ok(self.connection(address, CountsAs::Unknown))
    }

    /// A connection beyond the bounds, which is told so.
    pub(crate) fn beyond(self: &Arc<Self>, address: IpAddr) -> Connection {
        self.connection(address, CountsAs::Nothing)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.taken().all
    }

    fn connection(self: &Arc<Self>, address: IpAddr, counts_as: CountsAs) -> Connection {
        Connection(Arc::new(Inner { address, connections: self.clone(), counts_as: Mutex::new(counts_as) }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The connection that a request came over.
    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The other end of a request's connection.
    pub(crate) fn address_of(extensions: &Extensions) -> IpAddr {
        Self::of(extensions).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.0.address)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(*self.0.counts_as(), CountsAs::Unknown)
    }

    /// Somebody has logged in over it: a fixed user, or a subscription. One subscription has a quarter of the places;
    /// what it has beyond goes on counting as unknown.
    pub(crate) fn logged_in(&self, subscription: Option<&str>) {
        let mut counts_as = self.0.counts_as();
        if !matches!(*counts_as, CountsAs::Unknown) {
            return;
        }
        let connections = &self.0.connections;
        let mut taken = connections.taken();
        if let Some(name) = subscription {
            let of_user = taken.by_user.entry(name.to_owned()).or_default();
            if *of_user >= half(half(connections.most)) {
                return;
            }
            *of_user += 1;
        }
        taken.leave_unknown(self.0.address);
        *counts_as = subscription.map_or(CountsAs::Known, |name| CountsAs::User(name.to_owned()));
    }
}

impl Inner {
    fn counts_as(&self) -> MutexGuard<'_, CountsAs> {
        self.counts_as.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut taken = self.connections.taken();
        match &*self.counts_as() {
            CountsAs::Nothing => return,
            CountsAs::Unknown => taken.leave_unknown(self.address),
            CountsAs::Known => {}
            CountsAs::User(name) => one_less(&mut taken.by_user, name),
        }
        taken.all -= 1;
    }
}

impl Taken {
    fn leave_unknown(&mut self, address: IpAddr) {
        self.unknown -= 1;
        one_less(&mut self.by_address, &network_of(address));
    }
}

fn half(places: usize) -> usize {
    places.div_ceil(2)
}

fn one_less<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn strangers_leave_half_of_the_places_and_an_address_half_of_those() {
        let places = Connections::new(8);
        let mut open: Vec<_> = (0..2).map(|_| places.admit(address(1), false).unwrap()).collect();
        assert_eq!(places.admit(address(1), false).err(), Some(Full::Address));
        open.extend((0..2).map(|_| places.admit(address(1), true).unwrap()));
        assert_eq!(places.admit(address(2), false).err(), Some(Full::Unknown));
        // Who has logged in makes room for others.
        open[0].logged_in(None);
        open[1].logged_in(Some("mail"));
        open.extend((0..2).map(|_| places.admit(address(2), false).unwrap()));
        assert_eq!(places.count(), 6);
        open[2].logged_in(Some("mail"));
        assert!(!open[2].is_unknown());
        open[3].logged_in(Some("mail"));
        assert!(open[3].is_unknown(), "one subscription has a quarter");
        open[3].logged_in(Some("chat"));
        assert!(!open[3].is_unknown());
        open.extend((3..5).map(|last| places.admit(address(last), false).unwrap()));
        assert_eq!(places.admit(address(9), false).err(), Some(Full::All));
        drop(places.beyond(address(9)));
        drop(open);
        let taken = places.taken();
        assert_eq!((taken.all, taken.unknown), (0, 0));
        assert!(taken.by_address.is_empty() && taken.by_user.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn one_place_is_enough_to_serve() {
        let places = Connections::new(1);
        let only = places.admit(address(1), false).unwrap();
        assert_eq!(places.admit(address(2), false).err(), Some(Full::All));
        drop(only);
        assert!(places.admit(address(2), false).is_ok());
    }
}
