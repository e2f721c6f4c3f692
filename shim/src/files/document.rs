//! One file's text, cut into documents and parsed as YAML (JSON is YAML too).
//!
//! Documents are cut by their `---` lines before they are parsed, so one that is malformed leaves
//! its neighbours readable and a message can say on which line of the file it stands. A `List` is
//! taken apart here. What a document means is judged in [`super::object`].

use std::sync::Arc;

use serde_yaml::Value;

use super::Fault;
use super::place::{self, Step};
use crate::cluster_view::Origin;

/// One object of a file, not yet typed.
pub(super) struct Document<'a> {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// The document it was read from.
    text: &'a str,
    /// The way to it there; it is the document itself where no list holds it.
    within: Vec<Step>,
}

impl Document<'_> {
    /// An object that stands in no file.
    pub(super) fn of_api_server(value: Value) -> Self {
        Self {
            origin: Origin::default(),
            value,
            text: "",
            within: Vec::new(),
        }
    }

    /// The line of the file on which the field at `path` of this object stands.
    pub(super) fn line_of(&self, path: impl IntoIterator<Item = Step>) -> usize {
        if self.origin.is_api_server() {
            return 0;
        }
        let mut whole = self.within.clone();
        whole.extend(path);
        self.origin.line + place::line_of(self.text, &whole)
    }
}

/// Documents nested deeper than this in Lists of Lists are refused.
const LIST_DEPTH_MAX: usize = 4;
/// Brackets open at once, beyond which a document is not parsed.
const BRACKETS_MAX: usize = 2000;

/// Every document of `text`; what cannot be read is a fault.
pub(super) fn documents<'a>(
    file: &Arc<str>,
    text: &'a str,
    faults: &mut Vec<Fault>,
) -> Vec<Document<'a>> {
    let mut documents = Vec::new();
    for (line, part) in cut(text) {
        let origin = Origin {
            file: file.clone(),
            line,
        };
        if is_too_deep(part) {
            faults.push(Fault {
                file: file.clone(),
                line,
                object: String::new(),
                path: String::new(),
                message: format!("opens more than {BRACKETS_MAX} brackets within one another"),
            });
            continue;
        }
        match serde_yaml::from_str::<Value>(part) {
            Ok(Value::Null) => {}
            Ok(value) => {
                let document = Document {
                    origin,
                    value,
                    text: part,
                    within: Vec::new(),
                };
                expand(document, 0, &mut documents, faults);
            }
            Err(error) => faults.push(malformed(&origin, part, &error)),
        }
    }
    documents
}

/// True when so many brackets are open at once that parsing, whose time grows with the square of
/// that, would keep everything else waiting. Brackets in quotes count too; no manifest has so many.
fn is_too_deep(text: &str) -> bool {
    let mut open = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > BRACKETS_MAX
    })
}

/// The documents of `text`, each with the number of its first line that says something.
fn cut(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let is_end = bare == "...";
        if bare == "---" || bare.starts_with("--- ") || is_end {
            parts.push((first_line, &text[start..offset]));
            // What follows `--- ` on its line belongs to the next document.
            start = offset + if is_end { line.len() } else { 3 };
            first_line = index + if is_end { 2 } else { 1 };
        }
        offset += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.into_iter().filter_map(|(line, part)| {
        let blank = part
            .lines()
            .take_while(|line| {
                let line = line.trim_start();
                line.is_empty() || line.starts_with('#')
            })
            .count();
        (blank < part.lines().count())
            .then_some((line + blank, part.trim_start_matches('\u{feff}')))
            .map(|(line, part)| (line, skip_lines(part, blank)))
    })
}

fn skip_lines(text: &str, count: usize) -> &str {
    let skipped: usize = text.split_inclusive('\n').take(count).map(str::len).sum();
    &text[skipped..]
}

fn malformed(origin: &Origin, part: &str, error: &serde_yaml::Error) -> Fault {
    let inside = error
        .location()
        .map_or(0, |location| location.line().saturating_sub(1));
    // A document that ends too early is faulted behind its end.
    let inside = inside.min(part.trim_end().lines().count().saturating_sub(1));
    let text = error.to_string();
    // The parser counts from the start of the document, which helps nobody.
    let reason = text.split(" at line ").next().unwrap_or(&text);
    Fault {
        file: origin.file.clone(),
        line: origin.line + inside,
        object: String::new(),
        path: String::new(),
        message: format!("is not valid YAML: {reason}; this document is left out"),
    }
}

fn expand<'a>(
    mut document: Document<'a>,
    depth: usize,
    documents: &mut Vec<Document<'a>>,
    faults: &mut Vec<Fault>,
) {
    let value = &document.value;
    let is_list = value
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.ends_with("List"))
        && value.get("items").is_some_and(Value::is_sequence);
    if !is_list {
        documents.push(document);
        return;
    }
    if depth == LIST_DEPTH_MAX {
        faults.push(Fault {
            line: document.line_of([Step::Key("items".to_owned())]),
            file: document.origin.file,
            object: String::new(),
            path: "items".to_owned(),
            message: "lists are nested too deeply, write the objects side by side".to_owned(),
        });
        return;
    }
    let items = document.value.get_mut("items").map(std::mem::take);
    let Some(Value::Sequence(items)) = items else {
        return;
    };
    for (index, item) in items.into_iter().enumerate() {
        let mut within = document.within.clone();
        within.extend([Step::Key("items".to_owned()), Step::Item(index)]);
        let document = Document {
            origin: document.origin.clone(),
            value: item,
            text: document.text,
            within,
        };
        expand(document, depth + 1, documents, faults);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(usize, String)>, Vec<String>) {
        let mut faults = Vec::new();
        let documents = documents(&"a.yaml".into(), text, &mut faults)
            .into_iter()
            .map(|document| {
                let text = serde_yaml::to_string(&document.value).unwrap();
                (document.origin.line, text.trim().replace('\n', "; "))
            })
            .collect();
        (documents, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn documents_know_their_first_line() {
        let (documents, faults) =
            read("# top\na: 1\n---\n\n# more\nb: 2\n...\n---\nc: 3\n--- \n--- {d: 4}\n");
        let expected = [(2, "a: 1"), (6, "b: 2"), (9, "c: 3"), (11, "d: 4")];
        assert_eq!(
            documents,
            expected.map(|(line, text)| (line, text.to_owned()))
        );
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn a_malformed_document_names_its_line_and_spares_the_others() {
        let (documents, faults) = read("a: 1\n---\nb: [1\nc: 2\n---\nd: 4\n");
        assert_eq!(documents.len(), 2);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("a.yaml:"), "{}", faults[0]);
        assert!(faults[0].contains("not valid YAML"), "{}", faults[0]);
    }

    #[test]
    fn dashes_inside_a_block_are_no_boundary() {
        let text = "key: |\n  ---\n  -----BEGIN X-----\n";
        assert_eq!(read(text).0.len(), 1);
    }

    #[test]
    fn a_list_is_taken_apart() {
        let (documents, _) = read("kind: List\nitems:\n- {kind: A}\n- {kind: B}\n");
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn a_key_written_twice_is_refused() {
        assert_eq!(read("a: 1\na: 2\n").1.len(), 1);
    }

    #[test]
    fn aliases_cannot_grow_memory() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(","));
        }
        assert_eq!(read(&text).1.len(), 1);
    }
}
