//! What an unknown key was probably meant to be.
//!
//! The same name in another section is the likeliest slip, then letters swapped, left out or too
//! many. Nothing is offered that is too far from what was written.

use crate::bootstrap::keys::{self, ALIASES, WITHOUT_EFFECT};

/// The valid key or section nearest to `path`.
pub(super) fn key(path: &str) -> Option<&'static str> {
    let names = || {
        let known = keys::ALL.iter().map(|key| key.name);
        let aliases = ALIASES.iter().map(|(alias, _)| *alias);
        known.chain(WITHOUT_EFFECT.iter().copied()).chain(aliases)
    };
    let elsewhere = names().find(|name| last(name).eq_ignore_ascii_case(last(path)));
    if elsewhere.is_some() {
        return elsewhere;
    }
    let written = path.to_ascii_lowercase();
    let sections = names().flat_map(sections);
    let nearest = names()
        .chain(sections)
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase());
            (distance, name)
        })
        .min()?;
    let (distance, name) = nearest;
    (distance <= 2.max(last(path).len() / 3)).then_some(name)
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The sections a key stands in.
fn sections(name: &'static str) -> impl Iterator<Item = &'static str> {
    name.match_indices('.').map(|(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood() {
        for (written, meant) in [
            ("log.levl", Some("log.level")),
            ("nodeID", Some("nodeId")),
            ("runtimTuning", Some("runtimeTuning")),
            (
                "runtimeTuning.httpMaxRequestBodyBytes",
                Some("runtimeProtection.httpMaxRequestBodyBytes"),
            ),
            (
                "runtimeTuning.upstreamReadTimeout",
                Some("runtimeTuning.upstreamReadTimeoutMs"),
            ),
            ("somethingElseEntirely", None),
        ] {
            assert_eq!(key(written), meant, "{written}");
        }
    }
}
