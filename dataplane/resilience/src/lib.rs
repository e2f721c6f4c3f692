//! Pure state machines against overload and failure.
//!
//! Time and randomness are arguments and nothing here waits, so every behaviour can be tested
//! without a clock. [`backoff`] says how long to wait before trying again, [`admission`] lets in no
//! more at once than a limit, [`token_bucket`] no more a second than a rate. [`circuit_breaker`]
//! stops calling an upstream that fails, [`outlier`] leaves single endpoints out that fail, [`health_check`] those
//! that do not pass their checks, [`retry`] lets
//! retries be a share of the requests, [`pressure`] says how short memory is. Waiting, logging and
//! counting are the callers'.

pub mod retry;
pub mod backoff;
pub mod admission;
pub mod token_bucket;
pub mod circuit_breaker;
pub mod outlier;
pub mod health_check;
pub mod pressure;
