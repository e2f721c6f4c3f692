//! Host names and the map of them. Laws: what covers a host, and in which order, is what a walk through
//! all names finds; a name reads back as itself; an authority's host has no port and no upper case.

#![no_main]

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use dataplane_http::h1::Authority;
use dataplane_route::hostname::HostMap;
use ir::Hostname;
use libfuzzer_sys::fuzz_target;

// The first line is the authority a client sends; each further one is a name of the configuration,
// `-` before it takes it out again.
fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(sent) = lines.next() else { return };
    let mut names: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut map = HostMap::default();
    for (index, line) in lines.take(32).enumerate() {
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        let (text, is_removed) = line
            .strip_prefix('-')
            .map_or((line, false), |text| (text, true));
        let name = match text {
            "" => None,
            text => match Hostname::new(text) {
                Ok(name) => {
                    assert_eq!(Hostname::new(name.as_str()), Ok(name.clone()), "reads back");
                    assert!(!name.as_str().bytes().any(|byte| byte.is_ascii_uppercase()));
                    Some(name)
                }
                Err(_) => continue,
            },
        };
        let key = name.as_ref().map(|name| name.as_str().to_string());
        let (before, expected) = if is_removed {
            (map.remove(name.as_ref()), names.remove(&key))
        } else {
            (map.insert(name.as_ref(), index), names.insert(key, index))
        };
        assert_eq!(before, expected);
    }
    assert_eq!(map.len(), names.len());

    let Ok(authority) = Authority::parse(Bytes::copy_from_slice(sent)) else {
        return;
    };
    let host = authority.host();
    assert!(
        !host.bytes().any(|byte| byte.is_ascii_uppercase()),
        "{host:?}"
    );
    assert!(
        !host.is_empty() && !host.contains(['/', '@', ' ', '\\', '?', '#']),
        "{host:?}"
    );
    let found: Vec<usize> = map.candidates(host).copied().collect();
    assert_eq!(found, walk(&names, host), "{host:?} in {names:?}");
});

fn walk(names: &BTreeMap<Option<String>, usize>, host: &str) -> Vec<usize> {
    let mut met: Vec<(Reverse<usize>, usize)> = Vec::new();
    for (name, value) in names {
        let rank = match name.as_deref() {
            None => 0,
            Some(_) if host.len() > 253 => continue,
            Some(name) if name == host => usize::MAX,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => suffix.len(),
                _ => continue,
            },
        };
        met.push((Reverse(rank), *value));
    }
    met.sort();
    met.into_iter().map(|(_, value)| value).collect()
}
