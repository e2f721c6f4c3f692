//! A corpus of bad objects in a real API server, one after the other.
//!
//! Each is refused by the API server, or told in conditions what to change (in those of an object
//! that names it, where it has none of its own); meanwhile a host beside it answers every request,
//! and what mends it counts within a second. The corpus is `tests/data/bad-objects`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::gateway::{ControlPlane, DataPlane, free_address};
use e2e::kube_api::{KubeApi, Name, Proxy};
use serde_json::Value;

/// How long a condition may take to appear.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a repair may take to be told.
const HEALED: Duration = Duration::from_secs(1);
/// The same on a machine that does other things as well; it is tried again then, and must be quick.
const HEALED_AT_LAST: Duration = Duration::from_secs(10);
const TRIES: usize = 4;

const CORPUS: [&str; 3] = [
    include_str!("../data/bad-objects/gateways.txt"),
    include_str!("../data/bad-objects/routes.txt"),
    include_str!("../data/bad-objects/policies.txt"),
];

/// One bad object.
struct Case<'a> {
    kind: &'a str,
    name: &'a str,
    /// Kind and name of the object that is told, where that is another one.
    told: Option<(&'a str, &'a str)>,
    reason: &'a str,
    message: &'a str,
    bad: &'a str,
    repaired: Option<&'a str>,
}

fn cases() -> Vec<Case<'static>> {
    let sections = CORPUS.iter().flat_map(|text| text.split("\n=== ").skip(1));
    sections.map(case).collect()
}

fn case(section: &'static str) -> Case<'static> {
    let (head, body) = section.split_once('\n').unwrap();
    let mut parts = head.split(" | ").map(str::trim);
    let title = parts.next().unwrap();
    let (title, told) = match title.split_once(" @ ") {
        Some((title, told)) => (title, told.split_once(' ')),
        None => (title, None),
    };
    let (kind, name) = title.split_once(' ').unwrap();
    let (bad, repaired) = match body.split_once("--- repaired\n") {
        Some((bad, repaired)) => (bad, Some(repaired)),
        None => (body, None),
    };
    Case {
        kind,
        name,
        told,
        reason: parts.next().unwrap(),
        message: parts.next().unwrap_or_default(),
        bad,
        repaired,
    }
}

/// The words that stand for others in the corpus.
struct Words {
    words: Vec<(&'static str, String)>,
    /// `AUTHORITY`, in quotes.
    authority: String,
}

impl Words {
    fn put_into(&self, text: &str) -> String {
        let mut text = text.replace("PORT", &free_port().to_string());
        for (word, meaning) in &self.words {
            text = text.replace(word, meaning);
        }
        text
    }

    /// The manifest of an object; its first line may be more metadata.
    fn manifest(&self, name: Name<'_>, body: &str) -> String {
        let (metadata, body) = match body.strip_prefix("metadata: ") {
            Some(rest) => rest.split_once('\n').unwrap(),
            None => ("", body),
        };
        let comma = if metadata.is_empty() { "" } else { ", " };
        let manifest = name.manifest(&format!("{comma}{metadata}"), body).unwrap();
        match (name.kind, manifest.split_once("AUTHORITY")) {
            ("ConfigMap", Some((before, after))) => format!("{before}{}{after}", self.authority),
            // What is random in them may hold any word.
            ("Secret" | "ConfigMap", _) => manifest,
            _ => self.put_into(&manifest),
        }
    }
}

/// Every condition in a status, wherever it stands.
fn conditions(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().flat_map(conditions).collect(),
        Value::Object(map) if map.contains_key("lastTransitionTime") => vec![value],
        Value::Object(map) => map.values().flat_map(conditions).collect(),
        _ => Vec::new(),
    }
}

fn is_told(object: &Value, case: &Case<'_>, words: &Words) -> bool {
    let message = words.put_into(case.message);
    conditions(&object["status"]).into_iter().any(|condition| {
        let said = condition["message"].as_str().unwrap_or_default();
        condition["reason"] == case.reason && said.contains(&message)
    })
}

/// True when nothing in the status is wrong any more, and all of it is about this generation.
fn is_healed(object: &Value, case: &Case<'_>) -> bool {
    let all = conditions(&object["status"]);
    let generation = &object["metadata"]["generation"];
    let is_new = |it: &Value| it["observedGeneration"] == *generation;
    all.iter().any(|it| is_new(it)) && all.iter().all(|it| it["reason"] != case.reason)
}

/// Asks a host over and over; what is not a redirect is a failure.
struct Witness {
    failures: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    fn start(port: u16) -> Self {
        let (failures, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (failed, asked, ended) = (failures.clone(), requests.clone(), stop.clone());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let answer = http1::get(address, "good.test", "/").await;
                let is_good = answer.is_ok_and(|answer| answer.status == 302);
                failed.fetch_add(u64::from(!is_good), Ordering::Relaxed);
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self {
            failures,
            requests,
            stop,
            task,
        }
    }

    async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.requests), count(&self.failures))
    }
}

/// What the objects of the corpus stand beside.
async fn world(api: &mut KubeApi, namespace: &str, words: &Words, authority: &Authority) {
    let identity = authority.server(&["*.test"]);
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    let good = format!(
        "type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}",
        indented(&identity.chain_pem),
        indented(&identity.key_pem)
    );
    let ca = format!("data:\n  ca.crt: |\n    {}", indented(authority.pem()));
    let http = "spec: {gatewayClassName: CLASS, HERE, allowedListeners: {namespaces: {from: All}}, \
                listeners: [{name: http, port: GOOD, protocol: HTTP}]}";
    let named = "spec: {gatewayClassName: CLASS, HERE, listeners: [{name: http, port: PORT, \
                 protocol: HTTP, hostname: '*.named.test'}]}";
    let closed = "spec: {gatewayClassName: CLASS, HERE, listeners: [{name: http, port: PORT, \
                  protocol: HTTP}]}";
    let (tls, tcp, udp) = (free_port(), free_port(), free_port());
    let streams = format!(
        "spec: {{gatewayClassName: CLASS, HERE, listeners: [{{name: tcp, port: {tcp}, protocol: \
         TCP}}, {{name: udp, port: {udp}, protocol: UDP}}, {{name: tls, port: {tls}, protocol: \
         TLS, tls: {{mode: Passthrough}}}}]}}"
    );
    let route = "spec: {parentRefs: [{name: gw}], hostnames: [good.test], rules: [{matches: \
                 [{path: {value: /web}}], backendRefs: [{name: web, port: 80}]}, {filters: \
                 [{type: RequestRedirect, requestRedirect: {hostname: a.test, statusCode: 302}}]}]}";
    let imports = "spec: {parentRefs: [{name: gw}], hostnames: [imports.test], rules: [{backendRefs: \
                   [{group: multicluster.x-k8s.io, kind: ServiceImport, name: imported, port: 80}, \
                   {name: trusted, port: 443}]}]}";
    for (kind, name, body) in [
        ("Secret", "good", good.as_str()),
        (
            "Secret",
            "junk",
            "type: kubernetes.io/tls\nstringData: {tls.crt: junk, tls.key: junk}",
        ),
        ("Secret", "opaque", "stringData: {a: b}"),
        ("ConfigMap", "ca", &ca),
        ("ConfigMap", "no-ca", "data: {a: b}"),
        ("Service", "web", "spec: {ports: [{port: 80}]}"),
        (
            "BackendTLSPolicy",
            "trusts",
            "spec: {targetRefs: [{group: '', kind: Service, name: trusted}], validation: {hostname: \
             a.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: trusted}]}}",
        ),
        ("Service", "trusted", "spec: {ports: [{port: 443}]}"),
        ("Gateway", "gw", http),
        ("Gateway", "named", named),
        ("Gateway", "closed", closed),
        ("Gateway", "streams", &streams),
        ("HTTPRoute", "good", route),
        ("HTTPRoute", "imports", imports),
    ] {
        let name = Name {
            kind,
            namespace,
            name,
        };
        api.apply(name, words.manifest(name, body)).await.unwrap();
    }
}

/// Waits until the object is as claimed; how long that took, or what it was instead.
async fn wait(
    api: &mut KubeApi,
    name: Name<'_>,
    limit: Duration,
    claim: impl Fn(&Value) -> bool,
) -> Result<Duration, Value> {
    let started = Instant::now();
    loop {
        let object = api.object(name).await.unwrap_or_default();
        if claim(&object) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > limit {
            return Err(object["status"].clone());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Puts one bad object through its life; the faults found, and how long its repair took.
async fn judge(
    api: &mut KubeApi,
    namespace: &str,
    case: &Case<'_>,
    words: &Words,
) -> (Vec<String>, Option<Duration>) {
    let title = format!("{} {}", case.kind, case.name);
    let (mut faults, mut healed) = (Vec::new(), None);
    let place = |kind| match kind {
        "GatewayClass" => "",
        _ => namespace,
    };
    let name = Name {
        kind: case.kind,
        namespace: place(case.kind),
        name: case.name,
    };
    let told_at = case.told.map_or(name, |(kind, name)| Name {
        kind,
        namespace: place(kind),
        name,
    });
    let applied = api.apply(name, words.manifest(name, case.bad)).await;
    if case.reason == "refused" {
        match applied {
            Ok(_) => faults.push(format!("{title}: the API server took it")),
            Err(error) if !error.to_string().contains(case.message) => {
                faults.push(format!("{title}: the API server said: {error}"));
            }
            Err(_) => {}
        }
        let _ = api.delete(name).await;
        return (faults, None);
    }
    if let Err(error) = applied {
        faults.push(format!("{title}: the API server refused it: {error}"));
        return (faults, None);
    }
    let told = wait(api, told_at, LIMIT, |object| is_told(object, case, words)).await;
    if let Err(status) = told {
        let wanted = (case.reason, case.message);
        faults.push(format!("{title}: {wanted:?} was never said: {status}"));
    }
    if let Some(repaired) = case.repaired {
        let mended = api.apply(name, words.manifest(name, repaired)).await;
        if let Err(error) = mended {
            faults.push(format!("{title}: the repair was refused: {error}"));
        }
        match wait(api, told_at, HEALED_AT_LAST, |it| is_healed(it, case)).await {
            Ok(took) => healed = Some(took),
            Err(status) => faults.push(format!("{title}: was not healed: {status}")),
        }
    }
    api.delete(name).await.unwrap();
    (faults, healed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_object_is_told_what_to_change_and_harms_nobody() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    crate::kinds::server();
    let namespace = server.namespace("bad").unwrap();
    let settings = tempfile::tempdir().unwrap();
    let settings_file = settings.path().join("shim.yaml");
    let text =
        format!("controllerName: example.net/{namespace}\nleaderElection: {{enabled: false}}\n");
    std::fs::write(&settings_file, text).unwrap();
    let class = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
         metadata: {{name: {namespace}}}\nspec: {{controllerName: example.net/{namespace}}}"
    );
    server.apply(&class).unwrap();
    let good = free_port();
    // Somebody has it, so that no data plane can bind it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = Authority::new("corpus");
    let words = vec![
        ("CLASS", namespace.clone()),
        (
            "HERE",
            "addresses: [{type: IPAddress, value: 127.0.0.1}]".to_owned(),
        ),
        ("GOOD", good.to_string()),
        ("TAKEN", taken.local_addr().unwrap().port().to_string()),
        ("NS", namespace.clone()),
    ];
    let words = Words {
        words,
        authority: Value::from(authority.pem()).to_string(),
    };
    crate::cluster_backends::install_imports(server);
    let proxy = Proxy::start(server).await.unwrap();
    let mut api = proxy.connect().await.unwrap();
    let mut shim = ControlPlane::follow(server.kubeconfig(), &settings_file, free_address())
        .await
        .unwrap();
    let mut data_plane = DataPlane::start(shim.grpc, None, |_| ()).await.unwrap();
    world(&mut api, &namespace, &words, &authority).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, good));
    let end = Instant::now() + LIMIT;
    while !http1::get(address, "good.test", "/")
        .await
        .is_ok_and(|it| it.status == 302)
    {
        assert!(Instant::now() < end, "the good host never answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let witness = Witness::start(good);
    let cases = cases();
    assert!(cases.len() >= 80, "the corpus is missing");
    let (mut faults, mut repairs) = (Vec::new(), Vec::new());
    for case in &cases {
        for attempt in 1..=TRIES {
            let (found, healed) = judge(&mut api, &namespace, case, &words).await;
            let is_slow = healed.is_some_and(|took| took > HEALED);
            if attempt < TRIES && is_slow && found.is_empty() {
                continue;
            }
            faults.extend(found);
            repairs.extend(healed);
            break;
        }
    }
    let (requests, failures) = witness.end().await;
    repairs.sort();
    println!(
        "{} objects, {} repairs: median {:?}, slowest {:?}; {requests} requests beside them",
        cases.len(),
        repairs.len(),
        repairs[repairs.len() / 2],
        repairs.last().unwrap(),
    );
    assert!(shim.process.is_running() && data_plane.process.is_running());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(failures, 0, "of {requests} requests beside the bad objects");
    assert!(
        repairs.last().is_some_and(|slowest| *slowest <= HEALED),
        "again and again a repair took longer: {repairs:?}"
    );
}
