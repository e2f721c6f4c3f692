//! The commands that ask a data plane that runs: what they print, how they end, how they find it.

use std::fs;
use std::process::{Command, Output};

use dataplane_testkit::certificate::Authority;
use ir::SecretText;

use crate::admin::{Admin, shop};

/// Runs the binary with those words; there is no bootstrap file unless they name one.
async fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nantian-dataplane"));
    command.args(words).env_remove("NANTIAN_GW_ADMIN");
    if !words.contains(&"--config") {
        command.args(["--config", "/nowhere/config.yaml"]);
    }
    let ended = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ended.await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_prints_what_it_is_for() {
    let admin = Admin::serving(shop().build()).await;
    let url = format!("http://{}", admin.address);
    for (words, code, expected) in [
        (&["status"][..], 0, &["phase", "ready", "v7"][..]),
        (
            &["listeners"],
            0,
            &["infra/gw/http ", "infra/gw/https", "yes"],
        ),
        (
            &["routes"],
            0,
            &["HTTPRoute", "cart", "shop/cart:80", "GRPCRoute"],
        ),
        (&["routes", "--kind", "GRPCRoute"], 0, &["bank"]),
        (&["clusters", "--namespace", "pay"], 0, &["pay/bank:80"]),
        (&["backends", "nothing"], 0, &["(none)"]),
        (&["endpoints"], 0, &["127.0.0.1:9", "well"]),
        (
            &["certificates"],
            0,
            &["infra/cert", "valid", "shop.example"],
        ),
        (&["limits"], 0, &["connections", "no limit"]),
        (&["rate-limits"], 0, &["(none)"]),
        (&["ai"], 0, &["SERVICE"]),
        (&["sessions"], 0, &["began"]),
        (&["config", "version"], 0, &["v7"]),
        (&["config", "history"], 0, &["RESULT"]),
        (&["config", "snapshot"], 0, &["\"version\": \"v7\""]),
        (&["get", "v1/limits"], 0, &["\"level\": \"normal\""]),
        (
            &["get", "/metrics"],
            0,
            &["nantian_gateway_dataplane_ready 1"],
        ),
        (
            &["status", "--output", "json"],
            0,
            &["\"node_id\": \"dp-test\""],
        ),
        (&["routes", "-o", "json"], 0, &["\"name\": \"bank\""]),
    ] {
        let words: Vec<_> = words.iter().copied().chain(["--admin", &url]).collect();
        let (ended, out, err) = run(&words).await;
        assert_eq!(ended, Some(code), "{words:?}: {err}");
        for text in expected {
            assert!(out.contains(text), "{words:?}: no {text:?} in {out}");
        }
        assert!(!out.contains('\u{1b}'), "colours in a pipe: {out}");
    }
    admin.state.readiness.draining();
    let (ended, out, _) = run(&["status", "--admin", &url]).await;
    assert_eq!(ended, Some(3), "it wants no traffic: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_passed_on_and_end_with_one() {
    let admin = Admin::serving(shop().build()).await;
    let url = format!("http://{}", admin.address);
    let closed = format!("127.0.0.1:{}", dataplane_testkit::snapshot::free_port());
    for (words, expected) in [
        (&["drain", "--admin", &url][..], "adminReadOnly"),
        (&["log-level", "debug", "--admin", &url], "adminReadOnly"),
        (&["log-level", "--admin", &url], "not ours to change"),
        (&["get", "/v1/nothing", "--admin", &url], "no such path"),
        (&["status", "--admin", &closed], "no data plane answers"),
    ] {
        let (ended, _, err) = run(words).await;
        assert_eq!(ended, Some(1), "{words:?}: {err}");
        assert!(err.contains(expected), "{words:?}: {err}");
    }
    for words in [
        &["status", "--admin", "ftp://127.0.0.1:1"][..],
        &["status", "--admin", "127.0.0.1"],
        &["status", "--token-file", "/nowhere/token"],
        &["stauts"],
    ] {
        assert_eq!(run(words).await.0, Some(2), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn address_token_and_certificate_are_found_in_the_bootstrap_file() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("admin");
    let identity = authority.server(&["admin.test"]);
    let files = identity.write(folder.path(), "admin").unwrap();
    let admin = Admin::start(|settings, _| {
        settings.tls = Some(files.clone());
        settings.token = Some(SecretText::new("open-sesame".to_owned()));
    })
    .await;
    let config = folder.path().join("config.yaml");
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let text = format!(
        "nodeId: dp-1\ncontrolPlaneAddr: http://cp:18080\nxdsTls: {{enabled: false}}\n\
         adminAddr: {}\nadminAuth: {{bearerToken: open-sesame}}\n\
         adminTls: {{certPath: {}, keyPath: {}}}\n",
        admin.address,
        files.0.display(),
        files.1.display()
    );
    fs::write(&config, text).unwrap();
    let (config, ca) = (config.to_str().unwrap(), ca.to_str().unwrap());
    let (ended, out, err) = run(&[
        "status",
        "--config",
        config,
        "--ca",
        ca,
        "--server-name",
        "admin.test",
    ])
    .await;
    assert_eq!(ended, Some(3), "no configuration yet: {err}");
    assert!(out.contains("starting"), "{out}");
    // Nobody is trusted who is not named.
    let stranger = folder.path().join("stranger.pem");
    fs::write(&stranger, Authority::new("stranger").pem()).unwrap();
    let stranger = stranger.to_str().unwrap();
    let (ended, _, err) = run(&[
        "status",
        "--config",
        config,
        "--ca",
        stranger,
        "--server-name",
        "admin.test",
    ])
    .await;
    assert_eq!(ended, Some(1));
    assert!(err.contains("no TLS with"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (ended, script, err) = run(&["completion", shell]).await;
        assert_eq!(ended, Some(0), "{err}");
        assert!(script.contains("certificates"), "{shell}");
    }
}

#[test]
fn the_page_of_commands_is_current() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/nantian-dataplane.md"
    );
    let page = dataplane::cli::reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == page,
        "docs/reference/nantian-dataplane.md is stale: run this test with UPDATE_REFERENCE=1"
    );
}
