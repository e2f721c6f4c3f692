//! How far the data planes have come: which translation all of them serve.
//!
//! Pure bookkeeping of sequence numbers. [`super::Writer`] adds every translation it sees and asks
//! again whenever a data plane has answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster_view::Kind;
use crate::conditions::{Condition, ConditionType, ObjectStatus, Truth};
use crate::history::Store;
use crate::nodes::Nodes;
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
}

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
