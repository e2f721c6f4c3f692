//! Policies: retries, session persistence, and the per-route and security settings of the wire.
//!
//! A policy says how, never where: destinations are backends and clusters. What is absent here
//! falls back to the bootstrap file of the data plane.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::BackendTarget;
use crate::backend_policy::BreakerThresholds;

/// When an attempt is made again (Gateway API `HTTPRouteRetry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Statuses from the backend that count as a failed attempt, 400 to 599.
    pub codes: Vec<u16>,
    /// How many attempts follow the first one.
    pub attempts: u32,
    /// Least time between two attempts.
    pub backoff: Option<Duration>,
}

/// Keeps a client at one endpoint (Gateway API `SessionPersistence`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Name of the cookie or header field; absent means the gateway's default.
    pub session_name: Option<String>,
    /// Longest life of a session.
    pub absolute_timeout: Option<Duration>,
    /// Longest pause within a session.
    pub idle_timeout: Option<Duration>,
    /// Where the session travels.
    pub carrier: SessionCarrier,
}

/// Where a session travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie that ends with the browser session.
    SessionCookie,
    /// A cookie with an expiry; needs `absolute_timeout`.
    PermanentCookie,
    /// A header field.
    Header,
}

/// Overrides for one route; what is absent is taken from the bootstrap file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// From the request's head to the end of the response.
    pub request_timeout: Option<Duration>,
    /// One attempt at one backend.
    pub backend_request_timeout: Option<Duration>,
    /// Until a connection to an endpoint is up.
    pub connect_timeout: Option<Duration>,
    /// All attempts of one request together.
    pub next_upstream_timeout: Option<Duration>,
    /// Larger bodies are answered with 413.
    pub request_body_bytes_max: Option<u64>,
    /// How much of a request body is kept for another attempt.
    pub request_body_buffer_bytes: Option<u64>,
    /// Larger heads are answered with 431.
    pub request_header_bytes_max: Option<u64>,
    /// Read the whole request before it is sent on.
    pub request_buffering: Option<bool>,
    /// Read the whole response before it is sent on.
    pub response_buffering: Option<bool>,
    /// Size of one buffer.
    pub buffer_bytes: Option<u64>,
    /// Number of buffers.
    pub buffer_count: Option<u32>,
    /// Requests on one client connection.
    pub keepalive_requests: Option<u32>,
    /// Longest life of a client connection.
    pub keepalive_time: Option<Duration>,
    /// Longest pause on a client connection.
    pub keepalive_timeout: Option<Duration>,
    /// Idle connections kept per endpoint.
    pub upstream_keepalive_pool_size: Option<u32>,
    /// How long an idle connection to an endpoint is kept.
    pub upstream_keepalive_idle: Option<Duration>,
    /// Breakers of this route's own, one for each of its clusters.
    pub breaker: Option<BreakerThresholds>,
}

/// Authentication, authorization, CORS, rate and address limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityPolicy {
    /// JSON Web Tokens; any issuer may vouch.
    pub jwt: Vec<JwtIssuer>,
    /// OpenID Connect login.
    pub oidc: Option<Oidc>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// An authorization service.
    pub external_auth: Option<SecurityExternalAuth>,
    /// Cross-origin resource sharing.
    pub cors: Option<crate::filter::Cors>,
    /// Rate limits, all of which hold.
    pub rate_limits: Vec<RateLimit>,
    /// Address blocks that may come in (CIDR notation); empty means all.
    pub allow_cidrs: Vec<String>,
    /// Address blocks that may not; they win over `allow_cidrs`.
    pub deny_cidrs: Vec<String>,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtIssuer {
    /// Value of the `iss` claim.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_url: String,
    /// Value of the `aud` claim; empty means any.
    pub audience: String,
    /// Header field that holds the token; empty means `Authorization`.
    pub header_name: String,
    /// Text before the token; empty means `Bearer `.
    pub token_prefix: String,
    /// Claims copied into header fields, by claim.
    pub claims_to_headers: BTreeMap<String, String>,
    /// How long keys are kept.
    pub cache_ttl: Option<Duration>,
}

/// OpenID Connect login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oidc {
    /// Where the browser is sent.
    pub authorization_url: String,
    /// Where the code is exchanged.
    pub token_url: String,
    /// Where the provider's keys are.
    pub jwks_url: String,
    /// Where user facts are.
    pub userinfo_url: String,
    /// Client id at the provider.
    pub client_id: String,
    /// `namespace/name` of the secret with the client secret.
    pub client_secret_ref: String,
    /// Path the provider sends the browser back to.
    pub callback_path: String,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// Absolute URL of the callback.
    pub redirect_url: String,
    /// `namespace/name` of the secret that signs sessions.
    pub session_signing_key_ref: String,
    /// Name of the session cookie.
    pub session_cookie_name: String,
    /// Life of a session.
    pub session_ttl: Option<Duration>,
}

/// User and password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasicAuth {
    /// `namespace/name` of the secret with the htpasswd lines.
    pub htpasswd_ref: String,
    /// Lines are bcrypt.
    pub bcrypt: bool,
    /// Realm shown to the user.
    pub realm: String,
}

/// An authorization service of a security policy.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityExternalAuth {
    /// Who is asked.
    pub backend: Option<BackendTarget>,
    /// How.
    pub protocol: SecurityExternalAuthProtocol,
    /// How much of the body is sent along, in bytes.
    pub forward_body_bytes_max: u32,
}

/// How the authorization service of a security policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityExternalAuthProtocol {
    /// Over HTTP.
    Http {
        /// Put before the request's path.
        path_prefix: String,
        /// Header fields added to the question.
        headers_to_add: Vec<String>,
    },
    /// Over gRPC.
    Grpc {
        /// Full name of the service.
        service: String,
    },
}

/// One rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What clients and metrics know it by: letters, digits, `-`, `_` and `.`; empty for a name
    /// made from its place.
    pub name: String,
    /// What shares the bucket.
    pub scope: RateLimitScope,
    /// So many in each `period`; at least 1.
    pub requests: u32,
    /// More than nothing; the wire's default is a second.
    pub period: Duration,
    /// Size of the bucket; 0 means `requests`.
    pub burst: u32,
    /// What tells clients apart.
    pub key: RateLimitKey,
    /// Wait for a token instead of answering 429.
    pub queue: bool,
    /// Refuse nothing, only count what would have been.
    pub is_dry_run: bool,
    /// Rate and burst are those of all live data planes together.
    pub is_divided: bool,
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitScope {
    /// The whole data plane.
    Global,
    /// One listener.
    Listener,
    /// One route.
    Route,
    /// One cluster.
    Backend,
}

/// What tells clients apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    /// All share one bucket.
    Route,
    /// The client's address.
    SourceIp,
    /// A header field, named in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
}
