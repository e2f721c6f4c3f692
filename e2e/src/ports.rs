//! Ports for manifests that say 80 and 443: free ones, and the flags that lead there.
//!
//! Ports below 1024 are moved by one offset for all of them, the others one by one. A port is
//! reserved within this process as long as its [`Ports`] lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use dataplane_testkit::snapshot::{FREE_PORTS, free_port};

/// Offsets lead to ports that neither a kernel nor [`free_port`] hands out: data planes share a port with
/// others that listen at it, and would answer the requests of another test.
const OFFSETS: Range<u16> = 10_000..FREE_PORTS.start - 1_024;

static RESERVED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Where the ports of a manifest are bound.
#[derive(Debug)]
pub struct Ports {
    offset: u16,
    bound: BTreeMap<u16, u16>,
}

impl Ports {
    /// Finds free ports for `written` ones.
    pub fn for_written(written: &[u16]) -> anyhow::Result<Self> {
        let (low, high): (Vec<u16>, Vec<u16>) = written.iter().partition(|port| **port < 1024);
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        // Two test runs on one machine begin at different places.
        let first = std::process::id() % u32::from(OFFSETS.end - OFFSETS.start);
        let first = u16::try_from(first).unwrap_or_default() + OFFSETS.start;
        let offset = (first..OFFSETS.end)
            .chain(OFFSETS.start..first)
            .find(|offset| {
                low.iter()
                    .all(|port| !reserved.contains(&(port + offset)) && is_free(port + offset))
            })
            .context("no offset leads to free ports")?;
        let mut bound: BTreeMap<u16, u16> =
            low.into_iter().map(|port| (port, port + offset)).collect();
        bound.extend(high.into_iter().map(|port| (port, free_port())));
        reserved.extend(bound.values());
        Ok(Self { offset, bound })
    }

    /// The flags for `nantian-shim standalone`.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--port-offset".to_owned(), self.offset.to_string()];
        for (written, bound) in self.bound.range(1024..) {
            flags.extend(["--map-port".to_owned(), format!("{written}={bound}")]);
        }
        flags
    }

    /// Where a listener with that port in its manifest is reached.
    pub fn address(&self, written: u16) -> SocketAddr {
        let bound = self.bound.get(&written).copied().unwrap_or(written);
        SocketAddr::from((Ipv4Addr::LOCALHOST, bound))
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        for port in self.bound.values() {
            reserved.remove(port);
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}
