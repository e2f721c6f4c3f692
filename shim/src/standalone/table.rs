//! The table that `standalone` prints: listeners, then routes with hosts, conditions and backends.
//!
//! Pure text from a snapshot; what is wrong is told by `report.rs`.

use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, PathMatch, Route,
    TextMatch, ValueMatch,
};
use ir::{Hostname, Snapshot};

/// Listeners and routes as text.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut listeners = vec![row(["LISTENER", "ADDRESS", "PROTOCOL", "HOSTS"])];
    for listener in snapshot.listeners.iter() {
        let addresses: Vec<String> = listener
            .addresses
            .iter()
            .map(|ip| std::net::SocketAddr::from((*ip, listener.port.get())).to_string())
            .collect();
        listeners.push(row([
            &listener.name,
            &addresses.join(", "),
            &format!("{:?}", listener.protocol).to_uppercase(),
            &hosts(&listener.hostnames),
        ]));
    }
    print_rows(&mut text, &listeners);
    text.push('\n');
    let mut routes = vec![row(["ROUTE", "HOSTS", "WHEN", "BACKENDS"])];
    for route in snapshot.http_routes.iter() {
        route_rows(&mut routes, "HTTP", route, http_rule);
    }
    for route in snapshot.grpc_routes.iter() {
        route_rows(&mut routes, "gRPC", route, grpc_rule);
    }
    for route in snapshot.stream_routes.iter() {
        for rule in &route.rules {
            let name = format!("{} {}", route.kind.object_kind(), route.object_key());
            routes.push(row([&name, "", "", &backends(&rule.backends)]));
        }
    }
    print_rows(&mut text, &routes);
    text
}

/// The snapshot in a few words.
pub(super) fn summary(snapshot: &Snapshot) -> String {
    let routes =
        snapshot.http_routes.len() + snapshot.grpc_routes.len() + snapshot.stream_routes.len();
    let version = snapshot.version.as_str();
    format!(
        "version {}, {} listeners, {routes} routes, {} clusters",
        &version[..version.floor_char_boundary(8)],
        snapshot.listeners.len(),
        snapshot.clusters.len(),
    )
}

type Row = [String; 4];

fn row(cells: [&str; 4]) -> Row {
    cells.map(str::to_owned)
}

/// One row per match of each rule: its condition and where it leads.
fn route_rows<R>(
    rows: &mut Vec<Row>,
    kind: &str,
    route: &Route<R>,
    rule: impl Fn(&R) -> (Vec<String>, String),
) {
    let mut name = format!("{kind} {}", route.key);
    let mut hosts = hosts(&route.hostnames);
    for (conditions, backends) in route.rules.iter().map(rule) {
        for condition in conditions {
            rows.push(row([&name, &hosts, &condition, &backends]));
            // Said once, in the first row of the route.
            name.clear();
            hosts.clear();
        }
    }
}

fn http_rule(rule: &HttpRule) -> (Vec<String>, String) {
    let conditions = rule.matches.iter().map(http_match).collect();
    (conditions, outcome(&rule.backends, rule.filters.len()))
}

fn grpc_rule(rule: &GrpcRule) -> (Vec<String>, String) {
    let conditions = rule.matches.iter().map(grpc_match).collect();
    (conditions, outcome(&rule.backends, rule.filters.len()))
}

fn http_match(condition: &HttpMatch) -> String {
    let mut parts = Vec::new();
    if let Some(method) = &condition.method {
        parts.push(method.clone());
    }
    parts.push(match &condition.path {
        PathMatch::Exact(path) => format!("{path} (exact)"),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(pattern) => format!("~ {}", pattern.as_str()),
    });
    parts.extend(condition.headers.iter().map(value_match));
    let queries = condition.query_params.iter().map(value_match);
    parts.extend(queries.map(|query| format!("?{query}")));
    parts.join(" ")
}

fn grpc_match(condition: &GrpcMatch) -> String {
    let any = || "*".to_owned();
    let mut parts = vec![match &condition.method {
        GrpcMethodMatch::Any => any(),
        GrpcMethodMatch::Exact { service, method } => format!(
            "/{}/{}",
            service.clone().unwrap_or_else(any),
            method.clone().unwrap_or_else(any)
        ),
        GrpcMethodMatch::Regex { service, method } => {
            let text = |pattern: &Option<ir::Pattern>| {
                pattern
                    .as_ref()
                    .map_or_else(any, |it| it.as_str().to_owned())
            };
            format!("~ /{}/{}", text(service), text(method))
        }
    }];
    parts.extend(condition.headers.iter().map(value_match));
    parts.join(" ")
}

fn value_match(condition: &ValueMatch) -> String {
    let name = &condition.name;
    match &condition.value {
        TextMatch::Exact(value) => format!("{name}={value}"),
        TextMatch::Prefix(value) => format!("{name}={value}*"),
        TextMatch::Suffix(value) => format!("{name}=*{value}"),
        TextMatch::Regex(pattern) => format!("{name}~{}", pattern.as_str()),
        TextMatch::Present => name.clone(),
    }
}

fn outcome(list: &[BackendRef], filters: usize) -> String {
    if list.is_empty() {
        return if filters > 0 {
            "answered by a filter"
        } else {
            "none: answered with 500"
        }
        .to_owned();
    }
    backends(list)
}

fn backends(list: &[BackendRef]) -> String {
    let total: u64 = list.iter().map(|backend| u64::from(backend.weight)).sum();
    let texts: Vec<String> = list
        .iter()
        .map(|backend| match (list.len(), total) {
            (1, _) => format!("→ {}", backend.target.display),
            (_, 0) => format!("→ {} 0%", backend.target.display),
            _ => {
                let percent = u64::from(backend.weight) * 100 / total;
                format!("→ {} {percent}%", backend.target.display)
            }
        })
        .collect();
    texts.join("  ")
}

fn hosts(hostnames: &[Hostname]) -> String {
    if hostnames.is_empty() {
        return "*".to_owned();
    }
    let texts: Vec<String> = hostnames.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn print_rows(text: &mut String, rows: &[Row]) {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    for [a, b, c, d] in rows {
        let [first, second, third] = widths;
        let line = format!("{a:first$}  {b:second$}  {c:third$}  {d}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
