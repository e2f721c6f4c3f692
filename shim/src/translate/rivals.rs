//! HTTPRoutes and GRPCRoutes that want the same host names of the same listener (Gateway API
//! `GRPCRoute.spec.hostnames`).
//!
//! Where names of both kinds meet at a listener one kind alone may have them: the older route, by name
//! where both are as old. [`super::translate`] calls when routes have found their listeners; who comes
//! too late is translated once more with what is [`lost`](Rivals::lost), and a route that another one
//! beats takes nothing from a third. Where there are no GRPCRoutes nothing is kept and nothing done, and
//! a change costs no more than the routes whose names meet those of the changed one. Listeners of the
//! mesh have no host names and are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use imbl::{OrdMap, OrdSet};
use ir::Hostname;

use super::gateway::parent_key;
use super::listener_name::{ListenerName, gateway_of};
use super::{Touched, Translation};
use crate::cluster_view::Kind;

/// Who wants which host name, and who came too late.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// Routes by what they want; empty while there are no GRPCRoutes.
    wanted: OrdMap<Want, OrdSet<Arc<str>>>,
    /// What routes wanted and did not get.
    lost: OrdMap<(Kind, Arc<str>), Arc<Lost>>,
}

/// Listeners that a route does not get, and who has them.
pub(super) type Lost = BTreeMap<Arc<str>, Rival>;

/// The route that came first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rival {
    pub(super) kind: Kind,
    pub(super) key: Arc<str>,
}

impl Rival {
    /// Its name for messages to somebody of that namespace, who may not be allowed to see others.
    pub(super) fn title(&self, namespace: &str) -> String {
        match self.key.split_once('/') {
            Some((own, _)) if own == namespace => format!("{} {}", self.kind, self.key),
            _ => format!("another namespace's {}", self.kind),
        }
    }
}

/// A host name at a listener, for routes of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    listener: Arc<str>,
    kind: Kind,
    name: Name,
}

/// A host name from its end: `com.example.www`, or `com.example.` for every name below, or nothing for
/// every name there is. What a name begins with thus covers it, where that ends with a dot.
type Name = Arc<str>;

/// A route at a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    listener: Arc<str>,
    kind: Kind,
    key: Arc<str>,
}

impl Rivals {
    /// What the route does not get.
    pub(super) fn lost(&self, kind: Kind, key: &str) -> Option<&Lost> {
        if self.lost.is_empty() {
            return None;
        }
        self.lost.get(&(kind, Arc::from(key))).map(|lost| &**lost)
    }

    /// Wants of the other kind that meet this one.
    fn meeting(&self, want: &Want) -> Vec<(&Want, &OrdSet<Arc<str>>)> {
        let at = |name: &str| Want {
            listener: want.listener.clone(),
            kind: other(want.kind),
            name: name.into(),
        };
        let above = above(&want.name).filter_map(|name| self.wanted.get_key_value(&at(name)));
        let first = at(&want.name);
        let range = self.wanted.range(first.clone()..);
        let below = range.take_while(|(found, _)| {
            let is_near = found.listener == first.listener && found.kind == first.kind;
            is_near && meets_from_below(&first.name, &found.name)
        });
        above.chain(below).collect()
    }

    /// The claimants at a listener that may decide about each other, directly or through others.
    fn concerned(&self, by: &Translation, starts: BTreeSet<Want>) -> BTreeSet<Claimant> {
        let mut seen = starts.clone();
        let mut open: Vec<Want> = starts.into_iter().collect();
        let mut concerned = BTreeSet::new();
        while let Some(want) = open.pop() {
            let meeting = self.meeting(&want);
            let own = self.wanted.get_key_value(&want);
            let found = meeting.iter().copied().chain(own);
            for (of, keys) in found.filter(|_| !meeting.is_empty()) {
                for key in keys {
                    let claimant = Claimant {
                        listener: want.listener.clone(),
                        kind: of.kind,
                        key: key.clone(),
                    };
                    if concerned.insert(claimant) {
                        let names = by.names_at(of.kind, key, &want.listener);
                        let wants = names.into_iter().map(|name| Want { name, ..of.clone() });
                        open.extend(wants.filter(|want| seen.insert(want.clone())));
                    }
                }
            }
        }
        concerned
    }
}

impl Translation {
    /// Finds out who came too late, and translates those again of whom that is news.
    ///
    /// `translated` are the routes that were translated just now.
    pub(super) fn update_rivals(
        &mut self,
        before: &Self,
        translated: [(Kind, BTreeSet<Arc<str>>); 2],
        touched: &mut Touched,
    ) {
        if self.grpc.is_empty() && before.grpc.is_empty() {
            return;
        }
        let mut rivals = std::mem::take(&mut self.rivals);
        let (starts, mut concerned) = self.note_wants(before, translated, &mut rivals);
        concerned.extend(rivals.concerned(self, starts));
        let late = self.judge(&concerned);
        let mut news: BTreeMap<Kind, BTreeSet<Arc<str>>> = BTreeMap::new();
        for claimant in concerned {
            let id = (claimant.kind, claimant.key.clone());
            let known = rivals
                .lost
                .get(&id)
                .and_then(|it| it.get(&claimant.listener));
            let found = late.get(&claimant);
            if known == found {
                continue;
            }
            let mut lost = rivals
                .lost
                .get(&id)
                .map_or_else(Lost::new, |it| (**it).clone());
            match found {
                Some(rival) => lost.insert(claimant.listener, rival.clone()),
                None => lost.remove(&claimant.listener),
            };
            if lost.is_empty() {
                rivals.lost.remove(&id);
            } else {
                rivals.lost.insert(id, Arc::new(lost));
            }
            news.entry(claimant.kind).or_default().insert(claimant.key);
        }
        self.rivals = rivals;
        let mut of = |kind| news.remove(&kind).unwrap_or_default();
        let (http, grpc) = (of(Kind::HttpRoute), of(Kind::GrpcRoute));
        self.translate_http_routes(&http, touched);
        self.translate_grpc_routes(&grpc, touched);
    }

    /// Writes down what routes want now; gives back what differs, and whom that concerns by itself.
    fn note_wants(
        &self,
        before: &Self,
        translated: [(Kind, BTreeSet<Arc<str>>); 2],
        rivals: &mut Rivals,
    ) -> (BTreeSet<Want>, BTreeSet<Claimant>) {
        // Nothing is kept while there are no GRPCRoutes.
        let (is_first, is_last) = (before.grpc.is_empty(), self.grpc.is_empty());
        let mut starts = BTreeSet::new();
        let mut concerned = BTreeSet::new();
        for (kind, keys) in translated {
            let keys = match kind {
                Kind::HttpRoute if is_first => self.http.keys().cloned().collect(),
                _ => keys,
            };
            for key in keys {
                let old = before.wants(kind, &key);
                let new = self.wants(kind, &key);
                if !is_first && old == new && before.age(kind, &key) == self.age(kind, &key) {
                    continue;
                }
                for want in old.difference(&new).filter(|_| !is_first) {
                    forget(&mut rivals.wanted, want, &key);
                }
                for want in &new {
                    rivals
                        .wanted
                        .entry(want.clone())
                        .or_default()
                        .insert(key.clone());
                }
                let wants = old.into_iter().chain(new);
                for want in wants {
                    concerned.insert(Claimant {
                        listener: want.listener.clone(),
                        kind,
                        key: key.clone(),
                    });
                    starts.insert(want);
                }
            }
        }
        if is_last {
            rivals.wanted = OrdMap::new();
            for ((kind, key), lost) in &rivals.lost {
                concerned.extend(lost.keys().map(|listener| Claimant {
                    listener: listener.clone(),
                    kind: *kind,
                    key: key.clone(),
                }));
            }
        }
        (starts, concerned)
    }

    /// Goes through the routes, the oldest first: who meets one of the other kind that got its place is
    /// too late.
    fn judge(&self, concerned: &BTreeSet<Claimant>) -> BTreeMap<Claimant, Rival> {
        let mut order: Vec<_> = concerned
            .iter()
            .map(|it| (self.age(it.kind, &it.key), it))
            .collect();
        // Kinds count where all else is the same.
        order.sort_by(|(a_age, a), (b_age, b)| {
            let by_listener = a.listener.cmp(&b.listener);
            by_listener.then_with(|| (a_age, &a.key, a.kind).cmp(&(b_age, &b.key, b.kind)))
        });
        let mut late = BTreeMap::new();
        let mut places = Places::default();
        let mut listener = None;
        for (place, (_, claimant)) in order.iter().enumerate() {
            if listener.replace(&claimant.listener) != Some(&claimant.listener) {
                places = Places::default();
            }
            let names = self.names_at(claimant.kind, &claimant.key, &claimant.listener);
            let first = names
                .iter()
                .filter_map(|name| places.first(other(claimant.kind), name));
            if let Some(first) = first.min() {
                let first = order[first].1;
                let rival = Rival {
                    kind: first.kind,
                    key: first.key.clone(),
                };
                late.insert((*claimant).clone(), rival);
            } else {
                for name in names {
                    places.take(claimant.kind, name, place);
                }
            }
        }
        late
    }

    /// What a route of that key wants of listeners of Gateways.
    fn wants(&self, kind: Kind, key: &Arc<str>) -> BTreeSet<Want> {
        let listeners = self.listeners_of(kind, key).into_iter().flatten().flatten();
        let listeners = listeners.filter(|listener| !gateway_of(listener).is_empty());
        let wants = listeners.flat_map(|listener| {
            let names = self.names_at(kind, key, listener).into_iter();
            names.map(|name| Want {
                listener: listener.clone(),
                kind,
                name,
            })
        });
        wants.collect()
    }

    /// Listeners that took a route, and those that would have; none of one that is not served.
    fn listeners_of(&self, kind: Kind, key: &str) -> [Option<&BTreeSet<Arc<str>>>; 2] {
        let (attached, lost) = match kind {
            Kind::HttpRoute => {
                let outcome = self.http.get(key);
                (outcome.map(|it| &it.attached), outcome.map(|it| &it.lost))
            }
            _ => {
                let outcome = self.grpc.get(key);
                (outcome.map(|it| &it.attached), outcome.map(|it| &it.lost))
            }
        };
        [attached, lost]
    }

    /// Host names that a route has at a listener; none where it is not attached, nor would be.
    fn names_at(&self, kind: Kind, key: &str, listener: &str) -> BTreeSet<Name> {
        let mut listeners = self.listeners_of(kind, key).into_iter().flatten();
        if !listeners.any(|known| known.contains(listener)) {
            return BTreeSet::new();
        }
        let spec = match kind {
            Kind::HttpRoute => self
                .view
                .http_routes
                .get(key)
                .map(|it| &it.value.spec.hostnames),
            _ => self
                .view
                .grpc_routes
                .get(key)
                .map(|it| &it.value.spec.hostnames),
        };
        let written = spec.into_iter().flatten().flatten();
        let written: Vec<Hostname> = written.filter_map(|it| Hostname::new(it).ok()).collect();
        let of_listener = self.hostname_of(listener);
        if written.is_empty() {
            return BTreeSet::from([from_its_end(of_listener)]);
        }
        let meeting = written.iter().filter_map(|name| match of_listener {
            Some(own) => own.intersect(name),
            None => Some(name.clone()),
        });
        meeting.map(|name| from_its_end(Some(&name))).collect()
    }

    fn hostname_of(&self, listener: &str) -> Option<&Hostname> {
        let (kind, owner) = ListenerName::read(listener)?.owner();
        let (namespace, name) = owner.split_once('/')?;
        let parent = self
            .gateways
            .parents
            .get(&parent_key(kind.as_str(), namespace, name))?;
        let mut listeners = parent.listeners.iter();
        let found = listeners.find(|known| &*known.name == listener)?;
        found.hostname.as_ref()
    }

    fn age(&self, kind: Kind, key: &str) -> Option<SystemTime> {
        match kind {
            Kind::HttpRoute => self.view.http_routes.get(key)?.created_at(),
            _ => self.view.grpc_routes.get(key)?.created_at(),
        }
    }
}

/// Names of one listener that routes have got, and by whom, by the place in the order of age.
#[derive(Default)]
struct Places {
    taken: HashMap<(Kind, Name), usize>,
    /// The first below a name that ends with a dot.
    below: HashMap<(Kind, Name), usize>,
}

impl Places {
    /// The first of that kind that has got something meeting the name.
    fn first(&self, kind: Kind, name: &Name) -> Option<usize> {
        let above = above(name).filter_map(|name| self.taken.get(&(kind, name.into())));
        let same = self.taken.get(&(kind, name.clone()));
        let below = self.below.get(&(kind, name.clone()));
        above.chain(same).chain(below).min().copied()
    }

    fn take(&mut self, kind: Kind, name: Name, place: usize) {
        for above in above(&name) {
            self.below.entry((kind, above.into())).or_insert(place);
        }
        self.taken.entry((kind, name)).or_insert(place);
    }
}

/// HTTPRoutes for GRPCRoutes, and the other way round.
fn other(kind: Kind) -> Kind {
    match kind {
        Kind::HttpRoute => Kind::GrpcRoute,
        _ => Kind::HttpRoute,
    }
}

fn forget(wanted: &mut OrdMap<Want, OrdSet<Arc<str>>>, want: &Want, key: &Arc<str>) {
    let Some(keys) = wanted.get_mut(want) else {
        return;
    };
    keys.remove(key);
    if keys.is_empty() {
        wanted.remove(want);
    }
}

/// A host name as [`Name`]; nothing stands for every host.
fn from_its_end(hostname: Option<&Hostname>) -> Name {
    let labels = hostname.map_or("", Hostname::as_str);
    let labels: Vec<_> = labels.rsplit('.').collect();
    labels.join(".").trim_end_matches('*').into()
}

/// Names that cover this one and are not the same.
fn above(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.').map(|(at, _)| &name[..=at]);
    let every = (!name.is_empty()).then_some("");
    every
        .into_iter()
        .chain(dots.filter(move |above| *above != name))
}

/// True when `found` is `name`, or one that it covers; those follow each other in order.
fn meets_from_below(name: &str, found: &str) -> bool {
    let covers = name.is_empty() || name.ends_with('.');
    found == name || (covers && found.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_their_end_tell_what_covers_them() {
        for (written, name, covering) in [
            (None, "", &[][..]),
            (Some("*.example.com"), "com.example.", &["", "com."]),
            (
                Some("www.example.com"),
                "com.example.www",
                &["", "com.", "com.example."],
            ),
            (Some("local"), "local", &[""]),
        ] {
            let hostname = written.map(|text| Hostname::new(text).unwrap());
            assert_eq!(&*from_its_end(hostname.as_ref()), name);
            assert_eq!(above(name).collect::<Vec<_>>(), covering, "{name}");
            for above in covering {
                assert!(meets_from_below(above, name), "{above} {name}");
            }
        }
        assert!(!meets_from_below("com.example", "com.example.www"));
        assert!(!meets_from_below("com.example.", "com.examples"));
    }
}
