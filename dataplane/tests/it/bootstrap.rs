//! The bootstrap file: what is accepted, what is refused and in which words, and its reference page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dataplane::bootstrap::{Bootstrap, BootstrapError, Origin, keys, reference};
use dataplane_config::Clients;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::{Reason, access_log, log};
use ir::listener::{EscapedSlashes, ForwardedFields, RequestIds, TrustedProxies};
use tempfile::TempDir;

/// The least that loads.
const LEAST: &str = "nodeId: dp-1\ncontrolPlaneAddr: http://cp:18080\nxdsTls: {enabled: false}\n";

/// A file in a folder that lives as long as the value.
struct Written(
    #[expect(dead_code, reason = "kept until the test ends")] TempDir,
    PathBuf,
);

fn written(text: &str) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, text).unwrap();
    Written(folder, path)
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Bootstrap, BootstrapError> {
    let file = written(text);
    Bootstrap::load(Some(&file.1), |name| {
        let found = env.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn load(text: &str) -> Result<Bootstrap, BootstrapError> {
    load_with(text, &[])
}

/// The lines of what is wrong, without the one that names the file.
fn faults(text: &str) -> Vec<String> {
    let Err(error) = load(text) else {
        return Vec::new();
    };
    let text = error.to_string();
    text.lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn the_least_file_gets_every_default() {
    let bootstrap = load(LEAST).unwrap();
    assert_eq!(bootstrap.node_id, "dp-1");
    assert_eq!(bootstrap.xds.address, "http://cp:18080");
    assert_eq!(bootstrap.xds.cluster, "default");
    assert!(bootstrap.xds.tls.is_none());
    assert_eq!(bootstrap.admin.address.to_string(), "127.0.0.1:19080");
    assert_eq!(bootstrap.log.filter, "info");
    let access = bootstrap.access_log.unwrap();
    let path = PathBuf::from("/var/log/nantian-gw/access.log");
    assert_eq!(access.sink, access_log::Sink::File(path));
    assert!((access.sample_rate - 0.5).abs() < f64::EPSILON);
    assert_eq!(bootstrap.http.keepalive_requests_max, Some(1000));
    assert_eq!(bootstrap.http.request_body_bytes_max, Some(10_485_760));
    assert_eq!(bootstrap.connections_max, Some(50_000));
    assert_eq!(bootstrap.listener_connections_max, Some(10_000));
    assert_eq!(bootstrap.drain.min_accept, Duration::from_secs(10));
    assert_eq!(bootstrap.drain.total, Duration::from_secs(60));
    assert!(bootstrap.workers >= 1);
    assert!(bootstrap.without_effect.is_empty());
}

/// Where both tables know a limit, they agree; those that differ are promised to operators.
#[test]
fn defaults_are_those_of_the_request_line() {
    let ours = load(LEAST).unwrap().http;
    let theirs = dataplane_http::Settings {
        keepalive_requests_max: Some(1000),
        connection_age_max: Some(Duration::from_secs(3600)),
        request_body_bytes_max: Some(10 << 20),
        ..dataplane_http::Settings::default()
    };
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    let ours = load(LEAST).unwrap().xds;
    let theirs = dataplane_xds::Settings {
        cluster: "default".to_owned(),
        ..dataplane_xds::Settings::new("http://cp:18080", "dp-1")
    };
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn values_reach_their_settings() {
    let bootstrap = load(&format!(
        "{LEAST}
cluster: blue
adminAddr: localhost:0
log: {{level: 'debug,h2=warn', format: text, nonBlocking: false, includeTarget: true}}
access: {{path: stdout, sampleRate: 1}}
runtime:
  paths: {{escapedSlashes: redirect, mergeSlashes: false}}
  forwarded: {{fields: both, trustedHops: 2, trustedSources: ['10.0.0.0/8', '::1'], clientCertificate: true}}
  requestIds: any
runtimeTuning:
  downstreamReadTimeoutMs: 1000
  upstreamReadTimeoutMs: 0
  httpMaxConnectionAgeMs: 0
  httpKeepaliveRequestLimit: 0
  gracefulDrainPeriodMs: 8000
  httpCapacity: {{workerThreads: 3, upstreamKeepalivePoolSize: 7}}
runtimeProtection:
  httpMaxRequestBodyBytes: 0
  httpMaxRequestHeaderBytes: 8192
  httpGlobalConnectionLimit: 0
  httpListenerConnectionLimit: 12
xdsTransport: {{staleStreamTimeoutMs: 5000}}
"
    ))
    .unwrap();
    assert_eq!(bootstrap.xds.cluster, "blue");
    assert_eq!(bootstrap.admin.address.to_string(), "127.0.0.1:0");
    assert_eq!(bootstrap.log.filter, "debug,h2=warn");
    assert_eq!(bootstrap.log.format, log::Format::Text);
    assert_eq!(bootstrap.log.writing, log::Writing::Direct);
    assert!(bootstrap.log.includes_target);
    assert_eq!(bootstrap.access_log.unwrap().sink, access_log::Sink::Stdout);
    let listeners = &bootstrap.listener_defaults;
    assert_eq!(listeners.escaped_slashes, EscapedSlashes::Redirect);
    assert!(!listeners.merge_slashes);
    let clients = Clients {
        fields: ForwardedFields::Both,
        trusted: TrustedProxies {
            hops: 2,
            sources: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        },
        request_ids: RequestIds::Any,
        certificate_field: true,
    };
    assert_eq!(*listeners.clients, clients);
    let http = &bootstrap.http;
    assert_eq!(http.request_body_idle, Duration::from_secs(1));
    assert_eq!(
        http.response_start_timeout,
        Duration::from_secs(60),
        "0 is the default"
    );
    assert_eq!(http.connection_age_max, None);
    assert_eq!(http.keepalive_requests_max, None);
    assert_eq!(http.request_body_bytes_max, None);
    assert_eq!(http.request_head.head_bytes_max, 8192);
    assert_eq!((bootstrap.workers, http.upstream_idle_max), (3, 7));
    assert_eq!(bootstrap.connections_max, None);
    assert_eq!(bootstrap.listener_connections_max, Some(12));
    assert_eq!(
        bootstrap.drain.min_accept,
        Duration::from_secs(4),
        "half of what there is"
    );
    assert_eq!(bootstrap.drain.total, Duration::from_secs(8));
    assert_eq!(
        bootstrap.xds.timing.stale_stream_timeout,
        Duration::from_secs(5)
    );
}

/// Whatever number a key is set to, something else is in effect than without it.
#[test]
fn every_number_is_read_by_somebody() {
    /// What must be said beside a key of that name for it to matter.
    const COMPANIONS: [(&str, &str); 5] = [
        ("openTelemetry.", "enabled: true, endpoint: 'http://c:4317'"),
        ("downstreamTcpKeepalive.", "enabled: true"),
        (
            "GlobalRateLimitBurst",
            "httpGlobalRateLimitRequestsPerSecond: 10",
        ),
        (
            "ListenerRateLimitBurst",
            "httpListenerRateLimitRequestsPerSecond: 10",
        ),
        (
            "RouteRateLimitBurst",
            "httpRouteRateLimitRequestsPerSecond: 10",
        ),
    ];
    /// What they set is asked for by a function, or by what a file holds that is not there.
    const HIDDEN: [&str; 3] = [
        "runtimeProtection.memoryLimitBytes",
        "sessionPersistence.secretSealsAfterMs",
        "sessionPersistence.formerSecretMs",
    ];
    let in_effect = |section: &str, entries: &[&str]| {
        let entries = entries.iter().filter(|entry| !entry.is_empty());
        let inner = entries.copied().collect::<Vec<_>>().join(", ");
        let nested = section
            .rsplit('.')
            .fold(inner, |inner, name| format!("{name}: {{{inner}}}"));
        let mut bootstrap = load(&format!("{LEAST}{nested}\n")).unwrap();
        // They say what was written, not what it does.
        bootstrap.effective = Vec::new();
        format!("{bootstrap:?}")
    };
    for key in keys::ALL {
        let keys::Kind::Number { min, .. } = key.kind else {
            continue;
        };
        if HIDDEN.contains(&key.name) {
            continue;
        }
        let usual: u64 = key.default.parse().unwrap();
        let other = if usual > min {
            usual - 1
        } else {
            usual.max(min) + 6
        };
        let (section, name) = key.name.rsplit_once('.').unwrap();
        let companion = COMPANIONS.iter().find(|(of, _)| key.name.contains(of));
        let companion = companion.map_or("", |(_, companion)| companion);
        let before = in_effect(section, &[companion]);
        let after = in_effect(section, &[companion, &format!("{name}: {other}")]);
        assert!(before != after, "{}", key.name);
    }
}

#[test]
fn faults_name_the_key_and_what_to_do() {
    let base = "nodeId: n\ncontrolPlaneAddr: http://cp:1\nxdsTls: {enabled: false}\n";
    for (text, expected) in [
        (
            "log: {levl: info}",
            "log.levl: is not a key; did you mean log.level?",
        ),
        (
            "runtimTuning: {}",
            "runtimTuning: is not a key; did you mean runtimeTuning?",
        ),
        (
            "runtimeTuning: {httpMaxRequestBodyBytes: 1}",
            "runtimeTuning.httpMaxRequestBodyBytes: is not a key; did you mean \
             runtimeProtection.httpMaxRequestBodyBytes?",
        ),
        (
            "log: info",
            "log: is a section; write its keys indented below it",
        ),
        (
            "log: {level: {a: b}}",
            "log.level: expected text, found a section",
        ),
        (
            "log: {level: 5}",
            "log.level: expected text; put the value into quotes",
        ),
        (
            "log: {format: xml}",
            "log.format: expected json or text, found \"xml\"",
        ),
        (
            "log: {addSource: 'yes'}",
            "log.addSource: expected true or false, found the text \"yes\"",
        ),
        (
            "adminAddr: '19080'",
            "adminAddr: expected an address as in 127.0.0.1:19080, found \"19080\"",
        ),
        (
            "accessLog: {sampleRate: 1.5}",
            "accessLog.sampleRate: expected a number from 0 to 1, found 1.5",
        ),
        (
            "runtimeTuning: {upstreamReadTimeoutMs: -1}",
            "runtimeTuning.upstreamReadTimeoutMs: expected a whole number that is not negative, found -1",
        ),
        (
            "runtimeTuning: {upstreamReadTimeoutMs: 99999999999}",
            "runtimeTuning.upstreamReadTimeoutMs: expected 1 to 2592000000, or 0 for the default; \
             found 99999999999",
        ),
        (
            "runtimeTuning: {upstreamReadTimeoutMs: 5s}",
            "runtimeTuning.upstreamReadTimeoutMs: expected a whole number, found the text \"5s\"",
        ),
        (
            "runtimeTuning: {drainMinAcceptMs: 70000}",
            "runtimeTuning.drainMinAcceptMs: 70000 ms is longer than \
             runtimeTuning.gracefulDrainPeriodMs (60000 ms)",
        ),
        (
            "xdsTransport: {initialReconnectBackoffMs: 40000}",
            "xdsTransport.initialReconnectBackoffMs: is longer than xdsTransport.maxReconnectBackoffMs",
        ),
        (
            "adminTls: {certPath: /c}",
            "adminTls.keyPath: is missing beside adminTls.certPath",
        ),
        (
            "adminTLS: {keyPath: /k}",
            "adminTls.certPath: is missing beside adminTls.keyPath",
        ),
        (
            "adminAddr: 0.0.0.0:19080",
            "adminAddr: 0.0.0.0:19080 is not loopback and there is no token; set \
             adminAuth.bearerTokenFile or adminAuth.bearerToken, or listen on 127.0.0.1:19080",
        ),
        (
            "adminAuth: {bearerToken: a, bearerTokenFile: /b}",
            "adminAuth.bearerToken: adminAuth.bearerTokenFile is set too, keep one of them",
        ),
        (
            "accessLog: {path: /a}\naccess: {path: /b}",
            "access.path: another spelling of accessLog.path says otherwise, keep one",
        ),
        (
            "5: x",
            "the file: holds the key Number(5), which is not text",
        ),
    ] {
        assert_eq!(faults(&format!("{base}{text}\n")), [expected], "{text}");
    }
}

#[test]
fn all_faults_are_told_at_once_under_the_name_of_the_file() {
    let file = written("log: {levl: info}\nadminAddr: here\nxdsTls: {enabled: true}\n");
    let error = Bootstrap::load(Some(&file.1), |_| None).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("{} cannot be used\n", file.1.display())),
        "{text}"
    );
    for key in [
        "log.levl",
        "adminAddr",
        "nodeId",
        "controlPlaneAddr",
        "xdsTls.caPath",
    ] {
        assert!(text.contains(&format!("\n  {key}: ")), "{key} in {text}");
    }
}

#[test]
fn what_is_no_settings_file_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.yaml");
    let read = |path: &Path| Bootstrap::load(Some(path), |_| None).unwrap_err();
    assert!(matches!(read(&absent), BootstrapError::Read { .. }));
    assert!(matches!(read(folder.path()), BootstrapError::Read { .. }));
    let broken = written("nodeId: [\n");
    assert!(matches!(read(&broken.1), BootstrapError::Syntax { .. }));
    let twice = written("nodeId: a\nnodeId: b\n");
    assert!(matches!(read(&twice.1), BootstrapError::Syntax { .. }));
    let deep = written(&"[".repeat(100_000));
    assert!(matches!(read(&deep.1), BootstrapError::Syntax { .. }));
    let huge = written(&" ".repeat((1 << 20) + 1));
    assert!(matches!(read(&huge.1), BootstrapError::TooLarge { .. }));
    let list = written("- a\n");
    assert!(
        read(&list.1)
            .to_string()
            .contains("the file: holds no keys")
    );
}

#[test]
fn the_environment_wins_and_the_pod_names_the_node() {
    let text = format!("{LEAST}cluster: from-file\n");
    let env = [
        ("NANTIAN_GW_NODE_ID", "from-env"),
        ("PGW_NODE_ID", "older"),
        ("NANTIAN_GW_CLUSTER", "blue"),
        ("NANTIAN_GW_CONTROL_PLANE_ADDR", "http://other:1"),
        ("NANTIAN_GW_ADMIN_ADDR", "127.0.0.1:1"),
    ];
    let bootstrap = load_with(&text, &env).unwrap();
    assert_eq!(bootstrap.node_id, "from-env");
    assert_eq!(bootstrap.xds.node_id, "from-env");
    assert_eq!(bootstrap.xds.cluster, "blue");
    assert_eq!(bootstrap.xds.address, "http://other:1");
    assert_eq!(bootstrap.admin.address.port(), 1);

    for (env, expected) in [
        (vec![("PGW_NODE_ID", "older")], "older"),
        (
            vec![("NANTIAN_GW_NODE_ID", ""), ("HOSTNAME", "pod")],
            "dp-1",
        ),
    ] {
        assert_eq!(load_with(LEAST, &env).unwrap().node_id, expected);
    }
    let nameless = LEAST.replace("dp-1", "''");
    let bootstrap = load_with(&nameless, &[("HOSTNAME", "pod-7")]).unwrap();
    assert_eq!(bootstrap.node_id, "pod-7");
    let error = load_with(LEAST, &[("NANTIAN_GW_ADMIN_ADDR", "nowhere")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("NANTIAN_GW_ADMIN_ADDR: expected an address")
    );
}

#[test]
fn a_file_is_not_needed_when_the_environment_says_it_all() {
    let loaded = Bootstrap::load(None, |name| match name {
        "HOSTNAME" => Some("pod".to_owned()),
        "NANTIAN_GW_CONTROL_PLANE_ADDR" => Some("cp:18080".to_owned()),
        _ => None,
    });
    // TLS is on unless it is turned off, and it cannot be turned off by the environment.
    let text = loaded.unwrap_err().to_string();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("xdsTls.caPath"), "{text}");
}

#[test]
fn both_families_of_tls_keys_are_understood_and_must_agree() {
    let base = "nodeId: n\ncontrolPlaneAddr: https://cp:1\n";
    let bootstrap = load(&format!(
        "{base}xdsTransport: {{caCertPath: /ca, clientCertPath: /c, clientKeyPath: /k}}\n"
    ));
    let tls = bootstrap.unwrap().xds.tls.unwrap();
    assert_eq!(tls.ca, PathBuf::from("/ca"));
    assert_eq!(tls.identity, Some(("/c".into(), "/k".into())));
    let same = format!(
        "{base}xdsTls: {{caPath: /ca, domainName: cp}}\nxdsTransport: {{caCertPath: /ca}}\n"
    );
    let tls = load(&same).unwrap().xds.tls.unwrap();
    assert_eq!(tls.domain_name.as_deref(), Some("cp"));
    let other = same.replace("caCertPath: /ca", "caCertPath: /other");
    assert_eq!(
        faults(&other),
        ["xdsTransport.caCertPath: another spelling of xdsTls.caPath says otherwise, keep one"]
    );
    let half = format!("{base}xdsTls: {{caPath: /ca, certPath: /c}}\n");
    assert_eq!(
        faults(&half),
        ["xdsTls.keyPath: is missing beside xdsTls.certPath"]
    );
    let plain = format!("{base}xdsTls: {{enabled: false}}\n");
    assert_eq!(
        faults(&plain),
        ["xdsTls.enabled: is false, but controlPlaneAddr begins with https; make both agree"]
    );
}

#[test]
fn the_token_comes_from_the_file_or_its_own_file_and_is_never_shown() {
    const CANARY: &str = "canary-5c1f";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, format!("{CANARY}\n")).unwrap();
    let text = format!(
        "{LEAST}adminAddr: 0.0.0.0:19080\nadminAuth: {{bearerTokenFile: {}}}\n",
        path.display()
    );
    let bootstrap = load(&text).unwrap();
    let token = bootstrap.admin.token.unwrap();
    assert_eq!(token.expose(), CANARY);

    let inline = format!("{LEAST}adminAuth: {{bearerToken: {CANARY}}}\n");
    let bootstrap = load(&inline).unwrap();
    assert_eq!(bootstrap.admin.token.clone().unwrap().expose(), CANARY);
    for shown in [format!("{bootstrap:?}"), bootstrap.summary()] {
        assert!(!shown.contains(CANARY), "{shown}");
        assert!(shown.contains("***"));
    }

    for broken in [
        format!("{LEAST}adminAuth: {{bearerToken: '{CANARY} {CANARY}'}}\n"),
        format!("{LEAST}adminAuth: {{bearerToken: [{CANARY}]}}\n"),
        format!("{LEAST}adminAuth: {{bearerTokenFile: /nowhere/token}}\n"),
    ] {
        let error = load(&broken).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("adminAuth"), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}

#[test]
fn the_secret_of_sessions_is_long_and_never_shown() {
    const CANARY: &str = "canary-5c1f-canary-5c1f";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, format!("{CANARY}\n")).unwrap();
    let file = format!("secretKeyFile: {}", path.display());
    for written in [file, format!("secretKey: {CANARY}")] {
        let text = format!("{LEAST}sessionPersistence: {{{written}}}\n");
        let bootstrap = load(&text).unwrap();
        for shown in [format!("{bootstrap:?}"), bootstrap.summary()] {
            assert!(!shown.contains(CANARY), "{shown}");
        }
        assert_eq!(bootstrap.session_secret.unwrap().expose(), CANARY);
    }
    for broken in [
        "secretKey: short".to_owned(),
        "secretKeyFile: /nowhere/secret".to_owned(),
        format!("secretKey: {CANARY}, secretKeyFile: {}", path.display()),
    ] {
        let error = load(&format!("{LEAST}sessionPersistence: {{{broken}}}\n")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("sessionPersistence"), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
    assert!(load(LEAST).unwrap().session_secret.is_none());
}

#[test]
fn keys_of_earlier_data_planes_load_and_are_named() {
    let bootstrap = load(&format!(
        "{LEAST}
runtime: {{httpListenAddr: '0.0.0.0:80', enableHttp3: false}}
runtimeTuning:
  httpCache: {{enabled: true, maxSizeMb: 1}}
  upstreamTcpKeepalive: {{enabled: true}}
  httpCapacity: {{reusePort: null}}
experimental: {{enableAiGateway: false}}
accessLog: {{mode: text}}
log: {{openTelemetry: {{enabled: false}}, level: ~}}
"
    ))
    .unwrap();
    let mut named = bootstrap.without_effect;
    named.sort();
    assert_eq!(
        named,
        [
            "experimental.enableAiGateway",
            "runtime.enableHttp3",
            "runtime.httpListenAddr",
            "runtimeTuning.httpCache",
            "runtimeTuning.httpCapacity.reusePort",
        ]
    );
    assert_eq!(bootstrap.log.filter, "info", "null counts as not set");
}

#[test]
fn everything_in_effect_is_told_with_its_origin() {
    let bootstrap = load_with(LEAST, &[("NANTIAN_GW_CLUSTER", "blue")]).unwrap();
    assert_eq!(bootstrap.effective.len(), keys::ALL.len());
    let origin = |name: &str| {
        let found = bootstrap.effective.iter().find(|it| it.key == name);
        found.unwrap().origin.clone()
    };
    assert_eq!(origin("nodeId"), Origin::File);
    assert_eq!(origin("cluster"), Origin::Environment("NANTIAN_GW_CLUSTER"));
    assert_eq!(origin("adminAddr"), Origin::Default);
    let summary = bootstrap.summary();
    assert!(
        summary.contains("cluster: \"blue\" # from NANTIAN_GW_CLUSTER\n"),
        "{summary}"
    );
}

#[test]
fn reference_pages_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, page) in [
        ("bootstrap.md", reference::bootstrap_page()),
        ("limits.md", reference::limits_page()),
        ("metrics.md", reference::metrics_page()),
    ] {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &page).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == page,
            "docs/reference/{name} is stale; run UPDATE_REFERENCE=1 cargo test --workspace and \
             commit the page"
        );
    }
}

#[test]
fn every_limit_has_a_row_and_every_row_is_true() {
    let rows = || {
        reference::limits::SECTIONS
            .iter()
            .flat_map(|(_, rows)| *rows)
    };
    for key in keys::ALL {
        let is_wait = matches!(
            key.kind,
            keys::Kind::Number {
                unit: keys::Unit::Milliseconds,
                ..
            }
        );
        let is_number = matches!(key.kind, keys::Kind::Number { .. });
        let is_limit = key.name.starts_with("runtimeProtection.")
            || (key.name.starts_with("runtimeTuning.") && is_wait)
            || (key.name.starts_with("wasm.") && is_number && key.name != "wasm.fetch.retryMs");
        let count = rows().filter(|row| row.key == key.name).count();
        assert!(
            count == 1 || (count == 0 && !is_limit),
            "{} has {count} rows; say in dataplane/src/bootstrap/reference/limits.rs what happens",
            key.name
        );
    }
    let metrics = dataplane_telemetry::metrics::reference();
    for row in rows() {
        assert!(!row.seen.is_empty(), "how is {} seen?", row.key);
        for name in row.seen {
            let full = format!("nantian_gateway_dataplane_{name}");
            let is_reason = Reason::ALL.iter().any(|reason| reason.as_str() == *name);
            let is_metric = metrics.iter().any(|metric| metric.name == full);
            assert!(is_reason || is_metric, "{name} of {}", row.key);
        }
    }
}

#[test]
fn what_holds_for_every_limit_is_told_as_a_figure() {
    let text = "runtimeProtection: {httpMaxRequestHeaderFields: 7, http2MaxEmptyDataFrames: 0, \
                memoryShedding: false}\nruntimeTuning: {gracefulDrainPeriodMs: 3000}\n";
    let limits = load(&format!("{LEAST}{text}")).unwrap().limits();
    for (key, value) in [
        ("runtimeProtection.httpMaxRequestHeaderFields", 7),
        ("runtimeProtection.http2MaxEmptyDataFrames", 100),
        ("runtimeProtection.memoryShedding", 0),
        ("runtimeTuning.gracefulDrainPeriodMs", 3000),
        ("runtimeTuning.drainMinAcceptMs", 1500),
        ("runtimeTuning.downstreamHeaderTimeoutMs", 10_000),
    ] {
        assert!(limits.contains(&(key, value)), "{key}: {limits:?}");
    }
    let rows = reference::limits::SECTIONS
        .iter()
        .flat_map(|(_, rows)| *rows);
    assert_eq!(limits.len(), rows.count());
    let metrics = Metrics::new();
    metrics.set_limits(limits);
    let mut page = String::new();
    metrics.encode_text(&mut page);
    let line =
        "nantian_gateway_dataplane_limit{key=\"runtimeProtection.httpMaxRequestHeaderFields\"} 7\n";
    assert!(page.contains(line), "{page}");
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nantian-dataplane"));
    command.args(arguments).env_clear().output().unwrap()
}

#[test]
fn check_says_what_is_in_effect_or_what_is_wrong() {
    let good = written(LEAST);
    let output = run(&["--check", "--config", good.1.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("nodeId: \"dp-1\" # from the file\n"),
        "{text}"
    );

    for (broken, told) in [
        ("log: {levl: x}\n", "did you mean log.level?"),
        ("log: {level: 'info,=='}\n", "is not valid"),
        ("log: {level: ifno}\n", "is not valid"),
        (
            "adminTls: {certPath: /nowhere/a.crt, keyPath: /nowhere/a.key}\n",
            "/nowhere/a.crt",
        ),
    ] {
        let bad = written(&format!("{LEAST}{broken}"));
        let output = run(&["--check", "--config", bad.1.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{broken}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(told), "{text}");
    }
    let tls = "xdsTls: {enabled: true, caPath: /nowhere/ca.crt}";
    let missing = written(&LEAST.replace("xdsTls: {enabled: false}", tls));
    let output = run(&["--check", "--config", missing.1.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot read /nowhere/ca.crt"), "{text}");
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    for flag in ["--help", "--version"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("nantian-dataplane")
        );
    }
}
