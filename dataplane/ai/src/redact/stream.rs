//! Redaction of an answer in pieces, in the format of its client.
//!
//! A find may be cut anywhere, so the end of each text is held back until it cannot be the beginning of
//! one: usually the last word, with a run of digits the run. What is held is bounded, and let go when its
//! text ends. Texts of one answer (choices, blocks, thoughts, arguments of calls) are told apart; what a
//! frame holds as a whole is looked at like an answer that is not in pieces.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Serialize;
use serde_json::value::RawValue;

use super::find::{CONTEXT_BYTES, is_key_byte};
use super::{Counts, Form, Redactor, Vault, Way};
use crate::event_stream::{Frame, Framing, Splitter};
use crate::json::{self, Place, escape_into, strings};

/// Most bytes of a text that are held back.
pub const HOLD_BACK_MAX: usize = 512;
/// How far back an expression of the configuration is looked for.
const REACH: usize = HOLD_BACK_MAX / 2;
/// Texts of one answer; beyond, the oldest is let go.
const TEXTS_MAX: usize = 64;
/// Bytes that may be written more than once where a frame is parted.
const PARTED_BYTES_MAX: usize = 256 * 1024;

/// Looks at an answer in pieces.
#[derive(Debug)]
pub struct StreamRedactor {
    look: Look,
    splitter: Splitter,
    texts: Vec<Text>,
}

/// What texts are looked at with.
#[derive(Debug)]
struct Look {
    redactor: Redactor,
    vault: Vault,
    counts: Counts,
}

/// One text of an answer.
#[derive(Debug)]
struct Text {
    name: Name,
    /// What was let go last, for the surroundings of what follows.
    context: String,
    /// What is held back.
    held: String,
    /// Characters of a find that is still going on are dropped.
    is_swallowing: bool,
    /// The last frame that carried it: its event, the frame without its texts, and where this one was.
    event: Bytes,
    frame: Arc<str>,
    at: usize,
}

/// Tells texts apart: the member, or for a `delta` that is a text the event, and the outer and the inner
/// index of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    key: String,
    outer: u64,
    inner: u64,
}

impl Name {
    /// What its texts are: arguments of calls are JSON.
    fn form(&self) -> Form {
        let is_json = self.key == "partial_json" || self.key.contains("arguments");
        match is_json {
            true => Form::Json,
            false => Form::Prose,
        }
    }
}

/// What a frame says of itself.
struct Told<'f> {
    /// The event of OpenAI's responses, in its own words.
    event: &'f str,
    ends: Ends,
    /// No text of it goes on in another frame.
    is_whole: bool,
}

impl<'f> Told<'f> {
    fn read(values: &'f [(Place<'_>, Range<usize>, json::Text<'_>)]) -> Self {
        let mut told = Self {
            event: "",
            ends: Ends::Nothing,
            is_whole: false,
        };
        for (place, _, text) in values {
            match (place.key, text.raw()) {
                ("finish_reason", reason) if !reason.is_empty() => told.ends(Ends::OfIndex),
                ("type", kind) => told.reads(kind),
                _ => {}
            }
        }
        told
    }

    /// What a member `type` tells, in Anthropic's words and those of OpenAI's responses.
    fn reads(&mut self, kind: &'f str) {
        match kind {
            "content_block_stop" => self.ends(Ends::OfIndex),
            "message_delta" | "message_stop" | "error" => {
                self.ends(Ends::All);
                self.is_whole = true;
            }
            _ if kind.starts_with("response.") => {
                self.event = kind;
                self.is_whole = !kind.ends_with("delta");
                if matches!(
                    kind.rsplit('.').next(),
                    Some("done" | "completed" | "failed" | "incomplete")
                ) {
                    self.ends(Ends::All);
                }
            }
            _ => {}
        }
    }

    fn ends(&mut self, ends: Ends) {
        if self.ends != Ends::All {
            self.ends = ends;
        }
    }

    /// The key of a text that comes in pieces.
    fn piece<'p>(&'p self, place: &Place<'p>) -> Option<&'p str> {
        match place.key {
            _ if place.is_input || place.is_schema => None,
            "delta" => Some(self.event),
            "content" | "reasoning_content" | "reasoning" | "refusal" | "text" | "thinking"
            | "summary" | "transcript" | "partial_json" | "arguments" => Some(place.key),
            _ => None,
        }
    }

    /// True for sounds, which are written in base64.
    fn is_sound(&self, place: &Place<'_>) -> bool {
        place.key == "delta" && self.event.ends_with("audio.delta")
    }
}

/// Which texts end with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Nothing,
    /// Those of the frame's choice or block.
    OfIndex,
    All,
}

/// A JSON text with some of its strings replaced.
struct Splice<'j> {
    json: &'j str,
    from: usize,
    out: String,
}

impl<'j> Splice<'j> {
    fn new(json: &'j str) -> Self {
        Self {
            json,
            from: 0,
            out: String::with_capacity(json.len()),
        }
    }

    /// Puts a text in the place of a string's inside.
    fn replace(&mut self, inside: &Range<usize>, plain: &str) {
        self.out.push_str(&self.json[self.from..inside.start]);
        escape_into(&mut self.out, plain);
        self.from = inside.end;
    }

    fn end(mut self) -> String {
        self.out.push_str(&self.json[self.from..]);
        self.out
    }
}

impl Look {
    /// A string that is there as a whole, absent when nothing has changed.
    fn string(&mut self, place: &Place<'_>, plain: &str) -> Option<String> {
        let Self {
            redactor,
            vault,
            counts,
        } = self;
        let may_be_json = place.is_arguments();
        let (changed, _) = redactor.string(plain, may_be_json, Way::Back, vault, counts);
        changed
    }

    /// All strings of a frame, absent when nothing has changed.
    fn json(&mut self, json: &str) -> Option<String> {
        let Self {
            redactor,
            vault,
            counts,
        } = self;
        redactor.json(json, Way::Back, vault, counts, true).0
    }
}

impl StreamRedactor {
    pub(super) fn new(redactor: Redactor, vault: Vault) -> Self {
        Self {
            look: Look {
                redactor,
                vault,
                counts: Counts::new(),
            },
            // What comes in is whole frames of an answer, which has a limit of its own.
            splitter: Splitter::new(Framing::Sse, usize::MAX),
            texts: Vec::new(),
        }
    }

    /// What was found so far.
    pub fn counts(&self) -> &Counts {
        &self.look.counts
    }

    /// Takes a piece of the client's stream, as [`AnswerStream`](crate::call::AnswerStream) gives it, and
    /// adds what may leave to `out`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        self.splitter.push(piece);
        while let Ok(Some(frame)) = self.splitter.next_frame() {
            self.frame(frame, out);
        }
    }

    /// The stream has ended: `out` gets what was held back.
    pub fn end(&mut self, out: &mut Vec<Bytes>) {
        if let Some(frame) = self.splitter.rest() {
            self.frame(frame, out);
        }
        self.let_go(|_| true, out);
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Bytes>) {
        let Some(json) = std::str::from_utf8(&frame.data)
            .ok()
            .filter(|json| json.trim_start().starts_with('{'))
        else {
            // `[DONE]`, or a comment.
            if !frame.data.is_empty() {
                self.let_go(|_| true, out);
            }
            out.push(frame.raw);
            return;
        };
        if let Some(parts) = apart(json) {
            for json in parts {
                let raw = sse(&frame.event, &json);
                self.chunk(&json, &frame.event, raw, out);
            }
        } else {
            self.chunk(json, &frame.event, frame.raw, out);
        }
    }

    /// A frame with an object in it, of one choice and one call at most.
    fn chunk(&mut self, json: &str, event: &Bytes, raw: Bytes, out: &mut Vec<Bytes>) {
        let json = self.look.redactor.without_logprobs(json);
        let mut values = Vec::new();
        strings(&json, |place, inside, text| {
            values.push((place, inside, text));
        });
        let told = Told::read(&values);
        let changed = if told.is_whole {
            if told.ends == Ends::All {
                self.let_go(|_| true, out);
            }
            self.look.json(&json)
        } else {
            self.pieces(&json, &values, &told, event, out)
        };
        match (changed, json) {
            (Some(json), _) => out.push(sse(event, &json)),
            (None, Cow::Owned(json)) => out.push(sse(event, &json)),
            (None, Cow::Borrowed(_)) => out.push(raw),
        }
    }

    /// A frame with pieces of texts, absent when nothing has changed.
    fn pieces(
        &mut self,
        json: &str,
        values: &[(Place<'_>, Range<usize>, json::Text<'_>)],
        told: &Told<'_>,
        event: &Bytes,
        out: &mut Vec<Bytes>,
    ) -> Option<String> {
        let (outer, inner) = indices(json);
        let named = |place: &Place<'_>, text: &json::Text<'_>| {
            let key = told.piece(place).filter(|_| !text.is_empty())?;
            Some(Name {
                key: key.to_owned(),
                outer,
                inner,
            })
        };
        let is_last = told.ends == Ends::OfIndex;
        if is_last {
            // A last piece goes out with what is held of its text.
            let goes_on = |name: &Name| {
                let mut names = values
                    .iter()
                    .filter_map(|(place, _, text)| named(place, text));
                names.any(|carried| carried == *name)
            };
            self.let_go(|name| name.outer == outer && !goes_on(name), out);
        }
        let calls = memmem::find(json.as_bytes(), b"\"tool_calls\"").unwrap_or(json.len());
        let (mut written, mut blank) = (Splice::new(json), Splice::new(json));
        let mut carried = Vec::new();
        let mut has_changed = false;
        for (place, inside, text) in values {
            let plain = text.plain();
            let changed = if let Some(name) = named(place, text) {
                if told.is_sound(place) {
                    continue;
                }
                let at = self.text(&name, out);
                let free = self.texts[at].push(&plain, is_last, &mut self.look);
                blank.replace(inside, "");
                carried.push((name, blank.out.len()));
                (free != plain).then_some(free)
            } else {
                let is_prose = place.is_prose(text.raw());
                let changed = is_prose.then(|| self.look.string(place, &plain)).flatten();
                // What names a call is told once.
                let is_name = inside.start > calls && matches!(place.key, "id" | "name");
                if is_name || changed.is_some() {
                    let text = changed.as_deref().filter(|_| !is_name).unwrap_or_default();
                    blank.replace(inside, text);
                }
                changed
            };
            if let Some(changed) = changed {
                has_changed = true;
                written.replace(inside, &changed);
            }
        }
        if is_last {
            self.texts.retain(|text| text.name.outer != outer);
        } else if !carried.is_empty() {
            let frame: Arc<str> = blank.end().into();
            for (name, at) in carried {
                let text = self.text(&name, out);
                let text = &mut self.texts[text];
                text.event = event.clone();
                text.frame = frame.clone();
                text.at = at;
            }
        }
        has_changed.then(|| written.end())
    }

    /// The place of a text; a new one may push out the oldest.
    fn text(&mut self, name: &Name, out: &mut Vec<Bytes>) -> usize {
        if let Some(at) = self.texts.iter().position(|text| text.name == *name) {
            return at;
        }
        if self.texts.len() == TEXTS_MAX {
            let oldest = self.texts[0].name.clone();
            self.let_go(|name| *name == oldest, out);
        }
        self.texts.push(Text {
            name: name.clone(),
            context: String::new(),
            held: String::new(),
            is_swallowing: false,
            event: Bytes::new(),
            frame: Arc::default(),
            at: 0,
        });
        self.texts.len() - 1
    }

    /// Ends texts: what is held of each is written in a frame like its last one.
    fn let_go(&mut self, ends: impl Fn(&Name) -> bool, out: &mut Vec<Bytes>) {
        let texts = std::mem::take(&mut self.texts);
        for mut text in texts {
            if !ends(&text.name) {
                self.texts.push(text);
                continue;
            }
            if text.held.is_empty() {
                continue;
            }
            let free = text.push("", true, &mut self.look);
            let mut frame = Splice::new(&text.frame);
            frame.replace(&(text.at..text.at), &free);
            out.push(sse(&text.event, &frame.end()));
        }
    }
}

impl Text {
    /// Takes a piece and gives what may leave; the rest is held.
    fn push(&mut self, piece: &str, is_last: bool, look: &mut Look) -> String {
        let mut whole = std::mem::take(&mut self.held);
        whole.push_str(piece);
        if self.is_swallowing {
            let end = whole.bytes().position(|b| !is_key_byte(b));
            self.is_swallowing = end.is_none();
            whole.drain(..end.unwrap_or(whole.len()));
        }
        let from = self.context.len();
        let mut mask = None;
        let cut = match is_last {
            true => whole.len(),
            false => {
                let spans = Spans::find(&self.context, &whole, look);
                let cut = spans.cut(&whole, look.redactor.has_regex());
                match spans.endless(&whole, cut) {
                    None => cut,
                    Some(span) => {
                        // What goes on beyond all bounds is hidden from its beginning.
                        self.is_swallowing = span.is_hidden;
                        mask = span.mask;
                        if mask.is_some() {
                            whole.truncate(cut);
                        }
                        whole.len()
                    }
                }
            }
        };
        let mut seen = std::mem::take(&mut self.context);
        seen.push_str(&whole[..cut]);
        self.held = whole.split_off(cut);
        let (vault, counts) = (&mut look.vault, &mut look.counts);
        let form = self.name.form();
        let free = look
            .redactor
            .text(&seen, from, form, Way::Back, vault, counts);
        let mut free = free.into_owned();
        if let Some(label) = mask {
            free.push('[');
            free.push_str(label);
            free.push(']');
        }
        let mut keep = seen.len().saturating_sub(CONTEXT_BYTES);
        while !seen.is_char_boundary(keep) {
            keep += 1;
        }
        seen.drain(..keep);
        self.context = seen;
        free
    }
}

/// What of a text leaves as one or not at all.
struct Spans(Vec<Span>);

struct Span {
    at: Range<usize>,
    is_hidden: bool,
    /// The label of what is no find yet and can become nothing else.
    mask: Option<&'static str>,
}

impl Spans {
    /// Finds, placeholders, and at the end what may become a token.
    fn find(context: &str, text: &str, look: &Look) -> Self {
        let Look {
            redactor, vault, ..
        } = look;
        let from = context.len();
        let seen = format!("{context}{text}");
        let finds = redactor.finds(&seen, from);
        let finds = finds.into_iter().map(|find| Span {
            at: find.at.start - from..find.at.end - from,
            is_hidden: redactor.hides(&find),
            mask: None,
        });
        let placeholders = vault.placeholders(text).into_iter().map(|(at, _)| Span {
            at,
            is_hidden: false,
            mask: None,
        });
        let word = text.bytes().rposition(|b| !is_key_byte(b));
        let word = word.map_or(0, |before| text.ceil_char_boundary(before + 1));
        let token = redactor.unfinished(&text[word..]).map(|label| Span {
            at: word..text.len(),
            is_hidden: true,
            mask: Some(label),
        });
        Self(finds.chain(placeholders).chain(token).collect())
    }

    /// Up to where a text may leave: all but its end, and never within a span. No more than
    /// [`HOLD_BACK_MAX`] bytes stay behind it, but for a span that is [endless](Self::endless).
    fn cut(&self, text: &str, has_regex: bool) -> usize {
        let cut = self.before(safe_cut(text, has_regex));
        if text.len() - cut <= HOLD_BACK_MAX {
            return cut;
        }
        let cut = self.before(text.floor_char_boundary(text.len() - REACH));
        if text.len() - cut <= HOLD_BACK_MAX {
            return cut;
        }
        // Too long to wait for, but it has ended.
        let begun = self.0.iter().filter(|span| span.at.start == cut);
        let end = begun.map(|span| span.at.end).max();
        end.filter(|end| *end < text.len()).unwrap_or(cut)
    }

    /// The place, or the begin of the span that it is in.
    fn before(&self, mut at: usize) -> usize {
        while let Some(span) = self
            .0
            .iter()
            .find(|span| span.at.start < at && at < span.at.end)
        {
            at = span.at.start;
        }
        at
    }

    /// The span that goes on from a cut to the end, when it is too long to be held.
    fn endless(&self, text: &str, cut: usize) -> Option<&Span> {
        let is_long = text.len() - cut > HOLD_BACK_MAX;
        let mut begun = self.0.iter().filter(|span| span.at.start == cut);
        begun
            .find(|span| span.at.end == text.len())
            .filter(|_| is_long)
    }
}

/// Members of an object, as they were written.
type Members = BTreeMap<String, Box<RawValue>>;

/// A chunk of chat completions with several choices, or several calls in one, as chunks with one of each:
/// texts are told apart by the indices of their frame. Absent when there is nothing to part, or so many
/// that the copies of what stands beside them would be large.
fn apart(json: &str) -> Option<Vec<String>> {
    let is_many = |name: &str| memmem::find_iter(json.as_bytes(), name).nth(1).is_some();
    if !is_many("\"delta\"") && !is_many("\"arguments\"") {
        return None;
    }
    let mut chunk: Members = serde_json::from_str(json).ok()?;
    let choices = chunk.remove("choices")?;
    let beside = json.len() - choices.get().len();
    let choices: Vec<Members> = serde_json::from_str(choices.get()).ok()?;
    let mut parts = Vec::new();
    for choice in choices {
        parts.extend(by_call(choice)?);
    }
    if parts.len() < 2 || parts.len() > TEXTS_MAX || beside * parts.len() > PARTED_BYTES_MAX {
        return None;
    }
    // What was used is told once, at the end.
    let usage = chunk.remove("usage");
    let last = parts.len() - 1;
    let mut chunks = Vec::with_capacity(parts.len());
    for (at, choice) in parts.into_iter().enumerate() {
        chunk.insert("choices".to_owned(), index_first(choice)?);
        if let Some(usage) = usage.as_ref().filter(|_| at == last) {
            chunk.insert("usage".to_owned(), usage.clone());
        }
        chunks.push(serde_json::to_string(&chunk).ok()?);
    }
    Some(chunks)
}

/// A choice as one for each of its calls; only the last ends it.
fn by_call(mut choice: Members) -> Option<Vec<Members>> {
    let delta = choice.get("delta").map(|it| serde_json::from_str(it.get()));
    let mut delta: Members = delta.and_then(Result::ok).unwrap_or_default();
    let calls = delta.remove("tool_calls");
    let calls = calls.map(|it| serde_json::from_str::<Vec<Box<RawValue>>>(it.get()));
    let Some((last, others)) = calls.as_ref().and_then(|it| it.as_ref().ok()?.split_last()) else {
        return Some(vec![choice]);
    };
    let mut parts = Vec::with_capacity(others.len() + 1);
    let end = choice.remove("finish_reason");
    for call in others {
        delta.insert("tool_calls".to_owned(), written(&[call])?);
        choice.insert("delta".to_owned(), written(&std::mem::take(&mut delta))?);
        choice.insert("finish_reason".to_owned(), written(&())?);
        parts.push(choice.clone());
    }
    delta.insert("tool_calls".to_owned(), written(&[last])?);
    choice.insert("delta".to_owned(), written(&delta)?);
    if let Some(end) = end {
        choice.insert("finish_reason".to_owned(), end);
    }
    parts.push(choice);
    Some(parts)
}

/// One choice in a list. Its index stands before those of its calls, where [`indices`] looks for it.
fn index_first(mut choice: Members) -> Option<Box<RawValue>> {
    let Some(index) = choice.remove("index") else {
        return written(&[choice]);
    };
    let rest = serde_json::to_string(&choice).ok()?;
    let comma = if choice.is_empty() { "" } else { "," };
    let list = format!("[{{\"index\":{index}{comma}{}]", &rest[1..]);
    RawValue::from_string(list).ok()
}

fn written(value: &impl Serialize) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

fn sse(event: &[u8], json: &str) -> Bytes {
    let mut frame = Vec::with_capacity(json.len() + event.len() + 20);
    if !event.is_empty() {
        frame.extend_from_slice(b"event: ");
        frame.extend_from_slice(event);
        frame.push(b'\n');
    }
    for line in json.split('\n') {
        frame.extend_from_slice(b"data: ");
        frame.extend_from_slice(line.as_bytes());
        frame.push(b'\n');
    }
    frame.push(b'\n');
    frame.into()
}

/// The first and the last member `index` of a frame.
fn indices(json: &str) -> (u64, u64) {
    const NAME: &str = "\"index\":";
    let number = |at: usize| {
        let digits = json[at + NAME.len()..].trim_start();
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end].parse().unwrap_or(0)
    };
    (
        json.find(NAME).map_or(0, number),
        json.rfind(NAME).map_or(0, number),
    )
}

/// Up to where no find can begin that goes on behind the end: the begin of the last word, and of the words
/// before it that may belong to a number; with an expression of the configuration, which may match across
/// words, [`REACH`] bytes.
fn safe_cut(text: &str, has_regex: bool) -> usize {
    let is_space = |c: char| c.is_whitespace();
    let mut cut = last_word(text);
    // `GB82 WEST …` has words of letters between its digits; a plain word between two ends a number.
    while cut > 0 {
        let before = text[..cut].trim_end_matches(is_space);
        if text[before.len()..cut].contains('\n') {
            break;
        }
        let start = last_word(before);
        let word = &before[start..];
        let may_belong = word.bytes().any(|b| b.is_ascii_digit())
            || word.len() <= 4 && word.bytes().all(|b| b.is_ascii_uppercase())
            || matches!(word, "+" | "(");
        if !may_belong {
            break;
        }
        cut = start;
    }
    if !has_regex {
        return cut;
    }
    let reach = text.floor_char_boundary(text.len().saturating_sub(REACH));
    cut.min(last_word(&text[..reach]))
}

/// Where the last word begins.
fn last_word(text: &str) -> usize {
    let space = text.char_indices().rfind(|(_, c)| c.is_whitespace());
    space.map_or(0, |(at, c)| at + c.len_utf8())
}

#[cfg(test)]
mod tests;
