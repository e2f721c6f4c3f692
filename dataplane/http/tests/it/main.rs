//! What the crate promises to its callers, through its public interface alone.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod h1;
mod panic;
