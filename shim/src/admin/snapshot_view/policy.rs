//! Policies of routes, listeners and clusters: retries, sessions, limits, and who may come in.

use ir::backend_policy::BreakerThresholds;
use ir::policy::{
    BasicAuth, JwtIssuer, Oidc, RateLimit, RateLimitKey, RateLimitScope, Retry, RoutePolicy,
    SecurityExternalAuth, SecurityExternalAuthProtocol, SecurityPolicy, SessionCarrier,
    SessionPersistence,
};
use serde_json::{Value, json};

use super::super::words::url;
use super::{list, ms, route, some_ms};

pub(super) fn retry(retry: &Retry) -> Value {
    let Retry {
        codes,
        attempts,
        backoff,
    } = retry;
    json!({ "codes": codes, "attempts": attempts, "backoff_ms": some_ms(*backoff) })
}

pub(super) fn session_persistence(session: &SessionPersistence) -> Value {
    let SessionPersistence {
        session_name,
        absolute_timeout,
        idle_timeout,
        carrier,
    } = session;
    json!({
        "session_name": session_name,
        "absolute_timeout_ms": some_ms(*absolute_timeout),
        "idle_timeout_ms": some_ms(*idle_timeout),
        "carrier": match carrier {
            SessionCarrier::SessionCookie => "session_cookie",
            SessionCarrier::PermanentCookie => "permanent_cookie",
            SessionCarrier::Header => "header",
        },
    })
}

pub(super) fn route(policy: &RoutePolicy) -> Value {
    let RoutePolicy {
        request_timeout,
        backend_request_timeout,
        connect_timeout,
        next_upstream_timeout,
        request_body_bytes_max,
        request_body_buffer_bytes,
        request_header_bytes_max,
        request_buffering,
        response_buffering,
        buffer_bytes,
        buffer_count,
        keepalive_requests,
        keepalive_time,
        keepalive_timeout,
        upstream_keepalive_pool_size,
        upstream_keepalive_idle,
        breaker,
    } = policy;
    json!({
        "request_timeout_ms": some_ms(*request_timeout),
        "backend_request_timeout_ms": some_ms(*backend_request_timeout),
        "connect_timeout_ms": some_ms(*connect_timeout),
        "next_upstream_timeout_ms": some_ms(*next_upstream_timeout),
        "request_body_bytes_max": request_body_bytes_max,
        "request_body_buffer_bytes": request_body_buffer_bytes,
        "request_header_bytes_max": request_header_bytes_max,
        "request_buffering": request_buffering,
        "response_buffering": response_buffering,
        "buffer_bytes": buffer_bytes,
        "buffer_count": buffer_count,
        "keepalive_requests": keepalive_requests,
        "keepalive_time_ms": some_ms(*keepalive_time),
        "keepalive_timeout_ms": some_ms(*keepalive_timeout),
        "upstream_keepalive_pool_size": upstream_keepalive_pool_size,
        "upstream_keepalive_idle_ms": some_ms(*upstream_keepalive_idle),
        "breaker": breaker.as_ref().map(self::breaker),
    })
}

pub(super) fn breaker(breaker: &BreakerThresholds) -> Value {
    let BreakerThresholds {
        failure_threshold,
        success_threshold,
        open_time,
    } = breaker;
    json!({
        "failure_threshold": failure_threshold,
        "success_threshold": success_threshold,
        "open_time_ms": some_ms(*open_time),
    })
}

pub(super) fn security(policy: &SecurityPolicy) -> Value {
    let SecurityPolicy {
        jwt,
        oidc,
        basic_auth,
        external_auth,
        cors,
        rate_limits,
        allow_cidrs,
        deny_cidrs,
    } = policy;
    json!({
        "jwt": list(jwt, jwt_issuer),
        "oidc": oidc.as_ref().map(self::oidc),
        "basic_auth": basic_auth.as_ref().map(|it| {
            let BasicAuth { htpasswd_ref, bcrypt, realm } = it;
            json!({ "htpasswd_ref": htpasswd_ref, "bcrypt": bcrypt, "realm": realm })
        }),
        "external_auth": external_auth.as_ref().map(self::external_auth),
        "cors": cors.as_ref().map(route::cors),
        "rate_limits": list(rate_limits, rate_limit),
        "allow_cidrs": allow_cidrs,
        "deny_cidrs": deny_cidrs,
    })
}

fn jwt_issuer(issuer: &JwtIssuer) -> Value {
    let JwtIssuer {
        issuer,
        jwks_url,
        audience,
        header_name,
        token_prefix,
        claims_to_headers,
        cache_ttl,
    } = issuer;
    json!({
        "issuer": issuer,
        "jwks_url": url(jwks_url),
        "audience": audience,
        "header_name": header_name,
        "token_prefix": token_prefix,
        "claims_to_headers": claims_to_headers,
        "cache_ttl_ms": some_ms(*cache_ttl),
    })
}

fn oidc(oidc: &Oidc) -> Value {
    let Oidc {
        authorization_url,
        token_url,
        jwks_url,
        userinfo_url,
        client_id,
        client_secret_ref,
        callback_path,
        scopes,
        redirect_url,
        session_signing_key_ref,
        session_cookie_name,
        session_ttl,
    } = oidc;
    json!({
        "authorization_url": url(authorization_url),
        "token_url": url(token_url),
        "jwks_url": url(jwks_url),
        "userinfo_url": url(userinfo_url),
        "client_id": client_id,
        "client_secret_ref": client_secret_ref,
        "callback_path": callback_path,
        "scopes": scopes,
        "redirect_url": url(redirect_url),
        "session_signing_key_ref": session_signing_key_ref,
        "session_cookie_name": session_cookie_name,
        "session_ttl_ms": some_ms(*session_ttl),
    })
}

fn external_auth(auth: &SecurityExternalAuth) -> Value {
    let SecurityExternalAuth {
        backend,
        protocol,
        forward_body_bytes_max,
    } = auth;
    json!({
        "target": backend.as_ref().map(route::target),
        "protocol": match protocol {
            SecurityExternalAuthProtocol::Http { path_prefix, headers_to_add } => {
                // They may come with values.
                let names = headers_to_add.iter().map(|field| {
                    field.split([':', '=']).next().unwrap_or_default()
                });
                json!({ "http": {
                    "path_prefix": path_prefix,
                    "headers_to_add": names.collect::<Vec<_>>(),
                }})
            }
            SecurityExternalAuthProtocol::Grpc { service } => {
                json!({ "grpc": { "service": service } })
            }
        },
        "forward_body_bytes_max": forward_body_bytes_max,
    })
}

fn rate_limit(limit: &RateLimit) -> Value {
    let RateLimit {
        name,
        scope,
        requests,
        period,
        burst,
        key,
        queue,
        is_dry_run,
        is_divided,
    } = limit;
    json!({
        "name": name,
        "scope": match scope {
            RateLimitScope::Global => "global",
            RateLimitScope::Listener => "listener",
            RateLimitScope::Route => "route",
            RateLimitScope::Backend => "backend",
        },
        "requests": requests,
        "period_ms": ms(*period),
        "burst": burst,
        "key": match key {
            RateLimitKey::Route => json!("route"),
            RateLimitKey::SourceIp => json!("source_ip"),
            RateLimitKey::Header(name) => json!({ "header": name }),
            RateLimitKey::Cookie(name) => json!({ "cookie": name }),
        },
        "queue": queue,
        "dry_run": is_dry_run,
        "divided": is_divided,
    })
}
