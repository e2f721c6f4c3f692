//! Tables for every kind of condition.

use ir::Pattern;
use ir::http_route::PathMatch;

use super::*;

fn pattern(source: &str) -> TextMatch {
    TextMatch::Regex(Pattern::new(source).unwrap())
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

fn prefix(text: &str) -> TextMatch {
    TextMatch::Prefix(text.into())
}

fn suffix(text: &str) -> TextMatch {
    TextMatch::Suffix(text.into())
}

fn named(name: &str, value: TextMatch) -> ValueMatch {
    ValueMatch {
        name: name.into(),
        value,
    }
}

fn http_match() -> HttpMatch {
    HttpMatch {
        path: PathMatch::Prefix("/".into()),
        method: None,
        headers: Vec::new(),
        query_params: Vec::new(),
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

#[test]
fn a_header_field_is_one_value_however_often_it_comes() {
    let two = &["b", "c"][..];
    for (lines, value, expected) in [
        (&[][..], TextMatch::Present, false),
        (&[], exact(""), false),
        (&[""], TextMatch::Present, true),
        (&[""], exact(""), true),
        (&["b"], exact("b"), true),
        (&["b"], exact("B"), false),
        (&["bcd"], prefix("bc"), true),
        (&["bcd"], prefix("c"), false),
        (&["bcd"], suffix("cd"), true),
        (&["bcd"], suffix("c"), false),
        (&["b12"], pattern("b[0-9]+"), true),
        (&["b12x"], pattern("b[0-9]+"), false),
        (&["é"], pattern("."), true),
        (two, TextMatch::Present, true),
        (two, exact("b,c"), true),
        (two, exact("b"), false),
        (two, exact(",b,c"), false),
        (two, exact("b,c,"), false),
        (two, prefix("b,"), true),
        (two, prefix("b,c,"), false),
        (two, prefix(",b"), false),
        (two, suffix(",c"), true),
        (two, suffix("b,c"), true),
        (two, suffix(",b,c"), false),
        (two, suffix("b"), false),
        (two, pattern("b,."), true),
        (two, pattern("b"), false),
        (&["b", "", "c"], exact("b,,c"), true),
    ] {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append("a", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let condition = HeaderCondition {
            name: HeaderName::from_static("a"),
            value: value.clone(),
        };
        assert_eq!(condition.is_met(&map), expected, "{lines:?} {value:?}");
    }
}

#[test]
fn a_value_that_is_not_text_matches_no_pattern() {
    let mut map = HeaderMap::new();
    let condition = HeaderCondition {
        name: HeaderName::from_static("a"),
        value: pattern(".*"),
    };
    map.append("a", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(!condition.is_met(&map));
    map.append("a", HeaderValue::from_static("b"));
    assert!(!condition.is_met(&map));
}

#[test]
fn cookies_are_joined_as_http2_says() {
    let map = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
    let condition = |value| HeaderCondition {
        name: COOKIE,
        value,
    };
    assert!(condition(exact("a=1; b=2")).is_met(&map));
    assert!(condition(suffix("; b=2")).is_met(&map));
}

#[test]
fn a_query_parameter_is_compared_unescaped_and_the_first_counts() {
    for (query, name, value, expected) in [
        ("a=b", "a", exact("b"), true),
        ("a=b", "a", exact("c"), false),
        ("a=b", "b", TextMatch::Present, false),
        ("", "a", TextMatch::Present, false),
        ("a", "a", TextMatch::Present, true),
        ("a", "a", exact(""), true),
        ("a=", "a", exact(""), true),
        ("A=b", "a", TextMatch::Present, false),
        ("a=b&a=c", "a", exact("b"), true),
        ("a=b&a=c", "a", exact("c"), false),
        ("&&x=y&a=b", "a", exact("b"), true),
        ("a=b=c", "a", exact("b=c"), true),
        ("a=b+c", "a", exact("b c"), true),
        ("a=b%20c", "a", exact("b c"), true),
        ("a=b%2bc", "a", exact("b+c"), true),
        ("%61=b", "a", exact("b"), true),
        ("a+b=c", "a b", exact("c"), true),
        ("a=%", "a", exact("%"), true),
        ("a=%2", "a", exact("%2"), true),
        ("a=%zz", "a", exact("%zz"), true),
        ("a=%2%41", "a", exact("%2A"), true),
        ("a=%C3%A9", "a", exact("é"), true),
        ("a=%C3%A9", "a", pattern("."), true),
        ("a=%C3", "a", pattern(".*"), false),
        ("a=v1", "a", pattern("v[0-9]"), true),
        ("a=v%31", "a", pattern("v[0-9]"), true),
        ("a=v%31x", "a", pattern("v[0-9]"), false),
        ("a=x%31y", "a", prefix("x1"), true),
        ("a=x%31y", "a", prefix("x1y "), false),
        ("a=x%31y", "a", suffix("1y"), true),
        ("a=x%31y", "a", suffix("0y"), false),
        ("a=x%31y", "a", suffix("xx1y"), false),
        ("a=x%31y", "a", TextMatch::Present, true),
    ] {
        let param = named(name, value);
        assert_eq!(is_param_met(&param, query), expected, "{query} {param:?}");
    }
}

fn is_met(route_match: &HttpMatch, method: &Method, query: Option<&str>) -> bool {
    let map = headers(&[("x-a", "1"), ("x-b", "2")]);
    Conditions::http(route_match).unwrap().are_met(&Request {
        host: "",
        path: "/",
        query,
        method,
        headers: &map,
    })
}

#[test]
fn every_condition_must_hold() {
    let all = HttpMatch {
        method: Some("GET".into()),
        headers: vec![named("x-a", exact("1")), named("x-b", exact("2"))],
        query_params: vec![named("q", exact("3")), named("r", TextMatch::Present)],
        ..http_match()
    };
    assert!(is_met(&all, &Method::GET, Some("r&q=3")));
    assert!(!is_met(&all, &Method::POST, Some("r&q=3")));
    assert!(!is_met(&all, &Method::GET, Some("q=3")));
    assert!(!is_met(&all, &Method::GET, None));
    let mut other = all;
    other.headers[1].value = exact("3");
    assert!(!is_met(&other, &Method::GET, Some("r&q=3")));
    assert!(is_met(&http_match(), &Method::DELETE, None));
}

#[test]
fn of_several_conditions_on_one_name_the_first_counts() {
    let twice = HttpMatch {
        headers: vec![named("x-a", exact("1")), named("x-a", exact("2"))],
        query_params: vec![named("q", exact("3")), named("q", exact("4"))],
        ..http_match()
    };
    assert!(is_met(&twice, &Method::GET, Some("q=3")));
    let conditions = Conditions::http(&twice).unwrap();
    assert_eq!(
        (conditions.header_count(), conditions.param_count()),
        (1, 1)
    );
}

#[test]
fn names_no_request_can_have_are_never_met() {
    for (method, header) in [
        (Some("G T"), "a"),
        (Some(""), "a"),
        (None, "a b"),
        (None, ""),
    ] {
        let route_match = HttpMatch {
            method: method.map(str::to_owned),
            headers: vec![named(header, TextMatch::Present)],
            ..http_match()
        };
        assert!(
            Conditions::http(&route_match).is_err(),
            "{method:?} {header}"
        );
    }
}

#[test]
fn calls_are_compared_by_service_and_method() {
    let text = |text: &str| Some(text.to_owned());
    let regex = |source: &str| Some(Pattern::new(source).unwrap());
    let service_only = GrpcMethodMatch::Exact {
        service: text("a.S"),
        method: None,
    };
    let method_only = GrpcMethodMatch::Exact {
        service: None,
        method: text("M"),
    };
    let service_pattern = GrpcMethodMatch::Regex {
        service: regex("a\\..*"),
        method: None,
    };
    let both_patterns = GrpcMethodMatch::Regex {
        service: regex("a\\..*"),
        method: regex("M|N"),
    };
    for (condition, path, expected) in [
        (&GrpcMethodMatch::Any, "/a.S/M", true),
        (&GrpcMethodMatch::Any, "/", true),
        (&service_only, "/a.S/M", true),
        (&service_only, "/a.S", false),
        (&service_only, "/a.S/", false),
        (&service_only, "/a.S/M/x", false),
        (&method_only, "/a.S/M", true),
        (&method_only, "/b/M", true),
        (&method_only, "//M", false),
        (&method_only, "/a.S/m", false),
        (&service_pattern, "/a.S/M", true),
        (&service_pattern, "/b.S/M", false),
        (&both_patterns, "/a.S/N", true),
        (&both_patterns, "/a.S/O", false),
        (&both_patterns, "a.S/N", false),
    ] {
        let conditions = Conditions::grpc(&GrpcMatch {
            method: condition.clone(),
            headers: Vec::new(),
        });
        let request = Request {
            host: "",
            path,
            query: None,
            method: &Method::POST,
            headers: &HeaderMap::new(),
        };
        let is_met = conditions.unwrap().are_met(&request);
        assert_eq!(is_met, expected, "{path} {condition:?}");
    }
}

#[test]
fn the_literal_before_a_pattern_is_what_every_match_begins_with() {
    for (source, expected) in [
        ("/api/v[0-9]+/x", "/api/v"),
        ("^/api/.*$", "/api/"),
        ("/a(b|c)/d", "/a"),
        ("/abc?", "/ab"),
        ("/ab|/ac", "/a"),
        ("/a|b", ""),
        (".*", ""),
        ("", ""),
        ("(?i)/api", "/"),
        ("/a\\.b/.+", "/a.b/"),
        ("/x(?:é|è)", "/x"),
    ] {
        let literal = literal_prefix(&Pattern::new(source).unwrap());
        assert_eq!(literal, expected, "{source}");
    }
}
