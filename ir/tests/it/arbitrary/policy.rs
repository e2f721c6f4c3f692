//! Retries, persistence, per-route settings and security policies.

use std::time::Duration;

use ir::policy::{
    BasicAuth, JwtIssuer, Oidc, RateLimit, RateLimitKey, RateLimitScope, Retry, RoutePolicy,
    SecurityExternalAuth, SecurityExternalAuthProtocol, SecurityPolicy, SessionCarrier,
    SessionPersistence,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::backend_policy::breaker;
use super::filter::cors;
use super::route::target;
use super::{any_text, duration, header_value, name};

pub(super) fn retry() -> impl Strategy<Value = Retry> {
    (btree_set(400..600u16, 0..3), any::<u32>(), of(duration())).prop_map(
        |(codes, attempts, backoff)| Retry {
            codes: codes.into_iter().collect(),
            attempts,
            backoff,
        },
    )
}

pub(super) fn session_persistence() -> impl Strategy<Value = SessionPersistence> {
    use SessionCarrier::{Header, PermanentCookie, SessionCookie};
    let carrier = select(vec![Header, PermanentCookie, SessionCookie]);
    (
        of(name()),
        duration(),
        any::<bool>(),
        of(duration()),
        carrier,
    )
        .prop_map(
            |(session_name, absolute, has_absolute, idle_timeout, carrier)| SessionPersistence {
                session_name,
                absolute_timeout: (has_absolute || carrier == PermanentCookie).then_some(absolute),
                idle_timeout,
                carrier,
            },
        )
}

pub(super) fn route_policy() -> impl Strategy<Value = RoutePolicy> {
    let times = proptest::array::uniform7(of(duration()));
    let sizes = proptest::array::uniform4(of(1..=u64::MAX));
    let counts = proptest::array::uniform3(of(1..=u32::MAX));
    let rest = (any::<[Option<bool>; 2]>(), of(breaker()));
    (times, sizes, counts, rest).prop_map(|(times, sizes, counts, (flags, breaker))| RoutePolicy {
        breaker,
        request_timeout: times[0],
        backend_request_timeout: times[1],
        connect_timeout: times[2],
        next_upstream_timeout: times[3],
        keepalive_time: times[4],
        keepalive_timeout: times[5],
        upstream_keepalive_idle: times[6],
        request_body_bytes_max: sizes[0],
        request_body_buffer_bytes: sizes[1],
        request_header_bytes_max: sizes[2],
        buffer_bytes: sizes[3],
        buffer_count: counts[0],
        keepalive_requests: counts[1],
        upstream_keepalive_pool_size: counts[2],
        request_buffering: flags[0],
        response_buffering: flags[1],
    })
}

pub(super) fn url() -> impl Strategy<Value = String> {
    "(https?://[a-z]{1,3}\\.example/[a-z]{0,3})?"
}

pub(super) fn whole_seconds() -> impl Strategy<Value = Option<Duration>> {
    of((1..300_000_000u64).prop_map(Duration::from_secs))
}

pub(super) fn jwt_issuer() -> impl Strategy<Value = JwtIssuer> {
    let claims = btree_map(any_text(), "x-[a-z]{1,3}", 0..3);
    let header = prop_oneof![Just(String::new()), "x-[a-z]{1,3}"];
    (
        any_text(),
        url(),
        any_text(),
        header,
        "([A-Z][a-z]{1,3} )?",
        claims,
        whole_seconds(),
    )
        .prop_map(
            |(issuer, jwks_url, audience, header_name, token_prefix, claims, ttl)| JwtIssuer {
                issuer,
                jwks_url,
                audience,
                header_name,
                token_prefix,
                claims_to_headers: claims,
                cache_ttl: ttl,
            },
        )
}

pub(super) fn oidc() -> impl Strategy<Value = Oidc> {
    let urls = (url(), url(), url(), url(), url());
    let refs = (
        prop_oneof![Just(""), Just("a/x")],
        prop_oneof![Just(""), Just("a/y")],
    );
    let rest = (
        any_text(),
        vec(any_text(), 0..3),
        "(/[a-z]{1,3})?",
        "[a-z]{0,3}",
        whole_seconds(),
    );
    (urls, refs, rest).prop_map(|(urls, refs, rest)| {
        let (client_id, scopes, callback_path, session_cookie_name, session_ttl) = rest;
        Oidc {
            authorization_url: urls.0,
            token_url: urls.1,
            jwks_url: urls.2,
            userinfo_url: urls.3,
            client_id,
            client_secret_ref: refs.0.to_owned(),
            callback_path,
            scopes,
            redirect_url: urls.4,
            session_signing_key_ref: refs.1.to_owned(),
            session_cookie_name,
            session_ttl,
        }
    })
}

pub(super) fn security_external_auth() -> impl Strategy<Value = SecurityExternalAuth> {
    let headers = vec("x-[a-z]{1,3}(: [a-z]{1,3})?", 0..3);
    let http = ("(/[a-z]{1,3})?", headers).prop_map(|(path_prefix, headers_to_add)| {
        SecurityExternalAuthProtocol::Http {
            path_prefix,
            headers_to_add,
        }
    });
    let grpc = any_text().prop_map(|service| SecurityExternalAuthProtocol::Grpc { service });
    (
        of(target()),
        prop_oneof![http, grpc],
        0..=i32::MAX.unsigned_abs(),
    )
        .prop_map(
            |(backend, protocol, forward_body_bytes_max)| SecurityExternalAuth {
                backend,
                protocol,
                forward_body_bytes_max,
            },
        )
}

pub(super) fn rate_limit() -> impl Strategy<Value = RateLimit> {
    use RateLimitScope::{Backend, Global, Listener, Route};
    let scope = select(vec![Backend, Global, Listener, Route]);
    let key = prop_oneof![
        Just(RateLimitKey::Route),
        Just(RateLimitKey::SourceIp),
        "x-[a-z]{1,3}".prop_map(RateLimitKey::Header),
        "[a-z]{1,3}".prop_map(RateLimitKey::Cookie),
    ];
    let period = prop_oneof![Just(1_000), 1..100_000_u64].prop_map(Duration::from_millis);
    let what = (scope, "[a-z.]{0,3}", key);
    let rate = (1..=u32::MAX, period, any::<u32>());
    (what, rate, any::<[bool; 3]>()).prop_map(|(what, rate, flags)| RateLimit {
        scope: what.0,
        name: what.1,
        key: what.2,
        requests: rate.0,
        period: rate.1,
        burst: rate.2,
        queue: flags[0],
        is_dry_run: flags[1],
        is_divided: flags[2],
    })
}

pub(super) fn security_policy() -> impl Strategy<Value = SecurityPolicy> {
    let basic = ("a/[a-z]", any::<bool>(), header_value());
    let basic = basic.prop_map(|(htpasswd_ref, bcrypt, realm)| BasicAuth {
        htpasswd_ref,
        bcrypt,
        realm,
    });
    let cidrs = || {
        vec(
            select(vec!["10.0.0.0/8", "::/0", "192.0.2.1"]).prop_map(str::to_owned),
            0..3,
        )
    };
    let authn = (vec(jwt_issuer(), 0..2), of(oidc()), of(basic));
    let rest = (
        of(security_external_auth()),
        of(cors()),
        vec(rate_limit(), 0..2),
    );
    (authn, rest, cidrs(), cidrs()).prop_map(|(authn, rest, allow_cidrs, deny_cidrs)| {
        SecurityPolicy {
            jwt: authn.0,
            oidc: authn.1,
            basic_auth: authn.2,
            external_auth: rest.0,
            cors: rest.1,
            rate_limits: rest.2,
            allow_cidrs,
            deny_cidrs,
        }
    })
}
