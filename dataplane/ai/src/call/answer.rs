//! Whole answers and errors on their way back to the client.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::value::RawValue;

use super::{AnswerStream, Call, Destination, Operation};
use crate::failure::{ClientFormat, Failure, FailureReason};
use crate::json::{Members, Text};
use crate::provider::{
    Dialect, Stamp, anthropic, openai, read_error, read_response, write_pieces, write_response,
};
use crate::token::Usage;

/// The content type of a stream.
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// How the answer to one request goes back.
#[derive(Clone, Debug)]
pub struct Answering {
    pub(super) operation: Operation,
    pub(super) client: ClientFormat,
    pub(super) dialect: Dialect,
    pub(super) is_stream: bool,
    pub(super) wants_usage: bool,
    /// The gateway asked for usage in the client's place, so the client must not see it.
    pub(super) hides_usage: bool,
    pub(super) stamp: Stamp,
}

/// A whole answer as its client gets it.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// Tokens used, as far as the provider tells.
    pub usage: Usage,
    /// Why it ended, in OpenAI's words.
    pub finish: Option<&'static str>,
    /// The model that answered.
    pub model: Option<String>,
    /// What went wrong, if something did.
    pub failure: Option<Failure>,
}

impl Answering {
    pub(super) fn new(call: &Call, to: &Destination<'_>, model: &str) -> Self {
        // What is not a chat goes to Ollama in OpenAI's format.
        let is_chat = matches!(call.operation, Operation::Chat | Operation::Messages);
        let dialect = match to.dialect {
            Dialect::Ollama if !is_chat => Dialect::OpenAi,
            other => other,
        };
        let is_same = !is_chat || dialect.is_spoken_by(call.client());
        Self {
            operation: call.operation,
            client: call.client(),
            dialect,
            is_stream: call.is_stream,
            wants_usage: call.wants_usage,
            hides_usage: is_same && call.asks_for_usage(),
            stamp: Stamp {
                created: to.now,
                unique: to.unique,
                model: model.to_owned(),
            },
        }
    }

    /// True when client and provider do not speak the same dialect.
    pub fn is_converted(&self) -> bool {
        let is_chat = matches!(self.operation, Operation::Chat | Operation::Messages);
        is_chat && !self.dialect.is_spoken_by(self.client)
    }

    /// The path at the provider, below its base.
    pub fn path(&self) -> &'static str {
        match (self.operation, self.dialect) {
            (Operation::Chat | Operation::Messages, Dialect::OpenAi) => "/v1/chat/completions",
            (Operation::Chat | Operation::Messages, Dialect::Anthropic) => "/v1/messages",
            (Operation::Chat | Operation::Messages, Dialect::Ollama) => "/api/chat",
            (Operation::Completions, _) => "/v1/completions",
            (Operation::Embeddings, _) => "/v1/embeddings",
            (Operation::Responses, _) => "/v1/responses",
            (Operation::Models, _) => "/v1/models",
        }
    }

    /// True when the answer with that head comes in pieces.
    pub fn is_stream(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let is_plain = kind.starts_with("application/json") || kind.starts_with("text/html");
        self.is_stream && status.is_success() && !is_plain
    }

    /// Why an answer cannot be read whatever it says: it is compressed, which nobody asked for.
    pub fn unreadable(&self, headers: &HeaderMap) -> Option<Failure> {
        let coding = headers.get(header::CONTENT_ENCODING)?;
        let coding = coding.to_str().unwrap_or("?").trim();
        if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
            return None;
        }
        let message = "the provider's answer is compressed, which the gateway did not ask for";
        Some(Failure::bad_answer(message))
    }

    /// Opens the way of an answer in pieces.
    pub fn stream(&self, frame_bytes_max: usize) -> AnswerStream {
        AnswerStream::new(self, frame_bytes_max)
    }

    /// The content type of what the client gets; absent when it is the provider's own.
    pub fn content_type(&self, is_stream: bool) -> Option<HeaderValue> {
        if is_stream {
            return self.is_converted().then_some(EVENT_STREAM);
        }
        self.is_converted()
            .then(|| HeaderValue::from_static("application/json"))
    }

    /// Turns a whole answer into what the client reads.
    pub fn whole(&self, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
        if !status.is_success() {
            return self.refusal(status, headers, body);
        }
        match self.success(status, &body) {
            Ok(answer) => answer,
            Err(failure) => self.failed(failure),
        }
    }

    /// True when a whole answer shall be made a stream, because its client waits for one: some servers
    /// do not stream whatever they are asked. What is only passed on stays as it is.
    fn makes_pieces(&self) -> bool {
        self.is_stream && matches!(self.operation, Operation::Chat | Operation::Messages)
    }

    /// Makes a whole answer the stream that its client asked for; true when it did so. Answers that
    /// failed, and those of clients who asked for nothing else, stay as they are.
    pub fn in_pieces(&self, answer: &mut Answer) -> bool {
        if answer.failure.is_some() || !self.makes_pieces() {
            return false;
        }
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        match write_pieces(self.client, text, self.wants_usage) {
            Ok(pieces) => answer.body = pieces.into(),
            Err(failure) => *answer = self.failed(failure),
        }
        answer.failure.is_none()
    }

    /// The answer to a call that failed.
    pub fn failed(&self, failure: Failure) -> Answer {
        Answer {
            status: failure.status_for(self.client),
            body: failure.body(self.client),
            usage: Usage::default(),
            finish: None,
            model: None,
            failure: Some(failure),
        }
    }

    fn success(&self, status: StatusCode, body: &Bytes) -> Result<Answer, Failure> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Failure::bad_answer("the provider's answer is not JSON"))?;
        if !self.is_converted() {
            return self.untouched(status, text, body);
        }
        let response = read_response(self.dialect, text)?;
        Ok(Answer {
            status,
            usage: response.usage.unwrap_or_default(),
            finish: Some(response.finish.as_str()),
            model: response
                .model
                .as_ref()
                .map(|model| model.plain().into_owned()),
            body: write_response(self.client, &response, &self.stamp).into(),
            failure: None,
        })
    }

    fn untouched(&self, status: StatusCode, text: &str, body: &Bytes) -> Result<Answer, Failure> {
        let mut members = Members::read(text)
            .map_err(|_| Failure::bad_answer("the provider's answer is not a JSON object"))?;
        let usage = members.take("usage");
        let finish = match self.client {
            ClientFormat::Anthropic => members
                .take("stop_reason")
                .and_then(Text::of)
                .map(|word| anthropic::response::finish_of(word.raw()).as_str()),
            ClientFormat::OpenAi => members.take("choices").and_then(first_finish),
        };
        let usage = usage.map(|raw| match self.client {
            ClientFormat::OpenAi => openai::response::usage(raw),
            ClientFormat::Anthropic => anthropic::response::usage(raw),
        });
        let model = members.take("model").and_then(Text::of);
        Ok(Answer {
            status,
            body: body.clone(),
            usage: usage.unwrap_or_default(),
            finish,
            model: model.map(|model| model.plain().into_owned()),
            failure: None,
        })
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
        let now = self.stamp.created;
        let failure = read_error(self.dialect, status, headers, &body, now);
        // The provider's own words, when they are in the client's format already.
        let is_kept = !self.is_converted()
            && failure.reason == FailureReason::Provider
            && failure.status == status;
        let mut answer = self.failed(failure);
        if is_kept {
            answer.status = status;
            answer.body = body;
        }
        answer
    }

    /// Fields of the provider's head that a client of another format understands.
    pub fn head(&self, provider: &HeaderMap, client: &mut HeaderMap) {
        const KEPT: [&str; 3] = ["retry-after", "retry-after-ms", "x-should-retry"];
        const RENAMED: [(&str, &str); 5] = [
            ("request-id", "x-request-id"),
            (
                "anthropic-ratelimit-requests-limit",
                "x-ratelimit-limit-requests",
            ),
            (
                "anthropic-ratelimit-requests-remaining",
                "x-ratelimit-remaining-requests",
            ),
            (
                "anthropic-ratelimit-tokens-limit",
                "x-ratelimit-limit-tokens",
            ),
            (
                "anthropic-ratelimit-tokens-remaining",
                "x-ratelimit-remaining-tokens",
            ),
        ];
        let kept = KEPT.iter().map(|name| (*name, *name));
        for (from, to) in kept.chain(RENAMED) {
            if let Some(value) = provider.get(from)
                && !client.contains_key(to)
            {
                client.insert(HeaderName::from_static(to), value.clone());
            }
        }
    }
}

fn first_finish(choices: &RawValue) -> Option<&'static str> {
    let choices = crate::json::items(choices)?;
    let mut choice = Members::read(choices.first()?.get()).ok()?;
    let word = choice.take("finish_reason").and_then(Text::of)?;
    Some(openai::response::finish(word.raw()).as_str())
}
