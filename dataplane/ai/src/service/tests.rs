//! Services compiled from configurations, as tables.

use bytes::Bytes;
use ir::ai::AiFormat;

use super::*;
use crate::call::{Call, Operation};

const CANARY: &str = "canary-7f3a";

fn auth(kind: AiAuthKind, header: Option<&str>) -> AiAuth {
    AiAuth {
        kind,
        secret_ref: "ai/keys".into(),
        secret_key: Some("token".to_owned()),
        header: header.map(str::to_owned),
    }
}

fn service(provider: AiProvider, endpoint: Option<&str>) -> AiService {
    AiService {
        provider,
        format: None,
        model: "big".to_owned(),
        auth: None,
        timeout: None,
        endpoint: endpoint.map(str::to_owned),
        retries_max: 0,
        retry_backoff: None,
        aliases: [("fast".to_owned(), "small".to_owned())].into(),
        headers: BTreeMap::new(),
        weight: NonZeroU32::MIN,
        providers: Vec::new(),
        redaction: Vec::new(),
        default_max_tokens: None,
        pass_client_credentials: false,
        prices: BTreeMap::new(),
    }
}

fn secrets(value: &str) -> Secret {
    Secret {
        key: "ai/keys".into(),
        certificate: None,
        htpasswd: None,
        oidc_client_secret: None,
        values: [("token".to_owned(), SecretText::new(value.to_owned()))].into(),
    }
}

fn compiled(service: &AiService) -> Service {
    let secret = secrets(CANARY);
    Service::compile(service, |key| (key == "ai/keys").then_some(&secret)).unwrap()
}

fn answering(service: &Service, operation: Operation) -> Answering {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
    let call = Call::read(operation, body).unwrap();
    let target = &service.targets()[0];
    call.send(&service.destination(target, "", 0, 0))
        .unwrap()
        .answering
}

#[test]
fn paths_are_joined_to_every_kind_of_base() {
    use AiProvider::{Anthropic, Ollama, OpenAi};
    use Operation::{Chat, Embeddings, Messages};
    let rows = [
        (OpenAi, None, Chat, "api.openai.com", "/v1/chat/completions"),
        (
            OpenAi,
            Some("https://h.example"),
            Chat,
            "h.example",
            "/v1/chat/completions",
        ),
        (
            OpenAi,
            Some("https://h.example/v1/"),
            Chat,
            "h.example",
            "/v1/chat/completions",
        ),
        (
            OpenAi,
            Some("https://h.example/openai/v1"),
            Embeddings,
            "h.example",
            "/openai/v1/embeddings",
        ),
        (
            OpenAi,
            Some("https://h.example/openai/deployments/x?api-version=1"),
            Chat,
            "h.example",
            "/openai/deployments/x/chat/completions?api-version=1",
        ),
        (
            Anthropic,
            None,
            Messages,
            "api.anthropic.com",
            "/v1/messages",
        ),
        (
            Anthropic,
            Some("https://h.example/v1"),
            Chat,
            "h.example",
            "/v1/messages",
        ),
        (
            Anthropic,
            Some("https://h.example/proxy"),
            Chat,
            "h.example",
            "/proxy/v1/messages",
        ),
        (Ollama, None, Chat, "localhost:11434", "/api/chat"),
        (
            Ollama,
            Some("http://ollama.ai.svc:11434/"),
            Messages,
            "ollama.ai.svc:11434",
            "/api/chat",
        ),
        (Ollama, Some("http://o:1/api"), Chat, "o:1", "/api/chat"),
        (Ollama, Some("http://o:1/v1"), Chat, "o:1", "/api/chat"),
        (
            Ollama,
            Some("http://o:1"),
            Embeddings,
            "o:1",
            "/v1/embeddings",
        ),
    ];
    for (provider, endpoint, operation, authority, path) in rows {
        let service = compiled(&service(provider, endpoint));
        let target = &service.targets()[0];
        assert_eq!(target.authority(), authority);
        assert_eq!(
            target.path(&answering(&service, operation)),
            path,
            "{endpoint:?}"
        );
        let is_local = target.dialect == Dialect::Ollama;
        let is_plain = endpoint.map_or(is_local, |endpoint| endpoint.starts_with("http:"));
        assert_eq!(target.is_tls(), !is_plain, "{endpoint:?}");
    }
    let bad = service(OpenAi, Some("https://user:canary-7f3a@h.example"));
    let error = Service::compile(&bad, |_| None).unwrap_err();
    assert!(!error.to_string().contains(CANARY), "{error}");
}

#[test]
fn credentials_go_where_their_kind_says_and_are_never_printed() {
    let rows = [
        (
            AiProvider::OpenAi,
            AiAuthKind::Bearer,
            None,
            "authorization",
            "Bearer canary-7f3a",
        ),
        (
            AiProvider::Anthropic,
            AiAuthKind::ApiKey,
            None,
            "x-api-key",
            CANARY,
        ),
        (
            AiProvider::OpenAi,
            AiAuthKind::ApiKey,
            None,
            "api-key",
            CANARY,
        ),
        (
            AiProvider::OpenAi,
            AiAuthKind::Header,
            Some("x-key"),
            "x-key",
            CANARY,
        ),
        (
            AiProvider::OpenAi,
            AiAuthKind::Basic,
            None,
            "authorization",
            "Basic canary-7f3a",
        ),
    ];
    for (provider, kind, header, name, value) in rows {
        let mut service = service(provider, None);
        service.auth = Some(auth(kind, header));
        let service = compiled(&service);
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer client"),
            ("x-api-key", "client"),
            ("cookie", "a=b"),
            ("openai-beta", "x"),
            ("x-mine", "1"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        let answering = answering(&service, Operation::Chat);
        service.head(&service.targets()[0], &answering, &mut fields);
        assert_eq!(fields[name], value);
        assert!(
            fields
                .values()
                .all(|value| !value.as_bytes().ends_with(b"client")),
            "{fields:?}"
        );
        assert!(!fields.contains_key("cookie"));
        assert_eq!(fields["x-mine"], "1");
        assert_eq!(
            fields.contains_key("anthropic-version"),
            answering.is_converted()
        );
        for shown in [format!("{service:?}"), format!("{fields:?}")] {
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }
    assert_eq!(
        *base64(b"Aladdin:open sesame"),
        "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    );
}

#[test]
fn a_key_that_is_missing_or_broken_is_named_and_not_shown() {
    let mut with_auth = service(AiProvider::OpenAi, None);
    with_auth.auth = Some(auth(AiAuthKind::Bearer, None));
    let error = Service::compile(&with_auth, |_| None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the secret ai/keys has no value token")
    );
    let broken = secrets("canary-7f3a\nx");
    let error = Service::compile(&with_auth, |_| Some(&broken)).unwrap_err();
    assert!(!error.to_string().contains(CANARY));
    let unknown = AiService {
        format: Some(AiFormat::Other("gemini".to_owned())),
        ..service(AiProvider::OpenAi, None)
    };
    assert!(matches!(
        Service::compile(&unknown, |_| None),
        Err(ServiceError::UnknownDialect(_))
    ));
}

#[test]
fn the_clients_own_key_passes_only_when_asked_for() {
    let mut asked = service(AiProvider::OpenAi, None);
    asked.pass_client_credentials = true;
    for (service, expected) in [
        (compiled(&asked), true),
        (compiled(&service(AiProvider::OpenAi, None)), false),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert("authorization", HeaderValue::from_static("Bearer client"));
        service.head(
            &service.targets()[0],
            &answering(&service, Operation::Chat),
            &mut fields,
        );
        assert_eq!(fields.contains_key("authorization"), expected);
    }
}

#[test]
fn weights_share_the_calls_and_the_others_wait_for_failures() {
    let other = |model: &str, weight| AiTarget {
        provider: AiProvider::Anthropic,
        format: None,
        model: model.to_owned(),
        auth: None,
        endpoint: None,
        headers: BTreeMap::new(),
        weight,
        cluster: Some(format!("ai/{model}:443")),
        tls: None,
    };
    let mut service = service(AiProvider::OpenAi, None);
    service.weight = NonZeroU32::new(3).unwrap();
    service.providers = vec![other("claude", 1), other("spare", 0)];
    let service = compiled(&service);
    let mut first = BTreeMap::new();
    for random in 0..400 {
        let order: Vec<&str> = service
            .order(random)
            .map(|target| target.model.as_str())
            .collect();
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], "spare");
        *first.entry(order[0]).or_insert(0) += 1;
    }
    assert_eq!(first, BTreeMap::from([("big", 300), ("claude", 100)]));
    let models: Vec<&str> = service
        .targets()
        .iter()
        .map(|target| service.model_at(target, "fast"))
        .collect();
    assert_eq!(models, ["small", "claude", "spare"]);
}

#[test]
fn models_are_listed_from_the_configuration() {
    let service = compiled(&service(AiProvider::OpenAi, None));
    assert_eq!(
        (
            service.model_for(""),
            service.model_for("fast"),
            service.model_for("x")
        ),
        ("big", "small", "x")
    );
    assert_eq!(
        service.models(7),
        r#"{"object":"list","data":[{"id":"big","object":"model","created":7,"owned_by":"openai"},{"id":"fast","object":"model","created":7,"owned_by":"openai"}]}"#
    );
}

#[test]
fn a_key_that_is_repeated_is_taken_out() {
    const LONG: &str = "sk-canary-0123456789";
    // What the provider was shown, what it says, that as an error, that as an answer.
    let rows = [
        (
            AiAuthKind::Bearer,
            CANARY,
            "key canary-7f3a?",
            "key ***?",
            "key canary-7f3a?",
        ),
        (
            AiAuthKind::Bearer,
            LONG,
            "Bearer sk-canary-0123456789 sk-canary-0123456789!",
            "Bearer *** ***!",
            "Bearer *** ***!",
        ),
        (
            AiAuthKind::Basic,
            "u:canary-7f3a",
            "dTpjYW5hcnktN2YzYQ== u:canary-7f3a canary-7f3a",
            "*** *** ***",
            "*** u:canary-7f3a canary-7f3a",
        ),
        (
            AiAuthKind::ApiKey,
            "ab/cd\"ef+gh/0123",
            r#"{"said":"ab\/cd\"ef+gh\/0123, ab/cd\"ef+gh/0123"}"#,
            r#"{"said":"***, ***"}"#,
            r#"{"said":"***, ***"}"#,
        ),
        (
            AiAuthKind::ApiKey,
            LONG,
            "sk-canary-012345678",
            "sk-canary-012345678",
            "sk-canary-012345678",
        ),
        (
            AiAuthKind::ApiKey,
            "key",
            "key is wrong",
            "key is wrong",
            "key is wrong",
        ),
        // What stands in the place of a key where nobody wants one is a word of answers, too.
        (
            AiAuthKind::Bearer,
            "ollama",
            "use ollama",
            "use ***",
            "use ollama",
        ),
    ];
    for (kind, value, said, error, answer) in rows {
        let mut with_auth = service(AiProvider::OpenAi, None);
        with_auth.auth = Some(auth(kind, None));
        let secret = secrets(value);
        let service = Service::compile(&with_auth, |_| Some(&secret)).unwrap();
        let target = &service.targets()[0];
        let said = Bytes::from_static(said.as_bytes());
        assert_eq!(target.error_without_key(said.clone()), error);
        let clean = target.without_key(said.clone());
        assert_eq!(clean, answer);
        if said == answer {
            assert_eq!(clean.as_ptr(), said.as_ptr(), "nothing is copied");
        }
        let mut fields = HeaderMap::new();
        fields.insert("x-said", HeaderValue::from_bytes(&said).unwrap());
        fields.insert("x-other", HeaderValue::from_static("1"));
        target.clean_head(&mut fields);
        assert_eq!(fields.contains_key("x-said"), said == error);
        assert!(fields.contains_key("x-other"));
    }
}
