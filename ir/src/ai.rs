//! AI services: a cluster that is a provider of language models, and budgets of tokens.
//!
//! Vocabulary differs between the parts of the system; [`crate::decode`] accepts every spelling and
//! these enums hold the meaning. Credentials are named here (`namespace/name` of a secret), never
//! held.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use crate::Hostname;
#[cfg(doc)]
use crate::Pattern;

/// Makes a cluster a provider of language models.
#[derive(Clone, Debug, PartialEq)]
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
    /// Models by the names that clients may use for them.
    pub aliases: BTreeMap<String, String>,
    /// Header fields set on each request, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// This provider's share of the requests among all that have one.
    pub weight: NonZeroU32,
    /// Further providers: those with a weight share the requests, the others are asked when the
    /// ones before them fail.
    pub providers: Vec<AiTarget>,
    /// What is taken out of questions and answers.
    pub redaction: Vec<Redaction>,
    /// Limit of an answer's tokens for providers that must be told one.
    pub default_max_tokens: Option<NonZeroU32>,
    /// Passes the client's own credentials on when there are none of the gateway's.
    pub pass_client_credentials: bool,
    /// What tokens cost, by model.
    pub prices: BTreeMap<String, AiPrice>,
}

/// One more provider of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiTarget {
    /// Whose API it is.
    pub provider: AiProvider,
    /// Dialect of the API; absent means the provider's own.
    pub format: Option<AiFormat>,
    /// Model there; empty means the one that was asked for.
    pub model: String,
    /// How the gateway shows who it is; absent means not at all.
    pub auth: Option<AiAuth>,
    /// Base URL (`http` or `https`); absent means the provider's public one.
    pub endpoint: Option<String>,
    /// Header fields set on each request, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Share of the requests; 0 for one that is only asked when others fail.
    pub weight: u32,
    /// Key of the cluster that holds its addresses; absent means the service's own.
    pub cluster: Option<String>,
    /// How its certificate is judged; absent means by its URL and the system's authorities.
    pub tls: Option<AiProviderTls>,
}

/// How the certificate of a provider is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiProviderTls {
    /// Sent as SNI, and the name the certificate must have.
    pub hostname: Hostname,
    /// PEM texts of the trust anchors; empty for the system's.
    pub ca_pems: Vec<String>,
}

/// What a million tokens cost, in any currency; finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AiPrice {
    /// Tokens of questions.
    pub input: f64,
    /// Tokens of questions that the provider had in its cache; absent means the price of input.
    pub cached_input: Option<f64>,
    /// Tokens of answers.
    pub output: f64,
}

/// One thing that is taken out of questions and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// What is looked for.
    pub kind: RedactionKind,
    /// What happens to it.
    pub action: RedactionAction,
}

/// What redaction looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedactionKind {
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Phone,
    /// Numbers of payment cards, with a right check digit (Luhn).
    CreditCard,
    /// International bank account numbers, with right check digits.
    Iban,
    /// Social security numbers of the United States.
    UsSsn,
    /// Individual taxpayer numbers of the United States.
    UsItin,
    /// Passport numbers of the United States.
    UsPassport,
    /// Numbers of the British National Health Service.
    UkNhs,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Hardware addresses of networks.
    Mac,
    /// Addresses of Bitcoin and Ethereum.
    CryptoAddress,
    /// URLs with user and password in them.
    UrlCredentials,
    /// API keys of well-known services.
    ApiKey,
    /// JSON web tokens.
    Jwt,
    /// What an expression finds anywhere in a text; it compiles within [`Pattern`]'s limits.
    Regex(Arc<str>),
}

impl RedactionKind {
    /// The name as it stands in configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::CreditCard => "creditCard",
            Self::Iban => "iban",
            Self::UsSsn => "usSsn",
            Self::UsItin => "usItin",
            Self::UsPassport => "usPassport",
            Self::UkNhs => "ukNhs",
            Self::Ip => "ip",
            Self::Mac => "mac",
            Self::CryptoAddress => "cryptoAddress",
            Self::UrlCredentials => "urlCredentials",
            Self::ApiKey => "apiKey",
            Self::Jwt => "jwt",
            Self::Regex(_) => "regex",
        }
    }
}

/// What happens to what redaction finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RedactionAction {
    /// A placeholder takes its place.
    #[default]
    Mask,
    /// A placeholder takes its place for the provider, and gives it back in the answer.
    Tokenize,
    /// The request is refused.
    Block,
    /// It stays and is counted.
    Detect,
}

impl RedactionAction {
    /// The name as it stands in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Tokenize => "tokenize",
            Self::Block => "block",
            Self::Detect => "detect",
        }
    }
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
    /// The bare key in the field that [`AiAuth::header`] names.
    Header,
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
    /// The model that is used beyond the limit, for [`OnLimit::Degrade`].
    pub degrade_to: Option<String>,
    /// Refuses nothing, only counts what it would have refused.
    pub is_dry_run: bool,
}

/// What shares a token budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Requests from the same address.
    SourceIp,
    /// Requests with the same value of a header field, its name in lower case.
    Header(String),
    /// Requests with the same value of a claim.
    JwtClaim(String),
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
