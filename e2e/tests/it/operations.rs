//! Pages under `docs/operations`: their commands are run as they stand there, at free ports.
//!
//! What runs and comes to an end is given to `bash`; what serves is started with the words of the page.
//! Ports, folders and programs are exchanged for those of the test, and nothing else.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use e2e::admin::Admin;
use e2e::api_server::ApiServer;
use e2e::chart::root;
use e2e::gateway::{START_LIMIT, Standalone, free_address};
use e2e::ports::Ports;
use e2e::process::{DATA_PLANE, Process, SHIM};
use e2e::{Scenario, manifest};
use serde_json::Value;

use crate::cluster::LIMIT;
use crate::pages::{blocks, copy_quickstart, exchange};
use crate::support::CONTROLLER;

/// Ports of the quick start and of the backends behind it.
const WRITTEN: [u16; 4] = [8080, 8443, 3001, 3002];
/// Between two questions whose answer is awaited.
const PAUSE: Duration = Duration::from_millis(10);

/// What is written on a page, and what stands for it here.
type Exchanged<'a> = &'a [(&'a str, String)];

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs/operations").join(name)).unwrap()
}

/// The block of that language that holds `part`.
fn block<'a>(page: &'a str, language: &str, part: &str) -> &'a str {
    let found = blocks(page).find(|(name, block)| *name == language && block.contains(part));
    found.expect("the page has such a block").1
}

/// The words behind the program's name; lines that go on are one command.
fn arguments(command: &str, program: &str, exchanged: Exchanged<'_>) -> Vec<String> {
    let mut words = command.split_whitespace().filter(|word| *word != "\\");
    let first = words.next().unwrap_or_default();
    assert!(first.ends_with(program), "{command}");
    words.map(|word| exchange(word, exchanged)).collect()
}

/// What a command prints that ends well.
fn printed(command: &str, folder: &Path) -> String {
    let mut bash = Command::new("bash");
    let done = bash.args(["-euc", command]).current_dir(folder);
    let done = done.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// True where `all` has each member of `expected`, which may have fewer.
fn holds(all: &Value, expected: &str) -> bool {
    let expected: Value = serde_json::from_str(&format!("{{{expected}}}")).unwrap();
    let mut members = expected.as_object().unwrap().iter();
    members.all(|(name, value)| all[name] == *value)
}

#[tokio::test]
async fn two_processes_are_joined_by_the_commands_of_their_page() {
    let page = page("two-processes.md");
    let ports = Ports::for_written(&WRITTEN).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let quickstart = folder.path().join("quickstart");
    fs::create_dir(&quickstart).unwrap();
    copy_quickstart(&quickstart, &ports, &WRITTEN);
    let (grpc, control_plane, data_plane) = (free_address(), free_address(), free_address());
    let exchanged = [
        (
            "target/mtls",
            folder.path().join("target/mtls").display().to_string(),
        ),
        ("examples/quickstart", quickstart.display().to_string()),
        ("127.0.0.1:18080", grpc.to_string()),
        ("127.0.0.1:8081", control_plane.to_string()),
        ("127.0.0.1:19080", data_plane.to_string()),
    ];

    printed(block(&page, "sh", "openssl"), folder.path());
    let mut serve = arguments(
        block(&page, "sh", "nantian-shim serve"),
        "release/nantian-shim",
        &exchanged,
    );
    serve.extend(["--grpc-addr".to_owned(), grpc.to_string()]);
    serve.extend(["--admin-addr".to_owned(), control_plane.to_string()]);
    let shim = Process::start(SHIM, serve).unwrap();
    let settings = exchange(block(&page, "yaml", "xdsTls"), &exchanged);
    fs::write(folder.path().join("target/mtls/dataplane.yaml"), settings).unwrap();
    let command = block(&page, "sh", "release/nantian-dataplane");
    let command = arguments(command, "release/nantian-dataplane", &exchanged);
    let bound = data_plane.to_string();
    let environment = [("NANTIAN_GW_ADMIN_ADDR", bound.as_ref())];
    let process = Process::start_in(DATA_PLANE, command, &environment).unwrap();

    let end = Instant::now() + START_LIMIT;
    while !Admin(data_plane).is_ready().await {
        let said = || format!("{}{}", shim.said(), process.said());
        assert!(Instant::now() < end, "{}", said());
        tokio::time::sleep(PAUSE).await;
    }
    let mut asked: Vec<(Value, &str)> = Vec::new();
    for line in block(&page, "sh", "xds/status").lines() {
        let (command, shown) = line.split_once('#').unwrap();
        let answer = printed(&exchange(command, &exchanged), folder.path());
        asked.push((serde_json::from_str(&answer).unwrap(), shown.trim()));
    }
    let [(status, shown), (clients, of_clients)] = asked.as_slice() else {
        unreachable!("the page asks two things");
    };
    assert!(holds(status, shown), "{status}");
    assert!(of_clients.starts_with("dp-1 "), "{of_clients}");
    assert_eq!(clients[0]["node_id"], "dp-1", "{clients}");
    let version = Admin(control_plane).published_version().await;
    until(START_LIMIT, || async {
        let clients = Admin(control_plane).json("/api/v1/clients").await;
        clients[0]["acked_version"].as_str() == version.as_deref()
    })
    .await;

    // As the page says of the demo's backends, which do not run.
    let answer = http1::get(ports.address(8080), "localhost", "/one").await;
    assert_eq!(answer.unwrap().status, 502);
}

/// Requests to a backend that is not there, until `task` is through.
async fn ask_until<T: Send + 'static>(
    address: SocketAddr,
    task: impl Future<Output = T> + Send + 'static,
) -> T {
    let task = tokio::spawn(task);
    while !task.is_finished() {
        let answer = http1::get(address, "shop.example", "/cart/1?token=t").await;
        assert!(answer.unwrap().status.is_server_error());
    }
    task.await.unwrap()
}

#[tokio::test]
async fn a_live_trace_is_shown_by_the_commands_of_its_page() {
    let page = page("live-trace.md");
    let it = Scenario::new().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut objects = vec![
        manifest::gateway_class("nantian-gw", CONTROLLER),
        manifest::http_gateway("infra/gw", &[("http", 8080)]),
        manifest::route_to("shop/cart", "infra/gw", &["shop.example"], "cart:80"),
    ];
    objects.extend(manifest::service("shop/cart", 80, nobody));
    it.add("all.yaml", objects).unwrap();
    let ports = Ports::for_written(&[8080]).unwrap();
    let gateway = Standalone::start(it.folder(), &ports).await.unwrap();
    let admin = gateway.data_plane.0;
    let settings = it.folder().join("settings.txt");
    // Of these only the admin API's address counts.
    let text = format!(
        "nodeId: a\ncontrolPlaneAddr: http://{admin}\nxdsTls: {{enabled: false}}\nadminAddr: {admin}\n"
    );
    fs::write(&settings, text).unwrap();
    let exchanged = [
        (
            "/etc/nantian-gw/config.yaml",
            settings.display().to_string(),
        ),
        ("127.0.0.1:19080", admin.to_string()),
    ];

    let command = block(&page, "sh", "nantian-dataplane trace");
    let command = arguments(command, DATA_PLANE, &exchanged);
    let ended = ask_until(ports.address(8080), Process::run(DATA_PLANE, command)).await;
    let ended = ended.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // The page's first line and ours have the same request; its steps come in the same order.
    let shown = block(&page, "text", "accepted");
    let request = "GET shop.example/cart/1?token=***  5";
    for text in [shown, &ended.stdout] {
        let first = text.lines().next().unwrap();
        assert!(first.contains(request), "{first}");
        assert!(first.ends_with("  shop/cart"), "{first}");
        let mut rest = text;
        for step in [
            "accepted       from ",
            "routed         to rule 0 of ",
            "filtered",
            "backend chosen shop/cart:80",
            "sent           to ",
            "failed         ",
            "ended          5",
        ] {
            let at = rest
                .find(step)
                .unwrap_or_else(|| unreachable!("{step}: {text}"));
            rest = &rest[at..];
        }
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(" requests"), "{last}");
    }
    assert!(ended.stdout.ends_with("20 requests\n"), "{}", ended.stdout);

    let command = exchange(block(&page, "sh", "curl"), &exchanged);
    let folder = it.folder().to_owned();
    let asked = async move {
        let asked = tokio::task::spawn_blocking(move || printed(&command, &folder));
        asked.await.unwrap()
    };
    let answer = ask_until(ports.address(8080), asked).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["ended_by"], "count", "{answer}");
    assert_eq!(answer["requests"].as_array().unwrap().len(), 5);
    assert_eq!(answer["requests"][0]["steps"][0]["step"], "accepted");
}

/// A Gateway with a route whose backend is missing.
const IN_THE_CLUSTER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  gatewayClassName: nantian-gw
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: default}
spec:
  parentRefs: [{name: shop}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
";

#[tokio::test]
async fn an_api_server_is_followed_by_the_commands_of_its_page() {
    let Some(server) = ApiServer::start() else {
        return;
    };
    let page = page("kubernetes.md");
    let folder = tempfile::tempdir().unwrap();
    let (grpc, admin) = (free_address(), free_address());
    let settings = folder.path().join("shim.yaml");
    let text = block(&page, "yaml", "# shim.yaml").replace(":18080", &grpc.to_string());
    fs::write(&settings, format!("{text}mesh: {{enabled: true}}\n")).unwrap();
    let first = block(&page, "sh", "nantian-shim serve");
    let (prepared, serve) = first.split_at(first.find("nantian-shim serve").unwrap());

    server.shell(prepared).unwrap();
    server.apply(IN_THE_CLUSTER).unwrap();
    let exchanged = [("shim.yaml", settings.display().to_string())];
    let mut serve = arguments(serve, SHIM, &exchanged);
    serve.extend(["--admin-addr".to_owned(), admin.to_string()]);
    let environment = [("KUBECONFIG", server.kubeconfig().as_os_str())];
    let shim = Process::start_in(SHIM, serve, &environment).unwrap();
    // Without a data plane the Service keeps its own endpoints; the mesh's tests of the conformance
    // suite see the others.
    for (commands, parts) in [
        (block(&page, "sh", "mesh/rbac"), ["/cart", "Endpoints:"]),
        (
            block(&page, "sh", "get gateway,httproute"),
            ["nobody", "ResolvedRefs"],
        ),
    ] {
        let end = Instant::now() + LIMIT;
        loop {
            let printed = server.shell(commands).unwrap();
            if parts.iter().all(|part| printed.contains(part)) {
                break;
            }
            assert!(Instant::now() < end, "{printed}\n{}", shim.said());
            tokio::time::sleep(PAUSE).await;
        }
    }
}
