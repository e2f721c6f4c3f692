//! Large prompts: held once while they are sent, and not at all while their answers stream.

use crate::binary::Binary;

use super::many::{begin, resident};
use super::*;

const PROMPT_BYTES: usize = 2 * 1024 * 1024;
const CALLS: usize = 48;
/// Calls that come first, so that what the allocator keeps is not counted for the others.
const WARM_UP: usize = 4;

/// A call that streams, with a prompt of that size.
fn body() -> String {
    let text = "word ".repeat(PROMPT_BYTES / 5);
    format!(r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

const OPENAI: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"first\"},\"finish_reason\":null}]}\n\n";
const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude\",\"content\":[],\"usage\":{\"input_tokens\":8,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"first\"}}\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_two_megabytes_is_not_held_while_its_answer_streams() {
    for (kind, piece) in [
        (AiProvider::OpenAi, OPENAI),
        (AiProvider::Anthropic, ANTHROPIC),
    ] {
        let answer = Answer::stream("text/event-stream", piece, 4096).then_waits();
        let provider = Provider::start([answer]).await;
        let mut service = service(kind.clone(), &provider);
        // With two providers and retries the prompt has to be kept until an answer begins.
        service.retries_max = 2;
        service.providers = vec![fallback(kind, &provider, "")];
        let case = Case::new(service);
        let (binary, _control_plane) = Binary::serving(&case.snapshot("v1"), &[], "").await;
        let body = body();
        let mut open = Vec::new();
        for _ in 0..WARM_UP {
            open.push(begin(case.port, &body).await);
        }
        let before = resident(binary.id());
        for _ in 0..CALLS {
            open.push(begin(case.port, &body).await);
        }
        let grown = resident(binary.id()).saturating_sub(before);
        assert!(
            grown < (CALLS * PROMPT_BYTES / 2) as u64,
            "{CALLS} streams behind prompts of {PROMPT_BYTES} bytes hold {grown} bytes"
        );
        let asked = provider.asked();
        assert_eq!(asked.len(), CALLS + WARM_UP);
        assert!(asked.iter().all(|it| it.body.len() >= PROMPT_BYTES));
    }
}
