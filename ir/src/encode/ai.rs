//! AI services and token policies.

use super::duration;
use crate::ai::{
    AiAuth, AiAuthKind, AiFormat, AiPrice, AiService, AiTarget, OnLimit, Redaction, RedactionKind,
    TokenPolicy, TokenScope,
};
use crate::wire;

pub(super) fn service(service: &AiService) -> wire::AiServiceConfig {
    let price = |(model, price): (&String, &AiPrice)| {
        let price = wire::AiPriceConfig {
            input: price.input,
            cached_input: price.cached_input,
            output: price.output,
        };
        (model.clone(), price)
    };
    wire::AiServiceConfig {
        provider: service.provider.as_str().to_owned(),
        format: format(service.format.as_ref()),
        model: service.model.clone(),
        auth: service.auth.as_ref().map(auth),
        timeout: duration(service.timeout),
        endpoint: service.endpoint.clone().unwrap_or_default(),
        retry_max_retries: service.retries_max,
        retry_backoff: duration(service.retry_backoff),
        aliases: service.aliases.clone(),
        headers: service.headers.clone(),
        providers: service.providers.iter().map(target).collect(),
        // One is what absent means.
        weight: if service.weight.get() == 1 {
            0
        } else {
            service.weight.get()
        },
        redaction: service.redaction.iter().map(redaction).collect(),
        default_max_tokens: service.default_max_tokens.map_or(0, Into::into),
        pass_client_credentials: service.pass_client_credentials,
        prices: service.prices.iter().map(price).collect(),
    }
}

fn target(target: &AiTarget) -> wire::AiProviderConfig {
    wire::AiProviderConfig {
        provider: target.provider.as_str().to_owned(),
        format: format(target.format.as_ref()),
        model: target.model.clone(),
        auth: target.auth.as_ref().map(auth),
        endpoint: target.endpoint.clone().unwrap_or_default(),
        headers: target.headers.clone(),
        weight: target.weight,
        cluster: target.cluster.clone().unwrap_or_default(),
        tls: target.tls.as_ref().map(|tls| wire::AiProviderTls {
            hostname: tls.hostname.as_str().to_owned(),
            ca_pems: tls.ca_pems.clone(),
        }),
    }
}

fn format(format: Option<&AiFormat>) -> String {
    format.map(AiFormat::as_str).unwrap_or_default().to_owned()
}

fn auth(auth: &AiAuth) -> wire::AiServiceAuthConfig {
    wire::AiServiceAuthConfig {
        r#type: match auth.kind {
            AiAuthKind::Bearer => "bearer",
            AiAuthKind::ApiKey => "api-key",
            AiAuthKind::Basic => "basic",
            AiAuthKind::Header => "header",
        }
        .to_owned(),
        secret_ref: auth.secret_ref.as_ref().to_owned(),
        header: auth.header.clone().unwrap_or_default(),
        key: auth.secret_key.clone().unwrap_or_default(),
    }
}

fn redaction(redaction: &Redaction) -> wire::AiRedactionConfig {
    let pattern = match &redaction.kind {
        RedactionKind::Regex(pattern) => pattern.as_ref(),
        _ => "",
    };
    wire::AiRedactionConfig {
        kind: redaction.kind.as_str().to_owned(),
        pattern: pattern.to_owned(),
        action: redaction.action.as_str().to_owned(),
    }
}

pub(super) fn token_policy(policy: &TokenPolicy) -> wire::TokenPolicyConfig {
    let (scope, header_name, claim_name) = match &policy.scope {
        TokenScope::Global => ("global", "", ""),
        TokenScope::Route => ("route", "", ""),
        TokenScope::ApiKey => ("apiKey", "", ""),
        TokenScope::Model => ("model", "", ""),
        TokenScope::User => ("user", "", ""),
        TokenScope::SourceIp => ("sourceIP", "", ""),
        TokenScope::Header(name) => ("header", name.as_str(), ""),
        TokenScope::JwtClaim(name) => ("jwtClaim", "", name.as_str()),
    };
    wire::TokenPolicyConfig {
        tokens_per_minute: policy.tokens_per_minute.map_or(0, Into::into),
        tokens_per_hour: policy.tokens_per_hour.map_or(0, Into::into),
        requests_per_minute: policy.requests_per_minute.map_or(0, Into::into),
        scope: scope.to_owned(),
        burst: policy.burst,
        on_limit: match policy.on_limit {
            OnLimit::Reject => "reject",
            OnLimit::Queue => "queue",
            OnLimit::Degrade => "degrade",
            OnLimit::Warn => "warn",
        }
        .to_owned(),
        header_name: header_name.to_owned(),
        claim_name: claim_name.to_owned(),
        degrade_to: policy.degrade_to.clone().unwrap_or_default(),
        dry_run: policy.is_dry_run,
    }
}
