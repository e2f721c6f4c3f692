//! Where each limit of decoding stands: the last value that is taken and the first that is not.
//!
//! A row is a snapshot in text form with `$` for the value. `refusals.rs` tells how a refusal reads;
//! here only its place counts, so that a limit cannot move by one unnoticed.

use ir::decode;

use crate::text;

/// Fills a value into a snapshot and tells the places of its faults.
fn faults(template: &str, value: &str) -> Vec<String> {
    let text = format!("id: \"v1\"\n{}", template.replace('$', value));
    match decode::snapshot(text::snapshot(&text)) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.iter().map(|fault| fault.path.clone()).collect(),
    }
}

fn check(template: &str, rows: &[(&str, &str)], path: &str) {
    for (taken, refused) in rows {
        assert_eq!(faults(template, taken), [""; 0], "{template} with {taken}");
        assert_eq!(
            faults(template, refused),
            [path],
            "{template} with {refused}"
        );
    }
}

/// An HTTP route with this in its only rule.
fn rule(content: &str) -> String {
    format!(r#"http_routes {{ name: "r" namespace: "a" rules {{ {content} }} }}"#)
}

/// An HTTP route whose only filter is of this kind, with one number in its settings.
fn filter(kind: &str, field: &str) -> String {
    let field = format!(r#"fields {{ key: "{field}" value {{ number_value: $ }} }}"#);
    rule(&format!(
        r#"filters {{ type: "{kind}" config {{ {field} }} }}"#
    ))
}

/// A cluster with this in it.
fn cluster(content: &str) -> String {
    format!(r#"backends {{ name: "b:80" namespace: "a" protocol: "HTTP" {content} }}"#)
}

#[test]
fn numbers_of_snapshots_and_listeners() {
    check(
        "generated_at { seconds: $ }",
        &[("253402300799", "253402300800")],
        "generated_at",
    );
    check(
        "generated_at { nanos: $ }",
        &[("999999999", "1000000000"), ("0", "-1")],
        "generated_at",
    );
    check(
        r#"listeners { name: "a/gw/l" port: $ protocol: LISTENER_TCP }"#,
        &[("1", "0"), ("65535", "65536")],
        "port",
    );
}

#[test]
fn numbers_of_rules() {
    check(
        &rule(r#"backend_refs { name: "b" port: 80 weight: $ }"#),
        &[("0", "1000001"), ("1000000", "1000001")],
        "rules[0].backend_refs[0].weight",
    );
    check(
        &rule("timeouts { request { seconds: $ } }"),
        &[("316224000", "316224001"), ("0", "-1")],
        "rules[0].timeouts.request",
    );
    check(
        &rule("timeouts { request { nanos: $ } }"),
        &[("999999999", "1000000000"), ("0", "-1")],
        "rules[0].timeouts.request",
    );
    check(
        &rule("retry { codes: $ }"),
        &[("400", "399"), ("599", "600")],
        "rules[0].retry.codes[0]",
    );
}

#[test]
fn numbers_of_filters() {
    check(
        &filter("RequestRedirect", "port"),
        &[("1", "0"), ("65535", "65536")],
        "rules[0].filters[0].config.port",
    );
    check(
        &filter("CORS", "maxAge"),
        &[("0", "-1"), ("2147483647", "2147483648")],
        "rules[0].filters[0].config.maxAge",
    );
    let response = rule(
        r#"filters { type: "ExtensionRef" config {
            fields { key: "resolved" value { bool_value: true } }
            fields { key: "extensionType" value { string_value: "DirectResponse" } }
            fields { key: "directResponse" value { struct_value {
                fields { key: "statusCode" value { number_value: $ } }
            } } }
        } }"#,
    );
    check(
        &response,
        &[("200", "199"), ("599", "600")],
        "rules[0].filters[0].config.directResponse.statusCode",
    );
    let mirror = rule(
        r#"filters { type: "RequestMirror" config {
            fields { key: "backendRef" value { struct_value {
                fields { key: "name" value { string_value: "m" } }
            } } }
            fields { key: "fraction" value { struct_value {
                fields { key: "numerator" value { number_value: $ } }
                fields { key: "denominator" value { number_value: 7 } }
            } } }
        } }"#,
    );
    check(
        &mirror,
        &[("7", "8")],
        "rules[0].filters[0].config.fraction",
    );
}

#[test]
fn numbers_of_clusters() {
    check(
        &cluster(r#"endpoints { address: "10.0.0.1" port: 80 weight: $ }"#),
        &[("0", "1000001"), ("1000000", "1000001")],
        "endpoints[0].weight",
    );
    check(
        &cluster("token_policy { burst: $ }"),
        &[("0", "-0.5"), ("1000000", "1000000.5")],
        "token_policy.burst",
    );
    let plugin = r#"wasm_plugin { name: "w" namespace: "a" source_url: "https://example.com/w" sandbox { max_execution_time_ms: $ } }"#;
    check(
        &cluster(plugin),
        &[("600000", "600001")],
        "wasm_plugin.sandbox.max_execution_time_ms",
    );
    let listed = r#"wasm_plugins { name: "w" namespace: "a" wasm_bytes: "x" $ }"#;
    for (taken, refused, path) in [
        ("priority: -1000000", "priority: -1000001", "priority"),
        ("priority: 1000000", "priority: 1000001", "priority"),
        (
            "sandbox { max_memory_bytes: 4294967296 }",
            "sandbox { max_memory_bytes: 4294967297 }",
            "sandbox.max_memory_bytes",
        ),
        (
            "sandbox { max_module_bytes: 52428800 }",
            "sandbox { max_module_bytes: 52428801 }",
            "sandbox.max_module_bytes",
        ),
    ] {
        check(listed, &[(taken, refused)], path);
    }
    let small = r#"wasm_plugins { name: "w" namespace: "a" wasm_bytes: "$" sandbox { max_module_bytes: 1 } }"#;
    check(small, &[("x", "xx")], "wasm_bytes");
    for (taken, refused) in [("10.0.0.0/32", "10.0.0.0/33"), ("::/128", "::/129")] {
        check(
            &cluster(r#"security_policy { ip { deny_cidrs: "$" } }"#),
            &[
                (taken, refused),
                (taken, "example.com/8"),
                (taken, "10.0.0.0/256"),
            ],
            "security_policy.ip.deny_cidrs[0]",
        );
    }
}

#[test]
fn lengths_of_names() {
    let name = |bytes: usize| "x".repeat(bytes);
    for field in ["root_id", "vm_id"] {
        let plugin =
            format!(r#"wasm_plugins {{ name: "w" namespace: "a" wasm_bytes: "x" {field}: "$" }}"#);
        check(&plugin, &[(&name(256), &name(257))], field);
    }
    let named = |count: usize| {
        let names = (0..count).map(|n| format!(r#"wasm_plugins: "a/{n}""#));
        names.collect::<Vec<_>>().join(" ")
    };
    // Sixteen may be named; that they are not there is another fault.
    assert_eq!(faults(&cluster("$"), &named(16)).len(), 16);
    assert_eq!(faults(&cluster("$"), &named(17)), ["wasm_plugins"]);
    check(
        &rule(r#"matches { method: "$" }"#),
        &[(&name(256), &name(257))],
        "rules[0].matches[0].method",
    );
    check(
        &rule(r#"matches { headers { name: "$" value: "1" } }"#),
        &[(&name(256), &name(257))],
        "rules[0].matches[0].headers[0].name",
    );
    check(
        &rule(r#"matches { path: "$" path_type: "RegularExpression" }"#),
        &[(&name(4096), &name(4097))],
        "rules[0].matches[0].path",
    );
    let labels = |last: usize| format!("{0}.{0}.{0}.{1}", name(63), name(last));
    let host = r#"http_routes { name: "r" namespace: "a" hostnames: "$" }"#;
    check(
        host,
        &[(&name(63), &name(64)), (&labels(61), &labels(62))],
        "hostnames[0]",
    );
}
