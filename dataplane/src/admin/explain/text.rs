//! The answer to a question as a table for people.
//!
//! Made of the JSON that the admin API gives, so that a command can ask a process elsewhere.

use std::fmt::Write as _;

use serde_json::Value;

/// The answer in lines, the names of what they tell in front.
pub fn as_text(told: &Value) -> String {
    let mut out = String::new();
    request(&mut out, told);
    socket(&mut out, told);
    route(&mut out, told);
    backends(&mut out, told);
    answer(&mut out, told);
    others(&mut out, told);
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<12} {text}");
}

/// A text, or a number; nothing for what is not there.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // Nothing that is told can steer a terminal.
        Value::String(text) => text.replace(char::is_control, "?"),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], |rows| rows)
}

fn joined(value: &Value) -> String {
    let all: Vec<_> = list(value).iter().map(text).collect();
    all.join(", ")
}

fn request(out: &mut String, told: &Value) {
    let request = &told["request"];
    let scheme = match request["tls"] == Value::Bool(true) {
        true => "https",
        false => "http",
    };
    let asked = format!(
        "{} {scheme}://{}{} from {}",
        text(&request["method"]),
        text(&request["host"]),
        text(&request["path"]),
        text(&request["client"])
    );
    line(out, "request", &asked);
    for header in list(&request["headers"]) {
        line(out, "", &text(header));
    }
    // A folder of manifests has none.
    if told["version"] != "" {
        line(out, "version", &text(&told["version"]));
    }
}

fn socket(out: &mut String, told: &Value) {
    let socket = &told["socket"];
    let (address, protocol) = (text(&socket["address"]), text(&socket["protocol"]));
    let shown = format!(
        "{address} ({protocol}), port {} for clients",
        text(&socket["port"])
    );
    line(out, "socket", &shown);
    let certificate = &told["certificate"];
    if certificate.is_object() {
        let ended = match certificate["has_ended"] == Value::Bool(true) {
            true => ", has ended",
            false => "",
        };
        let secret = text(&certificate["secret"]);
        let names = joined(&certificate["names"]);
        line(out, "certificate", &format!("{secret} for {names}{ended}"));
    }
    let listener = &told["listener"];
    if listener.is_object() {
        let hosts = match joined(&listener["hosts"]) {
            hosts if hosts.is_empty() => "any host".to_owned(),
            hosts => format!("hosts {hosts}"),
        };
        line(
            out,
            "listener",
            &format!("{} ({hosts})", text(&listener["name"])),
        );
    }
    let matched = &told["matched"];
    if matched.is_object() && matched["path"] != told["request"]["path"] {
        line(out, "normal path", &text(&matched["path"]));
    }
}

fn route(out: &mut String, told: &Value) {
    let route = &told["route"];
    if route.is_object() {
        line(out, "route", &source(route));
    }
    for plugin in list(&told["plugins"]) {
        let (name, place) = (text(&plugin["plugin"]), text(&plugin["of"]));
        let place = match &plugin["only_for"] {
            Value::Null => place,
            target => format!("{place} {}", text(target)),
        };
        let shown = format!("{name} of the {place}: it may change or answer the request");
        line(out, "plugin", &shown);
    }
    for filter in list(&told["filters"]) {
        line(out, "filter", &filter.to_string());
    }
    for (name, value) in told["policies"].as_object().into_iter().flatten() {
        line(out, "policy", &format!("{name}: {}", text(value)));
    }
}

/// `HTTPRoute shop/cart, rule 0 (name), match 1: {…}`.
fn source(route: &Value) -> String {
    let mut shown = format!(
        "{} {}, rule {}",
        text(&route["kind"]),
        text(&route["route"]),
        text(&route["rule"])
    );
    if route["rule_name"].is_string() {
        let _ = write!(shown, " ({})", text(&route["rule_name"]));
    }
    if route["matches"].is_object() {
        let _ = write!(shown, ", match {}: ", text(&route["match"]));
        shown.push_str(&conditions(&route["matches"]));
    }
    shown
}

/// The conditions of a match, without those that ask for nothing.
fn conditions(matches: &Value) -> String {
    let asks = |value: &&(&String, &Value)| match value.1 {
        Value::Null => false,
        Value::Array(rows) => !rows.is_empty(),
        _ => true,
    };
    let all: Vec<_> = matches.as_object().into_iter().flatten().collect();
    let all = all.iter().filter(asks);
    let all: Vec<_> = all.map(|(name, value)| format!("{name} {value}")).collect();
    all.join(", ")
}

fn backends(out: &mut String, told: &Value) {
    for backend in list(&told["backends"]) {
        let mut shown = text(&backend["target"]);
        if backend["share_percent"].is_number() {
            let share = backend["share_percent"].as_f64().unwrap_or_default();
            shown = format!("{share} % {shown}");
        }
        if backend["fault"].is_string() {
            let _ = write!(shown, ": {}", text(&backend["fault"]));
        }
        line(out, "backend", &shown);
        for (name, value) in backend["policies"].as_object().into_iter().flatten() {
            line(out, "  policy", &format!("{name}: {}", text(value)));
        }
        ai_service(out, &backend["ai_service"]);
        for endpoint in list(&backend["endpoints"]) {
            let (address, state) = (text(&endpoint["address"]), text(&endpoint["state"]));
            let why = match text(&endpoint["why"]) {
                why if why.is_empty() => why,
                why => format!(": {why}"),
            };
            line(out, "  endpoint", &format!("{address} {state}{why}"));
        }
    }
}

fn ai_service(out: &mut String, service: &Value) {
    if service["why"].is_string() {
        line(out, "  unusable", &text(&service["why"]));
    }
    let providers = list(&service["providers"]);
    let total: u64 = providers
        .iter()
        .filter_map(|it| it["weight"].as_u64())
        .sum();
    for provider in providers {
        let named = |name: &str, before: &str| match text(&provider[name]) {
            value if value.is_empty() => value,
            value => format!(" {before}{value}"),
        };
        let (model, place) = (named("model", ""), named("endpoint", "at "));
        let turn = match provider["weight"].as_u64() {
            Some(0) | None => ", when those before it fail".to_owned(),
            Some(weight) if weight < total => format!(", {weight} of {total} calls"),
            Some(_) => String::new(),
        };
        let shown = format!("{}{model}{place}{turn}", text(&provider["provider"]));
        line(out, "  provider", &shown);
    }
    for redaction in list(&service["redaction"]) {
        let shown = format!(
            "{} {}",
            text(&redaction["action"]),
            text(&redaction["kind"])
        );
        line(out, "  redaction", &shown);
    }
    let policy = &service["token_policy"];
    if !policy.is_object() {
        return;
    }
    let limits = [
        ("tokens_per_minute", "tokens a minute"),
        ("tokens_per_hour", "tokens an hour"),
        ("requests_per_minute", "requests a minute"),
    ];
    let limits = limits.iter().filter_map(|(name, unit)| {
        let value = policy[name].as_u64()?;
        Some(format!("{value} {unit}"))
    });
    let limits: Vec<_> = limits.collect();
    let scope = match text(&policy["scope"]) {
        scope if scope == "global" => "all together".to_owned(),
        scope => format!("each {scope}"),
    };
    let on_limit = match (text(&policy["on_limit"]), text(&policy["degrade_to"])) {
        (_, _) if policy["dry_run"] == Value::Bool(true) => "count".to_owned(),
        (on_limit, model) if model.is_empty() => on_limit,
        (on_limit, model) => format!("{on_limit} to {model}"),
    };
    let shown = format!("{} for {scope}, then {on_limit}", limits.join(", "));
    line(out, "  budget", &shown);
}

fn answer(out: &mut String, told: &Value) {
    let answer = &told["answer"];
    if !answer.is_object() {
        return;
    }
    let status = text(&answer["status"]);
    let status = if status.is_empty() {
        status
    } else {
        status + " "
    };
    let (reason, detail) = (text(&answer["reason"]), text(&answer["detail"]));
    line(out, "answer", &format!("{status}{reason}: {detail}"));
}

fn others(out: &mut String, told: &Value) {
    let others = list(&told["others"]);
    if others.is_empty() {
        return;
    }
    let routes = text(&told["routes_considered"]);
    let _ = writeln!(
        out,
        "\nnot taken (of {routes} routes of the listener, the nearest first)"
    );
    for other in others {
        let _ = writeln!(out, "  {}", source(other));
        let _ = writeln!(out, "    {}", text(&other["why"]));
    }
}
