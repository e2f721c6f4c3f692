//! Calls as a collector sees them: a span for each provider that was asked.

use dataplane_telemetry::otlp::Protocol;
use dataplane_testkit::collector::{Collector, Span};
use dataplane_testkit::eventually;

use crate::traces::settings;

use super::*;

const BROKEN: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
const ANSWER: &str = r#"{"id":"c1","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}"#;

fn port_of(provider: &Provider) -> u64 {
    let url = provider.url();
    url.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_at_a_provider_is_a_span_that_names_it() {
    let collector = Collector::start().await;
    let first = Provider::start([Answer::json(529, BROKEN)]).await;
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::Anthropic, &first);
    service.aliases = BTreeMap::from([("fast".to_owned(), "claude-x".to_owned())]);
    service.retries_max = 1;
    service.retry_backoff = Some(std::time::Duration::from_millis(1));
    service.providers = vec![fallback(AiProvider::OpenAi, &second, "gpt-x")];
    let case = Case::new(service);
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.traces = Some(settings(&collector, Protocol::Grpc));
    })
    .await;
    let body = r#"{"model":"fast","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(case.chat(body).await.status, 200);
    let spans = eventually("the spans arrive", || {
        let spans = collector.spans();
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    let [one, two, three, server] = &spans[..] else {
        panic!("{spans:?}")
    };
    for (number, span) in [(0_u64, one), (1, two)] {
        says(span, "chat claude-x", "anthropic", port_of(&first));
        let said = &span.attributes;
        assert_eq!(said["http.response.status_code"], 529);
        assert_eq!(said["error.type"], "529");
        assert!(!said.contains_key("gen_ai.usage.input_tokens"), "{said:?}");
        let resent = said.get("http.request.resend_count");
        assert_eq!(resent.and_then(|it| it.as_u64()).unwrap_or(0), number);
    }
    says(three, "chat gpt-x", "openai", port_of(&second));
    let said = &three.attributes;
    assert_eq!(said["http.response.status_code"], 200);
    assert_eq!(said["gen_ai.response.model"], "m-1");
    assert_eq!(said["gen_ai.usage.input_tokens"], 8);
    assert!(!said.contains_key("error.type"), "{said:?}");
    assert_eq!(server.kind, 2);
    assert_eq!(server.attributes["nantian.attempts"], 3);
    assert!(gateway.stopped().await);
}

fn says(span: &Span, name: &str, provider: &str, port: u64) {
    assert_eq!((&*span.name, span.kind), (name, 3));
    let said = &span.attributes;
    assert_eq!(said["gen_ai.operation.name"], "chat");
    assert_eq!(said["gen_ai.provider.name"], provider);
    assert_eq!(
        said["gen_ai.request.model"],
        name.trim_start_matches("chat ")
    );
    assert_eq!(said["server.address"], "localhost");
    assert_eq!(said["server.port"], port);
}
