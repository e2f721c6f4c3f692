//! The dialect of Ollama's own API: requests written for it, its answers read.

pub(crate) mod request;
pub(crate) mod response;
