//! Redaction of an answer in pieces, in the format of its client.
//!
//! A find may be cut anywhere, so the end of each text is held back until it cannot be the beginning of
//! one: usually the last word, with a run of digits the run. What is held is bounded, and let go when its
//! text ends. Texts of one answer (choices, blocks, thoughts, arguments of calls) are told apart.

use bytes::Bytes;

use super::find::{CONTEXT_BYTES, is_key_byte};
use super::{Counts, Find, Form, Redactor, Vault, Way};
use crate::event_stream::{Frame, Framing, Splitter};
use crate::json::{escape_into, strings};

/// Most bytes of a text that are held back.
pub const HOLD_BACK_MAX: usize = 512;
/// Texts of one answer; beyond, the oldest is let go.
const TEXTS_MAX: usize = 64;

/// Looks at an answer in pieces.
#[derive(Debug)]
pub struct StreamRedactor {
    redactor: Redactor,
    vault: Vault,
    splitter: Splitter,
    texts: Vec<Text>,
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
    /// The last frame that carried it: its event, and what stood around its text.
    event: Bytes,
    before: String,
    after: String,
}

/// Tells texts apart: the member, the outer and the inner index of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    key: String,
    outer: u64,
    inner: u64,
}

/// Which texts end with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Nothing,
    /// Those of the frame's choice or block.
    OfIndex,
    All,
}

impl Ends {
    /// What a member `type` tells, in Anthropic's words and those of OpenAI's responses.
    fn or_by(self, kind: &str) -> Self {
        match kind {
            "content_block_stop" => Self::OfIndex,
            "message_delta" | "message_stop" | "error" => Self::All,
            _ if kind.starts_with("response.") && !kind.ends_with(".delta") => Self::All,
            _ => self,
        }
    }
}

impl StreamRedactor {
    pub(super) fn new(redactor: Redactor, vault: Vault, frame_bytes_max: usize) -> Self {
        Self {
            redactor,
            vault,
            splitter: Splitter::new(Framing::Sse, frame_bytes_max),
            texts: Vec::new(),
            counts: Counts::new(),
        }
    }

    /// What was found so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes a piece of the client's stream and adds what may leave to `out`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        self.splitter.push(piece);
        loop {
            match self.splitter.next_frame() {
                Ok(Some(frame)) => self.frame(frame, out),
                Ok(None) => return,
                Err(error) => {
                    // Too large to look at, and so too large to pass on.
                    self.splitter = Splitter::new(Framing::Sse, error.limit);
                    return;
                }
            }
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
            .filter(|json| json.starts_with('{'))
        else {
            // `[DONE]`, or a comment.
            if !frame.data.is_empty() {
                self.let_go(|_| true, out);
            }
            out.push(frame.raw);
            return;
        };
        let (outer, inner) = indices(json);
        let mut edits = Vec::new();
        let mut ends = Ends::Nothing;
        strings(json, |place, inside, text| match place.key {
            "finish_reason" => ends = Ends::OfIndex,
            "type" => ends = ends.or_by(text.raw()),
            "content" | "reasoning_content" | "refusal" | "text" | "thinking" | "partial_json"
            | "arguments" | "delta" => {
                edits.push((place.key, inside, text.plain().into_owned()));
            }
            _ => {}
        });
        let is_last = ends != Ends::Nothing;
        let has_text = edits.iter().any(|(_, _, text)| !text.is_empty());
        // A last piece of text goes out with what is held of it.
        if is_last && !(has_text && ends == Ends::OfIndex) {
            self.let_go(|name| ends == Ends::All || name.outer == outer, out);
        }
        if edits.is_empty() {
            out.push(frame.raw);
            return;
        }
        let mut written = String::with_capacity(json.len());
        let mut from = 0;
        let mut has_changed = false;
        for (key, inside, plain) in edits {
            let name = Name {
                key: key.to_owned(),
                outer,
                inner,
            };
            let text = self.text(name, out);
            let held = std::mem::take(&mut self.texts[text].held);
            let whole = if held.is_empty() {
                plain.clone()
            } else {
                held + &plain
            };
            let free = self.advance(text, whole, is_last);
            self.texts[text].event = frame.event.clone();
            self.texts[text].before = json[..inside.start].to_owned();
            self.texts[text].after = json[inside.end..].to_owned();
            if free != plain {
                has_changed = true;
                written.push_str(&json[from..inside.start]);
                escape_into(&mut written, &free);
                from = inside.end;
            }
        }
        if !has_changed {
            out.push(frame.raw);
            return;
        }
        written.push_str(&json[from..]);
        out.push(sse(&frame.event, &written));
    }

    /// The place of a text; a new one may push out the oldest.
    fn text(&mut self, name: Name, out: &mut Vec<Bytes>) -> usize {
        if let Some(at) = self.texts.iter().position(|text| text.name == name) {
            return at;
        }
        if self.texts.len() == TEXTS_MAX {
            let oldest = self.texts[0].name.clone();
            self.let_go(|name| *name == oldest, out);
            self.texts.remove(0);
        }
        self.texts.push(Text {
            name,
            context: String::new(),
            held: String::new(),
            is_swallowing: false,
            event: Bytes::new(),
            before: String::new(),
            after: String::new(),
        });
        self.texts.len() - 1
    }

    /// Looks at what is there of a text and gives what may leave; the rest is held.
    fn advance(&mut self, at: usize, mut whole: String, is_last: bool) -> String {
        let text = &mut self.texts[at];
        if text.is_swallowing {
            let end = whole.bytes().position(|b| !is_key_byte(b));
            text.is_swallowing = end.is_none();
            whole.drain(..end.unwrap_or(whole.len()));
        }
        let mut cut = if is_last {
            whole.len()
        } else {
            safe_cut(&whole, self.redactor.has_regex())
        };
        let from = text.context.len();
        let seen = format!("{}{whole}", text.context);
        let finds = self.redactor.finds(&seen, from);
        if let Some(find) = finds
            .iter()
            .find(|find| find.at.start < from + cut && find.at.end > from + cut)
        {
            cut = find.at.start - from;
        }
        let mut mask = None;
        if whole.len() - cut > HOLD_BACK_MAX {
            // What goes on beyond all bounds is hidden from its beginning, if it is one word.
            let is_going_on = |find: &&Find| find.at.end == seen.len() && self.redactor.hides(find);
            mask = self.redactor.unfinished(&whole[cut..]);
            text.is_swallowing = mask.is_some() || finds.iter().any(|find| is_going_on(&find));
            if mask.is_some() {
                whole.truncate(cut);
            }
            cut = whole.len();
        }
        let seen = &seen[..from + cut];
        let form = match text.name.key.as_str() {
            "partial_json" | "arguments" => Form::Json,
            _ => Form::Prose,
        };
        let (vault, counts) = (&mut self.vault, &mut self.counts);
        let free = self
            .redactor
            .text(seen, from, form, Way::Back, vault, counts);
        let mut free = free.into_owned();
        if let Some(label) = mask {
            free.push('[');
            free.push_str(label);
            free.push(']');
        }
        text.held = whole.split_off(cut);
        let mut keep = seen.len().saturating_sub(CONTEXT_BYTES);
        while !seen.is_char_boundary(keep) {
            keep += 1;
        }
        text.context = seen[keep..].to_owned();
        free
    }

    /// Writes what is held of the texts that end, each in a frame like its last one.
    fn let_go(&mut self, ends: impl Fn(&Name) -> bool, out: &mut Vec<Bytes>) {
        for at in 0..self.texts.len() {
            if self.texts[at].held.is_empty() || !ends(&self.texts[at].name) {
                continue;
            }
            let held = std::mem::take(&mut self.texts[at].held);
            let free = self.advance(at, held, true);
            let text = &self.texts[at];
            let mut json = text.before.clone();
            escape_into(&mut json, &free);
            json.push_str(&text.after);
            out.push(sse(&text.event, &json));
        }
    }
}

fn sse(event: &[u8], json: &str) -> Bytes {
    let mut frame = Vec::with_capacity(json.len() + event.len() + 20);
    if !event.is_empty() {
        frame.extend_from_slice(b"event: ");
        frame.extend_from_slice(event);
        frame.push(b'\n');
    }
    frame.extend_from_slice(b"data: ");
    frame.extend_from_slice(json.as_bytes());
    frame.extend_from_slice(b"\n\n");
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
/// before it that may belong to a number.
fn safe_cut(text: &str, has_regex: bool) -> usize {
    if has_regex {
        let mut cut = text.len().saturating_sub(HOLD_BACK_MAX / 2);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        return cut;
    }
    let is_space = |c: char| c.is_whitespace();
    let mut cut = text.rfind(is_space).map_or(0, |at| at + space(text, at));
    // `GB82 WEST …` has words of letters between its digits; a plain word between two ends a number.
    while cut > 0 {
        let before = text[..cut].trim_end_matches(is_space);
        if text[before.len()..cut].contains('\n') {
            break;
        }
        let start = before
            .rfind(is_space)
            .map_or(0, |at| at + space(before, at));
        let word = &before[start..];
        let may_belong = word.bytes().any(|b| b.is_ascii_digit())
            || word.len() <= 4 && word.bytes().all(|b| b.is_ascii_uppercase())
            || matches!(word, "+" | "(");
        if !may_belong {
            break;
        }
        cut = start;
    }
    cut
}

fn space(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}
