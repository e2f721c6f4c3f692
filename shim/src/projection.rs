//! What a data plane gets when it does not understand everything (`contract/wire.md` section 6).
//!
//! A [`Profile`] is negotiated from the features that a data plane advertises; `stream.rs` applies
//! it to every snapshot it sends. The full profile, which our own data plane always gets, changes
//! nothing; only that one is served with deltas, because a projection can turn one changed cluster
//! into many changed routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use ir::delta::Edits;
use ir::http_route::BackendRef;
use ir::{Cluster, Delta, GrpcRoute, HttpRoute, Listener, Resource, Resources, Snapshot};

/// Every feature of the contract, in its order.
pub(crate) const FEATURES: [&str; 5] = [CORE, LABELS, AI_SERVICE, TOKEN_POLICY, WASM_PLUGIN];

const CORE: &str = "core.v1";
const LABELS: &str = "route.labels.v1";
const AI_SERVICE: &str = "backend.ai_service.v1";
const TOKEN_POLICY: &str = "backend.token_policy.v1";
const WASM_PLUGIN: &str = "backend.wasm_plugin.v1";

/// Unknown features that are remembered of one client, and the longest name of one.
const UNKNOWN_MAX: usize = 16;
const UNKNOWN_BYTES_MAX: usize = 64;

/// What a data plane understands, and the name of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    name: String,
    labels: bool,
    ai_service: bool,
    token_policy: bool,
    wasm_plugin: bool,
}

impl Profile {
    /// The profile of a client that advertises these.
    pub(crate) fn negotiate(features: &[String]) -> Self {
        let has = |feature: &str| features.iter().any(|given| given == feature);
        // A client from before negotiation knew all backend features and no labels.
        if features.is_empty() {
            return Self {
                name: "legacy-pre-negotiation-v1".to_owned(),
                labels: false,
                ai_service: true,
                token_policy: true,
                wasm_plugin: true,
            };
        }
        let unknown: BTreeSet<&str> = features
            .iter()
            .map(String::as_str)
            .filter(|given| !FEATURES.contains(given) && given.len() <= UNKNOWN_BYTES_MAX)
            .take(UNKNOWN_MAX)
            .collect();
        Self {
            name: profile_name(|feature| feature == CORE || has(feature), &unknown),
            labels: has(LABELS),
            ai_service: has(AI_SERVICE),
            token_policy: has(TOKEN_POLICY),
            wasm_plugin: has(WASM_PLUGIN),
        }
    }

    /// Its name, as in `ConfigSnapshot.compatibility_profile`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Nothing is taken away.
    pub(crate) fn is_full(&self) -> bool {
        self.name == FULL
    }

    /// The snapshot as this client may see it.
    pub(crate) fn project(&self, whole: &Snapshot) -> Snapshot {
        let mut seen = whole.clone();
        if !self.labels {
            strip_labels(&mut seen);
        }
        if !(self.ai_service && self.token_policy && self.wasm_plugin) {
            self.remove_clusters(&mut seen);
        }
        if !self.wasm_plugin && !seen.wasm_plugins.is_empty() {
            remove_plugins(&mut seen);
        }
        seen.required_features = FeatureUse::of(&seen).names();
        seen.compatibility_profile.clone_from(&self.name);
        seen
    }

    /// Takes out clusters the client does not understand, and whatever leads to nothing else.
    fn remove_clusters(&self, snapshot: &mut Snapshot) {
        let gone: Vec<Arc<str>> = snapshot
            .clusters
            .iter()
            .filter(|cluster| !self.understands(cluster))
            .map(|cluster| cluster.key.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        let known = snapshot.clusters.clone();
        let is_gone = |backend: &BackendRef| {
            let target = backend
                .target
                .cluster_keys
                .iter()
                .find_map(|key| known.get(key));
            target.is_some_and(|cluster| !self.understands(cluster))
        };
        for key in &gone {
            snapshot.clusters.remove(key);
        }
        edit(&mut snapshot.http_routes, |route: &mut HttpRoute| {
            route
                .rules
                .retain_mut(|rule| keep_backends(&mut rule.backends, is_gone));
            !route.rules.is_empty()
        });
        edit(&mut snapshot.grpc_routes, |route: &mut GrpcRoute| {
            route
                .rules
                .retain_mut(|rule| keep_backends(&mut rule.backends, is_gone));
            !route.rules.is_empty()
        });
    }

    fn understands(&self, cluster: &Cluster) -> bool {
        (self.ai_service || cluster.ai_service.is_none())
            && (self.token_policy || cluster.token_policy.is_none())
            && (self.wasm_plugin || (cluster.wasm_plugin.is_none() && cluster.plugins.is_empty()))
    }
}

/// Name of the profile of a client that advertises exactly [`FEATURES`].
pub(crate) const FULL: &str = "full-v1";

/// How many resources of a snapshot make use of each feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureUse {
    labels: usize,
    ai_service: usize,
    token_policy: usize,
    wasm_plugin: usize,
}

impl FeatureUse {
    /// Of a whole snapshot.
    fn of(snapshot: &Snapshot) -> Self {
        let delta = ir::delta::diff(&Snapshot::default(), snapshot);
        Self::default().after(&Snapshot::default(), &delta)
    }

    /// Of the snapshot that `delta` makes of `before`; costs what the change costs.
    pub(crate) fn after(mut self, before: &Snapshot, delta: &Delta) -> Self {
        // What is replaced or removed counts no more.
        let gone = replaced(&before.http_routes, &delta.http_routes);
        self.labels -= gone.filter(|it| !it.labels.is_empty()).count();
        let gone = replaced(&before.grpc_routes, &delta.grpc_routes);
        self.labels -= gone.filter(|it| !it.labels.is_empty()).count();
        let new = &delta.http_routes.upserted;
        self.labels += new.iter().filter(|it| !it.labels.is_empty()).count();
        let new = &delta.grpc_routes.upserted;
        self.labels += new.iter().filter(|it| !it.labels.is_empty()).count();
        for cluster in replaced(&before.clusters, &delta.clusters) {
            self.ai_service -= usize::from(cluster.ai_service.is_some());
            self.token_policy -= usize::from(cluster.token_policy.is_some());
            self.wasm_plugin -= usize::from(cluster.wasm_plugin.is_some());
        }
        self.wasm_plugin -= replaced(&before.wasm_plugins, &delta.wasm_plugins).count();
        self.wasm_plugin += delta.wasm_plugins.upserted.len();
        for cluster in &delta.clusters.upserted {
            self.ai_service += usize::from(cluster.ai_service.is_some());
            self.token_policy += usize::from(cluster.token_policy.is_some());
            self.wasm_plugin += usize::from(cluster.wasm_plugin.is_some());
        }
        self
    }

    /// `core.v1` and every further feature that is made use of.
    pub(crate) fn names(self) -> Vec<String> {
        let used = [
            true,
            self.labels > 0,
            self.ai_service > 0,
            self.token_policy > 0,
            self.wasm_plugin > 0,
        ];
        FEATURES
            .iter()
            .zip(used)
            .filter(|(_, used)| *used)
            .map(|(feature, _)| (*feature).to_owned())
            .collect()
    }
}

/// What these edits take the place of, or away.
fn replaced<'a, T: Resource>(
    before: &'a Resources<T>,
    edits: &'a Edits<T>,
) -> impl Iterator<Item = &'a T> {
    let upserted = edits.upserted.iter().map(|resource| resource.key());
    let keys = upserted.chain(&edits.removed);
    keys.filter_map(|key| before.get(key).map(|resource| &**resource))
}

fn profile_name(has: impl Fn(&str) -> bool, unknown: &BTreeSet<&str>) -> String {
    let known: Vec<&str> = FEATURES.into_iter().filter(|f| has(f)).collect();
    if known.len() == FEATURES.len() && unknown.is_empty() {
        return FULL.to_owned();
    }
    let mut name = "compat-v1".to_owned();
    for feature in known.iter().chain(unknown) {
        name.push_str("__");
        name.push_str(&feature.replace('.', "_"));
    }
    name
}

/// Takes out plugins, and what must not be served without them.
fn remove_plugins(snapshot: &mut Snapshot) {
    snapshot.wasm_plugins = Resources::default();
    edit(&mut snapshot.listeners, |listener: &mut Listener| {
        listener.plugins.is_empty()
    });
    edit(&mut snapshot.http_routes, |route: &mut HttpRoute| {
        route.rules.retain(|rule| rule.plugins.is_empty());
        !route.rules.is_empty()
    });
    edit(&mut snapshot.grpc_routes, |route: &mut GrpcRoute| {
        route.rules.retain(|rule| rule.plugins.is_empty());
        !route.rules.is_empty()
    });
}

fn strip_labels(snapshot: &mut Snapshot) {
    edit(&mut snapshot.http_routes, |route: &mut HttpRoute| {
        route.labels.clear();
        true
    });
    edit(&mut snapshot.grpc_routes, |route: &mut GrpcRoute| {
        route.labels.clear();
        true
    });
}

/// Drops backends that are gone; false when nothing is left of a rule that had some.
fn keep_backends(backends: &mut Vec<BackendRef>, is_gone: impl Fn(&BackendRef) -> bool) -> bool {
    let had_some = !backends.is_empty();
    backends.retain(|backend| !is_gone(backend));
    !(had_some && backends.is_empty())
}

/// Changes every resource, and drops those for which `change` gives false.
fn edit<T: Resource>(resources: &mut Resources<T>, mut change: impl FnMut(&mut T) -> bool) {
    let mut edited = Resources::default();
    for resource in resources.iter() {
        let mut copy = T::clone(resource);
        if change(&mut copy) {
            edited.insert(copy);
        }
    }
    *resources = edited;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(features: &[&str]) -> String {
        let features: Vec<String> = features.iter().map(|f| (*f).to_owned()).collect();
        Profile::negotiate(&features).name().to_owned()
    }

    #[test]
    fn profiles_are_named_as_the_contract_says() {
        let rows: [(&[&str], &str); 6] = [
            (&[], "legacy-pre-negotiation-v1"),
            (&FEATURES, "full-v1"),
            (&[CORE], "compat-v1__core_v1"),
            (&[LABELS], "compat-v1__core_v1__route_labels_v1"),
            (
                &["z.new", WASM_PLUGIN, "a.new", CORE],
                "compat-v1__core_v1__backend_wasm_plugin_v1__a_new__z_new",
            ),
            (
                &[CORE, LABELS, AI_SERVICE, TOKEN_POLICY, WASM_PLUGIN, "x"],
                "compat-v1__core_v1__route_labels_v1__backend_ai_service_v1__backend_token_policy_v1__backend_wasm_plugin_v1__x",
            ),
        ];
        for (features, expected) in rows {
            assert_eq!(names(features), expected);
        }
    }

    #[test]
    fn a_client_cannot_grow_its_profile_name_without_bound() {
        let many: Vec<String> = (0..10_000).map(|n| format!("feature-{n}")).collect();
        assert!(Profile::negotiate(&many).name().len() < 2_000);
        let long = [String::from_utf8(vec![b'x'; 1 << 20]).unwrap()];
        assert!(Profile::negotiate(&long).name().len() < 100);
    }
}
