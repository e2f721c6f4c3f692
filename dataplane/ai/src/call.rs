//! One call: what a client asks, made ready for a provider, and the way its answer goes back.
//!
//! [`Call::read`] looks at the request once; [`Call::send`] makes the body for one provider and can be asked
//! again for the next when that one fails. The [`Answering`] it gives turns whole answers and errors into
//! what the client reads, and opens an [`AnswerStream`] for answers in pieces. A client and a provider of
//! one dialect get each other's bytes: only the model's name is replaced, where it stands.

mod answer;
mod stream;

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;

pub use self::answer::{Answer, Answering, EVENT_STREAM};
pub use self::stream::AnswerStream;
use crate::failure::{ClientFormat, Failure};
use crate::json::{self, Kind, Members, Object, Text};
use crate::left_behind::LeftBehind;
use crate::provider::{Dialect, Limit, read_request, write_request};
use crate::token;

/// Tokens reserved for an answer when its request names no limit.
pub const RESERVED_OUTPUT_TOKENS: u64 = 256;

/// The longest name of a model; it stands in logs, figures and spans.
const MODEL_BYTES_MAX: usize = 512;

/// What is asked of an AI service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Messages,
    /// OpenAI's completions, as they were before chats.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// OpenAI's responses.
    Responses,
    /// The models there are; answered by the gateway.
    Models,
}

impl Operation {
    /// What a request asks, by the end of its path; a prefix is the route's affair.
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        let ends = |end: &str| path.ends_with(end);
        match *method {
            Method::POST if ends("/chat/completions") => Some(Self::Chat),
            Method::POST if ends("/messages") => Some(Self::Messages),
            Method::POST if ends("/completions") => Some(Self::Completions),
            Method::POST if ends("/embeddings") => Some(Self::Embeddings),
            Method::POST if ends("/responses") => Some(Self::Responses),
            Method::GET | Method::HEAD if ends("/models") => Some(Self::Models),
            _ => None,
        }
    }

    /// The format that its client speaks.
    pub fn client(self) -> ClientFormat {
        match self {
            Self::Messages => ClientFormat::Anthropic,
            _ => ClientFormat::OpenAi,
        }
    }

    /// The name that OpenTelemetry has for it (`gen_ai.operation.name`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages | Self::Responses => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Models => "list_models",
        }
    }
}

/// A request, looked at once.
#[derive(Clone, Debug)]
pub struct Call {
    operation: Operation,
    body: Bytes,
    model: String,
    at_model: Option<Range<usize>>,
    is_stream: bool,
    wants_usage: bool,
    at_stream_options: Option<Range<usize>>,
    at_max_tokens: Option<Range<usize>>,
    output_limit: Option<u64>,
    /// The limit stands there by its newer name alone.
    has_newer_limit: bool,
    is_empty: bool,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// What the provider speaks.
    pub dialect: Dialect,
    /// The model there; empty for the one that was asked for.
    pub model: &'a str,
    /// Limit of an answer's tokens where the provider must be told one and the client names none.
    pub default_max_tokens: u32,
    /// It is Ollama, which knows only the older name of that limit, also in OpenAI's format.
    pub is_ollama: bool,
    /// Seconds since 1970.
    pub now: u64,
    /// A number that no other call has.
    pub unique: u64,
}

/// A request as it leaves for a provider.
#[derive(Debug)]
pub struct Outgoing {
    /// The body, in pieces of which most belong to the client's.
    pub body: Vec<Bytes>,
    /// Paths of members of the client's request that have no counterpart there, within limits.
    pub left_behind: Vec<String>,
    /// How its answer goes back.
    pub answering: Answering,
}

impl Outgoing {
    /// Length of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

impl Call {
    /// Looks at a request; what is no JSON object, or misses what all providers need, goes nowhere.
    pub fn read(operation: Operation, body: Bytes) -> Result<Self, Failure> {
        let text = std::str::from_utf8(&body)
            .map_err(|_| Failure::invalid("the body is not a JSON object: it is not UTF-8"))?;
        let mut members = Members::read(text)
            .map_err(|error| Failure::invalid(format!("the body is not a JSON object: {error}")))?;
        // A `null` is none, and is replaced where it stands: twice, readers would differ about it.
        let at = |name| members.find(name).map(|raw| within(text, raw));
        let (at_model, at_max_tokens) = (at("model"), at("max_tokens"));
        let at_stream_options = at("stream_options");
        let model = match members.take("model") {
            None => None,
            Some(raw) => Some(
                Text::of(raw)
                    .ok_or_else(|| Failure::invalid("`model` must be a string").about("model"))?,
            ),
        };
        if at_model
            .as_ref()
            .is_some_and(|at| at.len() > MODEL_BYTES_MAX)
        {
            return Err(Failure::invalid("`model` is too long to be one").about("model"));
        }
        let is_stream = match members.take("stream").map(|raw| (json::kind(raw), raw)) {
            None => false,
            Some((Kind::Bool, raw)) => raw.get() == "true",
            Some(_) => {
                return Err(Failure::invalid("`stream` must be true or false").about("stream"));
            }
        };
        let is_chat = matches!(operation, Operation::Chat | Operation::Messages);
        let messages = members.take("messages");
        if is_chat && !messages.is_some_and(|raw| json::kind(raw) == Kind::Array) {
            let message = "`messages` is missing or is not a list";
            return Err(Failure::invalid(message).about("messages"));
        }
        let options = members.take("stream_options");
        let wants_usage = options.is_some_and(|raw| {
            let options = Members::read(raw.get()).ok();
            let wanted = options.and_then(|mut options| options.take("include_usage"));
            wanted.is_some_and(|raw| raw.get() == "true")
        });
        let newer = members.take("max_completion_tokens");
        let older = members.take("max_tokens");
        let limit = newer
            .or(older)
            .or_else(|| members.take("max_output_tokens"));
        Ok(Self {
            operation,
            at_model,
            model: model.map_or_else(String::new, |model| model.plain().into_owned()),
            is_stream,
            wants_usage,
            at_stream_options,
            at_max_tokens,
            output_limit: limit.and_then(json::count),
            has_newer_limit: newer.is_some() && older.is_none(),
            is_empty: text.trim_start_matches(['{', ' ', '\t', '\r', '\n']) == "}",
            body,
        })
    }

    /// What is asked.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The format of answers and errors.
    pub fn client(&self) -> ClientFormat {
        self.operation.client()
    }

    /// The model that the client named; empty when it named none.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// True when the client wants the answer in pieces.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whose request it is, as far as its body says.
    pub fn user(&self) -> Option<String> {
        let mut members = Members::read(std::str::from_utf8(&self.body).ok()?).ok()?;
        let names = ["safety_identifier", "user"];
        let named = names.into_iter().find_map(|name| members.take(name));
        let user = match named {
            Some(user) => user,
            None => {
                let metadata = members.take("metadata")?;
                Members::read(metadata.get()).ok()?.take("user_id")?
            }
        };
        Text::of(user).map(|user| user.plain().into_owned())
    }

    /// The same call with another body, which redaction made of this one's.
    pub fn with_body(&self, body: Bytes) -> Result<Self, Failure> {
        Self::read(self.operation, body)
    }

    /// About how many tokens the question is.
    pub fn estimated_input(&self, model: &str) -> u64 {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        token::of_request(model, text)
    }

    /// About how many tokens a whole answer is; absent where answers are no text.
    pub fn estimated_output(&self, body: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        match self.operation {
            Operation::Embeddings | Operation::Models => None,
            _ => Some(token::of_answer(&self.model, text)),
        }
    }

    /// How many tokens to reserve for question and answer together.
    pub fn reservation(&self, model: &str) -> u64 {
        let output = match self.operation {
            Operation::Embeddings | Operation::Models => 0,
            _ => self.output_limit.unwrap_or(RESERVED_OUTPUT_TOKENS),
        };
        // A limit is a ceiling and rarely reached; no more than the usual is set aside for it.
        let output = output.min(RESERVED_OUTPUT_TOKENS);
        self.estimated_input(model).saturating_add(output)
    }

    /// Makes the request for a provider.
    pub fn send(&self, to: &Destination<'_>) -> Result<Outgoing, Failure> {
        let model = if to.model.is_empty() {
            self.model.as_str()
        } else {
            to.model
        };
        let mut left_behind = LeftBehind::default();
        let answering = Answering::new(self, to, model);
        let body = if answering.is_converted() {
            let text = std::str::from_utf8(&self.body).unwrap_or_default();
            let noted = RefCell::default();
            let request = read_request(self.client(), text, &noted)?;
            left_behind = noted.into_inner();
            let limit = Limit {
                default: to.default_max_tokens,
                has_older_name: to.is_ollama,
            };
            let body = write_request(to.dialect, &request, model, limit, &mut left_behind)?;
            vec![Bytes::from(body)]
        } else {
            self.refuse_foreign(to.dialect)?;
            self.edited(model, to.is_ollama)
        };
        Ok(Outgoing {
            body,
            left_behind: left_behind.into_names(),
            answering,
        })
    }

    /// What is passed on untouched needs a provider that understands it.
    fn refuse_foreign(&self, dialect: Dialect) -> Result<(), Failure> {
        let is_foreign = match self.operation {
            Operation::Chat | Operation::Messages | Operation::Models => false,
            // Ollama speaks these in OpenAI's format, too.
            Operation::Completions | Operation::Embeddings | Operation::Responses => {
                dialect == Dialect::Anthropic
            }
        };
        if is_foreign {
            let message = format!(
                "the provider of this model cannot do {}, ask a model of a provider with OpenAI's format",
                self.operation.as_str()
            );
            return Err(Failure::unsupported("model", message));
        }
        Ok(())
    }

    /// The client's own bytes with the model replaced and usage asked for; to Ollama the limit is told
    /// by the name that it knows, too.
    fn edited(&self, model: &str, is_ollama: bool) -> Vec<Bytes> {
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        let start = self
            .body
            .iter()
            .position(|b| *b == b'{')
            .map_or(0, |at| at + 1);
        let mut set = |name: &str, at: &Option<Range<usize>>, value: String| match at {
            Some(at) => edits.push((at.clone(), value)),
            None => {
                let comma = if self.is_empty { "" } else { "," };
                edits.push((start..start, format!("\"{name}\":{value}{comma}")));
            }
        };
        if model != self.model {
            let mut quoted = String::new();
            json::quote_plain(&mut quoted, model);
            set("model", &self.at_model, quoted);
        }
        if let Some(limit) = self.output_limit
            && is_ollama
            && self.operation == Operation::Chat
            && self.has_newer_limit
        {
            set("max_tokens", &self.at_max_tokens, limit.to_string());
        }
        if self.asks_for_usage() {
            let at = &self.at_stream_options;
            set("stream_options", at, self.with_usage(at.as_ref()));
        }
        edits.sort_by_key(|(at, _)| at.start);
        let mut pieces = Vec::with_capacity(2 * edits.len() + 1);
        let mut from = 0;
        for (at, text) in edits {
            pieces.push(self.body.slice(from..at.start));
            pieces.push(Bytes::from(text));
            from = at.end;
        }
        pieces.push(self.body.slice(from..));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// True when the gateway wants usage in a stream whose client did not ask for it.
    fn asks_for_usage(&self) -> bool {
        let has_it = matches!(self.operation, Operation::Chat | Operation::Completions);
        has_it && self.is_stream && !self.wants_usage
    }

    /// The client's options with usage among them.
    fn with_usage(&self, at: Option<&Range<usize>>) -> String {
        let options = at.map_or(&[][..], |at| &self.body[at.clone()]);
        let options = std::str::from_utf8(options).unwrap_or_default();
        let others = Members::read(options).map(|members| members.others("include_usage"));
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        for (name, value) in others.unwrap_or_default() {
            object.raw(Text::new(&name).raw(), value.get());
        }
        object.raw("include_usage", "true");
        object.close();
        out
    }
}

/// Where a value lies in the text it was read from.
fn within(text: &str, raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + raw.get().len()
}
