//! The map against what a map is, at sizes on both sides of every change of its form.

use std::collections::HashMap;

use super::*;

const LARGE: usize = SHARD_ENTRIES_MAX * 9;

fn name(n: usize) -> Text {
    // Half of them too long to be kept in place.
    let padding = if n.is_multiple_of(2) {
        ""
    } else {
        "-and-thirty-bytes-of-padding-"
    };
    format!("name{padding}{n}").as_str().into()
}

fn get(map: &TextMap<usize>, n: usize) -> Option<usize> {
    let key = name(n);
    map.get(std::str::from_utf8(key.as_bytes()).unwrap())
        .copied()
}

fn of_size(size: usize) -> TextMap<usize> {
    let mut map = TextMap::default();
    for n in 0..size {
        map.insert(&name(n), n);
    }
    map
}

fn shard_count(map: &TextMap<usize>) -> usize {
    match map {
        TextMap::Few(_) => 0,
        TextMap::Many(shards) => shards.shards.len(),
    }
}

#[test]
fn growing_and_shrinking_keeps_every_entry() {
    let mut map = TextMap::default();
    for n in 0..LARGE {
        assert_eq!(map.insert(&name(n), n), None);
        assert_eq!(map.len(), n + 1);
        assert_eq!(get(&map, n), Some(n));
        assert_eq!(get(&map, n + 1), None);
    }
    assert!((0..LARGE).all(|n| get(&map, n) == Some(n)));
    assert_eq!(shard_count(&map), 16);
    for n in 0..LARGE {
        assert_eq!(map.remove(&name(n)), Some(n));
        assert_eq!(map.remove(&name(n)), None);
        assert_eq!(get(&map, LARGE - 1), (n < LARGE - 1).then_some(LARGE - 1));
        if n.is_multiple_of(64) {
            assert!((0..LARGE).all(|held| get(&map, held) == (held > n).then_some(held)));
        }
    }
    assert!(map.is_empty());
    assert_eq!(shard_count(&map), 0);
}

#[test]
fn any_order_of_edits_leaves_what_a_plain_map_has() {
    let mut map = TextMap::default();
    let mut plain = HashMap::new();
    let mut random = 1_usize;
    for step in 0..20_000 {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
        // Grows to several shards, then shrinks to a list.
        let size = if step < 10_000 { LARGE } else { 6 };
        let n = (random >> 8) % LARGE;
        if n < size {
            assert_eq!(map.insert(&name(n), step), plain.insert(n, step));
        } else {
            assert_eq!(map.remove(&name(n)), plain.remove(&n));
        }
        assert_eq!(map.len(), plain.len());
    }
    assert!((0..LARGE).all(|n| get(&map, n).as_ref() == plain.get(&n)));
}

#[test]
fn inserting_again_replaces() {
    for size in [1, FEW_MAX, FEW_MAX + 1, 50, LARGE] {
        let mut map = of_size(size);
        assert_eq!(map.insert(&name(0), 7), Some(0), "{size}");
        *map.get_mut(&name(0)).unwrap() += 1;
        *map.get_or_insert_with(&name(0), || 0) += 1;
        assert_eq!(get(&map, 0), Some(9), "{size}");
        assert_eq!(map.get_mut(&name(size)), None, "{size}");
        assert_eq!(map.len(), size);
    }
}

#[test]
fn a_clone_does_not_see_later_changes() {
    for size in [3, 50, LARGE] {
        let mut map = of_size(size);
        let before = map.clone();
        map.insert(&name(0), 9);
        map.remove(&name(1));
        map.insert(&name(size), 9);
        for n in 0..size {
            assert_eq!(get(&before, n), Some(n));
        }
        assert_eq!(get(&before, size), None);
    }
}

#[test]
fn a_change_copies_one_shard() {
    let map = of_size(LARGE);
    let mut changed = map.clone();
    changed.insert(&name(0), 9);
    changed.remove(&name(0));
    changed.remove(&name(LARGE));
    changed.get_mut(&name(LARGE));
    let (TextMap::Many(before), TextMap::Many(after)) = (&map, &changed) else {
        panic!("{LARGE} entries are many");
    };
    let copied = before.shards.iter().zip(after.shards.iter());
    assert_eq!(copied.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
}

#[test]
fn only_tells_the_single_entry() {
    assert_eq!(of_size(0).only(), None);
    assert_eq!(of_size(1).only(), Some(&0));
    assert_eq!(of_size(2).only(), None);
}
