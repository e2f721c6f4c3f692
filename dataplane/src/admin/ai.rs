//! AI services: where their providers are, what their callers may use, and what was used.
//!
//! Credentials appear as the name of their secret. Of budgets that tell callers apart only the rule
//! is shown, and what is left where all callers share one.

use std::time::{Duration, Instant};

use ir::ai::{AiService, OnLimit, TokenPolicy, TokenScope};
use serde_json::{Value, json};

use dataplane_config::ai::AiCluster;
use dataplane_config::{ClusterConfig, RuntimeConfig};
use dataplane_upstream::since_start;

use super::Context;
use super::answer::Answer;
use super::inventory::list_of;
use super::query::Filter;

/// `/v1/ai/services`.
pub(super) fn list(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let wanted = config
        .ai_services
        .iter()
        .filter(|key| filter.takes_key(key));
    let page = filter.page(wanted.cloned(), ToString::to_string);
    list_of(
        context,
        config,
        filter,
        "/v1/ai/services",
        page,
        |config, key| view(config, key),
    )
}

/// `/v1/ai/services/{namespace}/{name}`.
pub(super) fn one(context: &Context, names: &[String]) -> Answer {
    let config = context.state.store.load();
    match view(&config, &names.join("/")) {
        Some(view) => Answer::json(&view),
        None => Answer::not_found("no such AI service; /v1/ai/services lists them"),
    }
}

fn view(config: &RuntimeConfig, key: &str) -> Option<Value> {
    let held = config.clusters.get(key)?;
    let running = held.ai.as_ref()?;
    let mut view = told(held)?;
    view["redaction"] = view["redaction"].as_array().map_or(0, Vec::len).into();
    view["usage"] = usage(running);
    view["outcomes"] = outcomes(running);
    Some(view)
}

/// What the service of a cluster is, without its figures.
pub(super) fn told(held: &ClusterConfig) -> Option<Value> {
    let running = held.ai.as_ref()?;
    let source = held.cluster.source();
    let ai = source.ai_service.as_deref()?;
    let now = since_start(Instant::now());
    let redaction = ai
        .redaction
        .iter()
        .map(|it| json!({ "kind": it.kind.as_str(), "action": it.action.as_str() }));
    Some(json!({
        "key": &*source.key,
        "state": if running.service.is_ok() { "usable" } else { "unusable" },
        "why": running.service.as_ref().err().map(ToString::to_string),
        "model": ai.model,
        "aliases": ai.aliases,
        "providers": providers(ai),
        "redaction": redaction.collect::<Value>(),
        "token_policy": source.token_policy.as_deref().map(|it| policy(it, running, now)),
    }))
}

fn providers(ai: &AiService) -> Value {
    let own = json!({
        "provider": ai.provider.as_str(),
        "model": ai.model,
        "endpoint": ai.endpoint,
        "weight": ai.weight.get(),
        "secret": ai.auth.as_ref().map(|auth| &*auth.secret_ref),
    });
    let others = ai.providers.iter().map(|it| {
        json!({
            "provider": it.provider.as_str(),
            "model": it.model,
            "endpoint": it.endpoint,
            "weight": it.weight,
            "secret": it.auth.as_ref().map(|auth| &*auth.secret_ref),
        })
    });
    [own].into_iter().chain(others).collect()
}

fn policy(policy: &TokenPolicy, running: &AiCluster, now: Duration) -> Value {
    let scope = match &policy.scope {
        TokenScope::Global => "global".to_owned(),
        TokenScope::Route => "route".to_owned(),
        TokenScope::ApiKey => "api_key".to_owned(),
        TokenScope::Model => "model".to_owned(),
        TokenScope::User => "user".to_owned(),
        TokenScope::SourceIp => "source_ip".to_owned(),
        TokenScope::Header(name) => format!("header {name}"),
        TokenScope::JwtClaim(name) => format!("claim {name}"),
    };
    let on_limit = match policy.on_limit {
        OnLimit::Reject => "reject",
        OnLimit::Queue => "queue",
        OnLimit::Degrade => "degrade",
        OnLimit::Warn => "warn",
    };
    let shared = running.budget.as_ref();
    let shared = shared.filter(|_| policy.scope == TokenScope::Global);
    let left = shared.map(|budget| {
        let standing = budget.standing(budget.key(None), now);
        json!({
            "tokens": standing.tokens.map(|it| it.remaining),
            "requests": standing.requests.map(|it| it.remaining),
        })
    });
    json!({
        "tokens_per_minute": policy.tokens_per_minute,
        "tokens_per_hour": policy.tokens_per_hour,
        "requests_per_minute": policy.requests_per_minute,
        "scope": scope,
        "burst": policy.burst,
        "on_limit": on_limit,
        "degrade_to": policy.degrade_to,
        "dry_run": policy.is_dry_run,
        "left": left,
    })
}

fn usage(running: &AiCluster) -> Value {
    let usage = running.metrics.usage().into_iter().map(|it| {
        json!({
            "operation": it.operation,
            "provider": &*it.provider,
            "model": &*it.model,
            "calls": it.calls,
            "input_tokens": it.input,
            "cached_input_tokens": it.cached,
            "output_tokens": it.output,
        })
    });
    usage.collect()
}

fn outcomes(running: &AiCluster) -> Value {
    let metrics = &running.metrics;
    let errors = metrics.errors().into_iter();
    let errors = errors.map(|(provider, model, kind, count)| {
        json!({ "provider": &*provider, "model": &*model, "type": kind, "count": count })
    });
    let redactions: serde_json::Map<_, _> = metrics
        .redactions()
        .into_iter()
        .map(|(kind, count)| (kind.to_owned(), count.into()))
        .collect();
    json!({
        "over_budget_rejected": metrics.rejected.value(),
        "over_budget_queued": metrics.queued.value(),
        "over_budget_degraded": metrics.degraded.value(),
        "over_budget_passed": metrics.over.value(),
        "too_large": metrics.too_large.value(),
        "retries": metrics.retries.value(),
        "failovers": metrics.failovers.value(),
        "errors": errors.collect::<Value>(),
        "redactions": redactions,
    })
}
