//! Providers of language models and budgets of tokens; credentials are named, and never held.

use std::collections::BTreeMap;

use ir::ai::{
    AiAuth, AiAuthKind, AiFormat, AiPrice, AiProviderTls, AiService, AiTarget, OnLimit, Redaction,
    RedactionKind, TokenPolicy, TokenScope,
};
use serde_json::{Value, json};

use super::super::words::{BLANK, url};
use super::{authorities, list, some_ms};

pub(super) fn service(service: &AiService) -> Value {
    let AiService {
        provider,
        format,
        model,
        auth,
        timeout,
        endpoint,
        retries_max,
        retry_backoff,
        aliases,
        headers,
        weight,
        providers,
        redaction,
        default_max_tokens,
        pass_client_credentials,
        prices,
    } = service;
    json!({
        "provider": provider.as_str(),
        "format": format.as_ref().map(AiFormat::as_str),
        "model": model,
        "auth": auth.as_ref().map(self::auth),
        "timeout_ms": some_ms(*timeout),
        "endpoint": endpoint.as_deref().map(url),
        "retries_max": retries_max,
        "retry_backoff_ms": some_ms(*retry_backoff),
        "aliases": aliases,
        "headers": blanked(headers),
        "weight": weight,
        "providers": list(providers, target),
        "redaction": list(redaction, self::redaction),
        "default_max_tokens": default_max_tokens,
        "pass_client_credentials": pass_client_credentials,
        "prices": prices.iter().map(|(model, price)| {
            let AiPrice { input, cached_input, output } = price;
            (model.clone(), json!({
                "input": input,
                "cached_input": cached_input,
                "output": output,
            }))
        }).collect::<serde_json::Map<_, _>>(),
    })
}

fn target(target: &AiTarget) -> Value {
    let AiTarget {
        provider,
        format,
        model,
        auth,
        endpoint,
        headers,
        weight,
        cluster,
        tls,
    } = target;
    json!({
        "provider": provider.as_str(),
        "format": format.as_ref().map(AiFormat::as_str),
        "model": model,
        "auth": auth.as_ref().map(self::auth),
        "endpoint": endpoint.as_deref().map(url),
        "headers": blanked(headers),
        "weight": weight,
        "cluster": cluster,
        "tls": tls.as_ref().map(|it| {
            let AiProviderTls { hostname, ca_pems } = it;
            json!({ "hostname": hostname.as_str(), "authorities": authorities(ca_pems) })
        }),
    })
}

fn auth(auth: &AiAuth) -> Value {
    let AiAuth {
        kind,
        secret_ref,
        secret_key,
        header,
    } = auth;
    json!({
        "kind": match kind {
            AiAuthKind::Bearer => "bearer",
            AiAuthKind::ApiKey => "api_key",
            AiAuthKind::Basic => "basic",
            AiAuthKind::Header => "header",
        },
        "secret_ref": &**secret_ref,
        "secret_key": secret_key,
        "header": header,
    })
}

/// Fields by name alone: whatever a provider is told by them may be a key.
fn blanked(headers: &BTreeMap<String, String>) -> Value {
    let names = headers.keys();
    let shown = names.map(|name| (name.clone(), json!(BLANK)));
    Value::Object(shown.collect())
}

fn redaction(redaction: &Redaction) -> Value {
    let Redaction { kind, action } = redaction;
    let expression = match kind {
        RedactionKind::Regex(expression) => Some(&**expression),
        _ => None,
    };
    json!({ "kind": kind.as_str(), "expression": expression, "action": action.as_str() })
}

pub(super) fn token_policy(policy: &TokenPolicy) -> Value {
    let TokenPolicy {
        tokens_per_minute,
        tokens_per_hour,
        requests_per_minute,
        scope,
        burst,
        on_limit,
        degrade_to,
        is_dry_run,
    } = policy;
    json!({
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_hour": tokens_per_hour,
        "requests_per_minute": requests_per_minute,
        "scope": match scope {
            TokenScope::Global => json!("global"),
            TokenScope::Route => json!("route"),
            TokenScope::ApiKey => json!("api_key"),
            TokenScope::Model => json!("model"),
            TokenScope::User => json!("user"),
            TokenScope::SourceIp => json!("source_ip"),
            TokenScope::Header(name) => json!({ "header": name }),
            TokenScope::JwtClaim(name) => json!({ "jwt_claim": name }),
        },
        "burst": burst,
        "on_limit": match on_limit {
            OnLimit::Reject => "reject",
            OnLimit::Queue => "queue",
            OnLimit::Degrade => "degrade",
            OnLimit::Warn => "warn",
        },
        "degrade_to": degrade_to,
        "dry_run": is_dry_run,
    })
}
