//! Endpoints by a hash of the request: the same key goes to the same endpoint, on every replica of
//! the data plane, and few keys move when endpoints come and go.
//!
//! Each endpoint has many points on a ring, in number by its weight; a key goes to the next point.
//! An index over the ring makes finding that point a matter of one or two steps, however many
//! points there are.

/// Points of an endpoint of weight 1: many for few endpoints, where shares would be uneven
/// otherwise, fewer for many, so that the ring stays small.
const POINTS: [(usize, u64); 3] = [(256, 160), (1024, 64), (usize::MAX, 16)];

/// The heaviest endpoint has no more points than one of this weight; others are scaled with it.
const WEIGHT_MAX: u64 = 16;

/// A hash that is the same in every process and release, for keys and for points.
///
/// FNV-1a, whose last bits are weak, and then the mixing steps of splitmix64, which spread them.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    /// In order of their places.
    points: Box<[Point]>,
    /// For each stretch of the ring, the first point in or behind it.
    index: Box<[u32]>,
    /// How far a place is shifted to give its stretch.
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    place: u64,
    /// Position of the endpoint.
    at: u32,
}

impl Ring {
    /// One name and weight per endpoint, none of the weights 0; a name decides where its points are.
    pub(crate) fn compile(endpoints: &[(String, u32)]) -> Self {
        let most = POINTS
            .iter()
            .find(|(endpoints_max, _)| endpoints.len() <= *endpoints_max)
            .map_or(1, |(_, points)| *points);
        let heaviest = endpoints.iter().map(|(_, weight)| *weight).max();
        let heaviest = u64::from(heaviest.unwrap_or(1)).max(WEIGHT_MAX);
        let mut points = Vec::new();
        for (at, (name, weight)) in (0_u32..).zip(endpoints) {
            let count = (most * WEIGHT_MAX * u64::from(*weight) / heaviest).max(1);
            points.extend((0..count).map(|number| Point {
                place: hash(&[name.as_bytes(), &number.to_le_bytes()]),
                at,
            }));
        }
        // Points that meet are ordered by name and not by position, which differs between replicas.
        points.sort_unstable_by(|a, b| {
            let name = |point: &Point| &endpoints[point.at as usize].0;
            (a.place, name(a)).cmp(&(b.place, name(b)))
        });
        let stretches = points.len().next_power_of_two().max(2);
        let shift = u64::BITS - stretches.ilog2();
        let index = (0..stretches as u64)
            .map(|stretch| {
                let first = points.partition_point(|point| point.place < stretch << shift);
                u32::try_from(first).unwrap_or(u32::MAX)
            })
            .collect();
        Self {
            points: points.into(),
            index,
            shift,
        }
    }

    /// Positions of endpoints from a place on, the nearest first and each perhaps several times.
    pub(crate) fn from(&self, place: u64) -> impl Iterator<Item = usize> {
        let first = self.first(place);
        let (before, after) = self.points.split_at(first);
        after.iter().chain(before).map(|point| point.at as usize)
    }

    fn first(&self, place: u64) -> usize {
        let stretch = usize::try_from(place >> self.shift).unwrap_or(0);
        let mut first = self.index.get(stretch).map_or(0, |first| *first as usize);
        while self
            .points
            .get(first)
            .is_some_and(|point| point.place < place)
        {
            first += 1;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(numbers: impl IntoIterator<Item = u32>) -> Vec<(String, u32)> {
        let name = |number| (format!("10.0.{}.{}:8080", number / 250, number % 250), 1);
        numbers.into_iter().map(name).collect()
    }

    /// Where each of many keys goes, by name.
    fn placed(endpoints: &[(String, u32)]) -> Vec<String> {
        let ring = Ring::compile(endpoints);
        (0..100_000_u32)
            .map(|key| {
                let place = hash(&[b"user-", &key.to_le_bytes()]);
                endpoints[ring.from(place).next().unwrap()].0.clone()
            })
            .collect()
    }

    fn moved(before: &[String], after: &[String]) -> f64 {
        let moved = before.iter().zip(after).filter(|(a, b)| a != b).count();
        moved as f64 / before.len() as f64
    }

    #[test]
    fn an_endpoint_more_takes_its_share_and_moves_nothing_else() {
        for count in [10, 100, 300] {
            let before = placed(&endpoints(0..count));
            let after = placed(&endpoints(0..=count));
            let share = moved(&before, &after) * f64::from(count + 1);
            assert!((0.5..1.5).contains(&share), "{count}: {share}");
            let newcomer = &endpoints([count])[0].0;
            let elsewhere = before
                .iter()
                .zip(&after)
                .filter(|(a, b)| a != b && *b != newcomer);
            assert_eq!(elsewhere.count(), 0, "{count}");
        }
    }

    #[test]
    fn one_of_a_hundred_more_moves_no_more_than_one_and_a_half_percent() {
        let moved = moved(&placed(&endpoints(0..100)), &placed(&endpoints(0..101)));
        assert!(moved <= 0.015, "{moved}");
    }

    #[test]
    fn the_order_in_which_endpoints_are_named_does_not_matter() {
        let there = placed(&endpoints(0..50));
        let back = placed(&endpoints((0..50).rev()));
        assert_eq!(there, back);
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut weighted = endpoints(0..10);
        weighted[0].1 = 3;
        weighted[1].1 = 2;
        let placed = placed(&weighted);
        for (name, weight) in &weighted {
            let share = placed.iter().filter(|at| *at == name).count() as f64 / 100_000.0;
            let ideal = f64::from(*weight) / 13.0;
            assert!(
                (share / ideal - 1.0).abs() < 0.35,
                "{name} {weight}: {share}"
            );
        }
    }

    #[test]
    fn every_endpoint_is_met_on_the_way_round() {
        let ring = Ring::compile(&endpoints(0..7));
        for place in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut met: Vec<_> = ring.from(place).collect();
            met.sort_unstable();
            met.dedup();
            assert_eq!(met, [0, 1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn the_index_finds_what_a_search_finds() {
        for count in [1, 2, 3, 17, 400] {
            let ring = Ring::compile(&endpoints(0..count));
            let places = (0..1000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let edges = ring
                .points
                .iter()
                .flat_map(|p| [p.place, p.place.wrapping_add(1)]);
            for place in places.chain(edges.clone()) {
                let searched = ring.points.partition_point(|point| point.place < place);
                assert_eq!(ring.first(place), searched, "{count} {place}");
            }
        }
        assert_eq!(Ring::compile(&[]).from(5).count(), 0);
    }

    #[test]
    fn the_hash_is_the_same_in_every_release() {
        for (text, expected) in [("", 0xf52a_15e9_a9b5_e89b), ("a", hash(&[b"a"]))] {
            assert_eq!(hash(&[text.as_bytes()]), expected, "{text}");
        }
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
