//! What is known of Anthropic's models by their names: which of them refuse which members.
//!
//! Names that are not known are taken for models that understand everything; their provider's refusal
//! reaches the client in its own words.

/// Family and version of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model<'a> {
    family: &'a str,
    version: (u32, u32),
}

impl<'a> Model<'a> {
    /// Reads names such as `claude-opus-4-7`, `claude-3-5-sonnet-20241022` and `anthropic/claude-sonnet-4.5`.
    pub(crate) fn of(name: &'a str) -> Option<Self> {
        let name = name.rsplit(['/', ':']).next().unwrap_or(name);
        let at = name.find("claude-")?;
        let mut family = "";
        let mut numbers = Vec::new();
        for word in name[at + "claude-".len()..].split(['-', '.', '@']) {
            match word.parse::<u32>() {
                // A date is no part of the version.
                Ok(number) if number < 1000 => numbers.push(number),
                Ok(_) => break,
                Err(_) if family.is_empty() => family = word,
                Err(_) => break,
            }
        }
        let major = *numbers.first()?;
        let minor = numbers.get(1).copied().unwrap_or(0);
        Some(Self {
            family,
            version: (major, minor),
        })
    }

    /// Opus 4.7 and every later family refuse temperature, top_p and top_k.
    pub(crate) fn refuses_sampling(self) -> bool {
        self.version >= (4, 7) && (self.family == "opus" || self.version.0 >= 5)
    }

    /// Models from 4.1 on refuse temperature and top_p together.
    pub(crate) fn refuses_both_samplings(self) -> bool {
        self.version >= (4, 1)
    }

    /// Models before 4.5 think by a budget of tokens, later ones by an effort.
    pub(crate) fn thinks_by_budget(self) -> bool {
        self.version < (4, 5) || self.version == (4, 5) && self.family != "opus"
    }

    /// Models before 3.7 do not think at all.
    pub(crate) fn never_thinks(self) -> bool {
        self.version < (3, 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_model_refuses() {
        // name, sampling, both samplings, thinks by budget
        let table = [
            ("claude-3-5-sonnet-20241022", false, false, true),
            ("claude-opus-4-20250514", false, false, true),
            ("claude-opus-4-1-20250805", false, true, true),
            ("claude-sonnet-4-5", false, true, true),
            ("claude-opus-4-5", false, true, false),
            ("claude-opus-4-7", true, true, false),
            ("anthropic/claude-sonnet-5", true, true, false),
        ];
        for (name, sampling, both, budget) in table {
            let model = Model::of(name).unwrap();
            assert_eq!(model.refuses_sampling(), sampling, "{name}");
            assert_eq!(model.refuses_both_samplings(), both, "{name}");
            assert_eq!(model.thinks_by_budget(), budget, "{name}");
        }
        assert_eq!(Model::of("gpt-4o"), None);
        assert_eq!(Model::of("my-claude-model"), None);
    }
}
