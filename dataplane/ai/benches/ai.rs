//! What AI services cost: conversion of a chat, deltas of a stream, redaction, counting of tokens.

#![expect(
    clippy::unwrap_used,
    reason = "a bench stops where its assumption is broken"
)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane_ai::call::{Call, Destination, Operation};
use dataplane_ai::provider::Dialect;
use dataplane_ai::redact::{Redactor, Vault};
use dataplane_ai::token;
use http::{HeaderMap, StatusCode};
use ir::ai::{Redaction, RedactionAction, RedactionKind};

const SENTENCE: &str =
    "The quick brown fox jumps over the lazy dog and asks for the report of Tuesday. ";

fn to(dialect: Dialect) -> Destination<'static> {
    Destination {
        dialect,
        model: "model",
        default_max_tokens: 4096,
        is_ollama: false,
        now: 0,
        unique: 7,
    }
}

/// A chat of about 4 KiB: instructions, turns, a tool and its call.
fn chat(is_stream: bool) -> Bytes {
    let text = SENTENCE.repeat(8);
    Bytes::from(format!(
        r#"{{"model":"fast","stream":{is_stream},"temperature":0.5,"messages":[{{"role":"system","content":"{text}"}},{{"role":"user","content":"{text}"}},{{"role":"assistant","content":"{text}","tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"search","arguments":"{{\"query\":\"report\",\"limit\":5}}"}}}}]}},{{"role":"tool","tool_call_id":"call_1","content":"{text}"}},{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}],"tools":[{{"type":"function","function":{{"name":"search","description":"{SENTENCE}","parameters":{{"type":"object","properties":{{"query":{{"type":"string"}},"limit":{{"type":"integer"}}}}}}}}}}]}}"#
    ))
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request_4k");
    let body = chat(false);
    group.throughput(Throughput::Bytes(body.len() as u64));
    for (name, dialect) in [
        ("pass_through", Dialect::OpenAi),
        ("to_anthropic", Dialect::Anthropic),
        ("to_ollama", Dialect::Ollama),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let call = Call::read(Operation::Chat, body.clone()).unwrap();
                black_box(call.send(&to(dialect)).unwrap())
            });
        });
    }
    let anthropic = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{{"type":"text","text":"{}"}}],"stop_reason":"end_turn","usage":{{"input_tokens":10,"output_tokens":7}}}}"#,
        SENTENCE.repeat(48)
    );
    let call = Call::read(Operation::Chat, body.clone()).unwrap();
    let answering = call.send(&to(Dialect::Anthropic)).unwrap().answering;
    let (anthropic, headers) = (Bytes::from(anthropic), HeaderMap::new());
    group.bench_function("answer_from_anthropic", |b| {
        b.iter(|| black_box(answering.whole(StatusCode::OK, &headers, anthropic.clone())));
    });
    group.finish();
}

fn streams(c: &mut Criterion) {
    const DELTAS: u64 = 1000;
    let mut group = c.benchmark_group("stream_deltas");
    group.throughput(Throughput::Elements(DELTAS));
    let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}\n\n";
    let openai = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
    let ollama = "{\"model\":\"llama3\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\" token\"},\"done\":false}\n";
    for (name, dialect, frame) in [
        ("anthropic_to_openai", Dialect::Anthropic, anthropic),
        ("ollama_to_openai", Dialect::Ollama, ollama),
        ("openai_untouched", Dialect::OpenAi, openai),
    ] {
        let call = Call::read(Operation::Chat, chat(true)).unwrap();
        let answering = call.send(&to(dialect)).unwrap().answering;
        // One delta in each piece, as providers send them.
        let piece = Bytes::from_static(frame.as_bytes());
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut stream = answering.stream(4 << 20);
                let mut out = Vec::new();
                for _ in 0..DELTAS {
                    stream.push(piece.clone(), &mut out);
                    black_box(&out);
                    out.clear();
                }
                black_box(stream.deltas())
            });
        });
    }
    group.finish();
}

fn redaction(c: &mut Criterion) {
    let kinds = [
        RedactionKind::Email,
        RedactionKind::Phone,
        RedactionKind::CreditCard,
        RedactionKind::Iban,
        RedactionKind::UsSsn,
        RedactionKind::Ip,
        RedactionKind::ApiKey,
        RedactionKind::Jwt,
    ];
    let action = RedactionAction::Mask;
    let rules: Vec<_> = kinds
        .into_iter()
        .map(|kind| Redaction { kind, action })
        .collect();
    let redactor = Redactor::compile(&rules).unwrap();
    let mut group = c.benchmark_group("redaction_8_kinds");
    for (name, text) in [
        ("clean", SENTENCE.repeat(400)),
        (
            "mixed",
            format!("{}ann@example.com, +49 30 1234567. ", SENTENCE.repeat(4)).repeat(100),
        ),
    ] {
        let body = Bytes::from(format!(
            r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#
        ));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| black_box(redactor.request(&body, &mut Vault::default()).unwrap()));
        });
    }
    group.finish();
}

fn tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("tokens");
    let body = chat(false);
    let text = std::str::from_utf8(&body).unwrap();
    token::count("gpt-4o", text);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("of_request_4k", |b| {
        b.iter(|| black_box(token::of_request("gpt-4o", text)));
    });
    group.finish();
}

criterion_group!(benches, requests, streams, redaction, tokens);
criterion_main!(benches);
