//! The host as its users see it: modules written in text form, run through streams.

mod abi;
mod hostile;
mod support;
