//! How far the data planes have come: which translation all of them serve.
//!
//! Pure bookkeeping of sequence numbers. [`super::Writer`] adds every translation it sees and asks
//! again whenever a data plane has answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster_view::Kind;
use crate::conditions::{Condition, ConditionType, ObjectStatus, Truth};
use crate::history::Store;
use crate::nodes::{NodePlugin, Nodes};
use crate::pipeline::{Applied, State};

/// Translations remembered while they are on their way.
const PENDING_MAX: usize = 256;
/// How long an answer is awaited before a status says that it is awaited.
const GRACE: Duration = Duration::from_secs(1);

/// Which translation all connected data planes serve.
#[derive(Default)]
pub(super) struct Progress {
    pending: VecDeque<(Applied, Instant)>,
    confirmed: Option<Arc<State>>,
    connected: usize,
    /// Why one that is behind refuses.
    refusal: Option<String>,
    behind: usize,
    /// How plugins are doing on connected data planes, by their keys.
    plugins: Plugins,
}

/// Data planes and what they say, by the key of a plugin.
type Plugins = BTreeMap<String, Vec<(String, NodePlugin)>>;

/// What can be said differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing.
    Nothing,
    /// What is waited for may be there.
    Onwards,
    /// Anything.
    Everything,
}

/// What can be said of a generation.
pub(super) enum Served {
    /// All connected data planes serve it.
    Yes,
    /// It is on its way; ask again then.
    Wait(Instant),
    /// Not yet, and it takes longer.
    No(String),
}

impl Progress {
    /// A translation was published.
    pub(super) fn add(&mut self, applied: Applied) {
        let is_known = self
            .pending
            .back()
            .is_some_and(|(last, _)| Arc::ptr_eq(&last.state, &applied.state));
        if is_known {
            return;
        }
        if self.pending.len() == PENDING_MAX {
            // The newest says as much as the one before it, only later.
            self.pending.pop_back();
        }
        self.pending.push_back((applied, Instant::now()));
    }

    /// Looks at the data planes.
    pub(super) fn update(&mut self, nodes: &Nodes, store: &Store) -> Moved {
        let before = (self.connected, self.refusal.take());
        let behind = self.behind;
        let newest = self.pending.back().map_or(0, |(last, _)| last.sequence);
        (self.connected, self.behind) = (0, 0);
        let mut served = u64::MAX;
        for node in nodes.list().iter().filter(|node| node.connected) {
            let versions = [&node.acked_version, &node.version];
            let sequence = versions.into_iter().filter(|version| !version.is_empty());
            let sequence = sequence.filter_map(|version| store.sequence(version)).max();
            let sequence = sequence.unwrap_or_default();
            self.connected += 1;
            served = served.min(sequence);
            if sequence < newest {
                self.behind += 1;
                if !node.error_detail.is_empty() {
                    self.refusal = Some(format!("{} refuses: {}", node.node_id, node.error_detail));
                }
            }
        }
        let mut moved = false;
        if self.connected > 0 {
            while let Some((first, _)) = self.pending.front()
                && first.sequence <= served
            {
                self.confirmed = self.pending.pop_front().map(|(first, _)| first.state);
                moved = true;
            }
        }
        if before.0 != self.connected || before.1 != self.refusal {
            return Moved::Everything;
        }
        match moved || behind != self.behind {
            true => Moved::Onwards,
            false => Moved::Nothing,
        }
    }

    /// Plugins that do differently than when this was called last.
    pub(super) fn changed_plugins(&mut self, nodes: &Nodes) -> BTreeSet<String> {
        let mut plugins = Plugins::new();
        for node in nodes.list() {
            let serving = node.serving.filter(|_| node.connected);
            for plugin in serving.into_iter().flat_map(|it| it.plugins) {
                let told = plugins.entry(plugin.key.clone()).or_default();
                told.push((node.node_id.clone(), plugin));
            }
        }
        let both = plugins.keys().chain(self.plugins.keys());
        let changed = both.filter(|key| plugins.get(*key) != self.plugins.get(*key));
        let changed = changed.cloned().collect();
        self.plugins = plugins;
        changed
    }

    /// What data planes say of a plugin: whether it runs, why, and in words. Nothing while none does.
    pub(super) fn plugin(&self, key: &str) -> Option<(Truth, &'static str, String)> {
        let told = self.plugins.get(key).filter(|told| !told.is_empty())?;
        let lacking = told.iter().filter(|(_, it)| !it.module_error.is_empty());
        let lacking: Vec<_> = lacking
            .map(|(node, it)| match &*it.sha256 {
                "" => format!("{node}: {}", it.module_error),
                runs => format!("{node} runs sha256:{runs} until then: {}", it.module_error),
            })
            .collect();
        if !lacking.is_empty() {
            return Some((Truth::False, "ModuleNotAvailable", lacking.join("; ")));
        }
        let disabled = told.iter().filter(|(_, it)| it.disabled);
        let disabled: Vec<_> = disabled
            .map(|(node, it)| format!("{node}: {}", it.last_failure))
            .collect();
        if !disabled.is_empty() {
            let message = format!(
                "it failed too often and is left alone for a while: {}",
                disabled.join("; ")
            );
            return Some((Truth::False, "Disabled", message));
        }
        let digests: BTreeSet<_> = told.iter().map(|(_, it)| it.sha256.as_str()).collect();
        let digests: Vec<_> = digests.iter().map(|it| format!("sha256:{it}")).collect();
        let message = format!("{} on {} data planes", digests.join(", "), told.len());
        Some((Truth::True, "Programmed", message))
    }

    /// True when all data planes serve whatever `status` claims to be programmed.
    pub(super) fn bears_out(&self, status: &ObjectStatus) -> bool {
        let names = status.listeners.iter().map(|it| Some(it.name.as_str()));
        let mut all = names.chain([None]);
        all.all(|name| {
            let claim = programmed(status, name).filter(|claim| claim.status == Truth::True);
            claim.is_none() || matches!(self.serves(status, name), Served::Yes)
        })
    }

    /// Whether all data planes serve what `status` claims to be programmed.
    pub(super) fn serves(&self, status: &ObjectStatus, listener: Option<&str>) -> Served {
        let confirmed = self
            .confirmed
            .as_ref()
            .and_then(|state| state.translation.status(status.kind, &status.key));
        let wanted = programmed(status, listener).map_or(0, |c| c.observed_generation);
        let is_served = confirmed.is_some_and(|confirmed| {
            programmed(confirmed, listener).is_some_and(|condition| {
                condition.status == Truth::True && condition.observed_generation >= wanted
            })
        });
        if is_served && self.connected > 0 {
            return Served::Yes;
        }
        if self.connected == 0 {
            return Served::No("no data plane is connected".to_owned());
        }
        if let Some(refusal) = &self.refusal {
            return Served::No(refusal.clone());
        }
        let since = self.pending.front().map(|(_, since)| *since + GRACE);
        match since.filter(|until| *until > Instant::now()) {
            Some(until) => Served::Wait(until),
            None => Served::No(format!(
                "{} of {} data planes have not acknowledged it",
                self.behind, self.connected
            )),
        }
    }
}

/// The claim of a Gateway, or of one of its listeners, to be programmed.
pub(super) fn programmed<'a>(
    status: &'a ObjectStatus,
    listener: Option<&str>,
) -> Option<&'a Condition> {
    debug_assert!(matches!(status.kind, Kind::Gateway | Kind::ListenerSet));
    let conditions = match listener {
        None => &status.conditions,
        Some(name) => {
            &status
                .listeners
                .iter()
                .find(|it| it.name == name)?
                .conditions
        }
    };
    conditions
        .iter()
        .find(|condition| condition.kind == ConditionType::Programmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::Serving;

    #[test]
    fn what_data_planes_say_of_a_plugin_becomes_one_claim() {
        let nodes = Nodes::default();
        let leases = ["dp-1", "dp-2"].map(|name| nodes.connect(name).unwrap().0);
        let says = |node: &str, sha256: &str, module_error: &str, disabled| {
            let plugin = NodePlugin {
                key: "shop/p".to_owned(),
                sha256: sha256.to_owned(),
                module_error: module_error.to_owned(),
                disabled,
                last_failure: "unreachable".to_owned(),
            };
            let serving = Serving {
                plugins: vec![plugin],
                ..Serving::default()
            };
            assert!(nodes.report(node, "", true, "", Some(serving)));
        };
        let mut progress = Progress::default();
        assert!(progress.plugin("shop/p").is_none());
        for (second, truth, reason, part) in [
            (
                ("aa", "", false),
                Truth::True,
                "Programmed",
                "sha256:aa on 2",
            ),
            (
                ("", "no answer", false),
                Truth::False,
                "ModuleNotAvailable",
                "dp-2: no answer",
            ),
            (
                ("bb", "no answer", false),
                Truth::False,
                "ModuleNotAvailable",
                "runs sha256:bb",
            ),
            (
                ("aa", "", true),
                Truth::False,
                "Disabled",
                "dp-2: unreachable",
            ),
            (
                ("bb", "", false),
                Truth::True,
                "Programmed",
                "sha256:aa, sha256:bb on 2",
            ),
        ] {
            says("dp-1", "aa", "", false);
            says("dp-2", second.0, second.1, second.2);
            assert_eq!(progress.changed_plugins(&nodes).len(), 1, "{reason}");
            assert!(progress.changed_plugins(&nodes).is_empty());
            let told = progress.plugin("shop/p").unwrap();
            assert_eq!((told.0, told.1), (truth, reason));
            assert!(told.2.contains(part), "{}", told.2);
        }
        drop(leases);
        assert_eq!(progress.changed_plugins(&nodes).len(), 1);
        assert!(progress.plugin("shop/p").is_none(), "nobody is connected");
    }
}
