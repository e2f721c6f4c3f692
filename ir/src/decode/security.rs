//! Security policies: tokens, login, passwords, authorization, CORS, rates and addresses.

use std::net::IpAddr;
use std::sync::Arc;

use super::report::{At, Quoted, Report, list, optional};
use super::{filter, rate_limit, route, value};
use crate::filter::Cors;
use crate::policy::{
    BasicAuth, JwtIssuer, Oidc, RateLimitScope, SecurityExternalAuth, SecurityExternalAuthProtocol,
    SecurityPolicy,
};
use crate::wire;

const WEB: &[&str] = &["https", "http"];

/// The policy of an object in `namespace`; absent stays absent. `scope` is that of the object.
pub(super) fn policy(
    policy: Option<wire::SecurityPolicyConfig>,
    namespace: &str,
    scope: RateLimitScope,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Option<Arc<SecurityPolicy>>> {
    let policy = optional(
        policy,
        at,
        "security_policy",
        report,
        |policy, at, report| present(policy, namespace, scope, at, report),
    );
    Some(policy?.map(Arc::new))
}

fn present(
    policy: wire::SecurityPolicyConfig,
    namespace: &str,
    scope: RateLimitScope,
    at: &At<'_>,
    report: &mut Report,
) -> Option<SecurityPolicy> {
    let authn = policy.authn.unwrap_or_default();
    let at_authn = at.field("authn");
    let at_jwt = at_authn.field("jwt");
    let issuers = authn.jwt.unwrap_or_default().issuers;
    let jwt = list(issuers, &at_jwt, "issuers", report, jwt_issuer);
    let oidc = optional(authn.oidc, &at_authn, "oidc", report, oidc);
    let basic_auth = optional(
        authn.basic_auth,
        &at_authn,
        "basic_auth",
        report,
        basic_auth,
    );
    let external = policy.authz.unwrap_or_default().external;
    let at_authz = at.field("authz");
    let external = optional(
        external,
        &at_authz,
        "external",
        report,
        |item, at, report| external_auth(item, namespace, at, report),
    );
    let cors = optional(policy.cors, at, "cors", report, cors);
    let rate_limits = list(
        policy.rate_limit,
        at,
        "rate_limit",
        report,
        |item, at, report| rate_limit::rate_limit(item, scope, at, report),
    );
    let ip = policy.ip.unwrap_or_default();
    let at_ip = at.field("ip");
    let allow_cidrs = list(ip.allow_cidrs, &at_ip, "allow_cidrs", report, cidr);
    let deny_cidrs = list(ip.deny_cidrs, &at_ip, "deny_cidrs", report, cidr);
    Some(SecurityPolicy {
        jwt: jwt?,
        oidc: oidc?,
        basic_auth: basic_auth?,
        external_auth: external?,
        cors: cors?,
        rate_limits: rate_limits?,
        allow_cidrs: allow_cidrs?,
        deny_cidrs: deny_cidrs?,
    })
}

fn jwt_issuer(item: wire::JwtIssuer, at: &At<'_>, report: &mut Report) -> Option<JwtIssuer> {
    let jwks_url = value::optional_url(item.jwks_url, WEB, at, "jwks_url", report);
    let header_name = match item.header_name.as_str() {
        "" => Some(String::new()),
        _ => value::header_name(item.header_name, &at.field("header_name"), report),
    };
    let token_prefix = value::header_prefix(item.token_prefix, &at.field("token_prefix"), report);
    let mut claims = Some(std::collections::BTreeMap::new());
    for (claim, name) in item.claims_to_headers {
        match value::header_name(name, &at.key("claims_to_headers", &claim), report) {
            Some(name) => {
                if let Some(claims) = &mut claims {
                    claims.insert(claim, name);
                }
            }
            None => claims = None,
        }
    }
    let cache_ttl = value::seconds(item.cache_ttl_secs, at, "cache_ttl_secs", report);
    Some(JwtIssuer {
        issuer: item.issuer,
        jwks_url: jwks_url?,
        audience: item.audience,
        header_name: header_name?,
        token_prefix: token_prefix?,
        claims_to_headers: claims?,
        cache_ttl: cache_ttl?,
    })
}

fn oidc(item: wire::OidcConfig, at: &At<'_>, report: &mut Report) -> Option<Oidc> {
    let mut url = |url, name| value::optional_url(url, WEB, at, name, report);
    let authorization_url = url(
        item.provider_authorization_url,
        "provider_authorization_url",
    );
    let token_url = url(item.provider_token_url, "provider_token_url");
    let jwks_url = url(item.provider_jwks_url, "provider_jwks_url");
    let userinfo_url = url(item.provider_userinfo_url, "provider_userinfo_url");
    let redirect_url = url(item.redirect_url, "redirect_url");
    let mut reference = |text, name| value::optional_reference(text, at, name, report);
    let client_secret_ref = reference(item.client_secret_ref, "client_secret_ref");
    let signing_key_ref = reference(item.session_signing_key_ref, "session_signing_key_ref");
    let callback_path = match item.callback_path.as_str() {
        "" => Some(String::new()),
        _ => value::path(item.callback_path, &at.field("callback_path"), report),
    };
    let session_cookie_name = match item.session_cookie_name {
        name if name.is_empty() || value::is_token(&name) => Some(name),
        _ => report.refuse(
            &at.field("session_cookie_name"),
            "is not the name of a cookie",
        ),
    };
    let session_ttl = value::seconds(item.session_ttl_secs, at, "session_ttl_secs", report);
    Some(Oidc {
        authorization_url: authorization_url?,
        token_url: token_url?,
        jwks_url: jwks_url?,
        userinfo_url: userinfo_url?,
        client_id: item.client_id,
        client_secret_ref: client_secret_ref?,
        callback_path: callback_path?,
        scopes: item.scopes,
        redirect_url: redirect_url?,
        session_signing_key_ref: signing_key_ref?,
        session_cookie_name: session_cookie_name?,
        session_ttl: session_ttl?,
    })
}

fn basic_auth(item: wire::BasicAuthConfig, at: &At<'_>, report: &mut Report) -> Option<BasicAuth> {
    let htpasswd_ref = value::reference(&item.htpasswd_ref, &at.field("htpasswd_ref"), report);
    let realm = value::header_value(item.realm, &at.field("realm"), report);
    Some(BasicAuth {
        htpasswd_ref: htpasswd_ref?.as_ref().to_owned(),
        bcrypt: item.bcrypt,
        realm: realm?,
    })
}

fn external_auth(
    item: wire::ExternalAuthConfig,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<SecurityExternalAuth> {
    let backend = optional(
        item.backend_ref,
        at,
        "backend_ref",
        report,
        |backend, at, report| route::target(&backend, namespace, at, report),
    );
    let protocol = match wire::ExternalAuthTransport::try_from(item.protocol) {
        Ok(wire::ExternalAuthTransport::Grpc) => Some(SecurityExternalAuthProtocol::Grpc {
            service: item.grpc.unwrap_or_default().grpc_service,
        }),
        Ok(_) => {
            let http = item.http.unwrap_or_default();
            let at_http = at.field("http");
            let headers = list(
                http.headers_to_add,
                &at_http,
                "headers_to_add",
                report,
                value::header_line,
            );
            let path_prefix = match http.path_prefix.as_str() {
                "" => Some(String::new()),
                _ => value::path(http.path_prefix, &at_http.field("path_prefix"), report),
            };
            path_prefix
                .zip(headers)
                .map(
                    |(path_prefix, headers_to_add)| SecurityExternalAuthProtocol::Http {
                        path_prefix,
                        headers_to_add,
                    },
                )
        }
        Err(_) => report.refuse(
            &at.field("protocol"),
            "is not a way to ask that this data plane knows, use HTTP or GRPC",
        ),
    };
    let body_max = non_negative(
        item.forward_body_max_size,
        at,
        "forward_body_max_size",
        report,
    );
    Some(SecurityExternalAuth {
        backend: backend?,
        protocol: protocol?,
        forward_body_bytes_max: body_max?,
    })
}

fn cors(item: wire::SecurityCorsConfig, at: &At<'_>, report: &mut Report) -> Option<Cors> {
    let origins = list(
        item.allow_origins,
        at,
        "allow_origins",
        report,
        filter::origin,
    );
    let mut tokens = |items, name| list(items, at, name, report, filter::token_or_star);
    let methods = tokens(item.allow_methods, "allow_methods");
    let headers = tokens(item.allow_headers, "allow_headers");
    let exposed = tokens(item.expose_headers, "expose_headers");
    let max_age = non_negative(item.max_age, at, "max_age", report);
    Some(Cors {
        allow_origins: origins?,
        allow_methods: methods?,
        allow_headers: headers?,
        expose_headers: exposed?,
        allow_credentials: item.allow_credentials,
        max_age_seconds: max_age?,
    })
}

fn cidr(text: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let is_good = match text.split_once('/') {
        Some((address, length)) => {
            let most = match address.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => 32,
                Ok(IpAddr::V6(_)) => 128,
                Err(_) => 0,
            };
            most > 0
                && length.bytes().all(|b| b.is_ascii_digit())
                && length.parse::<u8>().is_ok_and(|length| length <= most)
        }
        None => text.parse::<IpAddr>().is_ok(),
    };
    if is_good {
        return Some(text);
    }
    let shown = Quoted(&text);
    report.refuse(
        at,
        format_args!("{shown} is not a block of addresses, write 10.0.0.0/8"),
    )
}

fn non_negative(number: i32, at: &At<'_>, name: &'static str, report: &mut Report) -> Option<u32> {
    match u32::try_from(number) {
        Ok(number) => Some(number),
        Err(_) => report.refuse(&at.field(name), "is negative"),
    }
}
