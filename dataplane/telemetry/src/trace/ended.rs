//! A request that has ended, on its way to the thread that makes spans of it.
//!
//! One request in a hundred or so comes here, so that what is done for it meets cold caches: workers
//! copy what spans tell, and no more. The record's texts become one allocation.

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::SpanData;

use super::{Active, span};
use crate::access_log::{Destination, GenAi, Record};

/// Bytes of each text that are kept: a path and a query may be one, whose end is lost where it is longer.
const TEXT_BYTES_MAX: usize = 2 * span::TEXT_BYTES_MAX;

/// A request that is recorded and has ended. What of its record spans do not tell is left out.
pub(super) struct Ended {
    active: Box<Active>,
    /// The record without its texts.
    rest: Record<'static>,
    /// The call to a language model without its texts.
    call: Option<Box<GenAi<'static>>>,
    texts: Texts<18>,
}

impl Ended {
    /// `config` is the `traceparent` of the configuration that served it.
    pub(super) fn new(record: &Record<'_>, mut active: Box<Active>, config: Option<&str>) -> Self {
        // They may be many, and are no part of spans.
        active.watchers = Vec::new();
        active.steps = Vec::new();
        if let Some(route) = &mut active.http_route
            && route.len() > span::TEXT_BYTES_MAX
        {
            *route = span::cut(route).to_owned();
        }
        let (upstream_host, upstream_path) = match active.attempts.is_empty() {
            true => (&b""[..], &b""[..]),
            false => (record.upstream_host, record.upstream_path),
        };
        let call = record.gen_ai.copied().unwrap_or_default();
        let destination = &record.destination;
        Self {
            active,
            rest: Record {
                timestamp: record.timestamp,
                latency: record.latency,
                client_ip: record.client_ip,
                scheme: record.scheme,
                protocol: record.protocol,
                status: record.status,
                grpc_status: record.grpc_status,
                destination: Destination {
                    rule: destination.rule,
                    attempts: destination.attempts,
                    ..Destination::NOWHERE
                },
                reason: record.reason,
                ..Record::unknown()
            },
            call: record.gen_ai.map(|call| {
                Box::new(GenAi {
                    operation: "",
                    provider: "",
                    request_model: "",
                    response_model: "",
                    finish_reason: "",
                    ..*call
                })
            }),
            texts: Texts::new([
                record.host,
                record.path,
                upstream_host,
                upstream_path,
                record.request_id,
                record.user_agent,
                record.listener.as_bytes(),
                record.method.as_bytes(),
                record.snapshot_version.as_bytes(),
                record.tls_version.unwrap_or_default().as_bytes(),
                destination.route.unwrap_or_default().as_bytes(),
                destination.backend.unwrap_or_default().as_bytes(),
                config.unwrap_or_default().as_bytes(),
                call.operation.as_bytes(),
                call.provider.as_bytes(),
                call.request_model.as_bytes(),
                call.response_model.as_bytes(),
                call.finish_reason.as_bytes(),
            ]),
        }
    }

    /// How many spans it becomes.
    pub(super) fn span_count(&self) -> usize {
        1 + self.active.attempts.len()
    }

    /// Its spans.
    pub(super) fn spans(&self, scope: &InstrumentationScope) -> Vec<SpanData> {
        // In the order in which they were kept.
        let [
            host,
            path,
            upstream_host,
            upstream_path,
            request_id,
            user_agent,
            listener,
            method,
            snapshot_version,
            tls_version,
            route,
            backend,
            config,
            operation,
            provider,
            request_model,
            response_model,
            finish_reason,
        ] = self.texts.get();
        let call = self.call.as_deref().map(|rest| GenAi {
            operation: text(operation),
            provider: text(provider),
            request_model: text(request_model),
            response_model: text(response_model),
            finish_reason: text(finish_reason),
            ..*rest
        });
        let record = Record {
            host,
            path,
            upstream_host,
            upstream_path,
            request_id,
            user_agent,
            listener: text(listener),
            method: text(method),
            snapshot_version: text(snapshot_version),
            tls_version: Some(text(tls_version)),
            destination: Destination {
                route: Some(text(route)),
                backend: Some(text(backend)),
                ..self.rest.destination
            },
            gen_ai: call.as_ref(),
            ..self.rest
        };
        span::spans(&record, &self.active, text(config), scope)
    }
}

/// Texts in one allocation, each cut where it is too long.
struct Texts<const COUNT: usize> {
    bytes: Box<[u8]>,
    ends: [u32; COUNT],
}

impl<const COUNT: usize> Texts<COUNT> {
    fn new(texts: [&[u8]; COUNT]) -> Self {
        let texts = texts.map(|it| &it[..it.len().min(TEXT_BYTES_MAX)]);
        let mut bytes = Vec::with_capacity(texts.iter().map(|it| it.len()).sum());
        let ends = texts.map(|it| {
            bytes.extend_from_slice(it);
            u32::try_from(bytes.len()).unwrap_or(u32::MAX)
        });
        let bytes = bytes.into_boxed_slice();
        Self { bytes, ends }
    }

    fn get(&self) -> [&[u8]; COUNT] {
        let mut begin = 0;
        self.ends.map(|end| {
            let end = end as usize;
            &self.bytes[std::mem::replace(&mut begin, end)..end]
        })
    }
}

/// A text that was one before it was cut.
fn text(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |it| it.valid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests;

    #[test]
    fn texts_come_back_as_they_were_but_cut() {
        let long = "ü".repeat(TEXT_BYTES_MAX);
        let odd = format!("u{long}");
        let texts = Texts::new([b"", b"a", long.as_bytes(), odd.as_bytes(), b"\xff", b""]);
        let [none, short, even, odd, bytes, last] = texts.get();
        assert_eq!(
            (none, short, bytes, last),
            (&b""[..], &b"a"[..], &b"\xff"[..], &b""[..])
        );
        assert_eq!(text(even), &long[..TEXT_BYTES_MAX]);
        assert_eq!(odd.len(), TEXT_BYTES_MAX);
        assert_eq!(text(odd).len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn what_waits_has_a_bound() {
        let long = "x".repeat(1 << 20);
        let record = Record {
            host: long.as_bytes(),
            path: long.as_bytes(),
            upstream_host: long.as_bytes(),
            upstream_path: long.as_bytes(),
            user_agent: long.as_bytes(),
            ..tests::record()
        };
        let mut active = tests::active();
        active.http_route = Some(long.clone());
        let ended = Ended::new(&record, Box::new(active), None);
        let route = ended.active.http_route.as_ref().unwrap();
        assert_eq!(route.capacity(), span::TEXT_BYTES_MAX);
        // Host, path and user agent; what backends are told only when one was asked.
        assert_eq!(
            ended.texts.bytes.len(),
            3 * TEXT_BYTES_MAX + record.method.len()
        );
    }
}
