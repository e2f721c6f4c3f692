//! Persistent sessions: who asks for them, how they are carried, and what became of them.
//!
//! No state is kept of any session, so none can be listed; counts are of the whole process.

use ir::policy::{SessionCarrier, SessionPersistence};
use serde_json::{Value, json};

use super::Context;
use super::answer::Answer;
use super::query::Filter;

/// `/v1/sessions`; the policies are paged.
pub(super) fn show(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let snapshot = &config.snapshot;
    let http = snapshot.http_routes.iter().flat_map(|route| {
        let rules = route.rules.iter().enumerate();
        let rules = rules.filter_map(|(at, rule)| Some((at, rule.session_persistence.as_ref()?)));
        rules.map(|(at, policy)| ("HTTPRoute", &route.key, Some(at), policy))
    });
    let grpc = snapshot.grpc_routes.iter().flat_map(|route| {
        let rules = route.rules.iter().enumerate();
        let rules = rules.filter_map(|(at, rule)| Some((at, rule.session_persistence.as_ref()?)));
        rules.map(|(at, policy)| ("GRPCRoute", &route.key, Some(at), policy))
    });
    let backends = snapshot.clusters.iter().filter_map(|cluster| {
        let policy = cluster.session_persistence.as_ref()?;
        Some(("Backend", &cluster.key, None, policy))
    });
    // In the order of the words in front: Backend, GRPCRoute, HTTPRoute.
    let all = backends.chain(grpc).chain(http);
    let wanted = all.filter(|(_, key, ..)| filter.takes_key(key));
    let page = filter.page(wanted, |(kind, key, rule, _)| {
        format!("{kind}/{key}#{:05}", rule.unwrap_or(0))
    });
    let policies = page.items.into_iter();
    let policies = policies.map(|(kind, key, rule, policy)| view(kind, key, rule, policy));
    let metrics = &context.state.metrics.sessions;
    let answer = Answer::json(&json!({
        "counts": {
            "began": metrics.began.value(),
            "kept": metrics.kept.value(),
            "moved": metrics.moved.value(),
            "refused": metrics.refused.value(),
        },
        "secret": {
            "is_ephemeral": metrics.is_ephemeral.value() != 0,
            "is_file_unusable": metrics.is_secret_unusable.value() != 0,
            "taken": metrics.secrets_taken.value(),
        },
        "policies": policies.collect::<Value>(),
    }));
    match page.next {
        Some(next) => answer.followed_by("/v1/sessions", &filter.next_query(&next)),
        None => answer,
    }
}

fn view(kind: &str, object: &str, rule: Option<usize>, policy: &SessionPersistence) -> Value {
    let carrier = match policy.carrier {
        SessionCarrier::SessionCookie => "session_cookie",
        SessionCarrier::PermanentCookie => "permanent_cookie",
        SessionCarrier::Header => "header",
    };
    json!({
        "kind": kind,
        "object": object,
        "rule": rule,
        "carrier": carrier,
        "name": policy.session_name,
        "absolute_timeout_ms": policy.absolute_timeout.map(|it| it.as_millis()),
        "idle_timeout_ms": policy.idle_timeout.map(|it| it.as_millis()),
    })
}
