//! The choice among the backends of a rule, by weight.
//!
//! Compiled once per rule, asked once per request. Over any run of requests the shares follow the
//! weights closely, not only in the long run: the points that are drawn are spread evenly, which a
//! random number is not (500 requests split 50:50 at random miss by 5 % once in forty times).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

/// A choice among numbered things with weights.
#[derive(Debug)]
pub struct WeightedChoice(Choice);

#[derive(Debug)]
enum Choice {
    /// The only one that can be chosen, as it is in most rules.
    Only(usize),
    /// Several, or none.
    Spread {
        /// Running sums of the weights; empty when nothing can be chosen.
        sums: Box<[u64]>,
        /// The last point drawn.
        point: AtomicU32,
    },
}

/// 2³² divided by the golden ratio: steps of this size fill the range evenly from the first on,
/// and come back to the same point only after all 2³² of them.
const STEP: u32 = 0x9e37_79b9;

impl WeightedChoice {
    /// One weight per thing, in order; a thing of weight 0 is never chosen.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0_u64;
        let sums: Vec<u64> = weights
            .into_iter()
            .map(|weight| {
                sum = sum.saturating_add(u64::from(weight));
                sum
            })
            .collect();
        let first = sums.iter().position(|reached| *reached > 0);
        if let Some(only) = first.filter(|first| sums[*first] == sum) {
            return Self(Choice::Only(only));
        }
        // Data planes and rules begin at points of their own, so that they do not move in step.
        let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_ne_bytes();
        Self(Choice::Spread {
            sums: if sum > 0 { sums.into() } else { Box::default() },
            point: AtomicU32::new(u32::from_ne_bytes([a, b, c, d])),
        })
    }

    /// The thing at a point of the range; each gets its share of the 2³² points, to one point.
    ///
    /// Nothing when all weights are 0, or there are none.
    pub fn pick(&self, point: u32) -> Option<usize> {
        match &self.0 {
            Choice::Only(only) => Some(*only),
            Choice::Spread { sums, .. } => place(sums, point),
        }
    }

    /// The next one in an even spread.
    pub fn next(&self) -> Option<usize> {
        match &self.0 {
            Choice::Only(only) => Some(*only),
            Choice::Spread { sums, point } => place(sums, point.fetch_add(STEP, Ordering::Relaxed)),
        }
    }
}

/// Whose share of the running sums a point falls into.
fn place(sums: &[u64], point: u32) -> Option<usize> {
    let total = u128::from(*sums.last()?);
    let target = (u128::from(point) * total) >> 32;
    let at = sums.partition_point(|reached| u128::from(*reached) <= target);
    (at < sums.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], rounds: usize) -> Vec<usize> {
        let choice = WeightedChoice::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        for _ in 0..rounds {
            counts[choice.next().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn short_runs_follow_the_weights() {
        let cases: [&[u32]; 8] = [
            &[1],
            &[1, 1],
            &[70, 30],
            &[90, 0, 10],
            &[1, 2, 3, 4],
            &[0, 0, 5],
            &[u32::MAX, u32::MAX, 1],
            &[1_000_000, 1],
        ];
        for weights in cases {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for rounds in [20, 500, 10_000] {
                for (weight, count) in weights.iter().zip(shares(weights, rounds)) {
                    let ideal = f64::from(*weight) / total * rounds as f64;
                    // An even spread is off by a few, however long the run.
                    assert!(
                        (count as f64 - ideal).abs() < 5.0,
                        "{weights:?} {rounds} {count}"
                    );
                    assert!(*weight > 0 || count == 0, "{weights:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_to_choose_from_is_none() {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let choice = WeightedChoice::new(weights.iter().copied());
            assert_eq!(choice.next(), None, "{weights:?}");
            assert_eq!(choice.pick(0), None, "{weights:?}");
            assert_eq!(choice.pick(u32::MAX), None, "{weights:?}");
        }
    }

    #[test]
    fn points_are_shared_out_in_order() {
        let choice = WeightedChoice::new([0, 1, 3, 0]);
        let quarter = 1 << 30;
        let cases = [(0, 1), (quarter - 1, 1), (quarter, 2), (u32::MAX, 2)];
        for (point, expected) in cases {
            assert_eq!(choice.pick(point), Some(expected), "{point}");
        }
    }

    #[test]
    fn threads_share_one_spread() {
        let choice = WeightedChoice::new([1, 3]);
        let firsts: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| choice.next() == Some(0)).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert!((995..=1005).contains(&firsts), "{firsts}");
    }
}
