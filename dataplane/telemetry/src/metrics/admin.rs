//! Requests to the admin API.
//!
//! A scrape every few seconds is the usual load, so one lock over a small map is enough. Methods
//! and routes come from fixed lists; a method nobody knows is counted as `other`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::exposition::Exposition;
use super::family;
use super::request::status_class;

/// Counters of the admin API.
#[derive(Debug, Default)]
pub struct AdminMetrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, &'static str), u64>>,
}

impl AdminMetrics {
    /// Records an answered request; `route` is the pattern that matched, not the path.
    pub fn observe(&self, method: &str, route: &'static str, status: u16) {
        const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = METHODS
            .into_iter()
            .find(|known| *known == method)
            .unwrap_or("other");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests
            .entry((method, route, status_class(status)))
            .or_default() += 1;
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        let mut samples = out.family(&family::ADMIN_REQUESTS);
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, route, class), count) in requests.iter() {
            samples.sample(&[method, route, class], *count);
        }
    }
}
