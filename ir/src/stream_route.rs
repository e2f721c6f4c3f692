//! TCP, UDP and TLS routes: which bytes go to which backends.
//!
//! A stream has no message to look at: a TCP or UDP route is chosen by the port it came to, a TLS
//! route by SNI as well. Attachment to listeners is as for HTTP routes.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Hostname;
use crate::http_route::{BackendRef, ParentRef};
use crate::resource::{Metadata, Resource};

/// A TCPRoute, UDPRoute or TLSRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRoute {
    /// `kind/namespace/name`, the kind in lower case; see [`StreamRoute::key_of`].
    pub key: Arc<str>,
    /// What it carries.
    pub kind: StreamKind,
    /// Names of the listeners it is attached to.
    pub listeners: Vec<Arc<str>>,
    /// The parents as written in the route, for status and display.
    pub parent_refs: Vec<ParentRef>,
    /// Rules in the order of the route.
    pub rules: Vec<StreamRule>,
    /// Labels of the object.
    pub labels: Metadata,
    /// Annotations of the object that concern the gateway.
    pub annotations: Metadata,
    /// When the object was created; the older of two equal matches wins.
    pub created_at: Option<SystemTime>,
}

impl StreamRoute {
    /// The key of the route of that kind, namespace and name.
    pub fn key_of(kind: StreamKind, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}", kind.as_str())
    }

    /// `namespace/name` part of the key.
    pub fn object_key(&self) -> &str {
        self.key.split_once('/').map_or(&*self.key, |(_, key)| key)
    }

    /// Namespace part of the key.
    pub fn namespace(&self) -> &str {
        self.object_key()
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// Name part of the key.
    pub fn name(&self) -> &str {
        let key = self.object_key();
        key.split_once('/').map_or(key, |(_, name)| name)
    }
}

impl Resource for StreamRoute {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}

/// What a stream route carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Bytes over TCP.
    Tcp,
    /// Datagrams.
    Udp,
    /// TLS, chosen by SNI.
    Tls,
}

impl StreamKind {
    /// The kind as it stands in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
        }
    }

    /// The kind of the Kubernetes object.
    pub const fn object_kind(self) -> &'static str {
        match self {
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
            Self::Tls => "TLSRoute",
        }
    }
}

/// One rule of a stream route.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRule {
    /// Name of the rule, when it has one.
    pub name: Option<String>,
    /// Alternatives; never empty (an absent list is one match on everything).
    pub matches: Vec<StreamMatch>,
    /// Where connections go, by weight.
    pub backends: Vec<BackendRef>,
}

/// Conditions on a connection, all of which must hold; the default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamMatch {
    /// The port it came to; absent means any.
    pub port: Option<NonZeroU16>,
    /// The name asked for by SNI; absent means any. Only in TLS routes.
    pub sni: Option<Hostname>,
    /// What happens to TLS; absent means what the listener does.
    pub mode: Option<TlsRouteMode>,
}

/// What happens to TLS on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsRouteMode {
    /// It passes through.
    Passthrough,
    /// It ends at the gateway.
    Terminate,
}
