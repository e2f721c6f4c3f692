//! What the gateway knows of AI services, without a socket: requests and answers of one provider's dialect
//! become those of another's, tokens are counted, personal data is found.
//!
//! [`call`] takes one request through a provider: bytes in, bytes out, chunk by chunk. The dialects are in
//! [`provider`], what they have in common in [`chat`]. [`token_policy`] holds the budgets. Time and
//! randomness are arguments, so that every behaviour can be tested without a clock.

pub mod call;
pub mod token_policy;
pub mod provider;
pub mod chat;
pub mod event_stream;
pub mod token;
pub mod failure;
pub mod json;
