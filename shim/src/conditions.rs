//! Conditions as Gateway API shapes them: per object, per parent of a route, per listener.
//!
//! [`crate::translate`] makes them, `check` prints them, the admin API shows them, and an API server
//! gets them as status. They hold no time: when a condition last changed is a matter of whoever
//! stores it, and without it two equal translations are equal.

pub mod reasons;

use std::fmt;
use std::sync::Arc;

use ir::Violation;
use serde::Serialize;

use crate::cluster_view::{Kind, Object, Origin, Watched};

/// One claim about an object (Kubernetes `Condition` without its time).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is claimed.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Truth,
    /// Why, as one word of Gateway API.
    pub reason: &'static str,
    /// Why, in a sentence; empty when there is nothing to add.
    pub message: String,
    /// The generation of the object this is about.
    pub observed_generation: i64,
}

impl Condition {
    /// True when somebody should look at this.
    pub fn is_problem(&self) -> bool {
        match self.kind {
            ConditionType::Conflicted | ConditionType::PartiallyInvalid => {
                self.status == Truth::True
            }
            _ => self.status != Truth::True,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}={:?} {}", self.kind, self.status, self.reason)?;
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.message)
        }
    }
}

/// What a condition claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ConditionType {
    /// It is valid and taken on.
    Accepted,
    /// Everything it names was found and may be used.
    ResolvedRefs,
    /// It is on its way to the data plane.
    Programmed,
    /// It cannot live beside another one.
    Conflicted,
    /// A part of it is not served.
    PartiallyInvalid,
    /// Clients without a valid certificate are let in; there only while it is so.
    InsecureFrontendValidationMode,
    /// Another listener of the port serves some of the same host names over TLS; there only while
    /// it is so.
    OverlappingTLSConfig,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

/// A list of conditions under construction, all about one generation.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    generation: i64,
    list: Vec<Condition>,
}

impl Conditions {
    /// None yet, about that generation.
    pub fn new(generation: i64) -> Self {
        Self {
            generation,
            list: Vec::new(),
        }
    }

    /// Goes on with a finished list.
    pub fn resume(list: Vec<Condition>) -> Self {
        Self {
            generation: list.first().map_or(0, |first| first.observed_generation),
            list,
        }
    }

    /// Claims that `kind` holds.
    pub fn hold(&mut self, kind: ConditionType, reason: &'static str) {
        self.set(kind, Truth::True, reason, String::new());
    }

    /// Claims that `kind` does not hold.
    pub fn fail(&mut self, kind: ConditionType, reason: &'static str, message: impl Into<String>) {
        self.set(kind, Truth::False, reason, message.into());
    }

    /// Adds a claim, or replaces the one of the same type.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: Truth,
        reason: &'static str,
        message: String,
    ) {
        let condition = Condition {
            kind,
            status,
            reason,
            message,
            observed_generation: self.generation,
        };
        match self.list.iter_mut().find(|known| known.kind == kind) {
            Some(known) => *known = condition,
            None => self.list.push(condition),
        }
    }

    /// The claim of that type, if somebody should look at it.
    pub fn problem(&self, kind: ConditionType) -> Option<&Condition> {
        let mut list = self.list.iter();
        list.find(|known| known.kind == kind && known.is_problem())
    }

    /// The finished list.
    pub fn finish(self) -> Vec<Condition> {
        self.list
    }
}

/// Everything there is to say about one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// Its kind, as written in a manifest.
    #[serde(serialize_with = "kind_as_text")]
    pub kind: Kind,
    /// `namespace/name`, or the name alone.
    #[serde(serialize_with = "key_as_text")]
    pub key: Arc<str>,
    /// Where it was read.
    #[serde(serialize_with = "origin_as_text")]
    pub origin: Origin,
    /// About the object as a whole.
    pub conditions: Vec<Condition>,
    /// About a route at each of its parents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentStatus>,
    /// About each listener of a Gateway or ListenerSet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets a Gateway that allows some has taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<usize>,
    /// Why it was left out, field by field.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "violations_as_text"
    )]
    pub violations: Vec<Violation>,
    /// What is written but has no effect yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl ObjectStatus {
    /// Nothing said yet about `object`.
    pub fn new<T: Watched>(object: &Object<T>) -> Self {
        Self {
            kind: T::KIND,
            key: object.key.clone(),
            origin: object.origin.clone(),
            conditions: Vec::new(),
            parents: Vec::new(),
            listeners: Vec::new(),
            attached_listener_sets: None,
            violations: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The condition of that type on the object itself.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// Every condition with the part of the object it is about; empty for the object itself.
    pub fn all_conditions(&self) -> impl Iterator<Item = (String, &Condition)> {
        let own = self
            .conditions
            .iter()
            .map(|condition| (String::new(), condition));
        let parents = self.parents.iter().flat_map(|parent| {
            let part = parent.to_string();
            parent
                .conditions
                .iter()
                .map(move |condition| (part.clone(), condition))
        });
        let listeners = self.listeners.iter().flat_map(|listener| {
            let part = format!("listener {}", listener.name);
            listener
                .conditions
                .iter()
                .map(move |condition| (part.clone(), condition))
        });
        own.chain(parents).chain(listeners)
    }

    /// Those conditions, each with what it is about.
    pub fn told(&self, which: Which) -> impl Iterator<Item = Told> {
        self.all_conditions()
            .filter(move |(_, condition)| which == Which::All || condition.is_problem())
            .map(|(part, condition)| Told {
                kind: self.kind,
                key: self.key.clone(),
                origin: self.origin.clone(),
                part,
                condition: condition.clone(),
            })
    }

    /// The same as lines.
    pub fn lines(&self, which: Which) -> Vec<String> {
        self.told(which).map(|told| told.to_string()).collect()
    }
}

/// A condition away from its object: `HTTPRoute shop/cart (routes.yaml): parent infra/gw: Accepted=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Kind of the object.
    pub kind: Kind,
    /// `namespace/name`, or the name alone.
    pub key: Arc<str>,
    /// Where the object was read.
    pub origin: Origin,
    /// The part of the object it is about; empty for the object itself.
    pub part: String,
    /// What is claimed.
    pub condition: Condition,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}): ", self.kind, self.key, self.origin)?;
        if !self.part.is_empty() {
            write!(f, "{}: ", self.part)?;
        }
        self.condition.fmt(f)
    }
}

/// Which conditions are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those somebody should look at.
    Problems,
}

/// A route at one of its parents (Gateway API `RouteParentStatus`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// Kind of the parent.
    pub kind: String,
    /// Namespace of the parent.
    pub namespace: String,
    /// Name of the parent.
    pub name: String,
    /// The one listener the route asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The one port the route asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What is claimed.
    pub conditions: Vec<Condition>,
}

impl fmt::Display for ParentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parent ")?;
        if self.kind != "Gateway" {
            write!(f, "{} ", self.kind)?;
        }
        write!(f, "{}/{}", self.namespace, self.name)?;
        if let Some(section) = &self.section_name {
            write!(f, "/{section}")?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}

/// One listener of a Gateway or ListenerSet (Gateway API `ListenerStatus`, `ListenerEntryStatus`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener within its Gateway or ListenerSet.
    pub name: String,
    /// Its name in the snapshot.
    #[serde(skip)]
    pub id: Arc<str>,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<&'static str>,
    /// How many routes did.
    pub attached_routes: usize,
    /// What is claimed.
    pub conditions: Vec<Condition>,
}

fn kind_as_text<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

fn key_as_text<S: serde::Serializer>(key: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}

fn origin_as_text<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(origin)
}

fn violations_as_text<S: serde::Serializer>(
    violations: &[Violation],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(violations.iter().map(ToString::to_string))
}
