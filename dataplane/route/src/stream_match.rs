//! Which rule a connection or datagram meets: by the name asked for in TLS, else by the port alone.
//!
//! [`StreamTable`] holds the TCP, UDP or TLS routes of one listener, whose port has been matched
//! already by being that listener. The most specific name wins; of several routes with the same
//! name the oldest, then the one whose key sorts first (Gateway API `TLSRouteSpec`). Names must
//! come in lower case.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ir::Hostname;
use ir::stream_route::{StreamKind, StreamMatch, StreamRoute, TlsRouteMode};

use crate::hostname::HostMap;
use crate::text_map::TextMap;

/// The stream routes of one listener. Clones are cheap and share what they have in common.
#[derive(Clone)]
pub struct StreamTable<R> {
    by_name: HostMap<Vec<Entry<R>>>,
    /// The names under which each route stands.
    routes: TextMap<Arc<[Option<Hostname>]>>,
}

/// A route as a table holds it; `R` is what a rule carries.
#[derive(Debug)]
pub struct CompiledStream<R> {
    key: Arc<str>,
    created_at: Option<SystemTime>,
    /// One per name, the first rule that has it.
    entries: Vec<(Option<Hostname>, R)>,
}

/// What a listener has to say about the routes attached to it.
#[derive(Clone, Copy, Debug)]
pub struct ListenerFacts<'a> {
    /// Its port.
    pub port: u16,
    /// The host names it serves; none means any.
    pub hostnames: &'a [Hostname],
    /// What happens to TLS; absent for a listener without.
    pub mode: Option<TlsRouteMode>,
}

#[derive(Clone)]
struct Entry<R> {
    /// `false` sorts before `true`: a route of known age comes before one of unknown age.
    age: (bool, Option<SystemTime>),
    key: Arc<str>,
    rule: R,
}

impl<R> Entry<R> {
    fn order(&self) -> ((bool, Option<SystemTime>), &str) {
        (self.age, &self.key)
    }
}

impl<R: Clone> CompiledStream<R> {
    /// Compiles a route for one listener; nothing when it can take no connection there.
    ///
    /// `rule` is asked once for each rule that can, by its index.
    pub fn new(
        route: &StreamRoute,
        listener: ListenerFacts<'_>,
        mut rule: impl FnMut(usize) -> R,
    ) -> Option<Self> {
        let mut entries: Vec<(Option<Hostname>, R)> = Vec::new();
        for (index, source) in route.rules.iter().enumerate() {
            let mut made = None;
            let matches = source.matches.iter();
            for name in matches.flat_map(|found| names(found, route.kind, listener)) {
                if entries.iter().any(|(known, _)| *known == name) {
                    continue;
                }
                let made = made.get_or_insert_with(|| rule(index));
                entries.push((name, made.clone()));
            }
        }
        (!entries.is_empty()).then(|| Self {
            key: route.key.clone(),
            created_at: route.created_at,
            entries,
        })
    }
}

/// The names under which a match stands on a listener; `None` is any name.
fn names(
    found: &StreamMatch,
    kind: StreamKind,
    listener: ListenerFacts<'_>,
) -> Vec<Option<Hostname>> {
    let fits_port = found.port.is_none_or(|port| port.get() == listener.port);
    let fits_mode = found.mode.is_none() || listener.mode.is_none() || found.mode == listener.mode;
    if !fits_port || !fits_mode {
        return Vec::new();
    }
    match (&found.sni, listener.hostnames) {
        _ if kind == StreamKind::Udp || listener.mode.is_none() => vec![None],
        (None, []) => vec![None],
        (None, served) => served.iter().cloned().map(Some).collect(),
        (Some(name), []) => vec![Some(name.clone())],
        (Some(name), served) => served
            .iter()
            .filter_map(|served| name.intersect(served))
            .map(Some)
            .collect(),
    }
}

impl<R> Default for StreamTable<R> {
    fn default() -> Self {
        Self {
            by_name: HostMap::default(),
            routes: TextMap::default(),
        }
    }
}

impl<R> StreamTable<R> {
    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True when no route is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rule that takes precedence for a client that asked for `name`, or for no name.
    pub fn lookup(&self, name: Option<&str>) -> Option<&R> {
        let entries = match name {
            Some(name) => self.by_name.best(name),
            None => self.by_name.get(None),
        };
        entries?.first().map(|entry| &entry.rule)
    }
}

impl<R: Clone> StreamTable<R> {
    /// Puts a route in; one of the same key is replaced.
    pub fn insert(&mut self, route: CompiledStream<R>) {
        self.remove(&route.key);
        let CompiledStream {
            key,
            created_at,
            entries,
        } = route;
        let names: Arc<[_]> = entries.iter().map(|(name, _)| name.clone()).collect();
        for (name, rule) in entries {
            let entry = Entry {
                age: (created_at.is_none(), created_at),
                key: key.clone(),
                rule,
            };
            let list = self.by_name.get_or_insert_with(name.as_ref(), Vec::new);
            let at = list.partition_point(|known| known.order() < entry.order());
            list.insert(at, entry);
        }
        self.routes.insert(&(&*key).into(), names);
    }

    /// Takes a route out; false when it is not there.
    pub fn remove(&mut self, key: &str) -> bool {
        let Some(names) = self.routes.remove(&key.into()) else {
            return false;
        };
        for name in names.iter() {
            let Some(list) = self.by_name.get_mut(name.as_ref()) else {
                continue;
            };
            list.retain(|entry| *entry.key != *key);
            if list.is_empty() {
                self.by_name.remove(name.as_ref());
            }
        }
        true
    }
}

impl<R> fmt::Debug for StreamTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTable")
            .field("routes", &self.routes.len())
            .field("names", &self.by_name.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::time::Duration;

    use ir::resource::Metadata;
    use ir::stream_route::StreamRule;

    use super::*;

    fn route(key: &str, age: Option<u64>, names: &[&str]) -> StreamRoute {
        let matches = names.iter().map(|name| StreamMatch {
            sni: (!name.is_empty()).then(|| Hostname::new(name).unwrap()),
            ..StreamMatch::default()
        });
        StreamRoute {
            key: key.into(),
            kind: StreamKind::Tls,
            listeners: Vec::new(),
            parent_refs: Vec::new(),
            rules: vec![StreamRule {
                name: None,
                matches: matches.collect(),
                backends: Vec::new(),
            }],
            labels: Metadata::new(),
            annotations: Metadata::new(),
            created_at: age.map(|age| SystemTime::UNIX_EPOCH + Duration::from_secs(age)),
        }
    }

    fn compiled(route: &StreamRoute, served: &[&str]) -> Option<CompiledStream<String>> {
        let hostnames: Vec<_> = served.iter().map(|n| Hostname::new(n).unwrap()).collect();
        let listener = ListenerFacts {
            port: 443,
            hostnames: &hostnames,
            mode: Some(TlsRouteMode::Passthrough),
        };
        let name = |index| format!("{}#{index}", route.key);
        CompiledStream::new(route, listener, name)
    }

    fn table(served: &[&str], routes: &[StreamRoute]) -> StreamTable<String> {
        let mut table = StreamTable::default();
        let compiled = routes.iter().filter_map(|route| compiled(route, served));
        compiled.for_each(|route| table.insert(route));
        table
    }

    #[test]
    fn the_most_specific_name_wins_whatever_the_age() {
        let routes = [
            route("any", Some(1), &[""]),
            route("com", Some(2), &["*.com"]),
            route("example", Some(3), &["*.example.com"]),
            route("www", Some(4), &["www.example.com"]),
        ];
        let table = table(&[], &routes);
        for (name, expected) in [
            (Some("www.example.com"), "www#0"),
            (Some("a.b.example.com"), "example#0"),
            (Some("example.com"), "com#0"),
            (Some("example.org"), "any#0"),
            (None, "any#0"),
        ] {
            assert_eq!(table.lookup(name).map(|r| &**r), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_route_takes_only_what_its_listener_serves() {
        for (served, names, asked, expected) in [
            (
                &["abc.example.com"][..],
                &["*.example.com"][..],
                "abc.example.com",
                true,
            ),
            (
                &["abc.example.com"],
                &["*.example.com"],
                "non.example.com",
                false,
            ),
            (&["*.example.com"], &["*.com"], "other.example.com", true),
            (&["*.example.com"], &["*.com"], "other.com", false),
            (&["*.example.com"], &[""], "x.example.com", true),
            (&["*.example.com"], &[""], "example.org", false),
        ] {
            let table = table(served, &[route("r", None, names)]);
            let found = table.lookup(Some(asked)).is_some();
            assert_eq!(found, expected, "{served:?} {names:?} {asked}");
        }
        assert!(compiled(&route("r", None, &["a.org"]), &["*.com"]).is_none());
    }

    #[test]
    fn of_two_with_the_same_name_the_older_wins_until_it_is_gone() {
        let routes = [
            route("tls/b/unknown", None, &["a.test"]),
            route("tls/b/young", Some(9), &["a.test"]),
            route("tls/b/old", Some(1), &["a.test"]),
            route("tls/a/old", Some(1), &["a.test"]),
        ];
        let mut table = table(&[], &routes);
        for expected in ["tls/a/old", "tls/b/old", "tls/b/young", "tls/b/unknown"] {
            let found = table.lookup(Some("a.test")).cloned();
            assert_eq!(found, Some(format!("{expected}#0")));
            assert!(table.remove(expected));
            assert!(!table.remove(expected));
        }
        assert!(table.is_empty() && table.lookup(Some("a.test")).is_none());
    }

    #[test]
    fn matches_of_another_port_or_mode_take_nothing() {
        let mut by_port = route("p", None, &["a.test"]);
        by_port.rules[0].matches[0].port = NonZeroU16::new(8443);
        assert!(compiled(&by_port, &[]).is_none());
        by_port.rules[0].matches[0].port = NonZeroU16::new(443);
        assert!(compiled(&by_port, &[]).is_some());
        let mut by_mode = route("m", None, &["a.test"]);
        by_mode.rules[0].matches[0].mode = Some(TlsRouteMode::Terminate);
        assert!(compiled(&by_mode, &[]).is_none());
    }

    #[test]
    fn without_tls_every_connection_meets_the_first_rule() {
        let mut tcp = route("tcp/a/b", None, &[""]);
        tcp.kind = StreamKind::Tcp;
        tcp.rules.push(tcp.rules[0].clone());
        let listener = ListenerFacts {
            port: 5432,
            hostnames: &[],
            mode: None,
        };
        let mut table = StreamTable::default();
        table.insert(CompiledStream::new(&tcp, listener, |index| index).unwrap());
        assert_eq!(table.lookup(None), Some(&0));
        assert_eq!(table.len(), 1);
    }
}
