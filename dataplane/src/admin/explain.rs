//! `/v1/explain`: what would become of a request, and why.
//!
//! [`answer`] looks for socket, certificate, listener and rule with the functions that serve traffic
//! (`dataplane_http::explain`, `ServerTls::choice`) and lists what stands in the rule: filters,
//! policies, backends, endpoints. It opens nothing and changes no turn or count, so a configuration
//! that serves nowhere can be asked, too. [`as_text`] is the same for people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dataplane_config::{Bind, ListenerConfig, Protocol, RuntimeConfig, Store, compile};
use dataplane_http::explain::{Explanation, Question, explain as ask};
use dataplane_http::h1::HeadLimits;
use dataplane_telemetry::metrics::Metrics;
use http::StatusCode;
use ir::Snapshot;
use serde_json::{Value, json};

use super::Context;
use super::answer::Answer;
use super::query::Query;

mod asked;
mod rule;
mod text;
mod why;

pub use asked::Asked;
pub use text::as_text;

/// Matches that came close, of which no more are told.
const OTHERS_MAX: usize = 20;

/// Answers one question of the admin API.
pub(super) fn explained(context: &Context, query: &Query) -> Answer {
    let asked = Asked::of_query(query);
    let config = context.state.store.load();
    let limits = &context.state.http.request_head;
    match asked.and_then(|asked| answer(&config, limits, asked)) {
        Ok(told) => Answer::json(&told),
        Err(message) => Answer::error(StatusCode::BAD_REQUEST, &message),
    }
}

/// As [`answer`], for a snapshot that serves nowhere.
pub fn of_snapshot(snapshot: Snapshot, asked: Asked) -> Result<Value, String> {
    let nothing = Store::new().load_full();
    let config = compile(snapshot, &nothing, &Metrics::new());
    let config = config.map_err(|violations| violations.to_string())?;
    answer(&config, &HeadLimits::REQUEST, asked)
}

/// What would become of the request under `config`; an error says what is wrong with the question.
pub fn answer(config: &RuntimeConfig, limits: &HeadLimits, asked: Asked) -> Result<Value, String> {
    let asked = asked.completed()?;
    let client = asked.head.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let bind = socket(config, &asked, client)?;
    let mut told = json!({
        "version": config.version().as_str(),
        "request": {
            "method": asked.method,
            "host": asked.head.host,
            "path": asked.path.as_deref().unwrap_or("/"),
            "headers": asked.head.headers,
            "tls": asked.tls,
            "sni": asked.sni,
            "client": client.to_string(),
        },
        "socket": {
            "address": bind.address.to_string(),
            "port": bind.public_port.get(),
            "protocol": format!("{:?}", bind.protocol).to_uppercase(),
            "reads_proxy_protocol": bind.proxy_protocol.is_some(),
        },
    });
    let name = asked.sni.as_deref();
    let of_bytes = match bind.protocol {
        Protocol::Tcp => bind.any_listener(),
        Protocol::Tls => bind.by_server_name(name),
        Protocol::Http | Protocol::Https => None,
    };
    if let Some(listener) = of_bytes.filter(|it| it.streams.is_some()) {
        tell_stream(config, listener, name, client, &mut told);
        return Ok(told);
    }
    let handshake = match &bind.tls {
        None => None,
        Some(tls) => {
            let Some((listener, certificate)) = tls.choice(name) else {
                told["answer"] = json!({
                    "status": null,
                    "reason": "unknown_server_name",
                    "detail": "no listener takes this server name; the handshake ends with an alert",
                });
                return Ok(told);
            };
            told["certificate"] =
                certificate.map_or(Value::Null, |it| rule::certificate(&it, name));
            Some(Arc::clone(listener))
        }
    };
    let head = asked.head()?;
    let question = Question::new(
        SocketAddr::new(client, 0),
        bind.address,
        bind.public_port,
        handshake,
        head.as_bytes(),
    );
    tell(
        config,
        &asked.method,
        client,
        &ask(config, &question, limits, OTHERS_MAX),
        &mut told,
    );
    Ok(told)
}

/// The socket that is meant: of those that fit, the first whose listeners know the host.
fn socket<'c>(
    config: &'c RuntimeConfig,
    asked: &Asked,
    client: IpAddr,
) -> Result<&'c Arc<Bind>, String> {
    let is_meant = |bind: &&Arc<Bind>| {
        let port = |port| bind.address.port() == port || bind.public_port.get() == port;
        asked.port.is_none_or(port)
    };
    let speaks_tls =
        |bind: &&Arc<Bind>| matches!(bind.protocol, Protocol::Https | Protocol::Tls) == asked.tls;
    let all = || config.binds.values().filter(is_meant);
    let host = asked.head.host.as_deref().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let knows = |bind: &&Arc<Bind>| bind.listener(client, &host).is_some();
    let fitting = || all().filter(speaks_tls);
    if let Some(bind) = fitting().find(knows).or_else(|| fitting().next()) {
        return Ok(bind);
    }
    let mut ports: Vec<_> = config.binds.keys().map(SocketAddr::port).collect();
    ports.dedup();
    Err(match (all().next(), asked.tls, asked.port) {
        (Some(bind), false, Some(port)) if bind.tls.is_some() => {
            format!("port {port} speaks TLS; give --sni NAME or --tls")
        }
        (Some(_), true, Some(port)) => format!("port {port} does not speak TLS"),
        (_, is_tls, port) => {
            let port = port.map_or(String::new(), |port| format!(" {port}"));
            let tls = if is_tls { " with TLS" } else { "" };
            format!("no listener is on port{port}{tls}; open ports are {ports:?}")
        }
    })
}

/// A connection whose bytes are carried as they are.
fn tell_stream(
    config: &RuntimeConfig,
    listener: &ListenerConfig,
    name: Option<&str>,
    client: IpAddr,
    told: &mut Value,
) {
    told["listener"] = rule::listener(listener);
    let streams = listener.streams.as_ref();
    match streams.and_then(|streams| streams.lookup(name)) {
        Some(found) => {
            told["route"] = rule::stream_route(found);
            told["backends"] = rule::stream_backends(config, found, client);
        }
        None => {
            told["answer"] = json!({
                "status": null,
                "reason": "route_not_found",
                "detail": "no route of this listener takes the connection; it is closed",
            });
        }
    }
}

/// A request of HTTP.
fn tell(
    config: &RuntimeConfig,
    method: &str,
    client: IpAddr,
    explanation: &Explanation<'_>,
    told: &mut Value,
) {
    told["listener"] = explanation.listener.map_or(Value::Null, rule::listener);
    told["plugins"] = rule::plugins(config, explanation.listener, explanation.rule);
    told["matched"] = json!({ "host": explanation.host, "path": explanation.target });
    told["answer"] = explanation.answer.as_ref().map_or(Value::Null, |answer| {
        json!({
            "status": answer.status.as_u16(),
            "reason": answer.reason.as_str(),
            "detail": answer.detail,
        })
    });
    let snapshot = &config.snapshot;
    if let Some(routes) = &explanation.routes {
        let others = routes.others.iter().map(|other| {
            let mut row = rule::source(snapshot, &other.source);
            row["why"] = why::of(&other.lost, &explanation.host).into();
            row
        });
        told["others"] = others.collect();
        told["routes_considered"] = routes.routes.into();
        if let Some(winner) = &routes.winner {
            told["route"] = rule::source(snapshot, winner);
        }
    }
    let Some(found) = explanation.rule else {
        return;
    };
    told["filters"] = rule::filters(snapshot, found);
    told["policies"] = rule::policies(explanation.listener, found);
    told["backends"] = rule::backends(config, found, client, Instant::now());
    if explanation.answer.is_none()
        && let Some(answer) = rule::answer(config, found, client, method, &explanation.target)
    {
        told["answer"] = answer;
    }
}
