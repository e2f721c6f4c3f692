//! The dialects of providers: requests are written in them, answers, streams and errors read from them.
//!
//! One file or folder for each dialect; this one chooses among them. A new provider is a variant of
//! [`Dialect`] and a folder with what its `match`es here ask for.

pub(crate) mod anthropic;
mod fields;
pub(crate) mod ollama;
pub(crate) mod openai;

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::chat::{Request, Response, Step};
use crate::event_stream::{Frame, Framing};
use crate::failure::{ClientFormat, Failure, FailureReason};
use crate::json::Text;
use crate::left_behind::LeftBehind;

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI and what speaks its API.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Ollama's own API.
    Ollama,
}

impl Dialect {
    /// True when what a client of that format writes is what the provider reads.
    pub fn is_spoken_by(self, client: ClientFormat) -> bool {
        matches!(
            (self, client),
            (Self::OpenAi, ClientFormat::OpenAi) | (Self::Anthropic, ClientFormat::Anthropic)
        )
    }

    /// How its streams are cut.
    pub fn framing(self) -> Framing {
        match self {
            Self::OpenAi | Self::Anthropic => Framing::Sse,
            Self::Ollama => Framing::Ndjson,
        }
    }
}

/// What an answer of ours carries that no provider gives.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Seconds since 1970.
    pub created: u64,
    /// A number that no other call has; ids are made of it.
    pub unique: u64,
    /// The model that was asked.
    pub model: String,
}

impl Stamp {
    pub(crate) fn id(&self, prefix: &str) -> Text<'static> {
        Text::new(&format!("{prefix}{:016x}", self.unique))
    }

    pub(crate) fn call_id(&self, slot: u32) -> Text<'static> {
        Text::new(&format!("call_{:016x}{slot:04x}", self.unique))
    }

    pub(crate) fn model_or<'t>(&self, model: Option<&'t Text<'_>>) -> Text<'t> {
        match model {
            Some(model) if !model.is_empty() => model.borrowed(),
            _ => Text::new(&self.model),
        }
    }
}

/// Reads what a client asks; members that no other dialect has are noted.
pub fn read_request<'a>(
    client: ClientFormat,
    body: &'a str,
    left_behind: &RefCell<LeftBehind>,
) -> Result<Request<'a>, Failure> {
    match client {
        ClientFormat::OpenAi => openai::request::read(body, left_behind),
        ClientFormat::Anthropic => anthropic::request::read(body, left_behind),
    }
}

/// How a provider is told the limit of an answer's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Where it must be told one and the client names none.
    pub default: u32,
    /// In OpenAI's format it knows only the older name, `max_tokens`.
    pub has_older_name: bool,
}

/// Writes it for a provider; members that have to stay behind are noted.
pub fn write_request(
    dialect: Dialect,
    request: &Request<'_>,
    model: &str,
    limit: Limit,
    left_behind: &mut LeftBehind,
) -> Result<String, Failure> {
    match dialect {
        Dialect::OpenAi => openai::write_request::write(request, model, limit, left_behind),
        Dialect::Anthropic => {
            anthropic::write_request::write(request, model, limit.default, left_behind)
        }
        Dialect::Ollama => ollama::request::write(request, model, left_behind),
    }
}

/// Reads a whole answer of a provider.
pub fn read_response(dialect: Dialect, body: &str) -> Result<Response<'_>, Failure> {
    match dialect {
        Dialect::OpenAi => openai::response::read(body),
        Dialect::Anthropic => anthropic::response::read(body),
        Dialect::Ollama => ollama::response::read(body),
    }
}

/// Writes it for a client.
pub fn write_response(client: ClientFormat, response: &Response<'_>, stamp: &Stamp) -> String {
    match client {
        ClientFormat::OpenAi => openai::response::write(response, stamp),
        ClientFormat::Anthropic => anthropic::response::write(response, stamp),
    }
}

/// Writes a whole answer, which is in the client's format already, as the stream that the client asked for.
pub fn write_pieces(
    client: ClientFormat,
    answer: &str,
    wants_usage: bool,
) -> Result<String, Failure> {
    // Between the values of JSON they are white space, within these they cannot stand.
    let flat = match answer.contains(['\n', '\r']) {
        true => Cow::Owned(answer.replace(['\n', '\r'], " ")),
        false => Cow::Borrowed(answer),
    };
    match client {
        ClientFormat::OpenAi => openai::pieces::write(&flat, wants_usage),
        ClientFormat::Anthropic => anthropic::pieces::write(&flat),
    }
}

/// Reads a provider's stream, frame by frame.
#[derive(Debug)]
pub(crate) enum Decoder {
    OpenAi(openai::decoder::Decoder),
    Anthropic(anthropic::decoder::Decoder),
    Ollama(ollama::response::Decoder),
    /// OpenAI's Responses API, which is only watched.
    Responses,
}

impl Decoder {
    pub(crate) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self::OpenAi(openai::decoder::Decoder::default()),
            Dialect::Anthropic => Self::Anthropic(anthropic::decoder::Decoder::default()),
            Dialect::Ollama => Self::Ollama(ollama::response::Decoder::default()),
        }
    }

    pub(crate) fn frame(&mut self, frame: &Frame, step: &mut dyn FnMut(Step<'_>)) {
        match self {
            Self::OpenAi(decoder) => decoder.frame(frame, step),
            Self::Anthropic(decoder) => decoder.frame(frame, step),
            Self::Ollama(decoder) => decoder.frame(frame, step),
            Self::Responses => openai::decoder::responses_frame(frame, step),
        }
    }
}

/// Writes a client's stream, step by step.
#[derive(Debug)]
pub(crate) enum Encoder {
    OpenAi(openai::encoder::Encoder),
    Anthropic(anthropic::encoder::Encoder),
}

impl Encoder {
    pub(crate) fn new(client: ClientFormat, stamp: Stamp, wants_usage: bool) -> Self {
        match client {
            ClientFormat::OpenAi => Self::OpenAi(openai::encoder::Encoder::new(stamp, wants_usage)),
            ClientFormat::Anthropic => Self::Anthropic(anthropic::encoder::Encoder::new(stamp)),
        }
    }

    pub(crate) fn step(&mut self, step: Step<'_>, out: &mut String) {
        match self {
            Self::OpenAi(encoder) => encoder.step(step, out),
            Self::Anthropic(encoder) => encoder.step(step, out),
        }
    }
}

/// Reads a provider's error: its words are kept, its status is one that clients understand, and nothing
/// about the gateway's credentials is passed on.
pub fn read_error(
    dialect: Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: u64,
) -> Failure {
    let mut failure = Failure::new(
        FailureReason::BadAnswer,
        status,
        format!("the provider answered {}", status.as_u16()),
    );
    let text = std::str::from_utf8(body).unwrap_or_default();
    let read = match dialect {
        Dialect::OpenAi | Dialect::Ollama => openai::response::error(text, &mut failure),
        Dialect::Anthropic => anthropic::response::error(text, &mut failure),
    };
    failure.retry_after = retry_after(headers, now);
    if status == StatusCode::UNAUTHORIZED {
        // Providers repeat a part of the key in their message.
        let message = "the provider did not accept the gateway's credentials";
        failure = Failure {
            retry_after: failure.retry_after,
            ..Failure::new(FailureReason::Credentials, status, message)
        };
        failure.code = Some("provider_credentials".to_owned());
        return failure;
    }
    let is_about_model = failure.message.to_ascii_lowercase().contains("model");
    if status == StatusCode::NOT_FOUND && failure.code.is_none() && is_about_model {
        // The word that OpenAI has for it; others have none.
        failure = failure.about("model").coded("model_not_found");
    }
    if !(status.is_client_error() || status.is_server_error()) {
        // Redirections are followed by nobody.
        failure.status = StatusCode::BAD_GATEWAY;
    } else if read.is_none() && status == StatusCode::INTERNAL_SERVER_ERROR {
        // A page of a proxy in between, or no words at all.
        failure.status = StatusCode::BAD_GATEWAY;
    }
    failure
}

/// What `Retry-After`, in seconds or as a date, or `retry-after-ms` says; `now` is in seconds since 1970.
pub fn retry_after(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| -> Option<f64> {
        let number = text(name)?.parse().ok();
        number.filter(|n: &f64| *n >= 0.0 && *n < 1e9)
    };
    if let Some(ms) = number("retry-after-ms") {
        return Some(Duration::from_secs_f64(ms / 1000.0));
    }
    let name = header::RETRY_AFTER.as_str();
    if let Some(seconds) = number(name) {
        return Some(Duration::from_secs_f64(seconds));
    }
    let at = httpdate::parse_http_date(text(name)?).ok()?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    // What has passed is now.
    Some(at.duration_since(now).unwrap_or_default())
}
