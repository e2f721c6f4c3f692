//! HTTP and gRPC routes: rules, their matches and the backends they send to.
//!
//! A route is attached to listeners by name ([`HttpRoute::listeners`]). Within a rule the matches
//! are alternatives; inside one match every condition must hold (Gateway API `HTTPRouteMatch`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::backend::{BackendTarget, Word};
use crate::policy::{Retry, RoutePolicy, SecurityPolicy, SessionPersistence};
use crate::resource::{Metadata, Resource};
use crate::{Filter, Hostname, Pattern};

/// What an HTTPRoute and a GRPCRoute have in common; `R` is the kind of rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Route<R> {
    /// `namespace/name`, unique among routes of its kind.
    pub key: Arc<str>,
    /// Hosts it serves on its listeners; empty means all hosts of the listener.
    pub hostnames: Vec<Hostname>,
    /// Names of the listeners it is attached to.
    pub listeners: Vec<Arc<str>>,
    /// The parents as written in the route, for status and display.
    pub parent_refs: Vec<ParentRef>,
    /// Rules in the order of the route.
    pub rules: Vec<R>,
    /// Labels of the object.
    pub labels: Metadata,
    /// Annotations of the object that concern the gateway.
    pub annotations: Metadata,
    /// Overrides of timeouts, limits and buffering.
    pub policy: Option<Arc<RoutePolicy>>,
    /// Authentication, limits and the like for this route.
    pub security_policy: Option<Arc<SecurityPolicy>>,
    /// When the object was created; the older of two equal matches wins.
    pub created_at: Option<SystemTime>,
}

impl<R: Clone + std::fmt::Debug + PartialEq> Resource for Route<R> {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}

impl<R> Route<R> {
    /// Namespace part of the key.
    pub fn namespace(&self) -> &str {
        self.key
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// Name part of the key.
    pub fn name(&self) -> &str {
        self.key
            .split_once('/')
            .map_or(&*self.key, |(_, name)| name)
    }
}

/// An HTTPRoute.
pub type HttpRoute = Route<HttpRule>;
/// A GRPCRoute.
pub type GrpcRoute = Route<GrpcRule>;

/// One rule of an HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Name of the rule, when it has one.
    pub name: Option<String>,
    /// Alternatives; never empty (an absent list is one match on prefix `/`).
    pub matches: Vec<HttpMatch>,
    /// Changes to the message, in order.
    pub filters: Vec<Filter>,
    /// Where requests go, by weight.
    pub backends: Vec<BackendRef>,
    /// Deadlines of this rule.
    pub timeouts: Timeouts,
    /// When and how often to try again.
    pub retry: Option<Arc<Retry>>,
    /// Keeps a client at one endpoint.
    pub session_persistence: Option<Arc<SessionPersistence>>,
    /// Keys of the plugins that see its requests, in no order.
    pub plugins: Vec<Arc<str>>,
}

/// One rule of a GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRule {
    /// Name of the rule, when it has one.
    pub name: Option<String>,
    /// Alternatives; never empty (an absent list is one match on everything).
    pub matches: Vec<GrpcMatch>,
    /// Changes to the message, in order.
    pub filters: Vec<Filter>,
    /// Where requests go, by weight.
    pub backends: Vec<BackendRef>,
    /// Keeps a client at one endpoint.
    pub session_persistence: Option<Arc<SessionPersistence>>,
    /// Keys of the plugins that see its requests, in no order.
    pub plugins: Vec<Arc<str>>,
}

/// A parent as a route names it (Gateway API `ParentReference`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentRef {
    /// API group; empty for the core group.
    pub group: Word,
    /// Gateway, ListenerSet or Service.
    pub kind: Word,
    /// Namespace of the parent.
    pub namespace: String,
    /// Name of the parent.
    pub name: String,
    /// One listener of the parent.
    pub section_name: Option<String>,
    /// Only listeners on this port.
    pub port: Option<u16>,
}

/// Conditions on an HTTP request, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatch {
    /// Condition on the path.
    pub path: PathMatch,
    /// The method, upper case as in RFC 9110; absent means any.
    pub method: Option<String>,
    /// Conditions on header fields; names in lower case.
    pub headers: Vec<ValueMatch>,
    /// Conditions on query parameters; names are exact.
    pub query_params: Vec<ValueMatch>,
}

/// Condition on the path of a request, without its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The same path, byte for byte.
    Exact(String),
    /// The same leading path segments; without a trailing slash unless it is `/` itself.
    Prefix(String),
    /// The whole path matches.
    Regex(Pattern),
}

/// Conditions on a gRPC call, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcMatch {
    /// Condition on service and method.
    pub method: GrpcMethodMatch,
    /// Conditions on metadata; names in lower case.
    pub headers: Vec<ValueMatch>,
}

/// Condition on the service and method of a gRPC call (Gateway API `GRPCMethodMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcMethodMatch {
    /// Any call.
    Any,
    /// Exact names; an absent one means any. At least one is present.
    Exact {
        /// Full service name, such as `helloworld.Greeter`.
        service: Option<String>,
        /// Method name, such as `SayHello`.
        method: Option<String>,
    },
    /// Patterns; an absent one means any. At least one is present.
    Regex {
        /// Pattern for the full service name.
        service: Option<Pattern>,
        /// Pattern for the method name.
        method: Option<Pattern>,
    },
}

/// A condition on a named value: a header field or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMatch {
    /// Its name; lower case for header fields.
    pub name: String,
    /// What its value must be.
    pub value: TextMatch,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// The same, byte for byte.
    Exact(String),
    /// It starts with this.
    Prefix(String),
    /// It ends with this.
    Suffix(String),
    /// The whole of it matches.
    Regex(Pattern),
    /// Anything, as long as it is there.
    Present,
}

/// A backend of a rule and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    /// What it names.
    pub target: BackendTarget,
    /// Share among the rule's backends; 0 to 1,000,000.
    pub weight: u32,
    /// Changes to the message for this backend only.
    pub filters: Vec<Filter>,
}

/// Deadlines of a rule (Gateway API `HTTPRouteTimeouts`). Zero says that there shall be no limit; what
/// is absent falls back to the route's policy and the data plane's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head to the end of the response.
    pub request: Option<Duration>,
    /// One attempt at one backend.
    pub backend_request: Option<Duration>,
}
