//! The dialect of OpenAI: chat completions, as providers answer and as clients read them.

pub(crate) mod request;
pub(crate) mod write_request;
pub(crate) mod response;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod pieces;
