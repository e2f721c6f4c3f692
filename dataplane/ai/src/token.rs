//! Tokens: counts that providers report, and estimates where they report none.
//!
//! [`Usage`] holds what a provider says. [`count`] counts a text with OpenAI's vocabularies, which are
//! loaded when they are first needed; [`of_request`] adds what a chat costs beyond its text, [`of_answer`]
//! does so for whole answers, and [`Meter`] sees an answer go by in pieces within a bound of memory.
//! Nothing here decides about limits.

use crate::json::{Text, strings};

/// Tokens per message beyond its text, and per answer.
const TOKENS_PER_MESSAGE: u64 = 3;
const TOKENS_PER_ANSWER: u64 = 3;
/// What an image costs about: 1,024 pixels each way in OpenAI's count, and in low detail.
const TOKENS_PER_IMAGE: u64 = 765;
const TOKENS_PER_SMALL_IMAGE: u64 = 85;
/// Bytes of a text that are counted exactly; beyond, the count is projected.
pub const EXACT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the text of a whole answer that are counted exactly, at a price that any call can pay.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer that a [`Meter`] keeps to project from.
pub const METER_BYTES_MAX: usize = 8 * 1024;

/// Tokens used, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the question, cached ones included.
    pub input: Option<u64>,
    /// Of these, those the provider had in its cache.
    pub cached: Option<u64>,
    /// Of these, those the provider put into its cache.
    pub cache_write: Option<u64>,
    /// Tokens of the answer, thoughts included.
    pub output: Option<u64>,
    /// Of these, thoughts.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Takes over what `newer` knows; counts replace counts and are never added.
    pub fn update(&mut self, newer: &Self) {
        let newest = |old: &mut Option<u64>, new: Option<u64>| *old = new.or(*old);
        newest(&mut self.input, newer.input);
        newest(&mut self.cached, newer.cached);
        newest(&mut self.cache_write, newer.cache_write);
        newest(&mut self.output, newer.output);
        newest(&mut self.reasoning, newer.reasoning);
    }

    /// Question and answer together.
    pub fn total(&self) -> u64 {
        let part = |tokens: Option<u64>| tokens.unwrap_or(0);
        part(self.input).saturating_add(part(self.output))
    }

    /// True when both counts are known.
    pub fn is_complete(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    /// What it costs, in the currency of the price.
    pub fn cost(&self, price: &ir::ai::AiPrice) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of tokens are far below 2^53"
        )]
        let of = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        let input = self.input.unwrap_or(0);
        let cached = self.cached.unwrap_or(0).min(input);
        of(input - cached, price.input)
            + of(cached, price.cached_input.unwrap_or(price.input))
            + of(self.output.unwrap_or(0), price.output)
    }
}

/// Reads the vocabulary of a model, which takes a while at its first use; later calls cost nothing.
pub fn prepare(model: &str) {
    tokenizer(model);
}

fn tokenizer(model: &str) -> &'static bpe_openai::Tokenizer {
    if has_old_vocabulary(model) {
        bpe_openai::cl100k_base()
    } else {
        bpe_openai::o200k_base()
    }
}

/// How many tokens a text is for a model. Models that are not OpenAI's are counted with the newest vocabulary.
pub fn count(model: &str, text: &str) -> u64 {
    let tokenizer = tokenizer(model);
    let mut end = text.len().min(EXACT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let counted = tokenizer.count(&text[..end]) as u64;
    project(counted, end, text.len() as u64)
}

fn has_old_vocabulary(model: &str) -> bool {
    let model = model.rsplit('/').next().unwrap_or(model);
    let is_gpt4 = model.starts_with("gpt-4")
        && !model.starts_with("gpt-4o")
        && !model.starts_with("gpt-4.1")
        && !model.starts_with("gpt-4.5");
    is_gpt4 || model.starts_with("gpt-3.5") || model.starts_with("text-embedding-")
}

/// The count of a whole from the count of its first `sample` bytes.
fn project(counted: u64, sample: usize, whole: u64) -> u64 {
    if sample as u64 >= whole || sample == 0 {
        return counted;
    }
    let scaled = u128::from(counted) * u128::from(whole) / sample as u128;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// What the tokens of a request are about, in any client's format. The body must be valid JSON.
pub fn of_request(model: &str, body: &str) -> u64 {
    of_body(model, body, EXACT_BYTES_MAX)
}

/// What the tokens of a whole answer are about; of a long one the begin is counted. The body must be
/// valid JSON.
pub fn of_answer(model: &str, body: &str) -> u64 {
    of_body(model, body, ANSWER_BYTES_MAX)
}

/// Counts `exact` bytes of the text in a body, and projects to all of it.
fn of_body(model: &str, body: &str, exact: usize) -> u64 {
    let mut prose = String::with_capacity(body.len().min(exact));
    // As they are written, which with escapes is longer than the text: those of all, and those counted.
    let (mut bytes, mut sample) = (0_usize, 0_usize);
    let mut fixed = TOKENS_PER_ANSWER;
    let mut is_small = false;
    strings(body, |place, _, text| {
        match place.key {
            "role" => fixed += TOKENS_PER_MESSAGE,
            "detail" => is_small = text.raw() == "low",
            _ => {}
        }
        if text.raw().starts_with("data:image/") || place.key == "data" {
            fixed += TOKENS_PER_IMAGE;
        } else if place.is_prose(text.raw()) || place.is_schema {
            bytes += text.raw().len();
            if prose.len() < exact {
                // Names of members count where they reach the model: in schemas.
                if place.is_schema {
                    prose.push_str(place.key);
                    prose.push_str(": ");
                    bytes += place.key.len() + 2;
                    sample += place.key.len() + 2;
                }
                let plain = text.plain();
                let end = plain.floor_char_boundary(exact.saturating_sub(prose.len()));
                prose.push_str(&plain[..end]);
                prose.push('\n');
                sample += match end == plain.len() {
                    true => text.raw().len(),
                    false => text.raw().len() * end / plain.len(),
                };
            }
        }
    });
    if is_small && fixed >= TOKENS_PER_IMAGE {
        fixed -= TOKENS_PER_IMAGE - TOKENS_PER_SMALL_IMAGE;
    }
    let counted = tokenizer(model).count(&prose) as u64;
    fixed + project(counted, sample, bytes as u64)
}

/// Sees an answer go by in pieces, to tell how long it was when nobody else does.
#[derive(Debug, Default)]
pub struct Meter {
    sample: String,
    bytes: u64,
}

impl Meter {
    /// Sees more text.
    pub fn see(&mut self, text: &Text<'_>) {
        self.bytes += text.raw().len() as u64;
        if self.sample.len() < METER_BYTES_MAX {
            let plain = text.plain();
            let mut end = plain.len().min(METER_BYTES_MAX - self.sample.len());
            while !plain.is_char_boundary(end) {
                end -= 1;
            }
            self.sample.push_str(&plain[..end]);
        }
    }

    /// About how many tokens went by.
    pub fn tokens(&self, model: &str) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        project(count(model, &self.sample), self.sample.len(), self.bytes)
    }
}
