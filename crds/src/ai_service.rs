//! AIService: a model behind one or several providers, as a backend of routes.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rule::{Faults, Rule, validations};
use crate::status::ObjectStatus;
use crate::target_ref::SecretKeyRef;

const ONE_SECRET: Rule = Rule {
    cel: "!has(self.secretRef) || (!has(self.secret) && !has(self.key))",
    message: "secretRef and secret with key say the same, write one of them",
};
const CREDENTIAL: Rule = Rule {
    cel: "has(self.secretRef) || has(self.secret)",
    message: "names no Secret, set secretRef {name, key}",
};
const HEADER: Rule = Rule {
    cel: "!has(self.type) || self.type != 'header' || has(self.header)",
    message: "header is needed for type header, add it",
};
const REGEX: Rule = Rule {
    cel: "(self.kind == 'regex') == has(self.pattern)",
    message: "pattern goes with kind regex and is needed there",
};

/// A model behind one or several providers, as a backend of HTTPRoutes (group `gateway.nantian.dev`, kind
/// `AIService`). Example: `spec: {provider: openai, model: gpt-4o, auth: {type: bearer, secretRef: {name:
/// openai, key: token}}}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "AIService",
    plural = "aiservices",
    namespaced,
    status = "ObjectStatus",
    shortname = "ais",
    category = "nantian",
    doc = "A model behind one or several providers, as a backend of routes.",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model")
)]
#[serde(rename_all = "camelCase")]
pub struct AIServiceSpec {
    /// Whose API it is: `openai`, `anthropic` or `ollama`; whatever speaks the API of one of them counts.
    pub provider: Provider,
    /// The format of requests, where it is not the provider's own: `openai` (also `openai-chat`),
    /// `anthropic` (also `anthropic-messages`) or `ollama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["openai", "openai-chat", "anthropic", "anthropic-messages", "ollama"]))]
    pub format: Option<String>,
    /// The model for requests that name none. Example: `gpt-4o`.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Names that clients may use for models. Example: `{fast: gpt-4o-mini}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// Base URL; the provider's public one when absent. Example: `http://ollama.models.svc:11434`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
    /// How the gateway shows who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ProviderAuth>,
    /// Header fields that are set on each request to the provider. Example: `{x-team: search}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Limit for one exchange. Example: `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When an exchange is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ProviderRetry>,
    /// Providers that are asked in turn when this one fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub fallbacks: Vec<Fallback>,
    /// What is taken out of questions and answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub redaction: Vec<Redaction>,
    /// Where calls are reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<Observability>,
}

/// Whose API it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum Provider {
    #[default]
    Openai,
    Anthropic,
    Ollama,
}

/// How the gateway shows who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[ONE_SECRET, CREDENTIAL, HEADER])))]
pub struct ProviderAuth {
    /// `bearer` (the default) puts it into `Authorization`, `api-key` into the provider's own field,
    /// `basic` as user and password, `header` into the field of `header`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(extend("enum" = ["bearer", "api-key", "basic", "header"]))]
    pub kind: Option<String>,
    /// The Secret in this namespace. Example: `{name: openai, key: token}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// The Secret's name, as older resources write it; use `secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// The key in the Secret, as older resources write it; use `secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Header field that carries it. Example: `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub header: Option<String>,
}

/// When an exchange is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRetry {
    /// Further attempts. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<i32>,
    /// Least time between two; what the provider says in `Retry-After` comes first. Example: `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

/// A provider that is asked when the ones before it fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Whose API it is.
    pub provider: Provider,
    /// The model there. Example: `claude-sonnet-4-5`.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Base URL; the provider's public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
    /// How the gateway shows who it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ProviderAuth>,
}

/// One thing that is taken out of questions and answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[REGEX])))]
pub struct Redaction {
    /// What is looked for; `regex` for what `pattern` says. Example: `email`.
    #[schemars(extend("enum" = [
        "email", "phone", "creditCard", "iban", "usSsn", "usItin", "usPassport", "ukNhs", "ip", "mac",
        "cryptoAddress", "urlCredentials", "apiKey", "jwt", "regex"
    ]))]
    pub kind: String,
    /// The expression, for `regex`. Example: `EMP-[0-9]{6}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,
    /// `mask` (the default) hides it, `tokenize` hides it from the provider and puts it back into the
    /// answer, `block` refuses the request, `detect` only counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["mask", "tokenize", "block", "detect"]))]
    pub action: Option<String>,
}

/// Where calls are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observability {
    /// A Langfuse server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub langfuse: Option<Langfuse>,
    /// An OpenTelemetry collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel: Option<Otel>,
}

/// A Langfuse server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Langfuse {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub host: Option<String>,
    /// Its public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub public_key: Option<String>,
    /// Its secret key, readable for all who may read this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub secret_key: Option<String>,
}

impl std::fmt::Debug for Langfuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Langfuse")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Otel {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub endpoint: Option<String>,
    /// The name that calls are reported under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub service_name: Option<String>,
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[ONE_SECRET, CREDENTIAL, HEADER, REGEX]
}

pub(crate) fn rules(spec: &AIServiceSpec, faults: &mut Faults) {
    if let Some(auth) = &spec.auth {
        provider_auth(auth, "spec.auth", faults);
    }
    for (index, fallback) in spec.fallbacks.iter().enumerate() {
        if let Some(auth) = &fallback.auth {
            provider_auth(auth, &format!("spec.fallbacks[{index}].auth"), faults);
        }
    }
    for (index, item) in spec.redaction.iter().enumerate() {
        let holds = (item.kind == "regex") == item.pattern.is_some();
        faults.unless(holds, format!("spec.redaction[{index}]"), REGEX);
    }
}

fn provider_auth(auth: &ProviderAuth, path: &str, faults: &mut Faults) {
    let is_old = auth.secret.is_some() || auth.key.is_some();
    faults.unless(auth.secret_ref.is_none() || !is_old, path, ONE_SECRET);
    faults.unless(
        auth.secret_ref.is_some() || auth.secret.is_some(),
        path,
        CREDENTIAL,
    );
    let needs_header = auth.kind.as_deref() == Some("header");
    faults.unless(!needs_header || auth.header.is_some(), path, HEADER);
}
