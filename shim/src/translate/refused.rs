//! What data planes refuse, taken out of a finished translation, and the conditions that say so.
//!
//! Translation itself knows nothing of data planes: [`Translation::without`] is a step after it, a
//! function of a translation and a list, so the law of translation is untouched. `quarantine.rs`
//! makes the list, `pipeline.rs` calls. What is left out here is still in
//! [`Translation::wanted`], so that a change to it can be seen.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ir::stream_route::{StreamKind, StreamRoute};
use ir::{Snapshot, Violation, Violations};

use super::listener_name::ListenerName;
use super::{Memos, Served, Translation, ai, gateway, listener_set};
use crate::cluster_view::Kind;
use crate::conditions::{ConditionType, Conditions, ObjectStatus};

/// The kinds of parts that can be left out of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// A listener of a Gateway or ListenerSet.
    Listener,
    /// An HTTPRoute.
    HttpRoute,
    /// A GRPCRoute.
    GrpcRoute,
    /// A TCPRoute.
    TcpRoute,
    /// A UDPRoute.
    UdpRoute,
    /// A TLSRoute.
    TlsRoute,
    /// The endpoints of a port of a Service.
    Cluster,
}

impl PartKind {
    const ALL: [Self; 7] = [
        Self::Listener,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::TlsRoute,
        Self::Cluster,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "Listener",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::Cluster => "Cluster",
        }
    }
}

/// A part of a snapshot by kind and key, as violations name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    /// Its kind.
    pub kind: PartKind,
    /// Its key in the snapshot.
    pub key: Arc<str>,
}

impl PartName {
    /// Reads the object of a violation, for example `HTTPRoute shop/cart`.
    pub fn parse(object: &str) -> Option<Self> {
        let (kind, key) = object.split_once(' ')?;
        let kind = PartKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
        Some(Self {
            kind,
            key: key.into(),
        })
    }
}

impl PartName {
    /// The key of a TCPRoute, UDPRoute or TLSRoute in a snapshot, where all stream routes stand together.
    pub fn stream_key(&self) -> Option<String> {
        let kind = match self.kind {
            PartKind::TcpRoute => StreamKind::Tcp,
            PartKind::UdpRoute => StreamKind::Udp,
            PartKind::TlsRoute => StreamKind::Tls,
            _ => return None,
        };
        let (namespace, name) = self.key.split_once('/')?;
        Some(StreamRoute::key_of(kind, namespace, name))
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// A part that a data plane refuses, or that does not fit to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which part.
    pub part: PartName,
    /// Where in the part, in the data plane's words.
    pub path: String,
    /// Why, and who refused it, for conditions.
    pub message: String,
    /// It is handed out again to see whether it is taken by now.
    pub is_tried: bool,
}

#[cfg(test)]
impl Translation {
    /// A translation of nothing with these listeners in its snapshot.
    pub(crate) fn with_listeners(listeners: impl IntoIterator<Item = Arc<ir::Listener>>) -> Self {
        let mut translation = Self::default();
        for listener in listeners {
            translation.snapshot.listeners.insert(listener);
        }
        translation
    }
}

impl Translation {
    /// The same translation without those parts; an empty list gives everything back.
    ///
    /// Conditions tell of every part in the list, also of one that is being tried: it counts as
    /// served only once the data plane has said so, which takes it off the list.
    pub fn without(mut self, list: &[Refused]) -> Self {
        self.served = None;
        if list.is_empty() {
            return self;
        }
        let mut served = Served {
            snapshot: self.snapshot.clone(),
            statuses: self.statuses.clone(),
            cluster_faults: self.cluster_faults.clone(),
        };
        for refused in list {
            let key = &refused.part.key;
            if !refused.is_tried {
                leave_out(&mut served.snapshot, &refused.part);
            }
            match refused.part.kind {
                PartKind::Listener => served.tell_gateway(refused),
                PartKind::HttpRoute => {
                    served.tell_route(Kind::HttpRoute, refused, attached(&self.http, key));
                }
                PartKind::GrpcRoute => {
                    served.tell_route(Kind::GrpcRoute, refused, attached(&self.grpc, key));
                }
                PartKind::TcpRoute => {
                    served.tell_route(Kind::TcpRoute, refused, attached(&self.tcp, key));
                }
                PartKind::UdpRoute => {
                    served.tell_route(Kind::UdpRoute, refused, attached(&self.udp, key));
                }
                PartKind::TlsRoute => {
                    served.tell_route(Kind::TlsRoute, refused, attached(&self.tls, key));
                }
                PartKind::Cluster => {
                    if let Some(service) = ai::service_of(key) {
                        served.tell_ai_service(service, refused);
                    }
                    let violations = Violations::from(violation(refused));
                    served.cluster_faults.insert(key.clone(), violations);
                }
            }
        }
        self.served = Some(served);
        self
    }
}

fn leave_out(snapshot: &mut Snapshot, part: &PartName) {
    match part.kind {
        PartKind::Listener => drop(snapshot.listeners.remove(&part.key)),
        PartKind::HttpRoute => drop(snapshot.http_routes.remove(&part.key)),
        PartKind::GrpcRoute => drop(snapshot.grpc_routes.remove(&part.key)),
        PartKind::TcpRoute | PartKind::UdpRoute | PartKind::TlsRoute => {
            if let Some(key) = part.stream_key() {
                drop(snapshot.stream_routes.remove(&key));
            }
        }
        PartKind::Cluster => drop(snapshot.clusters.remove(&part.key)),
    }
}

fn attached<'a, R>(memos: &'a Memos<R>, key: &Arc<str>) -> Option<&'a BTreeSet<Arc<str>>> {
    memos.get(key).map(|outcome| &outcome.attached)
}

fn violation(refused: &Refused) -> Violation {
    Violation {
        object: refused.part.to_string(),
        path: refused.path.clone(),
        message: refused.message.clone(),
    }
}

impl Served {
    /// An AIService that is not served.
    fn tell_ai_service(&mut self, service: &str, refused: &Refused) {
        self.change(Kind::AiService, service, |status| {
            let mut conditions = Conditions::resume(std::mem::take(&mut status.conditions));
            let reason = "UnsupportedValue";
            conditions.fail(ConditionType::Accepted, reason, &*refused.message);
            status.conditions = conditions.finish();
        });
    }

    /// A listener that is not served: its own conditions, and those of what it is written in.
    fn tell_gateway(&mut self, refused: &Refused) {
        let id = &refused.part.key;
        let Some(name) = ListenerName::read(id) else {
            return;
        };
        let (kind, owner) = name.owner();
        self.change(kind, owner, |status| {
            let listeners = &mut status.listeners;
            let Some(listener) = listeners.iter_mut().find(|known| known.id == *id) else {
                return;
            };
            // Of the Gateway API's reasons for a listener that is not programmed, `Pending` is for
            // one that is not online yet, which a port that may become free is.
            let (accepted, programmed) = match refused.path.as_str() {
                "port" => ("PortUnavailable", "Pending"),
                _ => ("UnsupportedValue", "Invalid"),
            };
            let mut conditions = Conditions::resume(std::mem::take(&mut listener.conditions));
            let see = "it is left out of what data planes serve, see Programmed";
            conditions.fail(ConditionType::Accepted, accepted, see);
            conditions.fail(ConditionType::Programmed, programmed, &*refused.message);
            listener.conditions = conditions.finish();
            match kind {
                Kind::ListenerSet => listener_set::summarize(status),
                _ => gateway::summarize(status),
            }
        });
        if kind == Kind::ListenerSet {
            self.count_sets(name.gateway);
        }
    }

    /// A ListenerSet may have lost its last listener: how many a Gateway has taken is counted anew.
    fn count_sets(&mut self, gateway: &str) {
        let is_taken = |status: &&Arc<ObjectStatus>| {
            let first = status.listeners.first();
            let name = first.and_then(|listener| ListenerName::read(&listener.id));
            let accepted = status.condition(ConditionType::Accepted);
            status.kind == Kind::ListenerSet
                && name.is_some_and(|name| name.gateway == gateway)
                && accepted.is_some_and(|condition| !condition.is_problem())
        };
        let count = self.statuses.values().filter(is_taken).count();
        self.change(Kind::Gateway, gateway, |status| {
            status.attached_listener_sets = status.attached_listener_sets.map(|_| count);
        });
    }

    /// A route that is not served: not accepted by the parents that took it.
    fn tell_route(&mut self, kind: Kind, refused: &Refused, attached: Option<&BTreeSet<Arc<str>>>) {
        self.change(kind, &refused.part.key, |status| {
            for parent in &mut status.parents {
                let is_accepted = parent
                    .conditions
                    .iter()
                    .any(|c| c.kind == ConditionType::Accepted && !c.is_problem());
                if is_accepted {
                    let mut conditions = Conditions::resume(std::mem::take(&mut parent.conditions));
                    let reason = "UnsupportedValue";
                    conditions.fail(ConditionType::Accepted, reason, &*refused.message);
                    parent.conditions = conditions.finish();
                }
            }
            status.violations.push(violation(refused));
        });
        for listener in attached.into_iter().flatten() {
            let Some(name) = ListenerName::read(listener) else {
                continue;
            };
            let (kind, owner) = name.owner();
            self.change(kind, owner, |status| {
                let listeners = status.listeners.iter_mut();
                for listener in listeners.filter(|known| known.id == *listener) {
                    listener.attached_routes = listener.attached_routes.saturating_sub(1);
                }
            });
        }
    }

    fn change(&mut self, kind: Kind, key: &str, change: impl FnOnce(&mut ObjectStatus)) {
        if let Some(status) = self.statuses.get_mut(&(kind, Arc::from(key))) {
            change(Arc::make_mut(status));
        }
    }
}
