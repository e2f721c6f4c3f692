//! How many connections the limit of open files allows.
//!
//! `app` asks once, when workers and admin stand. Some descriptors are kept for the control plane,
//! the admin API and logs, so that a process full of clients can still be looked at and told new
//! things; the rest is shared between clients and backends.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// How the limit is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Kept for the control plane, the admin API, logs and listeners that open later.
    pub reserve: u64,
    /// Of what is left, the share of clients in percent; the rest is for connections to backends.
    pub clients_percent: u64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            reserve: 32,
            clients_percent: 60,
        }
    }
}

/// What the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Connections from clients.
    pub clients: usize,
    /// Connections to backends.
    pub backends: usize,
}

/// Raises the soft limit of open files to the hard one, as servers may.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files cannot be raised, it stays as it is");
    }
}

/// What may be open beside the descriptors in use now and `to_come` more.
pub fn allowed(shares: Shares, to_come: usize) -> Allowed {
    let limit = getrlimit(Resource::Nofile).current;
    let to_come = u64::try_from(to_come).unwrap_or(u64::MAX);
    let in_use = in_use().saturating_add(to_come);
    shares.of(limit.unwrap_or(u64::MAX), in_use)
}

fn in_use() -> u64 {
    // The folder itself is open while it is counted.
    let entries = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u64::try_from(entries).unwrap_or(u64::MAX)
}

impl Shares {
    fn of(self, limit: u64, in_use: u64) -> Allowed {
        let free = limit.saturating_sub(in_use).saturating_sub(self.reserve);
        // At least one each: a limit below what a process needs to stand shows itself elsewhere.
        let clients = (u128::from(free) * u128::from(self.clients_percent) / 100).max(1);
        let backends = u128::from(free).saturating_sub(clients).max(1);
        Allowed {
            clients: usize::try_from(clients).unwrap_or(usize::MAX),
            backends: usize::try_from(backends).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_and_the_rest_is_shared() {
        let usual = Shares::default();
        let other = Shares {
            reserve: 56,
            clients_percent: 75,
        };
        for (shares, limit, in_use, clients, backends) in [
            (usual, 256, 24, 120, 80),
            (other, 256, 24, 132, 44),
            (usual, 20_000, 30, 11_962, 7_976),
            (usual, 40, 20, 1, 1),
            (usual, 0, 20, 1, 1),
        ] {
            let allowed = shares.of(limit, in_use);
            assert_eq!(allowed, Allowed { clients, backends });
            if limit > 100 {
                assert!(clients as u64 + backends as u64 + in_use + shares.reserve <= limit);
            }
        }
        assert!(usual.of(u64::MAX, 20).clients > 1 << 40);
    }

    #[test]
    fn descriptors_in_use_are_counted() {
        let before = in_use();
        assert!(before > 3);
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null")).collect();
        assert!(in_use() >= before.max(50));
        drop(files);
    }
}
