//! What the gateway knows of AI services, without a socket: requests and answers of one provider's dialect
//! become those of another's, tokens are counted, personal data is found.
//!
//! [`service`] is one AI service of the configuration, compiled; [`call`] takes one request through it:
//! bytes in, bytes out, chunk by chunk. The dialects are in [`provider`], what they have in common in
//! [`chat`]. [`token_policy`] holds the budgets, [`redact`] finds what must not leave. Time and
//! randomness are arguments, so that every behaviour can be tested without a clock.
//!
//! One call, as whoever has the sockets makes it:
//!
//! ```
//! use bytes::Bytes;
//! use dataplane_ai::call::{Call, Destination, Operation};
//! use dataplane_ai::provider::Dialect;
//! use http::{HeaderMap, Method, StatusCode};
//!
//! // The request: its operation by its path, its body gathered within the limit.
//! let operation = Operation::of(&Method::POST, "/v1/chat/completions").unwrap();
//! let body = Bytes::from(r#"{"model":"fast","messages":[{"role":"user","content":"hi"}]}"#);
//! let call = Call::read(operation, body).unwrap(); // or `Failure::body(operation.client())`
//! // A provider: usually one of `Service::order`, by `Service::destination`; the next one when it fails.
//! let to = Destination {
//!     dialect: Dialect::Anthropic,
//!     model: "claude-sonnet-4-5",
//!     default_max_tokens: 4096,
//!     is_ollama: false,
//!     now: 1_700_000_000,
//!     unique: 7,
//! };
//! let outgoing = call.send(&to).unwrap();
//! assert_eq!(outgoing.answering.path(), "/v1/messages");
//! // The answer: whole, or in pieces with `answering.stream(bytes)`.
//! let answer = outgoing.answering.whole(
//!     StatusCode::OK,
//!     &HeaderMap::new(),
//!     Bytes::from(r#"{"content":[{"type":"text","text":"hello"}],"usage":{"input_tokens":8,"output_tokens":1}}"#),
//! );
//! assert_eq!(answer.usage.total(), 9);
//! ```

pub mod service;
pub mod call;
pub mod token_policy;
pub mod redact;
pub mod provider;
pub mod chat;
pub mod left_behind;
pub mod event_stream;
pub mod token;
pub mod claim;
pub mod failure;
pub mod json;
