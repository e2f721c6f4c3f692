//! What goes wrong with a call, and how its client is told in its own format.
//!
//! A [`Failure`] is made by the gateway (a request it cannot convert, a stream that broke) or read from a
//! provider's error by `provider`. It knows its status, both formats of its body and the frame that ends a
//! stream. Nothing of the gateway's credentials is ever in it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::json::{Object, Text};

/// The format in which a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientFormat {
    /// OpenAI: chat completions and what belongs to them.
    OpenAi,
    /// Anthropic: messages.
    Anthropic,
}

/// Whose doing a failure is; a stable word for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The request cannot be understood.
    InvalidRequest,
    /// The request asks for what the provider cannot do.
    Unsupported,
    /// No such model or path.
    NotFound,
    /// More bytes than allowed.
    TooLarge,
    /// The request holds what must not leave.
    Blocked,
    /// A budget is used up.
    RateLimited,
    /// The provider refused, in its own words.
    Provider,
    /// The provider did not accept the gateway's credentials.
    Credentials,
    /// The provider's answer cannot be understood.
    BadAnswer,
    /// The provider's stream ended before the answer did.
    StreamBroken,
    /// The provider cannot be reached.
    Unreachable,
    /// The provider took too long.
    Timeout,
}

impl FailureReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Blocked => "blocked",
            Self::RateLimited => "rate_limited",
            Self::Provider => "provider_error",
            Self::Credentials => "provider_credentials",
            Self::BadAnswer => "bad_answer",
            Self::StreamBroken => "stream_broken",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
        }
    }
}

/// A call that fails, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose doing it is.
    pub reason: FailureReason,
    /// The status of the answer.
    pub status: StatusCode,
    /// What failed; a provider's own words where it said some.
    pub message: String,
    /// The provider's word for the kind of error.
    pub kind: Option<String>,
    /// The member of the request it is about.
    pub param: Option<String>,
    /// A word that programs may act on.
    pub code: Option<String>,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of that status.
    pub fn new(reason: FailureReason, status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            reason,
            status,
            message: message.into(),
            kind: None,
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            FailureReason::InvalidRequest,
            StatusCode::BAD_REQUEST,
            message,
        )
    }

    /// 400: the provider cannot do what `param` asks for.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::new(FailureReason::Unsupported, StatusCode::BAD_REQUEST, message)
            .about(param)
            .coded("unsupported_value")
    }

    /// 502: the provider's answer makes no sense.
    pub fn bad_answer(message: impl Into<String>) -> Self {
        Self::new(FailureReason::BadAnswer, StatusCode::BAD_GATEWAY, message)
    }

    /// The provider's stream ended before the answer did.
    pub fn broken_stream() -> Self {
        let message = "the provider's stream ended before the answer was complete";
        Self::new(
            FailureReason::StreamBroken,
            StatusCode::BAD_GATEWAY,
            message,
        )
    }

    /// The same about a member of the request.
    #[must_use]
    pub fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The same with a word that programs may act on.
    #[must_use]
    pub fn coded(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    /// The status that a client of that format gets; 529 is a word of Anthropic's alone.
    pub fn status_for(&self, format: ClientFormat) -> StatusCode {
        match (format, self.status.as_u16()) {
            (ClientFormat::OpenAi, 529) => StatusCode::SERVICE_UNAVAILABLE,
            (ClientFormat::Anthropic, 503) => overloaded(),
            _ => self.status,
        }
    }

    /// The body that a client of that format gets.
    pub fn body(&self, format: ClientFormat) -> Bytes {
        let mut out = String::with_capacity(128 + self.message.len());
        self.write(format, &mut out);
        out.into()
    }

    /// The frame that ends a stream to a client of that format.
    pub fn frame(&self, format: ClientFormat) -> Bytes {
        let mut out = String::with_capacity(160 + self.message.len());
        out.push_str(match format {
            ClientFormat::OpenAi => "data: ",
            ClientFormat::Anthropic => "event: error\ndata: ",
        });
        self.write(format, &mut out);
        out.push_str("\n\n");
        out.into()
    }

    fn write(&self, format: ClientFormat, out: &mut String) {
        let message = Text::new(&self.message);
        let mut body = Object::open(out);
        match format {
            ClientFormat::OpenAi => {
                let kind = self.kind.as_deref().unwrap_or_else(|| self.openai_kind());
                body.object("error", |error| {
                    error
                        .text("message", &message)
                        .text("type", &Text::new(kind));
                    let maybe = |text: &Option<String>| text.as_deref().map(Text::new);
                    for (name, text) in [("param", &self.param), ("code", &self.code)] {
                        match maybe(text) {
                            Some(text) => error.text(name, &text),
                            None => error.raw(name, "null"),
                        };
                    }
                });
            }
            ClientFormat::Anthropic => {
                body.word("type", "error");
                body.object("error", |error| {
                    error
                        .word("type", self.anthropic_kind())
                        .text("message", &message);
                });
            }
        }
        body.close();
    }

    fn openai_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            408 | 504 => "timeout_error",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            503 | 529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}

/// 529, which Anthropic says when it has too much to do.
pub(crate) fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_told_in_its_own_words() {
        let mut failure = Failure::unsupported("n", "only \"one\" answer");
        let body = failure.body(ClientFormat::OpenAi);
        assert_eq!(
            body,
            r#"{"error":{"message":"only \"one\" answer","type":"invalid_request_error","param":"n","code":"unsupported_value"}}"#
        );
        assert_eq!(
            failure.frame(ClientFormat::Anthropic),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"only \\\"one\\\" answer\"}}\n\n"
        );
        failure.status = overloaded();
        assert_eq!(failure.status_for(ClientFormat::OpenAi), 503);
        assert_eq!(failure.status_for(ClientFormat::Anthropic), 529);
    }
}
