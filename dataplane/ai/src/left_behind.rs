//! Members of a client's request that a conversion leaves behind, by their paths, so that it can be told.
//!
//! Readers of `provider` note what nobody has asked for, writers what their dialect has no word for. The
//! list is as short as a header field may be, whatever a client writes: each path stands there once, long
//! names are cut, and behind the last place there is only the word that there were more.

/// Most names that are kept, the one for all further ones among them.
pub const NAMES_MAX: usize = 32;
/// The longest name; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 80;
/// Stands for what was left out.
const FURTHER: &str = "...";

/// What stays behind, in the order in which it was met.
#[derive(Debug, Default)]
pub struct LeftBehind(Vec<String>);

impl LeftBehind {
    /// Notes a member of the request itself, or a path that is known.
    pub fn note(&mut self, path: &str) {
        self.note_in("", path);
    }

    /// Notes a member of the objects at `path`, which the client may have called anything.
    pub fn note_in(&mut self, path: &str, member: &str) {
        if self.0.len() == NAMES_MAX || self.0.iter().any(|known| is_at(known, path, member)) {
            return;
        }
        let name = match self.0.len() + 1 {
            NAMES_MAX => FURTHER.to_owned(),
            _ => shown(path, member),
        };
        // Two that differ in what is not shown look alike.
        if !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    /// The names.
    pub fn into_names(self) -> Vec<String> {
        self.0
    }
}

fn is_at(known: &str, path: &str, member: &str) -> bool {
    let rest = known.strip_prefix(path);
    let rest = match path {
        "" => rest,
        _ => rest.and_then(|rest| rest.strip_prefix('.')),
    };
    rest == Some(member)
}

/// A name that a header field can hold beside others.
fn shown(path: &str, member: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let fits = |c: char| {
        if c.is_ascii_graphic() && c != ',' {
            c
        } else {
            '?'
        }
    };
    let name = [path, dot].concat();
    let mut name: String = name
        .chars()
        .chain(member.chars().map(fits))
        .take(NAME_BYTES_MAX + 1)
        .collect();
    if name.len() > NAME_BYTES_MAX {
        name.truncate(NAME_BYTES_MAX - FURTHER.len());
        name.push_str(FURTHER);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(noted: &[(&str, &str)]) -> Vec<String> {
        let mut left = LeftBehind::default();
        for (path, member) in noted {
            left.note_in(path, member);
        }
        left.into_names()
    }

    #[test]
    fn a_path_stands_there_once_and_fits_into_a_field() {
        let long = "x".repeat(500);
        for (noted, expected) in [
            (&[("", "a"), ("", "b"), ("", "a")][..], &["a", "b"][..]),
            (&[("m[]", "a"), ("m[]", "a"), ("", "m[].a")], &["m[].a"]),
            (&[("m[]", "a"), ("", "a")], &["m[].a", "a"]),
            (
                &[("", "a, b\r\n\u{e9}"), ("", "a? b")],
                &["a??b???", "a??b"],
            ),
        ] {
            assert_eq!(names(noted), expected, "{noted:?}");
        }
        let found = names(&[("m[]", &long), ("m[]", &format!("{long}y"))]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].len(), NAME_BYTES_MAX);
        assert!(found[0].ends_with("x..."), "{found:?}");
    }

    #[test]
    fn however_many_there_are_the_list_is_short_and_says_so() {
        let mut left = LeftBehind::default();
        for number in 0..10_000 {
            left.note_in("messages[]", &format!("x{number}"));
        }
        let found = left.into_names();
        assert_eq!(found.len(), NAMES_MAX);
        assert_eq!(found[0], "messages[].x0");
        assert_eq!(found[NAMES_MAX - 1], "...");
    }
}
