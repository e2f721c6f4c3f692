//! The routes of one listener and the search for the rule of a request.
//!
//! Precedence follows Gateway API `HTTPRoute.rules.matches`. The more specific host goes first, and
//! when nothing under it matches, the next one is tried: exact name, longest wildcard, shorter ones,
//! any. Under one host: exact path, regular expression, prefix; among regular expressions the one
//! with the longest source, among prefixes the longest; then a method match, the number of header
//! matches, the number of query matches, the oldest route, the first by `namespace/name`, the first
//! rule in the route. Where regular expressions stand is left to us: before prefixes, since a rule
//! on `/` would otherwise hide every one of them.
//!
//! A gRPC call meets the GRPCRoutes of a host before its HTTPRoutes; GRPCRoutes go by `GRPCRoute`'s
//! own order (characters in service, then method, header matches, age, name). An exact name goes
//! before a pattern, a pattern before nothing.
//!
//! Built by `dataplane/config`, read by `dataplane/http`. A table is a value: a clone shares
//! everything, and a change copies only the hosts and paths that the route names. Only regular
//! expressions are tried one by one, those whose literal beginning fits the path; about 50 ns each,
//! so a host should have no more than [`REGEX_PATHS_ADVISED`] with the same beginning.

mod host;
mod paths;
mod single;
mod compile;
mod explain;

use std::fmt;
use std::sync::Arc;

pub use self::compile::{CompiledRoute, Precedence, RouteKind};
pub use self::explain::{Explained, Lost, Other, Source};
use self::host::HostEntry;
use crate::hostname::HostMap;
use crate::request::Request;
use crate::text_map::TextMap;

pub use crate::http_match::Unmet;

/// Regular-expression paths of one host that begin with the same literal segments, beyond which
/// look-ups become slow; more are served all the same.
pub const REGEX_PATHS_ADVISED: usize = 128;

/// Compiled routes, found by request; `R` is what a rule carries.
pub struct Table<R> {
    hosts: HostMap<HostEntry<R>>,
    http: TextMap<Arc<CompiledRoute<R>>>,
    grpc: TextMap<Arc<CompiledRoute<R>>>,
}

/// The rule for a request.
#[derive(Debug)]
pub struct Found<'a, R> {
    /// What the rule carries.
    pub rule: &'a Arc<R>,
    /// When a prefix match was met: how many bytes of the path it covers, without a trailing slash
    /// (so 0 for `/`). What follows is empty or starts with `/`.
    pub prefix_len: Option<usize>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            hosts: HostMap::default(),
            http: TextMap::default(),
            grpc: TextMap::default(),
        }
    }
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self {
            hosts: self.hosts.clone(),
            http: self.http.clone(),
            grpc: self.grpc.clone(),
        }
    }
}

impl<R> Table<R> {
    /// Number of routes.
    pub fn len(&self) -> usize {
        self.http.len() + self.grpc.len()
    }

    /// True when no route is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rule that takes precedence for `request`, if any matches.
    ///
    /// Allocates nothing, but for regular expressions on repeated header fields or escaped query
    /// values.
    pub fn lookup(&self, request: &Request<'_>) -> Option<Found<'_, R>> {
        let mut is_grpc = None;
        let mut is_grpc = || *is_grpc.get_or_insert_with(|| request.is_grpc());
        self.hosts
            .candidates(request.host)
            .find_map(|entry| entry.lookup(request, &mut is_grpc))
    }

    /// Puts a route in; one of the same kind and key is replaced.
    pub fn insert(&mut self, route: CompiledRoute<R>) {
        self.remove(route.kind(), route.key());
        let route = Arc::new(route);
        for host in route.host_names() {
            for compiled in route.matches() {
                match self.hosts.get_mut(host) {
                    Some(entry) => entry.insert(route.kind(), compiled),
                    None => {
                        self.hosts
                            .insert(host, HostEntry::new(route.kind(), compiled));
                    }
                }
            }
        }
        let key = route.key().into();
        self.routes_mut(route.kind()).insert(&key, route);
    }

    /// Takes a route out; false when it is not there.
    pub fn remove(&mut self, kind: RouteKind, key: &str) -> bool {
        let Some(route) = self.routes_mut(kind).remove(&key.into()) else {
            return false;
        };
        for host in route.host_names() {
            let Some(entry) = self.hosts.get_mut(host) else {
                continue;
            };
            for compiled in route.matches() {
                if entry.remove(kind, compiled).is_break() {
                    self.hosts.remove(host);
                    break;
                }
            }
        }
        true
    }

    fn routes_mut(&mut self, kind: RouteKind) -> &mut TextMap<Arc<CompiledRoute<R>>> {
        match kind {
            RouteKind::Http => &mut self.http,
            RouteKind::Grpc => &mut self.grpc,
        }
    }
}

impl<R> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("hosts", &self.hosts.len())
            .field("http_routes", &self.http.len())
            .field("grpc_routes", &self.grpc.len())
            .finish()
    }
}
