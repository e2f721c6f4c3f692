//! AI.
/// .
#[derive(Clone, Debug, PartialEq)]
pub struct AiService;
/// .
#[derive(Clone, Debug, PartialEq)]
pub struct TokenPolicy;
