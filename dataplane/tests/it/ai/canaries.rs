//! Canaries: every secret that there is, in a built binary that says all it can, found nowhere.
//!
//! Each provider fails in another way, so that what is said of failures is searched, too.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane_testkit::backend::closed_address;
use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::http1;
use dataplane_testkit::collector::Collector;
use dataplane_testkit::control_plane::whole;
use dataplane_testkit::eventually;
use ir::policy::{SessionCarrier, SessionPersistence};

use crate::binary::Binary;

use super::*;

const BEARER: &str = "canary-bearer-5f1d";
const API_KEY: &str = "canary-apikey-77aa";
const BASIC: &str = "user:canary-basic-90c2";
/// What [`BASIC`] looks like on the wire.
const BASIC_CODED: &str = "dXNlcjpjYW5hcnktYmFzaWMtOTBjMg==";
const OWN_FIELD: &str = "canary-field-1b3e";
const CLIENTS: &str = "canary-of-the-client-42";
const SESSION: &str = "canary-session-secret-0001";
const HTPASSWD: &str = "canary-htpasswd-33";
const OIDC: &str = "canary-oidc-34";
const QUESTION: &str = "canary-question-35";
const ANSWER: &str = "canary-answer-36";

/// What stands for the names in paths of the admin API, and what some ask for.
const NAMED: [(&str, &str); 9] = [
    ("/v1/listeners/{name}", "/v1/listeners/infra%2Fgw%2Fhttp"),
    (
        "/v1/listener-statuses/{name}",
        "/v1/listener-statuses/infra%2Fgw%2Ftls",
    ),
    (
        "/v1/routes/{kind}/{namespace}/{name}",
        "/v1/routes/HTTPRoute/shop/r",
    ),
    ("/v1/backends/{namespace}/{name}", "/v1/backends/shop/llm"),
    (
        "/v1/certificates/{namespace}/{name}",
        "/v1/certificates/infra/x",
    ),
    (
        "/v1/ai/services/{namespace}/{name}",
        "/v1/ai/services/shop/llm",
    ),
    ("/v1/plugins/{namespace}/{name}", ""),
    (
        "/v1/explain",
        "/v1/explain?host=x&path=/v1/chat/completions&method=POST",
    ),
    // Watched while the calls are made.
    ("/v1/trace", ""),
];

/// All that the admin API answers, by its own description.
async fn admin(binary: &Binary) -> Vec<String> {
    let document = binary.text("/openapi.json").await;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let read = paths
        .iter()
        .filter(|(_, methods)| methods.get("get").is_some());
    let mut asked: Vec<_> = read
        .map(|(path, _)| {
            let named = NAMED
                .iter()
                .find(|(of, _)| path.trim_start_matches("/api") == *of);
            named.map_or(path.as_str(), |(_, with)| with).to_owned()
        })
        .filter(|path| !path.is_empty())
        .collect();
    assert!(asked.len() > 30, "{asked:?}");
    let unnamed = asked.iter().find(|path| path.contains('{'));
    assert_eq!(unnamed, None, "give it a name");
    asked.push("/openapi.json".to_owned());
    asked
}

fn auth(kind: AiAuthKind, key: &str, header: Option<&str>) -> Option<AiAuth> {
    Some(AiAuth {
        kind,
        secret_ref: "shop/keys".into(),
        secret_key: Some(key.to_owned()),
        header: header.map(str::to_owned),
    })
}

/// A provider that repeats what it was shown, as some do.
fn refusing(status: u16, shown: &str) -> Answer {
    let error = format!(
        r#"{{"error":{{"message":"Incorrect API key provided: {shown}","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}}"#
    );
    Answer::json(status, &error)
}

/// Everything under a folder, but the file that holds the secret of sessions.
fn files(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &files(&path);
        } else if !path.ends_with("session-secret") {
            all += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
    }
    all
}

/// A line out of the middle of a PEM text.
fn line_of(pem: &str) -> String {
    pem.lines().nth(1).unwrap().to_owned()
}

/// The providers, each of which fails in its own way but the last.
struct Providers {
    limited: Provider,
    silent: Provider,
    good: Provider,
    _refuses: Provider,
}

/// A service with a credential of every form, and its providers.
async fn canaries() -> (Case, Providers) {
    let refuses = Provider::start([
        refusing(401, BEARER),
        refusing(403, BEARER),
        refusing(500, BEARER),
        Answer::json(200, "<html>").cut(),
    ])
    .await;
    let limited = Provider::start([refusing(429, API_KEY)]).await;
    let silent = Provider::start([Answer::json(200, "{").cut()]).await;
    let good = Provider::start([Answer::json(
        200,
        &format!(r#"{{"choices":[{{"message":{{"content":"{ANSWER}"}},"finish_reason":"stop"}}],"model":"m","usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#),
    )])
    .await;
    let mut own = service(AiProvider::OpenAi, &refuses);
    own.auth = auth(AiAuthKind::Bearer, "bearer", None);
    own.retries_max = 1;
    own.retry_backoff = Some(Duration::from_millis(1));
    let other = |at: &Provider, auth: Option<AiAuth>| AiTarget {
        auth,
        ..fallback(AiProvider::OpenAi, at, "")
    };
    let mut unreachable = other(&good, auth(AiAuthKind::Basic, "basic", None));
    unreachable.endpoint = Some(format!("http://{}", closed_address()));
    let mut no_tls = other(&good, auth(AiAuthKind::Bearer, "bearer", None));
    no_tls.endpoint = Some(good.url().replace("http://", "https://"));
    own.providers = vec![
        other(&limited, auth(AiAuthKind::ApiKey, "api-key", None)),
        other(&silent, auth(AiAuthKind::Basic, "basic", None)),
        unreachable,
        no_tls,
        other(&good, auth(AiAuthKind::Header, "field", Some("x-own-key"))),
    ];
    let mut case = Case::new(own);
    // One of them never answers a handshake.
    case.cluster.connect_timeout = Duration::from_millis(300);
    case.cluster.session_persistence = Some(Arc::new(SessionPersistence {
        session_name: Some("s".to_owned()),
        absolute_timeout: None,
        idle_timeout: None,
        carrier: SessionCarrier::SessionCookie,
    }));
    let providers = Providers {
        limited,
        silent,
        good,
        _refuses: refuses,
    };
    (case, providers)
}

/// The secret with all credentials of the service, and more.
fn credentials() -> Secret {
    let values = [
        ("bearer", BEARER),
        ("api-key", API_KEY),
        ("basic", BASIC),
        ("field", OWN_FIELD),
    ];
    let values = values.map(|(name, text)| (name.to_owned(), SecretText::new(text.to_owned())));
    Secret {
        key: "shop/keys".into(),
        certificate: None,
        htpasswd: Some(SecretText::new(format!("u:{HTPASSWD}"))),
        oidc_client_secret: Some(SecretText::new(OIDC.to_owned())),
        values: values.into(),
    }
}

/// The configuration with keys of both kinds of certificates.
fn snapshot(case: &Case, server: &Identity, client: &Identity) -> ir::Snapshot {
    SnapshotBuilder::from(&case.snapshot("v1"), "v1")
        .https_listener(
            "infra/gw/tls",
            free_port(),
            &["x.example.com"],
            &["infra/x"],
        )
        .certificate("infra/x", server)
        .certificate("infra/client", client)
        .secret(credentials())
        .with(|snapshot| {
            let mut http = (**snapshot.listeners.get("infra/gw/http").unwrap()).clone();
            http.backend_client_certificate = Some("infra/client".into());
            snapshot.listeners.insert(http);
        })
        .build()
}

/// Calls of every kind; what their client is answered, but for the answer it asked for.
async fn call(case: &Case) -> String {
    let mut seen = String::new();
    for body in ["m", "\\u0000", "m\",\"stream\":true,\"x\":\""] {
        for path in [
            "/v1/chat/completions",
            "/v1/messages",
            "/v1/embeddings",
            "/v1/files",
        ] {
            let body = format!(
                r#"{{"model":"{body}","max_tokens":5,"input":"{QUESTION}","messages":[{{"role":"user","content":"{QUESTION}"}}]}}"#
            );
            let mut request = post(path, &body);
            let bearer = format!("Bearer {CLIENTS}");
            let fields = request.headers_mut();
            fields.insert("authorization", bearer.parse().unwrap());
            fields.insert("x-api-key", CLIENTS.parse().unwrap());
            fields.insert("cookie", format!("a={CLIENTS}").parse().unwrap());
            let mut client = case.connect().await;
            if let Ok(response) = client.send(request).await {
                let fields: Vec<_> = response.headers.iter().collect();
                seen += &format!("{fields:?}\n");
                seen += &response.text().replace(ANSWER, "");
            }
        }
    }
    seen
}

/// A configuration that must be refused, with secrets in the places that are wrong.
fn broken(snapshot: &ir::Snapshot) -> ir::wire::ConfigSnapshot {
    let mut bad = ir::encode::snapshot(snapshot);
    bad.id = "v2".to_owned();
    for secret in &mut bad.secrets {
        secret.cert_pem.clone_from(&secret.key_pem);
    }
    for backend in &mut bad.backends {
        if let Some(ai) = &mut backend.ai_service {
            ai.endpoint = format!("ftp://user:{BEARER}@example.com");
        }
    }
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_the_binary_says_or_writes() {
    let (case, providers) = canaries().await;
    let authority = Authority::new("canaries");
    let server = authority.server(&["x.example.com"]);
    let client = authority.client("gateway");
    let snapshot = snapshot(&case, &server, &client);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let secret_file = folder.path().join("session-secret");
    fs::write(&secret_file, SESSION).unwrap();
    let collector = Collector::start().await;
    let keys = format!(
        "log: {{level: debug, format: text, openTelemetry: {{enabled: true, endpoint: {}, sampleRatio: 1.0}}}}\naccessLog: {{path: {}, sampleRate: 1}}\n\
         lastGoodCache: {{enabled: true, path: {}}}\n\
         sessionPersistence: {{secretKeyFile: {}}}",
        collector.endpoint(),
        log.display(),
        folder.path().join("last-good").display(),
        secret_file.display()
    );
    let (binary, control_plane) = Binary::serving(&snapshot, &[], &keys).await;

    let watching = tokio::spawn(http1::get(
        binary.admin,
        "x",
        "/v1/trace?count=4&seconds=30",
    ));
    let mut seen = call(&case).await;
    let watched = watching.await.unwrap().unwrap().text().to_string();
    assert!(watched.contains("\"sent\""), "{watched}");
    seen += &watched;
    let asked = providers.good.asked();
    assert!(!asked.is_empty(), "the last provider is reached: {seen}");
    assert_eq!(asked[0].field("x-own-key"), Some(OWN_FIELD));
    assert!(!providers.limited.asked().is_empty() && !providers.silent.asked().is_empty());

    // What is refused is told to the control plane, too.
    control_plane.push(whole(broken(&snapshot))).await;
    eventually("the control plane is told", || {
        let mut told = control_plane.requests().into_iter();
        told.any(|request| request.version == "v2" && !request.error_detail.is_empty())
            .then_some(())
    })
    .await;
    for request in control_plane.requests() {
        seen += &format!("{request:?}");
    }
    for path in admin(&binary).await {
        let answer = http1::get(binary.admin, "x", &path).await.unwrap();
        let text = answer.text();
        assert!(answer.status == 200 && !text.is_empty(), "{path}: {text}");
        seen += &text;
    }
    let spans = eventually("the spans arrive", || {
        let spans = collector.spans();
        let is_told = |key: &str| spans.iter().any(|span| span.attributes.contains_key(key));
        is_told("gen_ai.response.model").then_some(spans)
    })
    .await;
    seen += &format!("{spans:?}");
    eventually("the calls are logged", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        (text.lines().count() >= 12).then_some(())
    })
    .await;
    assert!(folder.path().join("last-good").exists());
    seen += &files(folder.path());
    let said = binary.said();
    assert!(said.contains("DEBUG"), "it says all it can: {said}");
    seen += &said;

    let (server_key, client_key) = (line_of(&server.key_pem), line_of(&client.key_pem));
    for canary in [
        BEARER,
        API_KEY,
        "canary-basic-90c2",
        BASIC_CODED,
        OWN_FIELD,
        CLIENTS,
        SESSION,
        HTPASSWD,
        OIDC,
        QUESTION,
        ANSWER,
        &server_key,
        &client_key,
        "PRIVATE KEY",
    ] {
        if let Some(at) = seen.find(canary) {
            let from = seen.floor_char_boundary(at.saturating_sub(300));
            panic!("{canary} is in …{}", &seen[from..at + canary.len()]);
        }
    }
}
