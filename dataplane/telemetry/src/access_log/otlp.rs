//! Lines of the access log as OTLP log records, and the thread that sends them.
//!
//! It takes the same lines from the same queue as a file would, so that requests pay for nothing
//! else, and makes records of them here: what a line of JSON holds becomes attributes. A collector
//! that is gone or hangs loses the lines at hand; the queue behind it is bounded.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use super::is_fault;
use super::sink::FinishOnDrop;
use crate::grpc_status::GrpcStatus;
use crate::metrics::AccessLogMetrics;
use crate::otlp::Collector;
use crate::queue::{Chunk, Queue, Work};
use crate::reason::Reason;

/// The body of the writer thread.
pub(super) fn run(
    collector: &Collector,
    runtime: &Runtime,
    queue: &Queue,
    counts: &AccessLogMetrics,
) {
    // Whatever ends this thread, nobody waits for it afterwards.
    let _finish = FinishOnDrop { queue, counts };
    let exporter = {
        let _inside = runtime.enter();
        collector.logs()
    };
    let mut exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            warn!(%error, "the access log is lost; check endpoint and caPath of log.openTelemetry");
            return;
        }
    };
    exporter.set_resource(&collector.resource());
    let mut sender = Sender {
        exporter,
        // It only makes records.
        logger: SdkLoggerProvider::builder().build().logger("access-log"),
        scope: InstrumentationScope::builder("nantian-gateway").build(),
        collector,
        counts,
        is_faulty: false,
    };
    loop {
        match queue.next() {
            Work::Stop => return,
            Work::Reopen => {}
            Work::Write(chunk) => {
                let began = Instant::now();
                runtime.block_on(sender.send(&chunk));
                counts.flushed(began.elapsed());
            }
        }
        counts.waits(queue.waiting());
    }
}

struct Sender<'a> {
    exporter: LogExporter,
    logger: SdkLogger,
    scope: InstrumentationScope,
    collector: &'a Collector,
    counts: &'a AccessLogMetrics,
    /// Whether the last thing told was a fault, so that each change is told once.
    is_faulty: bool,
}

impl Sender<'_> {
    async fn send(&mut self, chunk: &Chunk) {
        let lines = chunk.bytes.split(|byte| *byte == b'\n');
        let records: Vec<_> = lines
            .filter(|line| !line.is_empty())
            .map(|line| record(&self.logger, line))
            .collect();
        let batch: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        let patience = self.collector.timeout + Duration::from_secs(1);
        let sending = self.exporter.export(LogBatch::new(&batch));
        let fault = match tokio::time::timeout(patience, sending).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let endpoint = &self.collector.endpoint;
        match fault {
            None => {
                self.counts.lines.add(chunk.lines);
                if std::mem::take(&mut self.is_faulty) {
                    info!(endpoint, "the access log is sent again");
                }
            }
            Some(error) => {
                self.counts.dropped_lines.add(chunk.lines);
                self.counts.sink_errors.increment();
                if !std::mem::replace(&mut self.is_faulty, true) {
                    warn!(
                        endpoint,
                        error,
                        "access log lines are being dropped; check that the collector takes OTLP there"
                    );
                }
            }
        }
    }
}

/// A line as a record; one that is no JSON is its own body.
fn record(logger: &SdkLogger, line: &[u8]) -> SdkLogRecord {
    let mut record = logger.create_log_record();
    record.set_observed_timestamp(SystemTime::now());
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(line) else {
        let text = String::from_utf8_lossy(line).into_owned();
        record.set_body(AnyValue::from(text));
        return record;
    };
    if let Some(Value::String(time)) = fields.remove("timestamp")
        && let Ok(time) = time.parse::<jiff::Timestamp>()
    {
        record.set_timestamp(time.into());
    }
    let mut id = |name: &str| match fields.remove(name) {
        Some(Value::String(id)) => Some(id),
        _ => None,
    };
    if let (Some(trace), Some(span)) = (id("trace_id"), id("span_id"))
        && let (Ok(trace), Ok(span)) = (TraceId::from_hex(&trace), SpanId::from_hex(&span))
    {
        record.set_trace_context(trace, span, Some(TraceFlags::SAMPLED));
    }
    let is_error = tells_fault(&fields);
    record.set_severity_number(if is_error {
        Severity::Error
    } else {
        Severity::Info
    });
    record.set_severity_text(if is_error { "ERROR" } else { "INFO" });
    record.set_body(AnyValue::from(summary(&fields)));
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => AnyValue::from(text),
            Value::Bool(flag) => AnyValue::from(flag),
            Value::Number(number) => match number.as_i64() {
                Some(number) => AnyValue::from(number),
                None => AnyValue::from(number.as_f64().unwrap_or_default()),
            },
            other => AnyValue::from(other.to_string()),
        };
        record.add_attribute(name, value);
    }
    record
}

/// Whether the line tells of a fault that was not the client's; those are never left out either.
fn tells_fault(fields: &Map<String, Value>) -> bool {
    let number = |name: &str| u16::try_from(fields.get(name)?.as_u64()?).ok();
    let reason = fields.get("reason").and_then(Value::as_str);
    let reason = reason.and_then(Reason::named).unwrap_or_default();
    let grpc_status = number("grpc_status").map(GrpcStatus::of);
    is_fault(number("status").unwrap_or_default(), reason, grpc_status)
}

/// What a reader sees first.
fn summary(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("event") {
        "http_request" => {
            let status = fields.get("status").and_then(Value::as_u64);
            let (method, host, path) = (text("method"), text("host"), text("path"));
            format!("{method} {host}{path} {}", status.unwrap_or_default())
        }
        event => format!("{event} {} {}", text("protocol"), text("reason")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_errors_whatever_the_status() {
        let logger = SdkLoggerProvider::builder().build().logger("test");
        for (line, expected) in [
            (r#"{"status":200,"reason":"ok"}"#, Severity::Info),
            (r#"{"status":503,"reason":"ok"}"#, Severity::Error),
            (
                r#"{"status":200,"reason":"upstream_reset"}"#,
                Severity::Error,
            ),
            (
                r#"{"status":200,"reason":"client_aborted"}"#,
                Severity::Info,
            ),
            (
                r#"{"status":404,"reason":"route_not_found"}"#,
                Severity::Info,
            ),
            (
                r#"{"status":200,"reason":"ok","grpc_status":14}"#,
                Severity::Error,
            ),
            (
                r#"{"status":200,"reason":"ok","grpc_status":5}"#,
                Severity::Info,
            ),
            (
                r#"{"status":200,"reason":"route_not_found","grpc_status":12}"#,
                Severity::Info,
            ),
            (
                r#"{"event":"stream_session","reason":"connect_failed"}"#,
                Severity::Error,
            ),
            (
                r#"{"event":"stream_session","reason":"idle_timeout"}"#,
                Severity::Info,
            ),
            (
                r#"{"status":99999999999,"reason":"no such"}"#,
                Severity::Info,
            ),
        ] {
            let record = record(&logger, line.as_bytes());
            assert_eq!(record.severity_number(), Some(expected), "{line}");
            let text = if expected == Severity::Error {
                "ERROR"
            } else {
                "INFO"
            };
            assert_eq!(record.severity_text(), Some(text), "{line}");
        }
    }
}
