//! Who is in quarantine and until when, as a state machine without a clock.
//!
//! A case begins `Out`: the object is left out. When its time has come it is `Tried`: in the
//! snapshot again, and still shown as refused. Once every node that refused it serves it, or none has
//! refused it for a whole period, it is `Back`: remembered only so that the next refusal waits
//! longer. A case ends when the object differs from what was refused, or after a long peace.
//! Everything is bounded: cases, nodes per case, the length of texts, the rate of attempts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ir::{ContentHash, Snapshot};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::nodes::{NodeViolation, rfc3339};
use crate::translate::{PartKind, PartName, Refused};

/// Objects in quarantine at a time; refusals of further ones end the stream.
pub const OBJECTS_MAX: usize = 1000;
/// The longest pause between two attempts; `quarantine.retryAfter` may be longer itself.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// Nodes whose words are kept for one object.
const NODES_MAX: usize = 8;
/// Length of a path or message that is kept.
const TEXT_BYTES_MAX: usize = 1024;

/// Which refusal of a snapshot by a node this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// The first: the push itself may be at fault, unless the objects are known for it.
    First,
    /// A later one: it is the objects.
    Again,
}

/// One object in quarantine, as the admin API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The object, as violations name it.
    pub object: String,
    /// It is in the snapshot again, and the answer is awaited.
    pub tried: bool,
    /// How often it was left out in a row.
    pub refusals: u32,
    /// When it is tried again, RFC 3339; empty while it is.
    pub retry_at: String,
    /// Who refused it, and why.
    pub nodes: BTreeMap<String, Fault>,
}

/// Why a node refused an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where in the object.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// All cases.
#[derive(Debug)]
pub(super) struct Ward {
    cases: BTreeMap<PartName, Case>,
    retry_after: Duration,
    last_attempt: Option<Instant>,
}

#[derive(Debug)]
struct Case {
    /// What was refused; anything else deserves a fresh chance.
    content: Vec<ContentHash>,
    phase: Phase,
    refusals: u32,
    nodes: BTreeMap<String, Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Out { until: Instant },
    Tried { since: Instant },
    Back { since: Instant },
}

impl Ward {
    pub(super) fn new(retry_after: Duration) -> Self {
        Self {
            cases: BTreeMap::new(),
            retry_after,
            last_attempt: None,
        }
    }

    /// Takes a refusal in; true when the objects at fault are left out from now on.
    pub(super) fn refused(
        &mut self,
        node_id: &str,
        snapshot: &Snapshot,
        violations: &[NodeViolation],
        nack: Nack,
        now: Instant,
    ) -> bool {
        // Names that are not in the snapshot are no reason to remember anything.
        let mut named = BTreeMap::new();
        for violation in violations {
            for part in parts(&violation.object, snapshot) {
                if let Some(content) = content(snapshot, &part) {
                    named.entry(part).or_insert((content, violation));
                }
            }
        }
        let is_known = |(part, (content, _)): (&PartName, &(Vec<ContentHash>, _))| {
            let case = self.cases.get(part);
            case.is_some_and(|case| case.content == *content)
        };
        if nack == Nack::First && !named.iter().all(is_known) {
            return false;
        }
        let mut is_believed = false;
        for (part, (content, violation)) in named {
            is_believed |= self.refuse(part, content, node_id, violation, now);
        }
        is_believed
    }

    fn refuse(
        &mut self,
        part: PartName,
        content: Vec<ContentHash>,
        node_id: &str,
        violation: &NodeViolation,
        now: Instant,
    ) -> bool {
        let fault = Fault {
            path: clip(&violation.path),
            message: clip(&violation.message),
        };
        if !self.cases.contains_key(&part) && self.cases.len() >= OBJECTS_MAX {
            warn!(object = %part, "the quarantine is full, the object stays in the snapshot");
            return false;
        }
        let fresh = || Case {
            content: content.clone(),
            phase: Phase::Back { since: now },
            refusals: 0,
            nodes: BTreeMap::new(),
        };
        let case = self.cases.entry(part.clone()).or_insert_with(fresh);
        if case.content != content {
            *case = fresh();
        }
        if !matches!(case.phase, Phase::Out { .. }) {
            case.refusals = case.refusals.saturating_add(1);
            let pause = pause(self.retry_after, case.refusals);
            case.phase = Phase::Out { until: now + pause };
            if case.refusals == 1 {
                let (path, message) = (&fault.path, &fault.message);
                warn!(object = %part, node_id, path, message, "refused, left out for all");
            }
        }
        if case.nodes.len() < NODES_MAX || case.nodes.contains_key(node_id) {
            case.nodes.insert(node_id.to_owned(), fault);
        }
        true
    }

    /// A node serves that snapshot; true when that ends what is shown of a case.
    pub(super) fn served(&mut self, node_id: &str, snapshot: &Snapshot) -> bool {
        let mut changed = false;
        for (part, case) in &mut self.cases {
            let Phase::Tried { since } = case.phase else {
                continue;
            };
            let serves = content(snapshot, part).is_some_and(|content| content == case.content);
            if serves && case.nodes.remove(node_id).is_some() && case.nodes.is_empty() {
                case.phase = Phase::Back { since };
                changed = true;
                info!(object = %part, "serves again");
            }
        }
        changed
    }

    pub(super) fn is_trying(&self) -> bool {
        let is_tried = |case: &Case| matches!(case.phase, Phase::Tried { .. });
        self.cases.values().any(is_tried)
    }

    /// Forgets what is not as it was refused, and moves on what has waited long enough.
    pub(super) fn settle(&mut self, wanted: &Snapshot, now: Instant) {
        let (quiet, forget) = (self.retry_after, self.retry_after.max(RETRY_MAX));
        self.cases.retain(|part, case| {
            if content(wanted, part).as_ref() != Some(&case.content) {
                return false;
            }
            match case.phase {
                Phase::Tried { since } if since + quiet <= now => {
                    // Nobody has objected: whoever refused it may be gone for good.
                    case.phase = Phase::Back { since };
                    case.nodes.clear();
                    true
                }
                Phase::Back { since } => since + forget > now,
                _ => true,
            }
        });
        if self.next_attempt().is_none_or(|at| at > now) {
            return;
        }
        self.last_attempt = Some(now);
        for case in self.cases.values_mut() {
            if matches!(case.phase, Phase::Out { until } if until <= now) {
                case.phase = Phase::Tried { since: now };
            }
        }
    }

    /// When the first object is tried again. Attempts keep a distance, so that objects due one
    /// after the other are tried together.
    fn next_attempt(&self) -> Option<Instant> {
        let due = self.cases.values().filter_map(|case| match case.phase {
            Phase::Out { until } => Some(until),
            _ => None,
        });
        let soonest = self.last_attempt.map(|last| last + self.retry_after / 10);
        let first = due.min()?;
        Some(soonest.map_or(first, |soonest| first.max(soonest)))
    }

    /// When [`Ward::settle`] has something to do by time alone.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let forget = self.retry_after.max(RETRY_MAX);
        let ends = self.cases.values().filter_map(|case| match case.phase {
            Phase::Out { .. } => None,
            Phase::Tried { since } => Some(since + self.retry_after),
            Phase::Back { since } => Some(since + forget),
        });
        ends.chain(self.next_attempt()).min()
    }

    /// What is refused, for the translation.
    pub(super) fn list(&self) -> Vec<Refused> {
        let cases = self.cases.iter();
        cases
            .filter_map(|(part, case)| {
                let (first, fault) = case.nodes.first_key_value()?;
                let others = match case.nodes.len() - 1 {
                    0 => String::new(),
                    others => format!(" (and {others} more)"),
                };
                let colon = if fault.path.is_empty() { "" } else { ": " };
                Some(Refused {
                    part: part.clone(),
                    path: fault.path.clone(),
                    message: format!(
                        "data plane {first}{others} refused it: {}{colon}{}; it is left out for \
                         all and tried again by itself",
                        fault.path, fault.message
                    ),
                    is_tried: !matches!(case.phase, Phase::Out { .. }),
                })
            })
            .collect()
    }

    /// What is refused, for the admin API.
    pub(super) fn kept(&self, now: Instant) -> Vec<Kept> {
        let clock = SystemTime::now();
        let shown = self.cases.iter().filter(|(_, case)| !case.nodes.is_empty());
        shown
            .map(|(part, case)| Kept {
                object: part.to_string(),
                tried: matches!(case.phase, Phase::Tried { .. }),
                refusals: case.refusals,
                retry_at: match case.phase {
                    Phase::Out { until } => rfc3339(clock + until.duration_since(now)),
                    _ => String::new(),
                },
                nodes: case.nodes.clone(),
            })
            .collect()
    }
}

/// How long an object is left out after that many refusals in a row.
fn pause(retry_after: Duration, refusals: u32) -> Duration {
    let doubled = 1_u32.checked_shl(refusals.saturating_sub(1));
    let grown = doubled.and_then(|times| retry_after.checked_mul(times));
    grown.unwrap_or(RETRY_MAX).min(RETRY_MAX.max(retry_after))
}

/// The parts a violation is about; for a Secret, the listeners that cannot do without it.
fn parts(object: &str, snapshot: &Snapshot) -> Vec<PartName> {
    let Some(secret) = object.strip_prefix("Secret ") else {
        return PartName::parse(object).into_iter().collect();
    };
    let users = snapshot.listeners.iter().filter(|listener| {
        let tls = listener.tls.iter();
        tls.flat_map(|tls| &tls.certificate_refs)
            .any(|key| &**key == secret)
    });
    let part = |listener: &Arc<ir::Listener>| PartName {
        kind: PartKind::Listener,
        key: listener.name.clone(),
    };
    users.map(part).collect()
}

/// What a part is in that snapshot, with all that it cannot do without.
fn content(snapshot: &Snapshot, part: &PartName) -> Option<Vec<ContentHash>> {
    let key = &part.key;
    Some(match part.kind {
        PartKind::Listener => {
            let listener = snapshot.listeners.get(key)?;
            let keys = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
            let secrets = keys.filter_map(|key| snapshot.secrets.get(key));
            let mut content = vec![ContentHash::of(&**listener)];
            content.extend(secrets.map(|secret| ContentHash::of(&**secret)));
            content
        }
        PartKind::HttpRoute => vec![ContentHash::of(&**snapshot.http_routes.get(key)?)],
        PartKind::GrpcRoute => vec![ContentHash::of(&**snapshot.grpc_routes.get(key)?)],
        PartKind::TcpRoute | PartKind::UdpRoute | PartKind::TlsRoute => {
            let route = snapshot.stream_routes.get(&part.stream_key()?)?;
            vec![ContentHash::of(&**route)]
        }
        PartKind::Cluster => vec![ContentHash::of(&**snapshot.clusters.get(key)?)],
    })
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests;
