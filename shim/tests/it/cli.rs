//! The binary: exit codes, messages, and an end on SIGTERM.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart");

fn shim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nantian-shim"));
    command.args(arguments).env_remove("NANTIAN_GW_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    shim(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_finds_nothing_wrong_with_the_quickstart() {
    let output = run(&["check", QUICKSTART]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("no problems"));
}

#[test]
fn explain_says_where_a_request_would_go_without_starting_anything() {
    let output = run(&["explain", QUICKSTART, "http://localhost:8080/two/x"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for told in [
        "listener     default/quickstart/http",
        "route        HTTPRoute default/by-path, rule 1, match 0: path {\"prefix\":\"/two\"}",
        "backend      100 % default/echo-2:80",
        "  endpoint   127.0.0.1:3002 well",
        "its prefix is longer",
    ] {
        assert!(printed.contains(told), "{told}: {printed}");
    }
    let asked = "https://header.example.test/";
    let header = "x-version: last";
    let output = run(&[
        "explain", QUICKSTART, asked, "-H", header, "--output", "json",
    ]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["certificate"]["secret"], "default/example-test-tls");
    assert_eq!(told["route"]["route"], "default/by-header");
    let why = "host and path match; header x-version is missing or has another value";
    assert_eq!(told["others"][0]["why"], why, "{told:#}");
}

#[test]
fn check_names_what_is_wrong_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost, namespace: default}
spec:
  parentRefs: [{name: nowhere}]
  rules: [{matches: [{path: {type: RegularExpression, value: '('}}]}]
";
    std::fs::write(folder.path().join("route.yaml"), route).unwrap();
    let output = run(&["check", folder.path().to_str().unwrap()]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("route.yaml") && printed.contains("default/lost"),
        "{printed}"
    );
    let output = run(&["check", folder.path().to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["objects"], 1, "{told:#}");
    let conditions = told["conditions"].as_array().unwrap().iter();
    let violations = told["violations"].as_array().unwrap().iter();
    let problems = conditions.clone().count() + violations.clone().count();
    assert_eq!(told["problems"], problems, "{told:#}");
    for part in ["faults", "warnings", "skipped"] {
        assert_eq!(told[part], serde_json::json!([]), "{part}");
    }
    for told in conditions.clone() {
        assert_eq!(told["kind"], "HTTPRoute");
        assert_eq!(told["key"], "default/lost");
        let file = told["file"].as_str().unwrap();
        assert!(file.ends_with("route.yaml"), "{file}");
        assert_eq!(told["problem"], true);
    }
    let accepted = conditions.clone().find(|told| told["type"] == "Accepted");
    let accepted = accepted.unwrap();
    assert_eq!(accepted["status"], "False");
    assert_eq!(accepted["part"], "parent default/nowhere");
}

#[test]
fn a_report_in_json_has_all_fields_and_the_same_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: [\n";
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    let output = run(&["check", folder.path().to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fault = &told["faults"][0];
    assert!(fault["line"].as_u64().unwrap() > 0, "{told:#}");
    assert!(!fault["message"].as_str().unwrap().is_empty(), "{told:#}");

    let output = run(&["check", QUICKSTART, "--all", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["problems"], 0, "{told:#}");
    let conditions = told["conditions"].as_array().unwrap();
    assert!(!conditions.is_empty());
    assert!(conditions.iter().all(|told| told["problem"] == false));
}

#[test]
fn wrong_usage_exits_with_2_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.yaml");
    std::fs::write(&settings, "grpcRuntime: {snapshotAckTimout: 1s}").unwrap();
    let settings = settings.to_str().unwrap();
    let rows: [(&[&str], &str); 9] = [
        (&["explain", QUICKSTART, "http://localhost:99/"], "port 99"),
        (&["serve"], "DIR"),
        (&["serve", "--source", "files"], "DIR"),
        (&["check"], "DIR"),
        (&["chek", "."], "check"),
        (&["check", "/nowhere/at/all"], "/nowhere/at/all"),
        (
            &["serve", QUICKSTART, "--config", settings],
            "snapshotAckTimeout",
        ),
        (
            &["serve", QUICKSTART, "--admin-addr", "0.0.0.0:0"],
            "bearerToken",
        ),
        (&["serve", QUICKSTART, "--tls-cert", "a"], "--tls-key"),
    ];
    for (arguments, expected) in rows {
        let output = run(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn what_cannot_start_for_reasons_outside_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", QUICKSTART, "--grpc-addr", &address]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("grpcAddr"), "{message}");
    assert!(message.contains(&address), "{message}");
}

#[test]
fn help_and_version_explain_themselves() {
    let help = text(&run(&["--help"]).stdout);
    for command in ["serve", "standalone", "check"] {
        assert!(help.contains(command), "{help}");
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn serve_ends_on_sigterm_with_0() {
    assert!(Path::new(QUICKSTART).is_dir());
    let any = "127.0.0.1:0";
    let mut child = shim(&["serve", QUICKSTART, "--grpc-addr", any, "--admin-addr", any])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let published = log.by_ref().find(|line| {
        let line = line.as_ref().unwrap();
        line.contains("snapshot published")
    });
    assert!(published.is_some(), "it ended before it served");
    let kill = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    // The rest of the log must be read, or a full pipe would keep the process from ending.
    let _rest = log.count();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
