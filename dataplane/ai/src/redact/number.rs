//! Numbers that name people: phones, cards and what states give out.
//!
//! A run is digits with single separators; its groups are tried from each group on, so that a number beside
//! another is found. Shapes that anything may have count only near a word that says what they are.

use std::ops::Range;

use super::find::is_near;

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Phone,
    Card,
    Ssn,
    Itin,
    Passport,
    Nhs,
}

/// Digits between separators.
#[derive(Clone, Debug)]
struct Group {
    at: Range<usize>,
    /// The separator before it; 0 for the first.
    before: u8,
}

/// Groups of one run; more is no number of a person.
const GROUPS_MAX: usize = 32;
/// Digits of a number that is looked at.
const DIGITS_MAX: usize = 19;

/// Adds all numbers of that kind.
pub(super) fn find(kind: Kind, text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut from = 0;
    let mut groups: Vec<Group> = Vec::new();
    while let Some(found) = bytes[from..].iter().position(u8::is_ascii_digit) {
        let start = from + found;
        from = run(bytes, start, &mut groups);
        if kind == Kind::Passport {
            passports(text, &groups, add);
            continue;
        }
        let mut first = 0;
        while first < groups.len() {
            match (first..groups.len())
                .rev()
                .find_map(|last| number(kind, text, &groups[first..=last]).map(|at| (last, at)))
            {
                Some((last, at)) => {
                    add(at);
                    first = last + 1;
                }
                None => first += 1,
            }
        }
    }
}

/// Reads the groups of the run that begins at `start`, and tells where to go on.
fn run(bytes: &[u8], start: usize, groups: &mut Vec<Group>) -> usize {
    groups.clear();
    let mut at = start;
    let mut before = 0;
    loop {
        let length = bytes[at..].iter().position(|b| !b.is_ascii_digit());
        let end = length.map_or(bytes.len(), |length| at + length);
        groups.push(Group {
            at: at..end,
            before,
        });
        if groups.len() == GROUPS_MAX {
            return end;
        }
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let separator = bytes.get(end).copied().unwrap_or(0);
        at = match separator {
            b' ' | b'-' | b'.' | b'/' if is_digit(end + 1) => end + 1,
            b')' | b' ' | b'-'
                if matches!(bytes.get(end + 1), Some(b' ' | b'-' | b'(')) && is_digit(end + 2) =>
            {
                end + 2
            }
            b')' if is_digit(end + 1) => end + 1,
            _ => return end,
        };
        before = separator;
    }
}

fn number(kind: Kind, text: &str, groups: &[Group]) -> Option<Range<usize>> {
    let (first, last) = (groups.first()?, groups.last()?);
    let at = first.at.start..last.at.end;
    let digits: usize = groups.iter().map(|group| group.at.len()).sum();
    if !(8..=DIGITS_MAX).contains(&digits) || !is_alone(text, &at) {
        return None;
    }
    let sizes: Vec<usize> = groups.iter().map(|group| group.at.len()).collect();
    let is_one = groups[1..]
        .windows(2)
        .all(|pair| pair[0].before == pair[1].before);
    let all = || text[at.clone()].bytes().filter(u8::is_ascii_digit);
    let found = match kind {
        Kind::Phone => return phone(text, groups, &sizes, digits),
        Kind::Card => {
            let is_shape = matches!(
                sizes.as_slice(),
                [13..=19] | [4, 4, 4, 1..=4] | [4, 4, 4, 4, 1..=3] | [4, 6, 4 | 5]
            );
            digits >= 13 && is_shape && is_one && is_luhn(all()) && is_issued(text, &at)
        }
        Kind::Ssn => is_ssn(text, &at, &sizes, is_one),
        Kind::Itin => is_itin(text, &at, &sizes, is_one),
        Kind::Nhs => {
            let is_named = is_near(text, at.start, &["nhs", "patient"]);
            let is_spaced =
                sizes == [3, 3, 4] && groups[1..].iter().all(|group| group.before == b' ');
            digits == 10
                && (is_spaced || is_named && matches!(sizes.as_slice(), [10] | [3, 3, 4]))
                && is_nhs(all())
        }
        Kind::Passport => false,
    };
    found.then_some(at)
}

/// True when no letter, digit or decimal point makes it a part of something larger.
fn is_alone(text: &str, at: &Range<usize>) -> bool {
    let before = text[..at.start].chars().next_back();
    let mut after = text[at.end..].chars();
    let is_before =
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '#' | '$' | '€' | '£'));
    let is_after = match after.next() {
        Some(c) if c.is_alphanumeric() || c == '_' || c == '%' => false,
        Some('.' | '-' | '/' | ',') => !after.next().is_some_and(|c| c.is_ascii_digit()),
        _ => true,
    };
    let is_decimal = text[..at.start].ends_with(['.', ',', '-'])
        && text[..at.start.saturating_sub(1)].ends_with(|c: char| c.is_ascii_alphanumeric());
    is_before && is_after && !is_decimal
}

fn is_luhn(digits: impl DoubleEndedIterator<Item = u8>) -> bool {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            match place % 2 {
                0 => digit,
                _ if digit > 4 => 2 * digit - 9,
                _ => 2 * digit,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Cards begin with 2 to 6, and are not one digit over and over.
fn is_issued(text: &str, at: &Range<usize>) -> bool {
    let first = text.as_bytes()[at.start];
    let is_varied = text[at.clone()]
        .bytes()
        .any(|b| b.is_ascii_digit() && b != first);
    is_varied && matches!(first, b'2'..=b'6')
}

/// The three parts of `123-45-6789`; without separators only where a word says what it is.
fn parts(
    text: &str,
    at: &Range<usize>,
    sizes: &[usize],
    is_one: bool,
    words: &[&str],
) -> Option<[u32; 3]> {
    let digits: String = text[at.clone()]
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let is_shaped = sizes == [3, 2, 4] && is_one && !text[at.clone()].contains(['/', '(']);
    let is_dashed = is_shaped && text[at.clone()].contains('-');
    if digits.len() != 9
        || !(is_dashed || (is_shaped || sizes == [9]) && is_near(text, at.start, words))
    {
        return None;
    }
    let part = |range: Range<usize>| digits[range].parse().ok();
    Some([part(0..3)?, part(3..5)?, part(5..9)?])
}

fn is_ssn(text: &str, at: &Range<usize>, sizes: &[usize], is_one: bool) -> bool {
    let words = ["ssn", "social security", "social"];
    parts(text, at, sizes, is_one, &words).is_some_and(|[area, group, serial]| {
        !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0
    })
}

fn is_itin(text: &str, at: &Range<usize>, sizes: &[usize], is_one: bool) -> bool {
    let words = ["itin", "taxpayer", "tax id"];
    parts(text, at, sizes, is_one, &words).is_some_and(|[area, group, _]| {
        area >= 900 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99)
    })
}

/// The check digit of the National Health Service, modulo 11.
fn is_nhs(digits: impl Iterator<Item = u8>) -> bool {
    let digits: Vec<u32> = digits.map(|digit| u32::from(digit - b'0')).collect();
    let weighted = digits.iter().zip((2..=10).rev());
    let sum: u32 = weighted.map(|(digit, weight)| digit * weight).sum();
    let check = (11 - sum % 11) % 11;
    check != 10 && digits.get(9) == Some(&check) && digits.iter().any(|digit| *digit != digits[0])
}

const PHONE_WORDS: [&str; 12] = [
    "phone", "call", "tel", "mobile", "cell", "fax", "text", "whatsapp", "reach", "dial", "sms",
    "contact",
];

fn phone(text: &str, groups: &[Group], sizes: &[usize], digits: usize) -> Option<Range<usize>> {
    let (first, last) = (groups.first()?, groups.last()?);
    let end = last.at.end;
    let head = &text[..first.at.start];
    let is_dated = groups[1..].iter().any(|group| group.before == b'/');
    // `+49 …` and `00 49 …`, with a bracket perhaps.
    if head.ends_with('+') && (8..=15).contains(&digits) && !is_dated {
        return Some(first.at.start - 1..end);
    }
    let is_bracketed = head.ends_with('(') && groups.get(1).is_some_and(|it| it.before == b')');
    let start = first.at.start - usize::from(is_bracketed);
    let at = Some(start..end);
    let bytes = text.as_bytes();
    let leading = |group: &Group| bytes[group.at.start];
    let is_ip = groups[1..].iter().all(|group| group.before == b'.') && last.at.len() < 4;
    if is_dated || is_ip {
        return None;
    }
    let is_named = || is_near(text, start, &PHONE_WORDS);
    match sizes {
        // North America: area and exchange begin with 2 to 9.
        [3, 3, 4] if leading(&groups[0]) >= b'2' && leading(&groups[1]) >= b'2' => at,
        [1, 3, 3, 4] if leading(&groups[0]) == b'1' && leading(&groups[1]) >= b'2' => at,
        [10] | [11] if is_named() => at,
        // National numbers begin with 0; dates and counts do not look like this.
        [2..=5, .., 2..=8] | [2..=5, 4..=8]
            if leading(&groups[0]) == b'0' && (9..=12).contains(&digits) =>
        {
            // Dates, and numbers of social security that nobody was given.
            let is_date = matches!(sizes, [2, 2, 4, ..] | [3, 2, 4]);
            (!is_date || is_named()).then_some(at).flatten()
        }
        _ if (8..=12).contains(&digits) && sizes.len() <= 5 && is_named() && sizes != [4, 2, 2] => {
            at
        }
        _ => None,
    }
}

/// Nine digits, or a letter and eight, where a word says that it is a passport.
fn passports(text: &str, groups: &[Group], add: &mut dyn FnMut(Range<usize>)) {
    for group in groups {
        let letter = text[..group.at.start].chars().next_back();
        let has_letter = letter.is_some_and(|c| c.is_ascii_uppercase()) && group.at.len() == 8;
        let start = group.at.start - usize::from(has_letter);
        if (has_letter || group.at.len() == 9)
            && is_alone(text, &(start..group.at.end))
            && is_near(text, start, &["passport"])
        {
            add(start..group.at.end);
        }
    }
}

/// For the generator of the tests.
#[cfg(test)]
pub(super) fn tests_is_luhn(digits: &str) -> bool {
    is_luhn(digits.bytes())
}
