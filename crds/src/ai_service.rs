//! AIService: a model behind one or several providers, as a backend of routes.

mod rules;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use self::rules::{
    CREDENTIAL, CREDENTIAL_FIELD, HEADER, ONE_SECRET, OWN_AND_CLIENTS, REGEX, TLS_PLAIN, TRUST,
};
use crate::duration::Duration;
use crate::rule::validations;
use crate::status::ObjectStatus;
use crate::target_ref::SecretKeyRef;

pub(crate) use self::rules::{all_rules, rules};

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
#[schemars(extend("x-kubernetes-validations" = validations(&[TLS_PLAIN, OWN_AND_CLIENTS])))]
pub struct AIServiceSpec {
    /// Whose API it is: `openai`, `anthropic` or `ollama`; whatever speaks the API of one of them counts.
    pub provider: Provider,
    /// The format of requests, where it is not the provider's own: `openai` (also `openai-chat`),
    /// `anthropic` (also `anthropic-messages`) or `ollama` (also `ollama-chat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "format")]
    pub format: Option<String>,
    /// The model for requests that name none. Example: `gpt-4o`.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Names that clients may use for models. Example: `{fast: gpt-4o-mini}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "aliases")]
    pub aliases: BTreeMap<String, String>,
    /// Base URL; the provider's public one when absent, and `http://localhost:11434` for `ollama`. The
    /// name of a Service, as `http://ollama.models.svc:11434`, leads to its endpoints. Example:
    /// `https://api.example.com/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "endpoint")]
    pub endpoint: Option<String>,
    /// How the gateway shows who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ProviderAuth>,
    /// Passes on what clients show themselves (`Authorization`, `x-api-key`, `api-key`) to providers
    /// without `auth`. Otherwise it never leaves the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_client_credentials: Option<bool>,
    /// Header fields that are set on each request to the provider. Example: `[{name: x-team, value:
    /// search}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderField>,
    /// Whom to trust over TLS; the certificate authorities of the system when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProviderTls>,
    /// This provider's share of the requests among all that have a weight; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<i32>,
    /// Further providers. Those with a weight share the requests with the first; then the others are
    /// asked in turn when the ones before them fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub providers: Vec<FurtherProvider>,
    /// Limit for one exchange. Example: `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When an exchange is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ProviderRetry>,
    /// Limit of an answer's tokens where the client sets none and the provider must be told one, as
    /// Anthropic must; 4096 when absent. Example: `8192`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub default_max_tokens: Option<i32>,
    /// What is taken out of questions and answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub redaction: Vec<Redaction>,
    /// What a million tokens cost, by model, for the access log. Example: `{gpt-4o: {input: 2.5,
    /// cachedInput: 1.25, output: 10}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub prices: BTreeMap<String, Price>,
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

/// A header field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[CREDENTIAL_FIELD])))]
pub struct HeaderField {
    /// Its name. Example: `anthropic-beta`.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub name: String,
    /// Its value; credentials stand in a Secret, see `auth`.
    #[schemars(length(max = 4096), regex(pattern = r"^[^\x00-\x08\x0a-\x1f\x7f]*$"))]
    pub value: String,
}

/// Whom to trust over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[TRUST])))]
pub struct ProviderTls {
    /// ConfigMaps or Secrets of this namespace whose key `ca.crt` holds certificate authorities as PEM;
    /// they are trusted in place of the system's. Example: `[{kind: ConfigMap, name: provider-ca}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub ca_certificate_refs: Vec<AuthorityRef>,
    /// The name that the certificate must have, where it is not that of the endpoint. Example:
    /// `models.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub hostname: Option<String>,
}

/// An object with certificate authorities under the key `ca.crt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityRef {
    /// API group; empty, which is the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// `ConfigMap` or `Secret`.
    #[schemars(extend("enum" = ["ConfigMap", "Secret"]))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One more provider of the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[TLS_PLAIN])))]
pub struct FurtherProvider {
    /// Whose API it is.
    pub provider: Provider,
    /// The format of requests, where it is not the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "format")]
    pub format: Option<String>,
    /// The model there; the one that was asked for when absent. Example: `claude-sonnet-4-5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// Base URL; the provider's public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "endpoint")]
    pub endpoint: Option<String>,
    /// How the gateway shows who it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ProviderAuth>,
    /// Header fields that are set on each request to this provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderField>,
    /// Whom to trust over TLS; the certificate authorities of the system when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProviderTls>,
    /// Share of the requests; absent, or 0, for a provider that is only asked when others fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<i32>,
}

/// What a million tokens cost, in the currency of your choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Tokens of questions. Example: `2.5`.
    #[schemars(range(min = 0))]
    pub input: f64,
    /// Tokens of questions that the provider had in its cache; the price of `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cached_input: Option<f64>,
    /// Tokens of answers. Example: `10`.
    #[schemars(range(min = 0))]
    pub output: f64,
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

fn format(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": [
            "openai", "openai-chat", "anthropic", "anthropic-messages", "ollama", "ollama-chat"
        ]
    })
}

/// A URL without user and password, which belong into a Secret.
fn endpoint(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 2048, "pattern": r"^https?://[^\s/?#@]+([/?][^\s#]*)?$"
    })
}

fn aliases(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 256,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256}
    })
}
