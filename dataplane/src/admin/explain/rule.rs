//! What stands in a rule, as JSON: where it comes from, what it does to a request, where it sends it.
//!
//! Reads the compiled rule for what is in effect and the snapshot for what was written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane_config::{
    Backend, ClusterConfig, Configured, Limiter, Limits, ListenerConfig, RequestFilter, Rule,
    RuntimeConfig, StreamRule,
};
use dataplane_http::explain::call;
use dataplane_route::table::{RouteKind, Source};
use dataplane_tls::CertificateFacts;
use dataplane_upstream::since_start;
use ir::Snapshot;
use serde_json::{Value, json};

use crate::admin::{ai, config, resilience};

/// Where a match comes from, and the match.
pub(super) fn source(snapshot: &Snapshot, source: &Source<'_>) -> Value {
    let at = (source.rule, source.index);
    let (kind, name, found) = match source.kind {
        RouteKind::Http => {
            let rule = snapshot.http_routes.get(source.route);
            let rule = rule.and_then(|route| route.rules.get(at.0));
            let found = rule.and_then(|rule| rule.matches.get(at.1));
            let name = rule.and_then(|rule| rule.name.clone());
            ("HTTPRoute", name, found.map(config::http_match))
        }
        RouteKind::Grpc => {
            let rule = snapshot.grpc_routes.get(source.route);
            let rule = rule.and_then(|route| route.rules.get(at.0));
            let found = rule.and_then(|rule| rule.matches.get(at.1));
            let name = rule.and_then(|rule| rule.name.clone());
            ("GRPCRoute", name, found.map(config::grpc_match))
        }
    };
    json!({
        "kind": kind,
        "route": source.route,
        "rule": source.rule,
        "rule_name": name,
        "match": source.index,
        "matches": found,
    })
}

/// A rule of a stream route.
pub(super) fn stream_route(rule: &StreamRule) -> Value {
    json!({
        "kind": rule.kind.object_kind(),
        "route": rule.route.split_once('/').map_or(&*rule.route, |(_, key)| key),
        "rule": rule.index,
    })
}

pub(super) fn listener(listener: &ListenerConfig) -> Value {
    let source = &listener.listener;
    let hosts = source.hostnames.iter().map(ToString::to_string);
    json!({
        "name": &*source.name,
        "hosts": hosts.collect::<Vec<_>>(),
        "routes": listener.routes_len(),
    })
}

/// A certificate, and whether it is for `name`.
pub(super) fn certificate(facts: &CertificateFacts, name: Option<&str>) -> Value {
    let now = SystemTime::now();
    let ends = facts.not_after.duration_since(UNIX_EPOCH);
    json!({
        "secret": &*facts.secret,
        "names": facts.names,
        "not_after_unix_s": ends.unwrap_or_default().as_secs(),
        "has_ended": facts.not_after <= now,
        "server_name": name,
    })
}

/// What is done to the request, in order, as it was written.
pub(super) fn filters(snapshot: &Snapshot, rule: &Rule) -> Value {
    let written = match rule.kind {
        RouteKind::Http => {
            let route = snapshot.http_routes.get(&rule.route);
            let found = route.and_then(|route| route.rules.get(rule.index));
            found.map(|it| (&it.filters, &it.backends))
        }
        RouteKind::Grpc => {
            let route = snapshot.grpc_routes.get(&rule.route);
            let found = route.and_then(|route| route.rules.get(rule.index));
            found.map(|it| (&it.filters, &it.backends))
        }
    };
    let Some((filters, backends)) = written else {
        return json!([]);
    };
    let of_rule = filters.iter().map(config::filter);
    let of_backends = backends.iter().flat_map(|backend| {
        backend.filters.iter().map(|filter| {
            let mut row = config::filter(filter);
            row["only_for"] = (*backend.target.display).into();
            row
        })
    });
    of_rule.chain(of_backends).collect()
}

/// Wasm plugins that meet the request, in their order: before the rule is looked for, behind it, and in
/// front of one of its backends. What they do to it nobody knows before they run.
pub(super) fn plugins(
    config: &RuntimeConfig,
    listener: Option<&ListenerConfig>,
    rule: Option<&Rule>,
) -> Value {
    let rows = |names: &[Arc<str>], place: &str| -> Vec<Value> {
        let plugins = config.plugins_in_order(names);
        let row = |it: &&Arc<Configured>| json!({ "plugin": &*it.source.key, "of": place });
        plugins.iter().map(row).collect()
    };
    let of_listener = listener.map(|it| rows(&it.listener.plugins, "listener"));
    let of_rule = rule.map(|it| rows(&it.plugins, "rule"));
    let backends = rule.into_iter().flat_map(|it| &it.backends);
    let of_backends = backends.filter_map(|backend| {
        let mut rows = rows(&config.cluster(backend)?.plugins, "backend");
        for row in &mut rows {
            row["only_for"] = (*backend.display).into();
        }
        Some(rows)
    });
    let before = of_listener.into_iter().chain(of_rule);
    before.chain(of_backends).flatten().collect()
}

/// The settings in effect that differ from those of the process.
pub(super) fn policies(listener: Option<&ListenerConfig>, rule: &Rule) -> Value {
    let mut set = serde_json::Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            set.insert(name.to_owned(), value);
        }
    };
    let millis = |time: Option<Duration>| Some(u64::try_from(time?.as_millis()).ok()?.into());
    put("request_timeout_ms", millis(rule.settings.request_timeout));
    put(
        "backend_request_timeout_ms",
        millis(rule.settings.backend_request_timeout),
    );
    put("connect_timeout_ms", millis(rule.settings.connect_timeout));
    let retry = rule.settings.retry.as_ref();
    put("retry", retry.map(|retry| format!("{retry:?}").into()));
    let is_kept = rule.session.is_some();
    put("session_persistence", is_kept.then_some(true.into()));
    let buffers = rule.settings.request_buffering;
    put("reads_the_body_first", buffers.then_some(true.into()));
    put(
        "request_body_bytes_max",
        rule.settings.request_body_bytes_max.map(Value::from),
    );
    put(
        "request_header_bytes_max",
        rule.settings.request_header_bytes_max.map(Value::from),
    );
    let lists = [
        listener.and_then(|it| it.access.as_ref()),
        rule.access.as_ref(),
    ];
    let has_lists = lists.iter().flatten().next().is_some();
    put("address_lists", has_lists.then_some(true.into()));
    let limits = listener
        .map(|it| &it.limits)
        .into_iter()
        .chain([&rule.limits]);
    let limits = rate_limits(limits);
    put("rate_limits", (!limits.is_empty()).then(|| limits.into()));
    Value::Object(set)
}

/// Where requests of `client` go, with what each backend and its endpoints are like now.
pub(super) fn backends(config: &RuntimeConfig, rule: &Rule, client: IpAddr, now: Instant) -> Value {
    let total: u64 = rule.backends.iter().map(|it| u64::from(it.weight)).sum();
    let rows = rule.backends.iter().map(|backend| {
        let mut row = cluster(config, &backend.cluster_keys, client, now);
        row["target"] = (*backend.display).into();
        row["weight"] = backend.weight.into();
        row["share_percent"] = percent(backend.weight, total).into();
        row["route_breaker"] = backend.breaker.is_some().into();
        row
    });
    rows.collect()
}

/// The same for connections of bytes.
pub(super) fn stream_backends(config: &RuntimeConfig, rule: &StreamRule, client: IpAddr) -> Value {
    let rows = rule.backends.iter().map(|backend| {
        let mut row = cluster(config, &backend.cluster_keys, client, Instant::now());
        row["target"] = (*backend.display).into();
        row
    });
    rows.collect()
}

fn cluster(config: &RuntimeConfig, keys: &[Arc<str>], client: IpAddr, now: Instant) -> Value {
    let Some(found) = config.cluster_by_keys(keys) else {
        return json!({ "cluster": null, "fault": "it does not exist or may not be referred to" });
    };
    let cluster = &found.cluster;
    let since = since_start(now);
    let endpoints = cluster.endpoints().iter();
    let endpoints: Vec<Value> = endpoints
        .map(|it| {
            let (state, why) = resilience::health(found, it, since);
            json!({
                "address": it.address().to_string(),
                "state": state,
                "why": why,
                "weight": it.weight(),
                "zone": it.zone(),
            })
        })
        .collect();
    let used = cluster.endpoints().iter();
    let used = used.filter(|it| cluster.uses(it, now)).count();
    let fault = match &found.ai {
        _ if found.tls.is_refused() => Some("it asks for TLS, and nothing says whom to trust"),
        _ if refuses(found, client) => {
            Some("the SecurityPolicy of this backend refuses the client")
        }
        Some(ai) if ai.service.is_err() => Some("it is an AI service that cannot be used"),
        Some(_) => None,
        None if used == 0 => Some("no endpoint of it can be used"),
        None => None,
    };
    json!({
        "cluster": &**cluster.key(),
        "protocol": format!("{:?}", cluster.protocol()),
        "policies": cluster_policies(found),
        "ai_service": ai::told(found),
        "endpoints": endpoints,
        "endpoints_used": used,
        "fault": fault,
    })
}

/// Its lists of addresses do not let the client in.
fn refuses(cluster: &ClusterConfig, client: IpAddr) -> bool {
    let lists = cluster.access.as_ref();
    lists.is_some_and(|lists| !lists.admit(client))
}

/// What holds for a cluster whichever route leads to it.
fn cluster_policies(found: &ClusterConfig) -> Value {
    let mut set = serde_json::Map::new();
    let flags = [
        ("address_lists", found.access.is_some()),
        ("session_persistence", found.session.is_some()),
        ("circuit_breaker", found.breaker.is_some()),
    ];
    for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        set.insert((*name).to_owned(), true.into());
    }
    if let Some(allowance) = found.retry_allowance {
        let percent = allowance.ratio_percent;
        set.insert("retry_budget_percent".to_owned(), percent.into());
    }
    let limits = rate_limits([&found.limits]);
    if !limits.is_empty() {
        set.insert("rate_limits".to_owned(), limits.into());
    }
    Value::Object(set)
}

fn rate_limits<'a>(limits: impl IntoIterator<Item = &'a Limits>) -> Vec<Value> {
    let limiters = limits
        .into_iter()
        .flat_map(|limits| limits.early.iter().chain(&*limits.late));
    let row = |it: &Arc<Limiter>| json!({ "name": it.name(), "of": it.scope() });
    limiters.map(row).collect()
}

fn percent(weight: u32, total: u64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    let share = f64::from(weight) * 100.0 / f64::from(total);
    (share * 10.0).round() / 10.0
}

fn told(status: Option<u16>, reason: &str, detail: &str) -> Value {
    json!({ "status": status, "reason": reason, "detail": detail })
}

/// The answer that the rule itself gives to a request, where no backend is asked.
pub(super) fn answer(
    config: &RuntimeConfig,
    rule: &Rule,
    client: IpAddr,
    method: &str,
    target: &str,
) -> Option<Value> {
    let of_filter = rule.filters.request.iter().find_map(|filter| match filter {
        RequestFilter::Redirect(_) => Some((None, "redirected", "a filter redirects the client")),
        RequestFilter::DirectResponse(response) => Some((
            Some(response.status),
            "direct_response",
            "a filter holds the answer",
        )),
        RequestFilter::Unsupported => Some((
            Some(500),
            "unsupported_filter",
            "the rule has a filter that cannot be applied",
        )),
        RequestFilter::Headers(_)
        | RequestFilter::Rewrite(_)
        | RequestFilter::Mirror(_)
        | RequestFilter::ExternalAuth(_)
        | RequestFilter::Cors => None,
    });
    if let Some((status, reason, detail)) = of_filter {
        return Some(told(status, reason, detail));
    }
    let is_weighed = |backend: &&Backend| backend.weight > 0;
    let mut weighed = rule.backends.iter().filter(is_weighed).peekable();
    if weighed.peek().is_none() {
        let detail = "the rule has no backend with a weight above 0";
        return Some(told(Some(500), "invalid_backend", detail));
    }
    let found: Vec<_> = weighed.map(|backend| config.cluster(backend)).collect();
    let is_invalid =
        |found: &Option<&ClusterConfig>| found.is_none_or(|found| found.tls.is_refused());
    if found.iter().all(is_invalid) {
        let detail = "no backend of the rule can be used";
        return Some(told(Some(500), "invalid_backend", detail));
    }
    if found
        .iter()
        .all(|it| it.is_some_and(|it| refuses(it, client)))
    {
        let detail = "the SecurityPolicy of each backend refuses the client";
        return Some(told(Some(403), "address_denied", detail));
    }
    let found: Vec<_> = found.into_iter().flatten().collect();
    if let Some(answer) = of_ai_services(rule, &found, method, target) {
        return Some(answer);
    }
    let now = Instant::now();
    let is_empty = |found: &&ClusterConfig| {
        let endpoints = &mut found.cluster.endpoints().iter();
        found.ai.is_none() && !endpoints.any(|it| found.cluster.uses(it, now))
    };
    let detail = "no endpoint of its backends can be used";
    let is_closed = found.iter().all(is_empty);
    is_closed.then(|| told(Some(503), "no_endpoint", detail))
}

/// The answer where all backends are AI services that do not ask a provider.
fn of_ai_services(
    rule: &Rule,
    backends: &[&ClusterConfig],
    method: &str,
    target: &str,
) -> Option<Value> {
    let services: Option<Vec<_>> = backends.iter().map(|it| it.ai.as_ref()).collect();
    let services = services?;
    let rewrites = |filter: &RequestFilter| matches!(filter, RequestFilter::Rewrite(_));
    match call(method, target) {
        // A path that is rewritten may become one.
        Err(answer) if !rule.filters.request.iter().any(rewrites) => Some(told(
            Some(answer.status.as_u16()),
            answer.reason.as_str(),
            &answer.detail,
        )),
        _ if services.iter().all(|it| it.service.is_err()) => {
            let detail = "no AI service among its backends can be used";
            Some(told(Some(500), "invalid_backend", detail))
        }
        _ => None,
    }
}
