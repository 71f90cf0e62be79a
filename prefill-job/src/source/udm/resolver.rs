//! Names of UDM that have several addresses: each new connection begins with the next of them.
//!
//! Behind a Service with an address of its own the cluster spreads connections. A headless Service names all pods,
//! and whoever always takes the first address uses one pod only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves names, taking turns with the addresses.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: Arc<AtomicUsize>,
}

impl Resolve for Turns {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // The port is the URL's; any will do here.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = Box::new(turned(found.collect(), turn).into_iter());
            Ok(addresses)
        })
    }
}

fn turned(mut addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    // The system's order tells nothing but which of them it asked last.
    addresses.sort_unstable();
    if let Some(first) = turn.checked_rem(addresses.len()) {
        addresses.rotate_left(first);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_turn_whatever_the_order_of_the_answers() {
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([10, 0, 0, n], 0)));
        let first = |addresses: &[SocketAddr], turn| turned(addresses.to_vec(), turn)[0];
        let firsts = [first(&[a, b, c], 0), first(&[c, b, a], 1), first(&[b, c, a], 2), first(&[a, b, c], 3)];
        assert_eq!(firsts, [a, b, c, a]);
        assert_eq!(turned(vec![], 3), []);
        assert_eq!(turned(vec![c, a, b], 1), [b, c, a]);
    }
}
