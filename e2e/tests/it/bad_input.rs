//! What is wrong is named by file, object and field, and the rest keeps serving.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use e2e::gateway::{ControlPlane, DataPlane, START_LIMIT, free_address};
use e2e::ports::Ports;
use e2e::process::{Finished, Process, SHIM};
use e2e::{Scenario, manifest};
use serde_json::json;

use crate::support::{CONTROLLER, EDIT_LIMIT, answers, small_gateway};

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart");
const API: &str = "apiVersion: gateway.networking.k8s.io/v1";

/// One bad file, and what must be said about it in one line.
struct Bad {
    file: &'static str,
    text: String,
    told: &'static [&'static str],
}

fn bad_files() -> Vec<Bad> {
    let mut files = bad_routes();
    files.extend(bad_gateways());
    files
}

fn bad(file: &'static str, text: String, told: &'static [&'static str]) -> Bad {
    Bad { file, text, told }
}

fn bad_routes() -> Vec<Bad> {
    let route = |name: &str, spec: &str| {
        format!("{API}\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let parent = "parentRefs: [{name: web}]";
    let matching = |name, condition: &str| {
        route(
            name,
            &format!("{{{parent}, rules: [{{matches: [{condition}]}}]}}"),
        )
    };
    let lost = "rules: [{backendRefs: [{name: gone, port: 80}]}]";
    vec![
        bad(
            "malformed.yaml",
            format!("{API}\nkind: HTTPRoute\nmetadata: [unclosed\n"),
            &["malformed.yaml"],
        ),
        bad(
            "field.yaml",
            matching("field", "{paths: {value: /}}"),
            &[
                "field.yaml:4: ",
                "HTTPRoute default/field",
                "spec.rules[0].matches[0].paths",
            ],
        ),
        bad(
            "type.yaml",
            route("type", &format!("{{{parent}, hostnames: 7}}")),
            &["type.yaml:4: ", "HTTPRoute default/type", "spec.hostnames"],
        ),
        bad(
            "service.yaml",
            route(
                "service",
                &format!("{{{parent}, hostnames: [service.test], {lost}}}"),
            ),
            &[
                "service.yaml",
                "HTTPRoute default/service",
                "BackendNotFound",
                "spec.rules[0].backendRefs[0]",
                "default/gone",
            ],
        ),
        bad(
            "parent.yaml",
            route("parent", "{parentRefs: [{name: gone}]}"),
            &[
                "parent.yaml",
                "HTTPRoute default/parent",
                "spec.parentRefs[0]",
                "default/gone",
            ],
        ),
        bad(
            "regex.yaml",
            matching(
                "regex",
                "{path: {type: RegularExpression, value: '/((a{1000}){1000}){1000}'}}",
            ),
            &[
                "regex.yaml",
                "HTTPRoute default/regex",
                "spec.rules[0].matches[0].path",
            ],
        ),
    ]
}

fn bad_gateways() -> Vec<Bad> {
    let twin = |name: &str| json!({ "name": name, "protocol": "HTTP", "port": 81 });
    let twins = manifest::gateway("default/twins", vec![twin("a"), twin("b")]);
    let https = json!({
        "name": "tls", "protocol": "HTTPS", "port": 443,
        "tls": { "certificateRefs": [{ "name": "mismatched" }] },
    });
    let mismatched = manifest::gateway("default/refused", vec![https]);
    let authority = Authority::new("e2e");
    let mut identity = authority.server(&["any.test"]);
    identity.key_pem = authority.server(&["other.test"]).key_pem;
    let secret = manifest::certificate("default/mismatched", &identity);
    vec![
        bad(
            "certificate.yaml",
            manifest::file([secret, mismatched]),
            &[
                "certificate.yaml",
                "Gateway default/refused",
                "spec.listeners[0].tls.certificateRefs[0]",
                "Secret default/mismatched",
            ],
        ),
        bad(
            "twins.yaml",
            manifest::file([twins]),
            &[
                "twins.yaml",
                "Gateway default/twins",
                "listener a",
                "Conflicted=True",
            ],
        ),
    ]
}

async fn check(folder: &Path) -> Finished {
    Process::run(SHIM, [Path::new("check"), folder])
        .await
        .unwrap()
}

/// Nothing, or what nobody said.
fn missing(text: &str, bad: &[Bad]) -> Vec<String> {
    let is_told = |bad: &&Bad| {
        text.lines()
            .any(|line| bad.told.iter().all(|part| line.contains(part)))
    };
    let missing = bad.iter().filter(|bad| !is_told(bad));
    missing
        .map(|bad| format!("{}: {:?}", bad.file, bad.told))
        .collect()
}

#[tokio::test]
async fn check_names_every_fault_and_exits_with_1() {
    let it = small_gateway(80).await;
    let finished = check(it.folder()).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let bad = bad_files();
    for bad in &bad {
        it.write(bad.file, &bad.text).unwrap();
        let finished = check(it.folder()).await;
        assert_eq!(finished.code, Some(1), "{}: {finished:?}", bad.file);
    }
    let said = check(it.folder()).await.stdout;
    assert_eq!(missing(&said, &bad), Vec::<String>::new(), "{said}");
}

#[tokio::test]
async fn check_finds_nothing_in_the_quickstart_and_no_folder_that_is_not_there() {
    let finished = check(Path::new(QUICKSTART)).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = check(Path::new("/not/there")).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("/not/there"), "{finished:?}");
}

#[tokio::test]
async fn standalone_names_every_fault_and_serves_the_rest() {
    let it = small_gateway(80).await;
    let bad = bad_files();
    for bad in &bad[..4] {
        it.write(bad.file, &bad.text).unwrap();
    }
    // Some are there at the start, the others come while it serves.
    let it = it.serve(&[80, 81, 443]).await.unwrap();
    let address = it.ports.address(80);
    answers(address, "one").await;
    for bad in &bad[4..] {
        it.scenario.write(bad.file, &bad.text).unwrap();
    }
    until(EDIT_LIMIT, || async {
        missing(&it.gateway.process.stdout(), &bad).is_empty()
    })
    .await;
    answers(address, "one").await;
    let answer = it.get(80, "service.test", "/").await.unwrap();
    assert_eq!(answer.status, 500);

    for bad in &bad {
        std::fs::remove_file(it.scenario.folder().join(bad.file)).unwrap();
    }
    until(EDIT_LIMIT, || async {
        let said = it.gateway.process.stdout();
        said.trim_end().ends_with("nothing is wrong")
    })
    .await;
    answers(address, "one").await;
}

#[tokio::test]
async fn a_port_that_cannot_be_bound_is_named_and_the_rest_keeps_serving() {
    let it = small_gateway(80).await.serve(&[80]).await.unwrap();
    let address = it.ports.address(80);
    answers(address, "one").await;
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let gateway = manifest::http_gateway("default/late", &[("http", port)]);
    it.scenario.add("late.yaml", [gateway]).unwrap();
    until(EDIT_LIMIT, || async {
        let said = it.gateway.process.stdout();
        said.contains("default/late") && said.contains(&format!("cannot bind 0.0.0.0:{port}"))
    })
    .await;
    answers(address, "one").await;

    std::fs::remove_file(it.scenario.folder().join("late.yaml")).unwrap();
    crate::support::send_to(&it.scenario, "two");
    answers(address, "two").await;
}

#[tokio::test]
async fn a_port_that_is_taken_at_the_start_is_served_once_it_is_free() {
    let it = small_gateway(80).await;
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let gateway = manifest::http_gateway("default/late", &[("http", port)]);
    let route = manifest::route_to("default/late", "default/late", &[], "two:80");
    it.add("late.yaml", [gateway, route]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    answers(it.ports.address(80), "one").await;
    until(EDIT_LIMIT, || async {
        let told = it.told("Gateway", "default/late").await;
        let cannot = format!("cannot bind 0.0.0.0:{port}");
        told.iter().any(|line| line.contains(&cannot))
    })
    .await;

    drop(taken);
    answers(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "two").await;
    answers(it.ports.address(80), "one").await;
}

#[tokio::test]
async fn an_access_log_that_cannot_be_written_stops_no_traffic() {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let it = small_gateway(port).await;
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let data_plane = DataPlane::start(control_plane.grpc, None, |bootstrap| {
        bootstrap["accessLog"] = json!({ "path": "/dev/full", "sampleRate": 1.0 });
    })
    .await
    .unwrap();
    let mut client = Http1Client::connect(address).await.unwrap();
    for _ in 0..500 {
        let answer = client.get("any.test", "/").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    // The loss is counted.
    until(START_LIMIT, || async {
        let metrics = data_plane.admin.text("/metrics").await;
        metrics.lines().any(|line| {
            let value = line
                .rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok());
            line.contains("access_log_writer_dropped_lines_total ") && value > Some(0.0)
        })
    })
    .await;
    assert_eq!(data_plane.admin.status("/readyz").await, 200);
}

/// Texts that only the key of a certificate has: the lines of its PEM, and its bytes in numbers.
fn traces_of(key_pem: &str) -> Vec<String> {
    let lines = key_pem.lines().filter(|line| !line.starts_with("-----"));
    let mut traces: Vec<String> = lines.map(str::to_owned).collect();
    let numbers: Vec<String> = b"-----BEGIN PRIVATE".iter().map(u8::to_string).collect();
    traces.push(numbers.join(", "));
    traces.push("BEGIN PRIVATE KEY".to_owned());
    traces
}

#[tokio::test]
async fn a_private_key_is_seen_nowhere() {
    let port = free_port();
    let mut it = Scenario::new().unwrap();
    it.backend("default/one", 80).await.unwrap();
    it.certificate("default/canary", &["any.test"]).unwrap();
    let https = json!({
        "name": "https", "protocol": "HTTPS", "port": port,
        "tls": { "certificateRefs": [{ "name": "canary" }] },
    });
    let mut broken = manifest::certificate("default/broken", it.identity("default/canary"));
    broken["stringData"]["tls.crt"] = json!("no certificate");
    it.add(
        "gateway.yaml",
        [
            manifest::gateway_class("nantian-gw", CONTROLLER),
            manifest::gateway("default/web", vec![https]),
            manifest::gateway(
                "default/refused",
                vec![json!({
                    "name": "https", "protocol": "HTTPS", "port": 444,
                    "tls": { "certificateRefs": [{ "name": "broken" }] },
                })],
            ),
            manifest::route_to("default/all", "default/web", &[], "one:80"),
            broken,
        ],
    )
    .unwrap();
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &["--log", "debug"])
        .await
        .unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut data_plane = DataPlane::start(control_plane.grpc, None, |bootstrap| {
        bootstrap["log"] = json!({ "level": "debug" });
        bootstrap["accessLog"] = json!({ "path": log.path(), "sampleRate": 1.0 });
    })
    .await
    .unwrap();
    let stream = TlsClient::trusting(it.authority())
        .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "any.test")
        .await
        .unwrap();
    let answer = Http1Client::over(stream)
        .get("any.test", "/")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);

    let mut seen = Vec::new();
    for path in [
        "/metrics",
        "/api/v1/config/snapshot",
        "/api/v1/xds/status",
        "/v1/snapshot",
        "/v1/summary",
        "/v1/listeners",
    ] {
        seen.push((path, data_plane.admin.text(path).await));
    }
    for path in [
        "/metrics",
        "/api/v1/config/snapshot",
        "/api/v1/status",
        "/v1/snapshot",
    ] {
        seen.push((path, control_plane.admin.text(path).await));
    }
    assert!(seen[1].1.contains("default/canary"), "{}", seen[1].1);
    data_plane.process.terminate().unwrap();
    let finished = data_plane.process.ended().await.unwrap();
    assert!(finished.stdout.len() + finished.stderr.len() > 100);
    seen.push(("data plane's output", finished.stdout + &finished.stderr));
    seen.push(("control plane's output", control_plane.process.said()));
    seen.push(("access log", std::fs::read_to_string(log.path()).unwrap()));
    assert!(
        seen.last()
            .is_some_and(|(_, text)| text.contains("any.test"))
    );
    let traces = traces_of(&it.identity("default/canary").key_pem);
    for (place, text) in seen {
        for trace in &traces {
            assert!(!text.contains(trace), "{place} holds {trace}");
        }
    }
}

#[tokio::test]
async fn standalone_that_cannot_open_its_admin_port_says_so() {
    let it = small_gateway(80).await;
    let ports = Ports::for_written(&[80]).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--admin-addr", "--control-admin-addr"] {
        let mut arguments = vec!["standalone".to_owned(), it.folder().display().to_string()];
        arguments.extend(ports.flags());
        let free = free_address().to_string();
        for known in ["--admin-addr", "--control-admin-addr"] {
            let address = if known == flag { &address } else { &free };
            arguments.extend([known.to_owned(), address.clone()]);
        }
        let finished = Process::run(SHIM, arguments).await.unwrap();
        assert_eq!(finished.code, Some(1), "{flag}: {finished:?}");
        assert!(finished.stderr.contains(&address), "{flag}: {finished:?}");
    }
}
