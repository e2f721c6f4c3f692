//! What the gateway knows of AI services, without a socket: requests and answers of one provider's dialect
//! become those of another's, tokens are counted, personal data is found.
//!
//! [`service`] is one AI service of the configuration, compiled; [`call`] takes one request through it:
//! bytes in, bytes out, chunk by chunk. The dialects are in [`provider`], what they have in common in
//! [`chat`]. [`token_policy`] holds the budgets, [`redact`] finds what must not leave. Time and
//! randomness are arguments, so that every behaviour can be tested without a clock.

pub mod service;
pub mod call;
pub mod token_policy;
pub mod redact;
pub mod provider;
pub mod chat;
pub mod event_stream;
pub mod token;
pub mod failure;
pub mod json;
