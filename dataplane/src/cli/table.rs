//! Tables for terminals: columns as wide as they must be, colours where they are wanted.
//!
//! Nothing that an answer holds can steer the terminal: control characters are shown as `?`. Knows
//! nothing of what it shows but its words for good and bad.

use serde_json::Value;

/// What a table may look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) is_coloured: bool,
}

/// A column: its head, and where its cells are in a row (a JSON pointer).
pub(super) type Column = (&'static str, &'static str);

/// Words that stand for something good, for something to look at, and for something bad.
const GOOD: &[&str] = &[
    "yes", "well", "ready", "open", "valid", "usable", "applied", "ACTIVE",
];
const DOUBTFUL: &[&str] = &[
    "on_probation",
    "ends_soon",
    "half_open",
    "partial",
    "starting",
    "ending",
    "unused",
];
const BAD: &[&str] = &[
    "no",
    "ejected",
    "ejected_in_use",
    "unhealthy",
    "unhealthy_in_use",
    "not_ready",
    "expired",
    "not_yet_valid",
    "unreadable",
    "unusable",
    "refused",
    "draining",
    "DISCONNECTED",
];

impl Style {
    /// A table of rows of an answer.
    pub(super) fn table(self, columns: &[Column], rows: &[Value]) -> String {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let cells = columns.iter().map(|(_, at)| cell(row.pointer(at)));
                cells.collect()
            })
            .collect();
        let width = |index: usize, head: &str| {
            let widths = cells.iter().map(|row| row[index].chars().count());
            widths.max().unwrap_or(0).max(head.chars().count())
        };
        let widths: Vec<_> = columns
            .iter()
            .enumerate()
            .map(|(index, (head, _))| width(index, head))
            .collect();
        let mut text = String::new();
        let heads = columns.iter().map(|(head, _)| *head);
        self.line(heads, &widths, |_| Some("1"), &mut text);
        for row in &cells {
            self.line(row.iter().map(String::as_str), &widths, colour, &mut text);
        }
        if rows.is_empty() {
            text.push_str("(none)\n");
        }
        text
    }

    /// Names and values, one below the other.
    pub(super) fn facts(self, facts: &[(&str, String)]) -> String {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in facts {
            let value: String = value.chars().map(printable).collect();
            let first = value.split(',').next().unwrap_or("");
            let shown = self.painted(&value, colour(first));
            text.push_str(&format!("{name:width$}  {shown}\n"));
        }
        text
    }

    fn line<'c>(
        self,
        cells: impl Iterator<Item = &'c str>,
        widths: &[usize],
        colour: impl Fn(&str) -> Option<&'static str>,
        text: &mut String,
    ) {
        let mut line = String::new();
        for (cell, width) in cells.zip(widths) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
            line.push_str(&self.painted(cell, colour(cell)));
            line.push_str(&padding);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    fn painted(self, text: &str, colour: Option<&str>) -> String {
        match colour.filter(|_| self.is_coloured) {
            Some(colour) => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

fn colour(text: &str) -> Option<&'static str> {
    match () {
        () if GOOD.contains(&text) => Some("32"),
        () if DOUBTFUL.contains(&text) => Some("33"),
        () if BAD.contains(&text) => Some("31"),
        () => None,
    }
}

/// A value as a cell; `-` for nothing.
pub(super) fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| cell(Some(item))).collect();
            items.join(",")
        }
        Some(value) => value.to_string(),
    };
    match text.is_empty() {
        true => "-".to_owned(),
        false => text.chars().map(printable).collect(),
    }
}

fn printable(letter: char) -> char {
    if letter.is_control() { '?' } else { letter }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("NAME", "/name"), ("OPEN", "/open"), ("HOSTS", "/hosts")];

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            json!({ "name": "infra/gw/http", "open": true, "hosts": ["a", "b"] }),
            json!({ "name": "x", "open": false, "hosts": [] }),
        ];
        let plain = Style { is_coloured: false };
        let expected = "NAME           OPEN  HOSTS\n\
                        infra/gw/http  yes   a,b\n\
                        x              no    -\n";
        assert_eq!(plain.table(COLUMNS, &rows), expected);
        assert!(plain.table(COLUMNS, &[]).ends_with("(none)\n"));
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let rows = [json!({ "name": "x", "open": false })];
        let coloured = Style { is_coloured: true }.table(COLUMNS, &rows);
        assert!(coloured.contains("\u{1b}[31mno\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn nothing_in_an_answer_steers_the_terminal() {
        let rows = [json!({ "name": "\u{1b}[2Jx\r\n" })];
        let plain = Style { is_coloured: false };
        assert!(plain.table(COLUMNS, &rows).contains("?[2Jx??"));
        let facts = plain.facts(&[("why", "\u{1b}]0;x\u{7}".to_owned())]);
        assert_eq!(facts, "why  ?]0;x?\n");
    }
}
