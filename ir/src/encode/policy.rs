//! Retries, session persistence, per-route settings and security policies.

use super::route::target;
use super::{backend_policy, duration};
use crate::policy::{
    JwtIssuer, Oidc, RateLimit, RateLimitKey, RateLimitScope, Retry, RoutePolicy,
    SecurityExternalAuth, SecurityExternalAuthProtocol, SecurityPolicy, SessionCarrier,
    SessionPersistence,
};
use crate::wire;

/// The period that goes without saying.
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) fn retry(retry: &Retry) -> wire::HttpRouteRetry {
    wire::HttpRouteRetry {
        codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
        attempts: retry.attempts,
        backoff: duration(retry.backoff),
    }
}

pub(super) fn session_persistence(item: &SessionPersistence) -> wire::SessionPersistence {
    use wire::{CookieLifetimeType, SessionPersistenceType};
    let (kind, lifetime) = match item.carrier {
        SessionCarrier::SessionCookie => (
            SessionPersistenceType::SessionPersistenceCookie,
            Some(CookieLifetimeType::CookieLifetimeSession),
        ),
        SessionCarrier::PermanentCookie => (
            SessionPersistenceType::SessionPersistenceCookie,
            Some(CookieLifetimeType::CookieLifetimePermanent),
        ),
        SessionCarrier::Header => (SessionPersistenceType::SessionPersistenceHeader, None),
    };
    wire::SessionPersistence {
        session_name: item.session_name.clone().unwrap_or_default(),
        absolute_timeout: duration(item.absolute_timeout),
        idle_timeout: duration(item.idle_timeout),
        r#type: kind.into(),
        cookie: lifetime.map(|lifetime| wire::CookieConfig {
            lifetime_type: lifetime.into(),
        }),
    }
}

pub(super) fn route_policy(policy: &RoutePolicy) -> wire::RoutePolicy {
    wire::RoutePolicy {
        timeout: present(wire::RoutePolicyTimeout {
            request: duration(policy.request_timeout),
            backend_request: duration(policy.backend_request_timeout),
            connect: duration(policy.connect_timeout),
            next_upstream: duration(policy.next_upstream_timeout),
        }),
        body_limit: present(wire::RoutePolicyBodyLimit {
            max_request_body_bytes: policy.request_body_bytes_max.unwrap_or(0),
            request_body_buffer_bytes: policy.request_body_buffer_bytes.unwrap_or(0),
            max_request_header_bytes: policy.request_header_bytes_max.unwrap_or(0),
        }),
        proxy: present(wire::RoutePolicyProxy {
            request_buffering: policy.request_buffering,
            response_buffering: policy.response_buffering,
            buffer_size: policy.buffer_bytes.unwrap_or(0),
            buffer_count: policy.buffer_count.unwrap_or(0),
        }),
        connection: present(wire::RoutePolicyConnection {
            keepalive_requests: policy.keepalive_requests.unwrap_or(0),
            keepalive_time: duration(policy.keepalive_time),
            keepalive_timeout: duration(policy.keepalive_timeout),
            upstream_keepalive_pool_size: policy.upstream_keepalive_pool_size.unwrap_or(0),
            upstream_keepalive_idle: duration(policy.upstream_keepalive_idle),
        }),
        breaker: policy.breaker.as_ref().map(backend_policy::breaker),
    }
}

pub(super) fn security_policy(policy: &SecurityPolicy) -> wire::SecurityPolicyConfig {
    let issuers: Vec<_> = policy.jwt.iter().map(jwt_issuer).collect();
    let external = policy.external_auth.as_ref().map(external_auth);
    let authn = wire::SecurityAuthNConfig {
        jwt: present(wire::JwtAuthConfig { issuers }),
        oidc: policy.oidc.as_ref().map(oidc),
        basic_auth: policy
            .basic_auth
            .as_ref()
            .map(|basic| wire::BasicAuthConfig {
                htpasswd_ref: basic.htpasswd_ref.clone(),
                bcrypt: basic.bcrypt,
                realm: basic.realm.clone(),
            }),
    };
    wire::SecurityPolicyConfig {
        authn: present(authn),
        authz: present(wire::SecurityAuthZConfig { external }),
        cors: policy.cors.as_ref().map(|cors| wire::SecurityCorsConfig {
            allow_origins: cors.allow_origins.clone(),
            allow_methods: cors.allow_methods.clone(),
            allow_headers: cors.allow_headers.clone(),
            expose_headers: cors.expose_headers.clone(),
            allow_credentials: cors.allow_credentials,
            max_age: i32::try_from(cors.max_age_seconds).unwrap_or(i32::MAX),
        }),
        rate_limit: policy.rate_limits.iter().map(rate_limit).collect(),
        ip: present(wire::SecurityIpConfig {
            allow_cidrs: policy.allow_cidrs.clone(),
            deny_cidrs: policy.deny_cidrs.clone(),
        }),
    }
}

fn jwt_issuer(issuer: &JwtIssuer) -> wire::JwtIssuer {
    wire::JwtIssuer {
        issuer: issuer.issuer.clone(),
        jwks_url: issuer.jwks_url.clone(),
        audience: issuer.audience.clone(),
        header_name: issuer.header_name.clone(),
        token_prefix: issuer.token_prefix.clone(),
        claims_to_headers: issuer.claims_to_headers.clone(),
        cache_ttl_secs: seconds(issuer.cache_ttl),
    }
}

fn oidc(item: &Oidc) -> wire::OidcConfig {
    wire::OidcConfig {
        provider_authorization_url: item.authorization_url.clone(),
        provider_token_url: item.token_url.clone(),
        provider_jwks_url: item.jwks_url.clone(),
        provider_userinfo_url: item.userinfo_url.clone(),
        client_id: item.client_id.clone(),
        client_secret_ref: item.client_secret_ref.clone(),
        callback_path: item.callback_path.clone(),
        scopes: item.scopes.clone(),
        redirect_url: item.redirect_url.clone(),
        session_signing_key_ref: item.session_signing_key_ref.clone(),
        session_cookie_name: item.session_cookie_name.clone(),
        session_ttl_secs: seconds(item.session_ttl),
    }
}

fn external_auth(item: &SecurityExternalAuth) -> wire::ExternalAuthConfig {
    let (protocol, http, grpc) = match &item.protocol {
        SecurityExternalAuthProtocol::Http {
            path_prefix,
            headers_to_add,
        } => {
            let http = wire::ExternalAuthHttp {
                path_prefix: path_prefix.clone(),
                headers_to_add: headers_to_add.clone(),
            };
            (wire::ExternalAuthTransport::Http, Some(http), None)
        }
        SecurityExternalAuthProtocol::Grpc { service } => {
            let grpc = wire::ExternalAuthGrpc {
                grpc_service: service.clone(),
            };
            (wire::ExternalAuthTransport::Grpc, None, Some(grpc))
        }
    };
    wire::ExternalAuthConfig {
        protocol: protocol.into(),
        backend_ref: item.backend.as_ref().map(target),
        http,
        grpc,
        forward_body_max_size: i32::try_from(item.forward_body_bytes_max).unwrap_or(i32::MAX),
    }
}

fn rate_limit(limit: &RateLimit) -> wire::RateLimitRule {
    let (key_type, header, cookie) = match &limit.key {
        RateLimitKey::Route => ("route", "", ""),
        RateLimitKey::SourceIp => ("sourceIP", "", ""),
        RateLimitKey::Header(name) => ("header", name.as_str(), ""),
        RateLimitKey::Cookie(name) => ("cookie", "", name.as_str()),
    };
    let scope = match limit.scope {
        RateLimitScope::Global => wire::RateLimitScope::Global,
        RateLimitScope::Listener => wire::RateLimitScope::Listener,
        RateLimitScope::Route => wire::RateLimitScope::Route,
        RateLimitScope::Backend => wire::RateLimitScope::Backend,
    };
    let action = if limit.queue {
        wire::RateLimitAction::Queue
    } else {
        wire::RateLimitAction::Reject
    };
    wire::RateLimitRule {
        scope: scope.into(),
        requests_per_second: limit.requests,
        burst: limit.burst,
        key_type: key_type.to_owned(),
        on_limit: action.into(),
        key_header_name: header.to_owned(),
        name: limit.name.clone(),
        period: duration(Some(limit.period).filter(|period| *period != SECOND)),
        key_cookie_name: cookie.to_owned(),
        dry_run: limit.is_dry_run,
        divided_among_replicas: limit.is_divided,
    }
}

fn seconds(value: Option<std::time::Duration>) -> i32 {
    value.map_or(0, |value| {
        i32::try_from(value.as_secs()).unwrap_or(i32::MAX)
    })
}

/// A message with something in it.
fn present<M: Default + PartialEq>(message: M) -> Option<M> {
    (message != M::default()).then_some(message)
}
