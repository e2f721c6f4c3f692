//! Normal forms, refusals, and the laws that hold for every path.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

const fn rules(escaped_slash: EscapedSlash) -> Rules {
    Rules {
        escaped_slash,
        merge_slashes: true,
    }
}

#[test]
fn paths_take_their_normal_form() {
    for (path, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/%61", "/a"),
        ("/%7Euser/%2d%2E%5f", "/~user/-._"),
        ("/a%2cb%c3%a9", "/a%2Cb%C3%A9"),
        ("/%25", "/%25"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/../", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/../../../../c", "/c"),
        ("/%2e/a", "/a"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e./b", "/b"),
        ("//", "/"),
        ("///a//b///", "/a/b/"),
        ("/a//../b", "/b"),
        ("/a/..//b", "/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a/..b/.c", "/a/..b/.c"),
        ("/a/b..", "/a/b.."),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a/..;/b", "/a/..;/b"),
        ("/\"{}|^`<>", "/\"{}|^`<>"),
    ] {
        assert_eq!(
            normalise(path, rules(EscapedSlash::Refuse)).as_deref(),
            Ok(expected),
            "{path}"
        );
    }
}

#[test]
fn paths_without_a_normal_form_are_refused() {
    for (path, expected) in [
        ("", PathError::NotAbsolute),
        ("a", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("%2fa", PathError::NotAbsolute),
        ("/%", PathError::BadEscape),
        ("/%2", PathError::BadEscape),
        ("/%zz", PathError::BadEscape),
        ("/%+1", PathError::BadEscape),
        ("/%%31", PathError::BadEscape),
        ("/%00", PathError::EscapedZero),
        ("/a%2fb", PathError::EscapedSlash),
        ("/a%2Fb", PathError::EscapedSlash),
        ("/..%2fb", PathError::EscapedSlash),
        ("/a%5cb", PathError::EscapedSlash),
        ("/a%5Cb", PathError::EscapedSlash),
        ("/a\\b", PathError::BadByte(b'\\')),
        ("/a b", PathError::BadByte(b' ')),
        ("/a\0", PathError::BadByte(0)),
        ("/a\x7f", PathError::BadByte(0x7f)),
        ("/é", PathError::BadByte(0xc3)),
    ] {
        assert_eq!(
            normalise(path, rules(EscapedSlash::Refuse)),
            Err(expected),
            "{path:?}"
        );
    }
}

#[test]
fn kept_escaped_slashes_separate_nothing() {
    for (path, expected) in [
        ("/a%2fb", "/a%2Fb"),
        ("/a/..%2fb", "/a/..%2Fb"),
        ("/a%5c%2e%2e/b", "/a%5C../b"),
    ] {
        assert_eq!(
            normalise(path, rules(EscapedSlash::Keep)).as_deref(),
            Ok(expected),
            "{path}"
        );
    }
}

#[test]
fn decoded_slashes_separate_like_any_other() {
    for (path, expected) in [
        ("/a%2fb", "/a/b"),
        ("/a%5Cb", "/a/b"),
        ("/a%2f%2Fb/", "/a/b/"),
        ("/%2fb", "/b"),
        ("/a/..%2fb", "/b"),
        ("/a%2f..%5c%2e%2e%2fb", "/b"),
        ("/a%2F", "/a/"),
        ("/a%252fb", "/a%252fb"),
        ("/a%2eb%2f", "/a.b/"),
    ] {
        let normal = normalise(path, rules(EscapedSlash::Decode));
        assert_eq!(normal.as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn slashes_that_are_not_merged_stay_and_dot_segments_go_all_the_same() {
    for (path, expected) in [
        ("//", "//"),
        ("/a//b", "/a//b"),
        ("///a//b///", "///a//b///"),
        ("/a//../b", "/a/b"),
        ("/a//.//b", "/a///b"),
        ("/../..//a", "//a"),
        ("/a/..//b", "//b"),
        ("/%61//", "/a//"),
        ("/a%2f/b", "/a//b"),
    ] {
        let rules = Rules {
            escaped_slash: EscapedSlash::Decode,
            merge_slashes: false,
        };
        let normal = normalise(path, rules);
        assert_eq!(normal.as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn escaped_slashes_are_found() {
    for (path, expected) in [
        ("/a/b", false),
        ("/a%2fb", true),
        ("/a%2F", true),
        ("/%5c", true),
        ("/%5C", true),
        ("/%252f", false),
        ("/%2", false),
    ] {
        assert_eq!(has_escaped_slash(path), expected, "{path}");
    }
}

#[test]
fn a_normal_path_is_not_copied() {
    for path in [
        "/",
        "/a/b.c/d",
        "/.well-known/acme",
        "/a..b/...",
        "/a/.b/c./",
    ] {
        let normal = normalise(path, rules(EscapedSlash::Refuse));
        assert!(matches!(normal, Ok(Cow::Borrowed(_))), "{path}");
    }
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(
        path in "/([a-c./%;~]|%2[eEfF5]|%5[cC]|%[46]1|//|/\\.\\./){0,24}",
        decodes in any::<bool>(),
        merge_slashes in any::<bool>(),
    ) {
        let escaped_slash = if decodes { EscapedSlash::Decode } else { EscapedSlash::Keep };
        let rules = Rules { escaped_slash, merge_slashes };
        if let Ok(once) = normalise(&path, rules) {
            prop_assert_eq!(normalise(&once, rules), Ok(Cow::Borrowed(&*once)));
            let has_dots = once.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert!(once.starts_with('/') && !has_dots);
            prop_assert!(!merge_slashes || !once.contains("//"));
            prop_assert!(!decodes || !has_escaped_slash(&once));
        }
    }

    #[test]
    fn any_text_is_normalised_or_refused(path in any::<String>()) {
        let _ = normalise(&path, rules(EscapedSlash::Refuse));
    }
}
