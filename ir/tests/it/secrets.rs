//! Planted secrets are in no Debug output and in no message.

use ir::{decode, delta, encode, wire};

use crate::text;

const CANARY: &str = "canary-7f3a";

fn assert_clean(what: &str, text: &str) {
    assert!(!text.contains(CANARY), "{what} shows a secret: {text}");
    assert!(!text.contains("PRIVATE KEY"), "{what} shows a key");
}

#[test]
fn debug_shows_nothing_of_a_secret() {
    let text = format!(
        r#"
        id: "v1"
        secrets {{ namespace: "a" name: "s" cert_pem: "@CERT_A@" key_pem: "@KEY_A@" htpasswd: "{CANARY}" oidc_client_secret: "{CANARY}" values {{ key: "key" value: "{CANARY}" }} }}
        backends {{ name: "b:80" namespace: "a" protocol: "TCP" wasm_plugin {{ name: "w" namespace: "a" wasm_bytes: "x" config_json: "{CANARY}" }} }}
    "#
    );
    let message = text::snapshot(&text);
    assert_clean("wire message", &format!("{message:?}"));
    assert_clean("wire secret", &format!("{:#?}", message.secrets[0]));
    let response = wire::DiscoveryResponse {
        snapshot: Some(message.clone()),
        ..wire::DiscoveryResponse::default()
    };
    assert_clean("wire response", &format!("{response:?}"));

    let snapshot = decode::snapshot(message).unwrap();
    assert_clean("snapshot", &format!("{snapshot:?}"));
    let delta = delta::diff(&ir::Snapshot::default(), &snapshot);
    assert_clean("delta", &format!("{delta:?}"));
    assert_clean("wire delta", &format!("{:?}", encode::delta(&delta)));
}

#[test]
fn violations_and_notices_show_nothing_of_a_secret() {
    let message = wire::SecretMaterial {
        namespace: "a".to_owned(),
        name: "s".to_owned(),
        cert_pem: CANARY.to_owned(),
        key_pem: CANARY.to_owned(),
        htpasswd: CANARY.to_owned(),
        oidc_client_secret: CANARY.to_owned(),
        values: [("key".to_owned(), CANARY.to_owned())].into(),
    };
    let violations = decode::secret(message).unwrap_err();
    assert_eq!(
        violations.to_string(),
        "Secret a/s: cert_pem: tls.crt holds no PEM certificate"
    );
    let url = format!("ftp://user:{CANARY}@example.com");
    let cluster = wire::BackendCluster {
        name: "b:80".to_owned(),
        namespace: "a".to_owned(),
        ai_service: Some(wire::AiServiceConfig {
            provider: "openai".to_owned(),
            endpoint: url.clone(),
            ..wire::AiServiceConfig::default()
        }),
        wasm_plugin: Some(wire::WasmPluginConfig {
            config_json: CANARY.to_owned(),
            source_url: url,
            ..wire::WasmPluginConfig::default()
        }),
        ..wire::BackendCluster::default()
    };
    let violations = decode::cluster(cluster).unwrap_err();
    assert_clean("violations", &violations.to_string());
    assert!(violations.len() >= 2);
}
