//! Connections per client address.
//!
//! An address has an entry exactly while it has a connection, so the table is never longer than the
//! connections there are. IPv6 clients are counted by their /64: that is what one of them is given,
//! and it could use a new address for every connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lets each client address have no more connections than the limit. Clones are the same table.
#[derive(Clone, Debug)]
pub struct Clients {
    table: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

/// One connection of a client; dropping it leaves.
#[derive(Debug)]
#[must_use = "whoever drops the place has left"]
pub struct ClientPlace {
    table: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Clients {
    /// A table without anyone.
    pub fn new(limit: usize) -> Self {
        Self {
            table: Arc::default(),
            limit,
        }
    }

    /// Enters, unless the client's limit is reached.
    pub fn enter(&self, client: IpAddr) -> Option<ClientPlace> {
        let client = counted_as(client);
        let mut table = lock(&self.table);
        let count = table.get(&client).copied().unwrap_or_default();
        if count >= self.limit {
            return None;
        }
        table.insert(client, count + 1);
        Some(ClientPlace {
            table: Arc::clone(&self.table),
            client,
        })
    }

    /// How many clients have a connection.
    pub fn len(&self) -> usize {
        lock(&self.table).len()
    }

    /// True when no client has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        match table.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                table.remove(&self.client);
            }
        }
    }
}

fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(client) => {
            let prefix = client.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        client => client,
    }
}

/// Counts stay whole whatever happened while the lock was held.
fn lock(table: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_limit_and_leaves_no_trace() {
        let clients = Clients::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (first, same, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ] {
            let held = [clients.enter(ip(first)), clients.enter(ip(same))];
            assert!(held.iter().all(Option::is_some));
            assert!(clients.enter(ip(same)).is_none(), "{same} is {first}");
            let elsewhere = clients.enter(ip(other));
            assert!(elsewhere.is_some(), "{other} is not {first}");
            assert_eq!(clients.len(), 2);
            let [one, _kept] = held;
            drop(one);
            assert!(clients.enter(ip(first)).is_some());
            drop((_kept, elsewhere));
            assert!(clients.is_empty());
        }
    }
}
