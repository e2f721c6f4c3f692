//! What a line says of a call to an AI service: who answered, with how many tokens. Never content.

use std::time::Duration;

use super::{milliseconds, number, plain, text};

/// A call to an AI service, as far as it came. Empty and absent fields are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct GenAi<'a> {
    /// `chat`, `embeddings` and the like.
    pub operation: &'a str,
    /// Whose API was called last.
    pub provider: &'a str,
    /// The model that the client named.
    pub request_model: &'a str,
    /// The model that answered, or was asked last.
    pub response_model: &'a str,
    /// The answer was wanted in pieces.
    pub is_stream: bool,
    /// Tokens of the question.
    pub input_tokens: Option<u64>,
    /// Of these, those that the provider had in its cache.
    pub cached_tokens: Option<u64>,
    /// Of these, those that the provider put into its cache.
    pub cache_write_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Of these, thoughts.
    pub reasoning_tokens: Option<u64>,
    /// Some of these counts are the gateway's own.
    pub is_estimated: bool,
    /// Why the answer ended.
    pub finish_reason: &'a str,
    /// By the prices of the configuration, in their currency.
    pub cost: Option<f64>,
    /// From the request to the first piece of the answer.
    pub first_token: Option<Duration>,
    /// Between two pieces of the answer, on average.
    pub output_chunk: Option<Duration>,
    /// What went wrong, by a word of a fixed list.
    pub error: &'static str,
    /// Pieces of personal data and secrets that redaction found.
    pub redacted: u64,
}

pub(super) fn write(out: &mut Vec<u8>, call: &GenAi<'_>) {
    plain(out, b",\"gen_ai_operation\":\"", call.operation);
    text(out, b",\"gen_ai_provider\":\"", call.provider.as_bytes());
    text(
        out,
        b",\"gen_ai_request_model\":\"",
        call.request_model.as_bytes(),
    );
    text(
        out,
        b",\"gen_ai_response_model\":\"",
        call.response_model.as_bytes(),
    );
    if let Some(tokens) = call.input_tokens {
        number(out, b",\"gen_ai_input_tokens\":", tokens);
    }
    if let Some(tokens) = call.cached_tokens {
        number(out, b",\"gen_ai_cached_tokens\":", tokens);
    }
    if let Some(tokens) = call.output_tokens {
        number(out, b",\"gen_ai_output_tokens\":", tokens);
    }
    if call.is_estimated {
        out.extend_from_slice(b",\"gen_ai_tokens_estimated\":true");
    }
    text(
        out,
        b",\"gen_ai_finish_reason\":\"",
        call.finish_reason.as_bytes(),
    );
    if let Some(cost) = call.cost.filter(|cost| cost.is_finite()) {
        use std::io::Write as _;
        // Writing to a Vec cannot fail.
        let _ = write!(out, ",\"gen_ai_cost\":{cost:.9}");
    }
    if let Some(time) = call.first_token {
        milliseconds(out, b",\"gen_ai_time_to_first_token_ms\":", time);
    }
    if let Some(time) = call.output_chunk {
        milliseconds(out, b",\"gen_ai_time_per_output_chunk_ms\":", time);
    }
    text(out, b",\"gen_ai_error\":\"", call.error.as_bytes());
    if call.redacted > 0 {
        number(out, b",\"gen_ai_redacted\":", call.redacted);
    }
}
