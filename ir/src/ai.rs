//! AI services: a cluster that is a provider of language models, and budgets of tokens.
//!
//! Vocabulary differs between the parts of the system; [`crate::decode`] accepts every spelling and
//! these enums hold the meaning. Credentials are named here (`namespace/name` of a secret), never
//! held.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// Makes a cluster a provider of language models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiService {
    /// Whose API it is.
    pub provider: AiProvider,
    /// Dialect of the API; absent means the provider's own.
    pub format: Option<AiFormat>,
    /// Model used when a request names none; may be empty.
    pub model: String,
    /// How the gateway shows who it is; absent means not at all.
    pub auth: Option<AiAuth>,
    /// Limit for one exchange.
    pub timeout: Option<Duration>,
    /// Base URL (`http` or `https`); absent means the provider's public one.
    pub endpoint: Option<String>,
    /// How many attempts may follow a failed one.
    pub retries_max: u32,
    /// Least time between attempts.
    pub retry_backoff: Option<Duration>,
}

/// A provider of language models.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AiProvider {
    /// OpenAI and what speaks its API.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Ollama.
    Ollama,
    /// One this data plane does not know; requests to it cannot be translated.
    Other(String),
}

impl AiProvider {
    /// The name as it stands in configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Other(name) => name,
        }
    }
}

/// A dialect of a provider's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AiFormat {
    /// OpenAI chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// Ollama chat.
    Ollama,
    /// One this data plane does not know.
    Other(String),
}

impl AiFormat {
    /// The name as it stands in configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Other(name) => name,
        }
    }
}

/// Credentials towards a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiAuth {
    /// How they are shown.
    pub kind: AiAuthKind,
    /// `namespace/name` of the secret that holds them.
    pub secret_ref: Arc<str>,
    /// Key inside the secret; absent means the only one.
    pub secret_key: Option<String>,
    /// Header field that carries them, in lower case; absent means the kind's own.
    pub header: Option<String>,
}

/// How credentials are shown to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AiAuthKind {
    /// `Authorization: Bearer …`.
    Bearer,
    /// The bare key in a field such as `x-api-key`.
    ApiKey,
    /// `Authorization: Basic …`.
    Basic,
}

/// Budgets of tokens and requests; absent means no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenPolicy {
    /// Tokens in a minute.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Tokens in an hour.
    pub tokens_per_hour: Option<NonZeroU64>,
    /// Requests in a minute.
    pub requests_per_minute: Option<NonZeroU64>,
    /// What shares a budget.
    pub scope: TokenScope,
    /// Factor by which a budget may be exceeded for a moment; finite, at least 0, 1 when not set.
    pub burst: f64,
    /// What happens beyond the limit.
    pub on_limit: OnLimit,
}

/// What shares a token budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// Everyone.
    Global,
    /// Requests of one route.
    Route,
    /// Requests with the same credential.
    #[default]
    ApiKey,
    /// Requests for the same model.
    Model,
    /// Requests of the same user.
    User,
}

/// What happens beyond a token budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnLimit {
    /// The request is answered with 429.
    #[default]
    Reject,
    /// It waits.
    Queue,
    /// It goes to a cheaper model, when there is one.
    Degrade,
    /// It passes and is reported.
    Warn,
}
