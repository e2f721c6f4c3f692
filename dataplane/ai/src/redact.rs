//! Personal data and secrets out of questions and answers.
//!
//! A [`Redactor`] is compiled from an AI service; it looks at the strings of a JSON body that people and
//! models wrote and at nothing else, so names, numbers, images and schemas stay what they are, and a body
//! without finds stays the same bytes; only `logprobs`, which hold a text cut into tokens, are left out.
//! With `tokenize` a [`Vault`] keeps what was hidden for the time of one call and puts it back into the
//! answer. [`stream`](Redactor::stream) does the same to an answer in pieces.

mod find;
mod number;
mod stream;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ir::ai::{Redaction, RedactionAction, RedactionKind};
use memchr::memmem;

use self::find::Finder;
pub use self::stream::{HOLD_BACK_MAX, StreamRedactor};
use crate::failure::{Failure, FailureReason};
use crate::json::{DEPTH_MAX, containers, escape_into, strings};

/// Texts a vault keeps; beyond, they are masked.
pub const VAULT_ENTRIES_MAX: usize = 1024;

/// What to look for, compiled; clones share it.
#[derive(Clone)]
pub struct Redactor {
    rules: Arc<[Rule]>,
}

struct Rule {
    label: &'static str,
    finder: Finder,
    action: RedactionAction,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = self.rules.iter().map(|rule| (rule.label, rule.action));
        f.debug_map().entries(rules).finish()
    }
}

/// How often each kind was found, by label.
pub type Counts = Vec<(&'static str, u64)>;

/// A body that was looked at.
#[derive(Debug)]
pub struct Redacted {
    /// The body, the same bytes when nothing was taken out.
    pub body: Bytes,
    /// What was found.
    pub counts: Counts,
    /// False when some of it lies too deep to be looked at.
    pub is_whole: bool,
}

/// What a call has hidden from its provider. Nothing of it can be printed.
#[derive(Default)]
pub struct Vault {
    /// Placeholder and what it stands for.
    entries: Vec<(String, String)>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.entries.len())
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        for (_, text) in &mut self.entries {
            text.zeroize();
        }
    }
}

impl Vault {
    /// True when nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The placeholder of a text; the same text has the same one. Absent when there is no room.
    fn hide(&mut self, label: &str, text: &str) -> Option<String> {
        if let Some((placeholder, _)) = self.entries.iter().find(|(_, known)| known == text) {
            return Some(placeholder.clone());
        }
        if self.entries.len() == VAULT_ENTRIES_MAX {
            return None;
        }
        let placeholder = format!("[{label}_{}]", self.entries.len() + 1);
        self.entries.push((placeholder.clone(), text.to_owned()));
        Some(placeholder)
    }

    /// Where placeholders stand, and what they stand for.
    fn placeholders<'v>(&'v self, text: &str) -> Vec<(Range<usize>, &'v str)> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for at in memchr::memchr_iter(b'[', text.as_bytes()) {
            let rest = &text[at..];
            let hit = self
                .entries
                .iter()
                .find(|(name, _)| rest.starts_with(name.as_str()));
            if let Some((name, original)) = hit {
                found.push((at..at + name.len(), original.as_str()));
            }
        }
        found
    }
}

/// Which way a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the provider.
    Out,
    /// To the client.
    Back,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Prose,
    /// A piece of JSON text, which must stay valid.
    Json,
}

/// A find: where, by which rule.
#[derive(Clone, Debug)]
struct Find {
    at: Range<usize>,
    rule: usize,
}

impl Redactor {
    /// Compiles what a service asks for; absent when that is nothing.
    pub fn compile(redaction: &[Redaction]) -> Option<Self> {
        let rules: Arc<[Rule]> = redaction
            .iter()
            .filter_map(|item| {
                Some(Rule {
                    label: label(&item.kind),
                    finder: Finder::of(&item.kind)?,
                    action: item.action,
                })
            })
            .collect();
        (!rules.is_empty()).then_some(Self { rules })
    }

    /// Looks at a request. What must be blocked becomes a 400 that names the kinds and nothing else.
    pub fn request(&self, body: &Bytes, vault: &mut Vault) -> Result<Redacted, Failure> {
        let redacted = self.body(body, Way::Out, vault);
        if !redacted.is_whole {
            let message = format!(
                "the body is nested more than {DEPTH_MAX} levels deep, where nothing can be redacted"
            );
            return Err(Failure::invalid(message));
        }
        let blocked = |(label, _): &&(&'static str, u64)| {
            let of_label = |rule: &&Rule| rule.label == *label;
            self.rules
                .iter()
                .filter(of_label)
                .any(|rule| rule.action == RedactionAction::Block)
        };
        let kinds: Vec<&str> = redacted
            .counts
            .iter()
            .filter(blocked)
            .map(|(label, _)| *label)
            .collect();
        if kinds.is_empty() {
            return Ok(redacted);
        }
        let message = format!(
            "the request holds data that must not leave: {}",
            kinds.join(", ")
        );
        let status = http::StatusCode::BAD_REQUEST;
        Err(Failure::new(FailureReason::Blocked, status, message).coded("content_blocked"))
    }

    /// Looks at a whole answer: placeholders become what they stand for, the rest is hidden as in requests,
    /// blocked kinds masked.
    pub fn answer(&self, body: &Bytes, vault: &mut Vault) -> Redacted {
        self.body(body, Way::Back, vault)
    }

    /// Looks at an answer in pieces, in the form in which its client gets it.
    pub fn stream(&self, vault: Vault) -> StreamRedactor {
        StreamRedactor::new(self.clone(), vault)
    }

    fn body(&self, body: &Bytes, way: Way, vault: &mut Vault) -> Redacted {
        let mut counts = Counts::new();
        let Ok(text) = std::str::from_utf8(body) else {
            return Redacted {
                body: body.clone(),
                counts,
                is_whole: true,
            };
        };
        let text = self.without_logprobs(text);
        let (changed, is_whole) = self.json(&text, way, vault, &mut counts, true);
        let changed = changed.or(match text {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        });
        Redacted {
            body: changed.map_or_else(|| body.clone(), Bytes::from),
            counts,
            is_whole,
        }
    }

    /// A body without the tokens of its texts and their likelihoods, where something is hidden: each may
    /// be a piece of a find, and no placeholder has a likelihood.
    fn without_logprobs<'b>(&self, body: &'b str) -> Cow<'b, str> {
        const NAME: &str = "\"logprobs\"";
        let is_container = |at: usize| {
            let value = body[at + NAME.len()..].trim_start().strip_prefix(':');
            value.is_some_and(|value| value.trim_start().starts_with(['{', '[']))
        };
        let hides = |rule: &Rule| rule.action != RedactionAction::Detect;
        let mut named = memmem::find_iter(body.as_bytes(), NAME);
        if !named.any(is_container) || !self.rules.iter().any(hides) {
            return Cow::Borrowed(body);
        }
        let mut out = String::with_capacity(body.len());
        let mut from = 0;
        for at in containers(body, "logprobs") {
            out.push_str(&body[from..at.start]);
            out.push_str(match body.as_bytes()[at.start] {
                b'[' => "[]",
                _ => "null",
            });
            from = at.end;
        }
        out.push_str(&body[from..]);
        Cow::Owned(out)
    }

    /// A JSON text with its strings looked at, absent when nothing has changed; and whether all were.
    fn json(
        &self,
        json: &str,
        way: Way,
        vault: &mut Vault,
        counts: &mut Counts,
        is_outer: bool,
    ) -> (Option<String>, bool) {
        let mut out = String::new();
        let mut from = 0;
        let mut is_whole_inside = true;
        let is_whole = strings(json, |place, inside, text| {
            // Inside arguments all strings are of the model's or a person's making.
            if is_outer && !place.is_prose(text.raw()) {
                return;
            }
            let plain = text.plain();
            let may_be_json = is_outer && place.is_arguments();
            let (changed, is_whole) = self.string(&plain, may_be_json, way, vault, counts);
            is_whole_inside &= is_whole;
            if let Some(changed) = changed {
                out.push_str(&json[from..inside.start]);
                escape_into(&mut out, &changed);
                from = inside.end;
            }
        });
        let is_whole = is_whole && is_whole_inside;
        if from == 0 {
            return (None, is_whole);
        }
        out.push_str(&json[from..]);
        (Some(out), is_whole)
    }

    /// A whole string, absent when nothing has changed; and whether all of it was looked at.
    fn string(
        &self,
        plain: &str,
        may_be_json: bool,
        way: Way,
        vault: &mut Vault,
        counts: &mut Counts,
    ) -> (Option<String>, bool) {
        if may_be_json && serde_json::from_str::<serde::de::IgnoredAny>(plain).is_ok() {
            return self.json(plain, way, vault, counts, false);
        }
        match self.text(plain, 0, Form::Prose, way, vault, counts) {
            Cow::Borrowed(_) => (None, true),
            Cow::Owned(changed) => (Some(changed), true),
        }
    }

    /// A text with everything from `from` on looked at; what is before only tells surroundings.
    fn text<'t>(
        &self,
        text: &'t str,
        from: usize,
        form: Form,
        way: Way,
        vault: &mut Vault,
        counts: &mut Counts,
    ) -> Cow<'t, str> {
        let finds = self.finds(text, from);
        let restored = match way {
            Way::Out => Vec::new(),
            Way::Back => vault.placeholders(&text[from..]),
        };
        if finds.is_empty() && restored.is_empty() {
            return Cow::Borrowed(&text[from..]);
        }
        let mut edits: Vec<(Range<usize>, String)> = restored
            .into_iter()
            .map(|(at, original)| {
                let mut text = String::new();
                match form {
                    Form::Prose => text.push_str(original),
                    Form::Json => escape_into(&mut text, original),
                }
                (at.start + from..at.end + from, text)
            })
            .collect();
        for mut find in finds {
            if form == Form::Json {
                if is_bare_number(text, &find.at) {
                    continue;
                }
                find.at.start += rest_of_escape(text, &find.at);
                if find.at.is_empty() {
                    continue;
                }
            }
            let rule = &self.rules[find.rule];
            count(counts, rule.label);
            let found = &text[find.at.clone()];
            let replacement = match (rule.action, way) {
                (RedactionAction::Detect, _) => continue,
                (RedactionAction::Tokenize, Way::Out) => vault.hide(rule.label, found),
                _ => None,
            };
            let mask = || format!("[{}]", rule.label);
            edits.push((find.at, replacement.unwrap_or_else(mask)));
        }
        if edits.is_empty() {
            return Cow::Borrowed(&text[from..]);
        }
        edits.sort_by_key(|(at, _)| at.start);
        let mut out = String::with_capacity(text.len() - from);
        let mut done = from;
        for (at, replacement) in edits {
            if at.start >= done {
                out.push_str(&text[done..at.start]);
                out.push_str(&replacement);
                done = at.end;
            }
        }
        out.push_str(&text[done..]);
        Cow::Owned(out)
    }

    /// What is found from `from` on, apart from each other: what begins first wins, then what is longer.
    fn finds(&self, text: &str, from: usize) -> Vec<Find> {
        let mut finds: Vec<Find> = Vec::new();
        for (rule, found) in self.rules.iter().enumerate() {
            found.finder.find(text, &mut |at| {
                if at.start >= from {
                    finds.push(Find { at, rule });
                }
            });
        }
        // A phone number is what has no better name.
        let is_vague = |rule: usize| self.rules[rule].label == "PHONE";
        finds.sort_by_key(|find| {
            let length = find.at.end - find.at.start;
            let rank = (is_vague(find.rule), find.rule);
            (find.at.start, usize::MAX - length, rank)
        });
        let mut end = 0;
        finds.retain(|find| {
            let is_apart = find.at.start >= end;
            if is_apart {
                end = find.at.end;
            }
            is_apart
        });
        finds
    }

    /// The rule that hides a word which goes on and can only become a token.
    fn unfinished(&self, word: &str) -> Option<&'static str> {
        let is_token = word.starts_with("eyJ") && word.contains('.');
        let hides = |rule: &&Rule| {
            matches!(rule.finder, Finder::Jwt) && rule.action != RedactionAction::Detect
        };
        self.rules
            .iter()
            .find(hides)
            .filter(|_| is_token)
            .map(|rule| rule.label)
    }

    /// True when the rule of a find hides it.
    fn hides(&self, find: &Find) -> bool {
        self.rules[find.rule].action != RedactionAction::Detect
    }

    /// True when an expression of the configuration may match across words.
    fn has_regex(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule.finder, Finder::Regex(_)))
    }
}

/// True for a number of JSON itself, which no placeholder may take the place of.
fn is_bare_number(json: &str, at: &Range<usize>) -> bool {
    let before = json[..at.start].trim_end().chars().next_back();
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    json[at.clone()].chars().all(is_number) && matches!(before, Some(':' | ',' | '['))
}

/// How much of a find belongs to an escape that has begun before it, as in `\nann@example.com`.
fn rest_of_escape(json: &str, at: &Range<usize>) -> usize {
    let before = &json[..at.start];
    let backslashes = before.len() - before.trim_end_matches('\\').len();
    let length = match json.as_bytes()[at.start] {
        _ if backslashes.is_multiple_of(2) => 0,
        b'u' => 5,
        _ => 1,
    };
    match json.is_char_boundary(at.start + length) {
        true => length.min(at.len()),
        false => 0,
    }
}

fn count(counts: &mut Counts, label: &'static str) {
    match counts.iter_mut().find(|(known, _)| *known == label) {
        Some((_, times)) => *times += 1,
        None => counts.push((label, 1)),
    }
}

fn label(kind: &RedactionKind) -> &'static str {
    match kind {
        RedactionKind::Email => "EMAIL",
        RedactionKind::Phone => "PHONE",
        RedactionKind::CreditCard => "CREDIT_CARD",
        RedactionKind::Iban => "IBAN",
        RedactionKind::UsSsn => "US_SSN",
        RedactionKind::UsItin => "US_ITIN",
        RedactionKind::UsPassport => "US_PASSPORT",
        RedactionKind::UkNhs => "UK_NHS",
        RedactionKind::Ip => "IP",
        RedactionKind::Mac => "MAC",
        RedactionKind::CryptoAddress => "CRYPTO_ADDRESS",
        RedactionKind::UrlCredentials => "URL_CREDENTIALS",
        RedactionKind::ApiKey => "API_KEY",
        RedactionKind::Jwt => "JWT",
        RedactionKind::Regex(_) => "REDACTED",
    }
}

#[cfg(test)]
mod tests;
