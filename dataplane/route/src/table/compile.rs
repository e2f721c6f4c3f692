//! From an `ir` route to the matches that a table holds, and which of two goes first.
//!
//! A gRPC service and method are a path of two segments, so both kinds of route share one index:
//! an exact call is an exact path, a service is a prefix, everything else stands at the root.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ir::http_route::{GrpcMatch, GrpcMethodMatch, HttpMatch, PathMatch, Route};
use ir::{GrpcRoute, Hostname, HttpRoute, Pattern};

use crate::http_match::{Conditions, NeverMet, Unmet, escaped, literal_prefix};
use crate::request::Request;
use crate::text_map::Text;

/// The two kinds of route a table holds; keys are unique within a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
}

/// A route as a table holds it; `R` is what a rule carries.
pub struct CompiledRoute<R> {
    kind: RouteKind,
    identity: Arc<Identity>,
    /// Without repeats; empty means any host.
    hosts: Box<[Hostname]>,
    matches: Box<[Arc<CompiledMatch<R>>]>,
}

impl<R> CompiledRoute<R> {
    /// Compiles an HTTPRoute for one listener.
    ///
    /// `hosts` are the route's host names as far as the listener has them too; none means any.
    /// `rule` is asked once for each rule, by its index. A match that no request can meet, because
    /// its method or a header name is no token, is left out.
    pub fn http(route: &HttpRoute, hosts: &[Hostname], rule: impl FnMut(usize) -> Arc<R>) -> Self {
        let compile = Conditioned::http;
        Self::compile(RouteKind::Http, route, hosts, |r| &r.matches, compile, rule)
    }

    /// Compiles a GRPCRoute for one listener; as [`CompiledRoute::http`].
    pub fn grpc(route: &GrpcRoute, hosts: &[Hostname], rule: impl FnMut(usize) -> Arc<R>) -> Self {
        let compile = Conditioned::grpc;
        Self::compile(RouteKind::Grpc, route, hosts, |r| &r.matches, compile, rule)
    }

    /// `namespace/name` of the route.
    pub fn key(&self) -> &Arc<str> {
        &self.identity.key
    }

    /// The kind of the route.
    pub fn kind(&self) -> RouteKind {
        self.kind
    }

    pub(super) fn matches(&self) -> &[Arc<CompiledMatch<R>>] {
        &self.matches
    }

    /// The host names to file it under; `None` stands for any host.
    pub(super) fn host_names(&self) -> impl Iterator<Item = Option<&Hostname>> {
        let any = self.hosts.is_empty().then_some(None);
        self.hosts.iter().map(Some).chain(any)
    }

    fn compile<Rule, Match>(
        kind: RouteKind,
        route: &Route<Rule>,
        hosts: &[Hostname],
        matches_of: impl Fn(&Rule) -> &[Match],
        compile: impl Fn(&Match) -> Result<Conditioned, NeverMet>,
        mut rule: impl FnMut(usize) -> Arc<R>,
    ) -> Self {
        let identity = Arc::new(Identity {
            key: route.key.clone(),
            created_at: route.created_at,
        });
        let mut matches = Vec::new();
        for (rule_index, source) in route.rules.iter().enumerate() {
            let carried = rule(rule_index);
            for (match_index, route_match) in matches_of(source).iter().enumerate() {
                let Ok(conditioned) = compile(route_match) else {
                    continue;
                };
                matches.push(Arc::new(CompiledMatch {
                    rule: carried.clone(),
                    path: conditioned.path,
                    rank: conditioned.rank,
                    conditions: (!conditioned.conditions.are_trivial())
                        .then(|| Box::new(conditioned.conditions)),
                    identity: identity.clone(),
                    position: [clamp(rule_index), clamp(match_index)],
                }));
            }
        }
        let mut hosts = hosts.to_vec();
        hosts.sort_unstable();
        hosts.dedup();
        Self {
            kind,
            identity,
            hosts: hosts.into(),
            matches: matches.into(),
        }
    }
}

impl<R> fmt::Debug for CompiledRoute<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledRoute")
            .field("kind", &self.kind)
            .field("key", &self.identity.key)
            .field("hosts", &self.hosts)
            .field("matches", &self.matches.len())
            .finish()
    }
}

/// One match of one rule, shared by all hosts of its route.
pub(super) struct CompiledMatch<R> {
    pub(super) rule: Arc<R>,
    pub(super) path: Path,
    /// Absent when host and path are all it asks for.
    conditions: Option<Box<Conditions>>,
    identity: Arc<Identity>,
    rank: Rank,
    /// Index of the rule in its route, and of the match in its rule.
    pub(super) position: [u32; 2],
}

impl<R> CompiledMatch<R> {
    /// True when the request has more to agree with than host and path.
    pub(super) fn has_conditions(&self) -> bool {
        self.conditions.is_some()
    }

    /// True when the request agrees with everything but host and path.
    pub(super) fn is_met(&self, request: &Request<'_>) -> bool {
        self.conditions
            .as_ref()
            .is_none_or(|conditions| conditions.are_met(request))
    }

    /// True when the path matches a regular expression and the request agrees with the rest.
    pub(super) fn is_regex_met(&self, request: &Request<'_>) -> bool {
        match &self.path {
            Path::Regex(regex) => regex.is_match(request.path) && self.is_met(request),
            Path::Exact(_) | Path::Prefix(_) => false,
        }
    }

    /// The first thing but host and path that the request does not agree with.
    pub(super) fn unmet(&self, request: &Request<'_>) -> Option<Unmet<'_>> {
        self.conditions.as_ref()?.unmet(request)
    }

    /// Which of the things that [`Self::precedence`] compares decides between the two.
    pub(super) fn decided_by(&self, kind: RouteKind, other: &Self) -> Precedence {
        let pairs = self.rank.0.iter().zip(&other.rank.0);
        if let Some(at) = pairs.into_iter().position(|(one, two)| one != two) {
            return match (kind, at) {
                (RouteKind::Http, 0) => Precedence::LongerPattern,
                (RouteKind::Http, 1) => Precedence::Method,
                (RouteKind::Http, 2) | (RouteKind::Grpc, 4) => Precedence::MoreHeaders,
                (RouteKind::Http, _) => Precedence::MoreParams,
                (RouteKind::Grpc, _) => Precedence::LongerCall,
            };
        }
        if self.identity.created_at != other.identity.created_at {
            return Precedence::Older;
        }
        match self.identity.key == other.identity.key {
            true => Precedence::Earlier,
            false => Precedence::Name,
        }
    }

    /// `Less` when this one goes before `other`, both being for the same kind of path.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        self.rank
            .cmp(&other.rank)
            .then_with(|| self.identity.precedence(&other.identity))
            .then_with(|| self.position.cmp(&other.position))
    }
}

/// What tells routes apart when their matches are equal.
struct Identity {
    key: Arc<str>,
    created_at: Option<SystemTime>,
}

impl Identity {
    /// The older goes first, one without a date last; then the order of `namespace/name`.
    fn precedence(&self, other: &Self) -> Ordering {
        let age = |identity: &Self| (identity.created_at.is_none(), identity.created_at);
        age(self)
            .cmp(&age(other))
            .then_with(|| self.key.cmp(&other.key))
    }
}

/// What makes one match go before another (Gateway API `HTTPRoute.rules.matches`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// A more specific host.
    Host,
    /// A GRPCRoute goes before an HTTPRoute for a gRPC call.
    Grpc,
    /// An exact path goes before a regular expression, that before a prefix.
    PathKind,
    /// A longer prefix.
    LongerPrefix,
    /// A longer regular expression.
    LongerPattern,
    /// More characters of service and method of a gRPC call.
    LongerCall,
    /// One with a method.
    Method,
    /// More conditions on header fields.
    MoreHeaders,
    /// More conditions on query parameters.
    MoreParams,
    /// The older route.
    Older,
    /// The route whose `namespace/name` comes first.
    Name,
    /// The earlier rule or match of the same route.
    Earlier,
}

/// What Gateway API counts in a match, most important first; more goes first.
type Rank = Reverse<[u32; 5]>;

/// Where a match is filed.
pub(super) enum Path {
    /// Under the whole path.
    Exact(Text),
    /// Under the prefix without its trailing slash, which leaves nothing of `/`.
    Prefix(Text),
    /// Under the whole segments every matching path begins with.
    Regex(Box<RegexPath>),
}

/// A regular expression on the path and what is known before it runs.
pub(super) struct RegexPath {
    pattern: Pattern,
    literal: Box<str>,
    segments: Text,
}

impl Path {
    /// The text it is filed under.
    pub(super) fn key(&self) -> &Text {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
            Self::Regex(regex) => &regex.segments,
        }
    }

    fn http(path: &PathMatch) -> Self {
        match path {
            PathMatch::Exact(path) => Self::Exact((&*normal(path)).into()),
            PathMatch::Prefix(path) => {
                let path = normal(path);
                Self::Prefix(path.strip_suffix('/').unwrap_or(&path).into())
            }
            PathMatch::Regex(pattern) => Self::Regex(Box::new(RegexPath::new(pattern))),
        }
    }

    fn grpc(method: &GrpcMethodMatch) -> Result<Self, NeverMet> {
        let GrpcMethodMatch::Exact { service, method } = method else {
            return Ok(Self::Prefix("".into()));
        };
        for name in [service, method].into_iter().flatten() {
            if name.is_empty() || name.contains('/') {
                return Err(NeverMet);
            }
        }
        Ok(match (service, method) {
            (Some(service), Some(method)) => {
                Self::Exact(format!("/{service}/{method}").as_str().into())
            }
            (Some(service), None) => Self::Prefix(format!("/{service}").as_str().into()),
            (None, _) => Self::Prefix("".into()),
        })
    }
}

/// A path in the form in which requests are matched (RFC 3986 6.2.2): unreserved bytes decoded, other
/// escapes in upper case, bytes beyond ASCII escaped. What no request can have stays as it is.
fn normal(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte.is_ascii() && byte != b'%') {
        return path.into();
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = match (first, after) {
            (b'%', [high, low, after @ ..]) => escaped(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = decoded.unwrap_or((first, after));
        rest = after;
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if byte.is_ascii() && (is_unreserved || decoded.is_none()) {
            normal.push(char::from(byte));
        } else {
            normal.push_str(&format!("%{byte:02X}"));
        }
    }
    normal.into()
}

impl RegexPath {
    fn new(pattern: &Pattern) -> Self {
        let literal = literal_prefix(pattern);
        let segments = match literal.rfind('/') {
            Some(end) if literal.starts_with('/') => &literal[..end],
            _ => "",
        };
        Self {
            pattern: pattern.clone(),
            segments: segments.into(),
            literal: literal.into(),
        }
    }

    pub(super) fn is_match(&self, path: &str) -> bool {
        path.starts_with(&*self.literal) && self.pattern.is_match(path)
    }
}

/// A match on its way into a [`CompiledMatch`].
struct Conditioned {
    path: Path,
    conditions: Conditions,
    rank: Rank,
}

impl Conditioned {
    fn http(route_match: &HttpMatch) -> Result<Self, NeverMet> {
        let conditions = Conditions::http(route_match)?;
        let pattern_chars = match &route_match.path {
            PathMatch::Regex(pattern) => pattern.as_str().chars().count(),
            // Only compared under the same path.
            PathMatch::Exact(_) | PathMatch::Prefix(_) => 0,
        };
        let rank = [
            pattern_chars,
            usize::from(conditions.has_method()),
            conditions.header_count(),
            conditions.param_count(),
            0,
        ];
        Ok(Self {
            path: Path::http(&route_match.path),
            rank: Reverse(rank.map(clamp)),
            conditions,
        })
    }

    fn grpc(route_match: &GrpcMatch) -> Result<Self, NeverMet> {
        let conditions = Conditions::grpc(route_match)?;
        let names = |text: &Option<String>| text.as_ref().map_or(0, |t| t.chars().count());
        let patterns =
            |text: &Option<Pattern>| text.as_ref().map_or(0, |p| p.as_str().chars().count());
        let headers = conditions.header_count();
        let rank = match &route_match.method {
            GrpcMethodMatch::Any => [0, 0, 0, 0, headers],
            GrpcMethodMatch::Exact { service, method } => {
                [names(service), names(method), 0, 0, headers]
            }
            GrpcMethodMatch::Regex { service, method } => {
                [0, 0, patterns(service), patterns(method), headers]
            }
        };
        Ok(Self {
            path: Path::grpc(&route_match.method)?,
            rank: Reverse(rank.map(clamp)),
            conditions,
        })
    }
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
