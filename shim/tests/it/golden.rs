//! Cases in `tests/data`: `in.yaml` is read and translated, `expected.txt` is what comes out.
//!
//! `UPDATE_EXPECTED=1` writes what comes out; read the difference before you keep it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use shim::conditions::Which;
use shim::files::FileSource;
use shim::report::Report;
use shim::translate::{Settings, translate};

use crate::folder::conditions_are_on_the_page;

#[test]
fn every_case_gives_what_is_expected() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut cases: Vec<PathBuf> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 5, "the cases are missing");
    let failed: Vec<_> = cases.iter().filter(|case| !holds(case)).collect();
    assert!(failed.is_empty(), "see above: {failed:?}");
}

fn holds(case: &Path) -> bool {
    let files = FileSource::new([case.to_owned()]).current();
    let translation = translate(&files.view, &Settings::default(), None);
    conditions_are_on_the_page(&translation);
    let mut text = render(translation.snapshot());
    writeln!(text, "\n{}", Report::new(&files, &translation, Which::All)).unwrap();
    let path = case.join("expected.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if text != expected {
        println!("== {} ==\n{text}", case.display());
    }
    text == expected
}

/// A snapshot as few lines as tell everything.
fn render(snapshot: &ir::Snapshot) -> String {
    let mut text = String::new();
    for listener in snapshot.listeners.iter() {
        writeln!(
            text,
            "listener {} {:?} {:?}:{} hosts {:?} certificates {:?}",
            listener.name,
            listener.protocol,
            listener.addresses,
            listener.port,
            names(&listener.hostnames),
            listener.tls.as_ref().map(|tls| &tls.certificate_refs)
        )
        .unwrap();
        plugins(&mut text, &listener.plugins);
    }
    for route in snapshot.http_routes.iter() {
        let hosts = names(&route.hostnames);
        writeln!(
            text,
            "http {} at {:?} hosts {hosts:?}",
            route.key, route.listeners
        )
        .unwrap();
        for rule in &route.rules {
            writeln!(
                text,
                "  rule {:?} {:?} {:?}",
                rule.name, rule.timeouts, rule.retry
            )
            .unwrap();
            rule.matches
                .iter()
                .for_each(|m| writeln!(text, "    when {m:?}").unwrap());
            rule.filters
                .iter()
                .for_each(|f| writeln!(text, "    do {f:?}").unwrap());
            told(&mut text, "  session", rule.session_persistence.as_ref());
            plugins(&mut text, &rule.plugins);
            backends(&mut text, &rule.backends);
        }
        told(&mut text, "policy", route.policy.as_ref());
        told(&mut text, "security", route.security_policy.as_ref());
    }
    for route in snapshot.grpc_routes.iter() {
        let hosts = names(&route.hostnames);
        writeln!(
            text,
            "grpc {} at {:?} hosts {hosts:?}",
            route.key, route.listeners
        )
        .unwrap();
        for rule in &route.rules {
            writeln!(text, "  rule {:?}", rule.name).unwrap();
            rule.matches
                .iter()
                .for_each(|m| writeln!(text, "    when {m:?}").unwrap());
            rule.filters
                .iter()
                .for_each(|f| writeln!(text, "    do {f:?}").unwrap());
            plugins(&mut text, &rule.plugins);
            backends(&mut text, &rule.backends);
        }
    }
    for route in snapshot.stream_routes.iter() {
        writeln!(
            text,
            "{:?} {} at {:?}",
            route.kind, route.key, route.listeners
        )
        .unwrap();
        for rule in &route.rules {
            writeln!(text, "  rule {:?}", rule.name).unwrap();
            rule.matches
                .iter()
                .for_each(|m| writeln!(text, "    when {m:?}").unwrap());
            backends(&mut text, &rule.backends);
        }
    }
    for cluster in snapshot.clusters.iter() {
        put_cluster(&mut text, cluster);
    }
    for secret in snapshot.secrets.iter() {
        let values: Vec<_> = secret.values.keys().collect();
        let values = match values.is_empty() {
            true => String::new(),
            false => format!(" values {values:?}"),
        };
        writeln!(text, "secret {}{values}", secret.key).unwrap();
    }
    for plugin in snapshot.wasm_plugins.iter() {
        writeln!(
            text,
            "plugin {plugin:?} config {:?}",
            plugin.config.expose()
        )
        .unwrap();
    }
    text
}

/// The plugins of one place, where there are some.
fn plugins(text: &mut String, names: &[std::sync::Arc<str>]) {
    let names = (!names.is_empty()).then_some(names);
    told(text, "plugins", names.as_ref());
}

/// A cluster with its endpoints and what its policies say.
fn put_cluster(text: &mut String, cluster: &ir::Cluster) {
    writeln!(text, "cluster {} {:?}", cluster.key, cluster.protocol).unwrap();
    if let Some(tls) = &cluster.tls {
        let (name, names) = (&tls.hostname, &tls.subject_alt_names);
        let (system, own) = (tls.use_system_ca_certificates, tls.ca_pems.len());
        let versions = (tls.min_version, tls.max_version);
        writeln!(
            text,
            "  tls {name} names {names:?} system {system} authorities {own} {versions:?}"
        )
        .unwrap();
    }
    for endpoint in &cluster.endpoints {
        let (address, port) = (&endpoint.address, endpoint.port);
        let ready = endpoint.is_ready;
        writeln!(
            text,
            "  {address:?}:{port} ready {ready} zone {:?}",
            endpoint.zone
        )
        .unwrap();
        if endpoint.is_ending || !endpoint.zone_hints.is_empty() {
            let (ending, hints) = (endpoint.is_ending, &endpoint.zone_hints);
            writeln!(text, "    ending {ending} hints {hints:?}").unwrap();
        }
    }
    if cluster.balancing != ir::cluster::Balancing::RoundRobin {
        told(text, "balancing", Some(&cluster.balancing));
    }
    told(text, "inflight", cluster.max_inflight_requests.as_ref());
    told(text, "session", cluster.session_persistence.as_ref());
    told(text, "policy", cluster.policy.as_ref());
    told(text, "security", cluster.security_policy.as_ref());
    told(text, "ai", cluster.ai_service.as_ref());
    told(text, "tokens", cluster.token_policy.as_ref());
    plugins(text, &cluster.plugins);
}

/// What a policy says, where one does.
fn told(text: &mut String, name: &str, said: Option<&impl std::fmt::Debug>) {
    if let Some(said) = said {
        writeln!(text, "  {name} {said:?}").unwrap();
    }
}

fn backends(text: &mut String, backends: &[ir::http_route::BackendRef]) {
    for backend in backends {
        let found = if backend.target.cluster_keys.is_empty() {
            " (fails)"
        } else {
            ""
        };
        writeln!(
            text,
            "    to {} weight {}{found} {:?}",
            backend.target.display, backend.weight, backend.filters
        )
        .unwrap();
    }
}

fn names(hostnames: &[ir::Hostname]) -> Vec<&str> {
    hostnames.iter().map(ir::Hostname::as_str).collect()
}
