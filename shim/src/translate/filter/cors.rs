//! The `CORS` filter, checked as its CRD would.

use gateway_api::experimental::httproutes as api;
use ir::filter::Cors;

use super::super::notes::Notes;

/// How long a preflight may be kept when nothing is written (Gateway API default).
const MAX_AGE_SECONDS: u32 = 5;

/// Translates the filter; faults are noted.
pub(super) fn cors(spec: &api::HttpRouteRulesFiltersCors, path: &str, notes: &mut Notes) -> Cors {
    let mut list = |name: &str, written: &Option<Vec<String>>, is_good: fn(&str) -> bool| {
        let items = written.clone().unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.{name}[{index}]");
            if !is_good(item) {
                notes.violation(&path, format!("{item:?} cannot stand here"));
            } else if item == "*" && items.len() > 1 && name != "exposeHeaders" {
                notes.violation(&path, "\"*\" stands alone or not at all");
            }
        }
        items
    };
    let allow_origins = list("allowOrigins", &spec.allow_origins, is_origin);
    let allow_methods = list("allowMethods", &spec.allow_methods, is_token);
    let allow_headers = list("allowHeaders", &spec.allow_headers, is_token);
    let expose_headers = list("exposeHeaders", &spec.expose_headers, is_token);
    let max_age = match spec.max_age {
        None => Some(MAX_AGE_SECONDS),
        Some(age) => u32::try_from(age).ok().filter(|age| *age > 0),
    };
    if max_age.is_none() {
        notes.violation(&format!("{path}.maxAge"), "is less than 1");
    }
    Cors {
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials: spec.allow_credentials.unwrap_or_default(),
        max_age_seconds: max_age.unwrap_or(MAX_AGE_SECONDS),
    }
}

/// What the pattern of `CORSOrigin` takes: `*`, or http(s), a host and perhaps a port. The host is a
/// name, `*` alone, or `*.` and a name.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text == "*";
    };
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    matches!(scheme, "http" | "https")
        && (host == "*" || name.split('.').all(is_label))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_token(text: &str) -> bool {
    http::Method::from_bytes(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_held_to_the_pattern_of_their_type() {
        for (text, expected) in [
            ("*", true),
            ("https://www.foo.com", true),
            ("http://localhost:3000", true),
            ("https://*.bar.com", true),
            ("https://*", true),
            ("https://*:8443", true),
            ("https://a.com:0", false),
            ("https://a.com:65536", false),
            ("https://a.com:", false),
            ("https://a*.com", false),
            ("https://a.*.com", false),
            ("https://a..com", false),
            ("https://", false),
            ("https://a.com/", false),
            ("ftp://a.com", false),
            ("a.com", false),
            ("", false),
        ] {
            assert_eq!(is_origin(text), expected, "{text}");
        }
    }
}
