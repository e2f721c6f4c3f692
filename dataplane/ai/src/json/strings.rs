//! Finds the strings in a JSON text, with where they stand.
//!
//! Redaction and token counting both look at what people wrote, and at nothing else: names of members,
//! numbers, ids, images and schemas are not theirs. The text must be valid JSON; callers have read it
//! before. Nothing recurses, so depth costs memory only, up to a limit. [`containers`] finds the lists and
//! objects that are the value of a member, for what is left out as a whole.

use std::ops::Range;

use super::Text;

/// Levels of nesting looked into; what lies deeper is not visited.
pub const DEPTH_MAX: usize = 512;

/// Where a string stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the nearest member it is the value of, or in a list of; as it was written.
    pub key: &'a str,
    /// True inside the JSON schema of a tool or an answer.
    pub is_schema: bool,
    /// True inside the object that a tool is called with: whatever its members are called, a person or a
    /// model has filled them in.
    pub is_input: bool,
}

impl Place<'_> {
    /// True for text that a person or a model wrote, as against ids, names and encoded bytes.
    pub fn is_prose(&self, raw: &str) -> bool {
        if self.is_schema {
            return self.key == "description";
        }
        if raw.is_empty() || is_data_url(raw) {
            return false;
        }
        if self.is_input {
            return true;
        }
        // A picture that a model has made, or what a tool told.
        if self.key == "result" {
            return !is_base64(raw);
        }
        let is_structure = matches!(
            self.key,
            "model"
                | "role"
                | "type"
                | "object"
                | "id"
                | "tool_call_id"
                | "tool_use_id"
                | "tool_name"
                | "call_id"
                | "item_id"
                | "response_id"
                | "previous_response_id"
                | "file_id"
                | "data"
                | "file_data"
                | "embedding"
                | "b64_json"
                | "partial_image_b64"
                | "media_type"
                | "format"
                | "detail"
                | "signature"
                | "encrypted_content"
                | "encoding_format"
                | "finish_reason"
                | "stop_reason"
                | "tool_choice"
                | "reasoning_effort"
                | "effort"
                | "verbosity"
                | "service_tier"
                | "system_fingerprint"
                | "modalities"
                | "include"
                | "truncation"
                | "status"
                | "token"
                | "images"
                | "created_at"
                | "done_reason"
                | "keep_alive"
                | "cache_control"
                | "prompt_cache_key"
        );
        !is_structure
    }

    /// True for a string that holds JSON of its own.
    pub fn is_arguments(&self) -> bool {
        matches!(self.key, "arguments" | "partial_json")
    }
}

/// `data:image/png;base64,…` and no prose that begins with that word.
fn is_data_url(raw: &str) -> bool {
    let Some((head, data)) = raw
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
    else {
        return false;
    };
    let is_prose = |text: &str| memchr::memchr2(b' ', b'\\', text.as_bytes()).is_some();
    // JSON may spell a slash with a backslash; base64 holds neither of the others.
    !head.contains(' ') && (!is_prose(data) || !data.replace("\\/", "").contains([' ', '\\']))
}

/// Longest text that is prose whatever it is made of.
const WORD_BYTES_MAX: usize = 256;

/// True for what is too long for a word and has nothing but the symbols of base64 in it.
fn is_base64(raw: &str) -> bool {
    let is_symbol = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\\');
    raw.len() > WORD_BYTES_MAX && raw.bytes().all(is_symbol)
}

struct Level<'a> {
    /// Where it begins.
    start: usize,
    is_object: bool,
    /// True when it is the value of a member itself, and no item of a list.
    is_member: bool,
    awaits_key: bool,
    place: Place<'a>,
}

enum Value<'a> {
    String(Text<'a>),
    /// A list or an object, once it has ended.
    Container,
}

/// Calls `visit` for each string that is a value: its place, where its inside lies, and the text. False
/// when some lie too deep to be visited.
pub fn strings<'a>(
    json: &'a str,
    mut visit: impl FnMut(Place<'a>, Range<usize>, Text<'a>),
) -> bool {
    walk(json, |place, at, value| {
        if let Value::String(text) = value {
            visit(place, at, text);
        }
    })
}

/// Where the lists and objects are that a member of that name has for its value, apart from each other,
/// in their order. Those of schemas and of what tools are called with are somebody else's.
pub(crate) fn containers(json: &str, name: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    walk(json, |place, at, value| {
        let is_named = place.key == name && !place.is_schema && !place.is_input;
        if is_named && matches!(value, Value::Container) {
            // What is inside has ended before.
            while found.pop_if(|inner| inner.start > at.start).is_some() {}
            found.push(at);
        }
    });
    found
}

/// Calls `visit` for each string that is a value, and for each container that is one of a member.
fn walk<'a>(json: &'a str, mut visit: impl FnMut(Place<'a>, Range<usize>, Value<'a>)) -> bool {
    let bytes = json.as_bytes();
    let mut levels: Vec<Level<'a>> = Vec::with_capacity(16);
    let mut too_deep = 0_usize;
    let mut at = 0;
    let mut place = Place {
        key: "",
        is_schema: false,
        is_input: false,
    };
    let mut is_whole = true;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let inside = at..end_of_string(bytes, at);
                at = inside.end + 1;
                let raw = json.get(inside.clone()).unwrap_or_default();
                match levels.last_mut() {
                    _ if too_deep > 0 => is_whole = false,
                    Some(level) if level.awaits_key => {
                        level.awaits_key = false;
                        place = Place {
                            key: raw,
                            is_schema: level.place.is_schema || is_schema(raw),
                            is_input: level.place.is_input,
                        };
                    }
                    _ => visit(place, inside, Value::String(Text(raw.into()))),
                }
            }
            b'{' | b'[' if levels.len() == DEPTH_MAX => too_deep += 1,
            b'{' | b'[' => {
                let is_object = byte == b'{';
                let is_member = levels.last().is_some_and(|level| level.is_object);
                let is_call = matches!(place.key, "input" | "arguments");
                place.is_input |= is_object && is_member && is_call;
                levels.push(Level {
                    start: at - 1,
                    is_object,
                    is_member,
                    awaits_key: is_object,
                    place,
                });
            }
            b'}' | b']' if too_deep > 0 => too_deep -= 1,
            b'}' | b']' => {
                if let Some(level) = levels.pop().filter(|level| level.is_member) {
                    visit(level.place, level.start..at, Value::Container);
                }
            }
            b',' if too_deep == 0 => {
                if let Some(level) = levels.last_mut() {
                    level.awaits_key = level.is_object;
                    place = level.place;
                }
            }
            _ => {}
        }
    }
    is_whole
}

fn is_schema(key: &str) -> bool {
    matches!(key, "parameters" | "input_schema" | "schema")
}

/// Where the string ends that has begun before `from`; the place of its closing quote.
pub(crate) fn end_of_string(bytes: &[u8], mut from: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(from..).unwrap_or_default()) {
        if bytes[from + found] == b'"' {
            return from + found;
        }
        from += found + 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(json: &str) -> Vec<String> {
        let mut found = Vec::new();
        strings(json, |place, inside, text| {
            assert_eq!(&json[inside], text.raw());
            if place.is_prose(text.raw()) {
                found.push(format!("{}={}", place.key, text.plain()));
            }
        });
        found
    }

    #[test]
    fn what_people_wrote_is_found_and_nothing_else() {
        let json = r#"{"model":"gpt","messages":[{"role":"user","content":"hi \"you\""},
            {"role":"user","content":[{"type":"text","text":"a"},
              {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
              {"type":"image","source":{"type":"base64","data":"AAAA"}}]},
            {"role":"tool","tool_call_id":"c1","content":["x",{"y":"z"},"w"]}],
            "tools":[{"type":"function","function":{"name":"f","parameters":{"description":"d",
              "properties":{"city":{"enum":["Rome"],"description":"where"}}}}}],"n":1,"user":"u"}"#;
        assert_eq!(
            prose(json),
            [
                r#"content=hi "you""#,
                "text=a",
                "content=x",
                "y=z",
                "content=w",
                "name=f",
                "description=d",
                "description=where",
                "user=u",
            ]
        );
    }

    #[test]
    fn what_a_tool_is_called_with_is_prose_whatever_it_is_called() {
        let json = r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"id":"a","list":[{"status":"b"}],"data":"c"}}]},
            {"role":"assistant","tool_calls":[{"id":"u","function":{"name":"g","arguments":{"token":"d"}}}]}],
            "input":[{"type":"message","id":"e","content":"f"}]}"#;
        assert_eq!(
            prose(json),
            [
                "name=f",
                "id=a",
                "status=b",
                "data=c",
                "name=g",
                "token=d",
                "content=f"
            ]
        );
    }

    #[test]
    fn prose_may_begin_with_the_word_data() {
        for (text, is_prose) in [
            ("data:image/png;base64,iVBORw0KGgo=", false),
            ("data:image\\/png;base64,iVBO\\/w0KGgo=", false),
            ("data:", true),
            ("data: mail to ann@example.com", true),
            ("data:text/plain;base64,AA== mail to ann@example.com", true),
            ("data: a;base64,AAAA", true),
        ] {
            let json = format!(r#"{{"content":"{text}"}}"#);
            assert_eq!(!prose(&json).is_empty(), is_prose, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_what_follows_is_still_seen() {
        let deep = format!(
            "{{\"a\":{}\"x\"{},\"b\":\"y\"}}",
            "[".repeat(2000),
            "]".repeat(2000)
        );
        assert_eq!(prose(&deep), ["b=y"]);
        assert!(!strings(&deep, |_, _, _| {}));
        assert!(strings(r#"{"a":["x"]}"#, |_, _, _| {}));
    }
}
