//! The reference pages that are generated: bootstrap keys, limits and metrics.
//!
//! A test compares them with `docs/reference/` and fails when those are stale; nothing else calls
//! this module.

use std::fmt::Write as _;

use dataplane_telemetry::metrics;

use super::keys::{ALIASES, ALL, Key, Kind, Unit, WITHOUT_EFFECT, Zero};

pub mod limits;

pub use limits::limits_page;

/// `docs/reference/bootstrap.md`.
pub fn bootstrap_page() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut section = None;
    for key in ALL {
        let of = key.name.split_once('.').map_or("", |(section, _)| section);
        if section != Some(of) {
            section = Some(of);
            let title = if of.is_empty() { "Identity" } else { of };
            let _ = write!(page, "\n## {title}\n\n{TABLE_HEAD}");
        }
        row(&mut page, key);
    }
    page.push_str("\n## Other spellings\n\n| Written | Means |\n| --- | --- |\n");
    for (alias, main) in ALIASES {
        let _ = writeln!(page, "| `{alias}` | `{main}` |");
    }
    page.push_str(WITHOUT_EFFECT_INTRODUCTION);
    for name in WITHOUT_EFFECT {
        let _ = writeln!(page, "- `{name}`");
    }
    page
}

/// `docs/reference/metrics.md`.
pub fn metrics_page() -> String {
    let mut page = String::from(METRICS_INTRODUCTION);
    for family in metrics::reference() {
        let labels: Vec<_> = family.labels.iter().map(|it| format!("`{it}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.as_str(),
            labels.join(", "),
            family.help
        );
    }
    page
}

const INTRODUCTION: &str = "\
# Bootstrap file

<!-- Generated from dataplane/src/bootstrap/keys.rs; `UPDATE_REFERENCE=1 cargo test -p dataplane` rewrites it. -->

`nantian-dataplane --config PATH` reads this file once at start; it is YAML with camelCase keys.
`nantian-dataplane --config PATH --check` says what is wrong with it, or prints every value in effect.
Environment variables win over the file; an empty one counts as not set.
A key with nothing behind it counts as not set, too.
A key that is not listed here is refused, and the nearest valid one is named.
What listeners and routes do is not set here: that comes from the control plane.
";

const TABLE_HEAD: &str = "\
| Key | Type | Default | Meaning |
| --- | --- | --- | --- |
";

const WITHOUT_EFFECT_INTRODUCTION: &str = "
## Without effect yet

These keys are accepted, so that files of earlier data planes load; a warning at start names those that are set.
A name stands for everything below it.

";

const METRICS_INTRODUCTION: &str = "\
# Metrics

<!-- Generated from dataplane/telemetry/src/metrics/family.rs; `UPDATE_REFERENCE=1 cargo test -p dataplane` rewrites it. -->

`GET /metrics` of the admin API writes these families in the Prometheus text format, or in OpenMetrics where `Accept` prefers that; there the buckets of routes carry the trace id of a request that was recorded.
With `?former_names=true` every family is repeated under `nantian_gw_dataplane_`, which dashboards for the earlier data plane may ask for; it doubles the series.
Label values come from the configuration or from fixed lists, never from a request.

Series have a budget: a route costs nothing until its first request, then 13 series, and one more for each further class and code of status: 20 with four classes and five codes.
There are 6 classes, and never more codes than 16 for each worker thread and 6 for those beyond; calls over gRPC have one more for each code of gRPC, of which there are 18.
A backend costs nothing until it is asked for something, then 5, one for each endpoint and one for each further class of status: 11 at most with one endpoint, unless something goes wrong with it.
So 5,000 routes in use with a backend each come to fewer than 100,000 series.
What happens only seldom, such as a retry, has a series from the first time on; the series of a route, listener or backend end with it.

| Name | Type | Labels | Meaning |
| --- | --- | --- | --- |
";

fn row(page: &mut String, key: &Key) {
    let default = match key.default {
        "" => "",
        default => &format!("`{default}`"),
    };
    let mut meaning = key.doc.to_owned();
    if let Kind::Number {
        zero: Zero::Unlimited,
        ..
    } = key.kind
    {
        meaning.push_str(" 0 for no limit.");
    }
    if let Kind::Number {
        zero: Zero::Default,
        ..
    } = key.kind
    {
        meaning.push_str(" 0 for the default.");
    }
    if !key.env.is_empty() {
        let names: Vec<_> = key.env.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(meaning, " Environment: {}.", names.join(", then "));
    }
    let kind = kind(key.kind);
    let _ = writeln!(page, "| `{}` | {kind} | {default} | {meaning} |", key.name);
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Secret => "text, never shown".to_owned(),
        Kind::Choice(words) => words.join(" or "),
        Kind::Flag => "true or false".to_owned(),
        Kind::Share => "0 to 1".to_owned(),
        Kind::Address => "address:port".to_owned(),
        Kind::Networks => "list of address blocks".to_owned(),
        Kind::Texts => "texts by name".to_owned(),
        Kind::Number { unit, min, max, .. } => {
            let unit = match unit {
                Unit::Count => "",
                Unit::Milliseconds => " ms",
                Unit::Bytes => " bytes",
                Unit::Percent => " %",
            };
            format!("{min} to {max}{unit}")
        }
    }
}
