//! What a plugin can ask about a request besides its messages.
//!
//! The proxy implements [`Facts`] for one request; the names are those of Envoy's attributes. What follows
//! from the messages themselves (`request.path`, `response.code`) is answered by this crate.

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Text or bytes, as they are.
    Text(Vec<u8>),
    /// A number, a time in nanoseconds since 1970 or a duration in nanoseconds.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl Fact {
    /// As it stands in a guest's memory.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_le_bytes().to_vec(),
            Self::Flag(flag) => vec![u8::from(flag)],
        }
    }
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

/// What is known of one request.
pub trait Facts {
    /// The fact under that path, such as `["source", "address"]`.
    fn fact(&self, path: &[&str]) -> Option<Fact>;
}

/// Nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn fact(&self, _: &[&str]) -> Option<Fact> {
        None
    }
}
