//! Endpoints in turn, by weight.
//!
//! Equal weights need no more than a counter. Other weights become an order that is computed once:
//! an endpoint of weight 3 stands in it three times as often as one of weight 1, its places spread
//! evenly, so that no endpoint gets a burst.

use std::sync::atomic::{AtomicUsize, Ordering};

/// About how many places an order may have; weights are scaled down to it when they add up to
/// more, so the share of an endpoint is then right to about one part in a thousand.
const ORDER_MAX: u64 = 1024;

/// Whose turn it is; outlives a configuration.
#[derive(Debug)]
pub(crate) struct Turn(AtomicUsize);

impl Turn {
    /// Begins anywhere, so that many data planes do not all begin at the same endpoint.
    pub(crate) fn new(start: usize) -> Self {
        Self(AtomicUsize::new(start))
    }

    fn take(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The order in which endpoints have their turn.
#[derive(Debug)]
pub(crate) enum RoundRobin {
    /// All the same weight: this many, in their own order.
    Even(usize),
    /// Positions of endpoints, none missing.
    Ordered(Box<[u32]>),
}

impl RoundRobin {
    /// One weight per endpoint, none of them 0.
    pub(crate) fn compile(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self::Even(weights.len());
        }
        let scaled = scale(weights);
        let mut places: Vec<(f64, u32)> = Vec::new();
        for (at, weight) in (0_u32..).zip(&scaled) {
            // A weight of n stands in the middle of each nth part of the round.
            places.extend((0..*weight).map(|k| ((k as f64 + 0.5) / *weight as f64, at)));
        }
        places.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Self::Ordered(places.into_iter().map(|(_, at)| at).collect())
    }

    /// The position of the endpoint whose turn it is; nothing when there are none.
    pub(crate) fn next(&self, turn: &Turn) -> Option<usize> {
        match self {
            Self::Even(0) => None,
            Self::Even(1) => Some(0),
            Self::Even(count) => Some(turn.take() % count),
            Self::Ordered(order) => {
                let place = turn.take().checked_rem(order.len())?;
                order.get(place).map(|at| *at as usize)
            }
        }
    }
}

/// The same shares in numbers as small as possible, or small enough.
fn scale(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let weights = weights.iter().map(|weight| u64::from(weight / divisor));
    let total: u64 = weights.clone().sum();
    if total <= ORDER_MAX {
        return weights.collect();
    }
    weights
        .map(|weight| (weight * ORDER_MAX).div_euclid(total).max(1))
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(weights: &[u32], rounds: usize) -> Vec<usize> {
        let balancer = RoundRobin::compile(weights);
        let turn = Turn::new(0);
        (0..rounds).map_while(|_| balancer.next(&turn)).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(sequence(&[7, 7, 7], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(sequence(&[4], 2), [0, 0]);
        assert_eq!(sequence(&[], 2), [0_usize; 0]);
    }

    #[test]
    fn a_round_holds_each_as_often_as_its_weight() {
        let cases: [&[u32]; 4] = [&[1, 2], &[3, 1, 1], &[10, 20, 30], &[1, 500, 500]];
        for weights in cases {
            let divisor = weights.iter().fold(0, |a, b| gcd(a, *b));
            let round = weights.iter().sum::<u32>() / divisor;
            let turns = sequence(weights, round as usize);
            for (at, weight) in weights.iter().enumerate() {
                let count = turns.iter().filter(|turn| **turn == at).count();
                assert_eq!(count, (weight / divisor) as usize, "{weights:?}");
            }
        }
    }

    #[test]
    fn the_turns_of_a_heavy_endpoint_are_spread() {
        let turns = sequence(&[4, 1, 1, 2], 8 * 4);
        // Half of all turns belong to the first: never three in a row, never two without.
        for three in turns.windows(3) {
            let own = three.iter().filter(|turn| **turn == 0).count();
            assert!((1..=2).contains(&own), "{turns:?}");
        }
    }

    #[test]
    fn large_weights_keep_their_shares_and_nobody_is_left_out() {
        for weights in [&[u32::MAX, 1, u32::MAX / 2][..], &[1_000_003, 2_000_003]] {
            let RoundRobin::Ordered(order) = RoundRobin::compile(weights) else {
                panic!("weights differ");
            };
            assert!(order.len() <= 1024 + weights.len());
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (at, weight) in (0..).zip(weights) {
                let count = order.iter().filter(|place| **place == at).count();
                let share = count as f64 / order.len() as f64;
                assert!(count > 0 && (share - f64::from(*weight) / total).abs() < 0.003);
            }
        }
        let many: Vec<u32> = (1..=5000).collect();
        let RoundRobin::Ordered(order) = RoundRobin::compile(&many) else {
            panic!("weights differ");
        };
        let mut seen: Vec<_> = order.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((seen.len(), order.len()), (5000, 5000));
    }

    #[test]
    fn the_turn_survives_the_end_of_its_range() {
        let balancer = RoundRobin::compile(&[1, 1]);
        let turn = Turn::new(usize::MAX);
        let turns: Vec<_> = (0..4).map(|_| balancer.next(&turn).unwrap()).collect();
        assert_eq!(turns, [1, 0, 1, 0]);
    }
}
