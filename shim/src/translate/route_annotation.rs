//! What a route says of its own observation in annotations: its lines of the access log, its traces.
//!
//! Data planes read the annotations themselves and go by their own settings where a value cannot be
//! understood; [`super::route`] has them judged here, so that the route's owner is told. Only the
//! usual prefix is known: with which one a data plane begins is a matter of its bootstrap file.

use std::collections::BTreeMap;

use super::listener::RouteKind;
use super::notes::Notes;

const ACCESS_LOG: &str = "gateway.nantian.dev/access-log-";
const TRACE_RATIO: &str = "gateway.nantian.dev/tracing-sample-ratio";

/// Longest format that a data plane reads.
const FORMAT_BYTES_MAX: usize = 8192;

/// What a format may hold between percent signs, or in small letters behind a dollar sign. A test
/// compares it with the data plane's own.
const VARIABLES: &[&str] = &[
    "TIMESTAMP",
    "EVENT",
    "PROTOCOL",
    "LISTENER",
    "CLIENT_IP",
    "CLIENT_PORT",
    "SCHEME",
    "HOST",
    "METHOD",
    "PATH",
    "REQUEST",
    "REQUEST_ID",
    "REFERER",
    "USER_AGENT",
    "ROUTE_KIND",
    "ROUTE_NAMESPACE",
    "ROUTE_NAME",
    "RULE",
    "BACKEND",
    "UPSTREAM_ADDR",
    "UPSTREAM_HOST",
    "UPSTREAM_PATH",
    "UPSTREAM_CONNECT_TIME_MS",
    "STATUS",
    "GRPC_STATUS",
    "LATENCY_MS",
    "REQUEST_TIME",
    "ROUTING_TIME_MS",
    "FIRST_BYTE_MS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DATAGRAMS_RECEIVED",
    "DATAGRAMS_SENT",
    "SNAPSHOT_VERSION",
    "RETRY_ATTEMPTS",
    "RESPONSE_FLAGS",
    "REASON",
    "DETAIL",
    "TLS_VERSION",
    "SNI",
    "CLIENT_CERT_SUBJECT",
    "CLIENT_CERT_SAN",
    "CLIENT_CERT_SHA256",
    "TRACE_ID",
    "SPAN_ID",
    "GEN_AI_OPERATION",
    "GEN_AI_PROVIDER",
    "GEN_AI_REQUEST_MODEL",
    "GEN_AI_RESPONSE_MODEL",
    "GEN_AI_INPUT_TOKENS",
    "GEN_AI_OUTPUT_TOKENS",
    "GEN_AI_FINISH_REASON",
    "GEN_AI_COST",
    "GEN_AI_ERROR",
];

/// The same in nginx's spelling, behind a dollar sign.
const OF_NGINX: &[&str] = &[
    "time_iso8601",
    "server_protocol",
    "remote_addr",
    "remote_port",
    "request_method",
    "request_uri",
    "http_referer",
    "http_user_agent",
    "request_length",
    "body_bytes_sent",
    "ssl_protocol",
    "ssl_server_name",
];

/// Notes what the annotations of a route ask for in vain.
pub(super) fn judge(
    annotations: Option<&BTreeMap<String, String>>,
    kind: RouteKind,
    notes: &mut Notes,
) {
    for (name, value) in annotations.into_iter().flatten() {
        if let Some(fault) = fault(name, value.trim(), kind) {
            notes.warn(&format!("annotation {name}"), &fault);
        }
    }
}

fn fault(name: &str, value: &str, kind: RouteKind) -> Option<String> {
    if name == TRACE_RATIO {
        return match kind {
            RouteKind::Http | RouteKind::Grpc => share_fault(value),
            _ => {
                Some("has no effect, only requests of HTTPRoutes and GRPCRoutes are traced".into())
            }
        };
    }
    let is_one_of = |words: &[&str]| words.contains(&value);
    let fault = |wanted: &str| Some(not_understood(value, wanted));
    match name.strip_prefix(ACCESS_LOG)? {
        "enabled" if is_one_of(&["true", "false"]) => None,
        "enabled" => fault("true or false"),
        "mode" if is_one_of(&["json", "text"]) => None,
        "mode" => fault("json or text"),
        "sample-rate" => share_fault(value),
        "format" => format_fault(value).map(|fault| format!("is not used: {fault}")),
        "path" => Some("is ignored, a route does not choose a file of the gateway's".to_owned()),
        _ => Some(
            "is not known; there are enabled, sample-rate, mode and format behind access-log-"
                .to_owned(),
        ),
    }
}

fn share_fault(value: &str) -> Option<String> {
    let share = value.parse::<f64>().ok();
    let is_one = share.is_some_and(|share| (0.0..=1.0).contains(&share));
    (!is_one).then(|| not_understood(value, "a number from 0 to 1"))
}

fn not_understood(value: &str, wanted: &str) -> String {
    format!("{value:?} is not understood and not used, write {wanted}")
}

/// Why a data plane would not use a format.
fn format_fault(format: &str) -> Option<String> {
    if format.len() > FORMAT_BYTES_MAX {
        return Some(format!("it is longer than {FORMAT_BYTES_MAX} bytes"));
    }
    let mut rest = format;
    while let Some(at) = rest.find(['%', '$']) {
        let (sign, after) = rest[at..].split_at(1);
        let (name, is_known, behind) = if sign == "%" {
            let Some((name, behind)) = after.split_once('%') else {
                let fault = "a percent sign begins no variable, write %% for the sign itself";
                return Some(fault.to_owned());
            };
            (name, VARIABLES.contains(&name), behind)
        } else if let Some(behind) = after.strip_prefix('$') {
            ("", true, behind)
        } else {
            let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let end = after.find(|c: char| !is_part(c)).unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            let has_name = |known: &&str| known.eq_ignore_ascii_case(name);
            let is_known = VARIABLES.iter().any(has_name) || OF_NGINX.contains(&name);
            (name, is_known, behind)
        };
        if !name.is_empty() && !is_known {
            return Some(format!("{sign}{name} is no variable of the access log"));
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use dataplane_telemetry::access_log::{DEFAULT_FORMAT, Template, variables};

    use super::*;

    #[test]
    fn formats_are_judged_as_data_planes_judge_them() {
        let mut formats: Vec<String> = variables().map(|name| format!("a%{name}%b")).collect();
        formats.extend(variables().map(|name| format!("${}", name.to_lowercase())));
        formats.extend(VARIABLES.iter().map(|name| format!("%{name}%")));
        formats.extend(OF_NGINX.iter().map(|name| format!("${name} ${name}")));
        assert_eq!(formats.len(), 3 * VARIABLES.len() + OF_NGINX.len());
        let others = [
            DEFAULT_FORMAT,
            "",
            "%%",
            "$$",
            "$ 5 % %",
            "50%",
            "%NOPE%",
            "$nope",
            "%path%",
            "$PATH",
            "%remote_addr%",
            "$status%STATUS%$$x",
        ];
        formats.extend(others.map(str::to_owned));
        formats.extend([8192, 8193].map(|length| "x".repeat(length)));
        for format in formats {
            let fault = format_fault(&format);
            let is_fine = Template::parse(&format).is_ok();
            assert_eq!(fault.is_none(), is_fine, "{format}: {fault:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told_with_what_would() {
        let http = RouteKind::Http;
        for (name, value, kind, told) in [
            ("access-log-enabled", "false", http, ""),
            ("access-log-enabled", "no", http, "write true or false"),
            ("access-log-sample-rate", "0.5", RouteKind::Tcp, ""),
            ("access-log-sample-rate", "2", RouteKind::Udp, "from 0 to 1"),
            ("access-log-mode", "text", http, ""),
            ("access-log-mode", "xml", RouteKind::Grpc, "json or text"),
            ("access-log-format", "%STATUS%", http, ""),
            ("access-log-format", "%NOPE%", http, "%NOPE is no variable"),
            ("access-log-path", "/etc/passwd", http, "is ignored"),
            ("access-log-rate", "1", http, "is not known"),
            ("tracing-sample-ratio", "0.1", RouteKind::Grpc, ""),
            ("tracing-sample-ratio", "some", http, "from 0 to 1"),
            ("tracing-sample-ratio", "0.1", RouteKind::Tls, "no effect"),
            ("something-else", "x", http, ""),
        ] {
            let mut notes = Notes::new("HTTPRoute shop/r".to_owned());
            let annotations = [(format!("gateway.nantian.dev/{name}"), value.to_owned())].into();
            judge(Some(&annotations), kind, &mut notes);
            match &notes.warnings[..] {
                [] => assert!(told.is_empty(), "{name}: {value}"),
                [warning] => {
                    assert!(!told.is_empty() && warning.contains(told), "{warning}");
                    let begin = format!("annotation gateway.nantian.dev/{name}: ");
                    assert!(warning.starts_with(&begin), "{warning}");
                }
                several => panic!("{several:?}"),
            }
        }
    }
}
