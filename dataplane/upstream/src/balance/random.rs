//! Endpoints at random, by weight; and the less loaded of two such.
//!
//! Of two drawn at random the less loaded is nearly as good as the least loaded of all, and costs
//! two looks instead of one at each (the power of two choices).

use crate::weighted::WeightedChoice;

/// Draws positions, each as often as its weight says.
#[derive(Debug)]
pub(crate) enum Draw {
    /// All the same weight: this many.
    Even(u32),
    /// By weight.
    Weighted(WeightedChoice),
}

impl Draw {
    /// One weight per endpoint, none of them 0.
    pub(crate) fn compile(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1])
            && let Ok(count) = u32::try_from(weights.len())
        {
            return Self::Even(count);
        }
        Self::Weighted(WeightedChoice::new(weights.iter().copied()))
    }

    /// The position that a random point falls on; nothing when there are none.
    pub(crate) fn at(&self, point: u32) -> Option<usize> {
        match self {
            Self::Even(0) => None,
            Self::Even(count) => {
                let at = (u64::from(point) * u64::from(*count)) >> 32;
                usize::try_from(at).ok()
            }
            Self::Weighted(choice) => choice.pick(point),
        }
    }

    /// Of the two that the halves of `random` fall on, the one with the smaller load.
    pub(crate) fn less_loaded(&self, random: u64, load: impl Fn(usize) -> u64) -> Option<usize> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the number are two points"
        )]
        let (first, second) = (self.at((random >> 32) as u32)?, self.at(random as u32)?);
        Some(if load(second) < load(first) {
            second
        } else {
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randoms() -> impl Iterator<Item = u64> {
        (1..=40_000_u64).scan(1_u64, |state, _| {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            Some(*state)
        })
    }

    #[test]
    fn shares_follow_the_weights() {
        let cases: [&[u32]; 4] = [&[1], &[5, 5, 5], &[1, 2, 5], &[1000, 1]];
        for weights in cases {
            let draw = Draw::compile(weights);
            let mut counts = vec![0_u32; weights.len()];
            for random in randoms() {
                counts[draw.at((random >> 32) as u32).unwrap()] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (weight, count) in weights.iter().zip(counts) {
                let share = f64::from(count) / 40_000.0;
                let ideal = f64::from(*weight) / f64::from(total);
                assert!((share - ideal).abs() < 0.01, "{weights:?}: {share}");
            }
        }
    }

    #[test]
    fn nothing_to_draw_from_is_none() {
        assert_eq!(Draw::compile(&[]).at(7), None);
        assert_eq!(Draw::compile(&[]).less_loaded(7, |_| 0), None);
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let draw = Draw::compile(&[1; 10]);
        for random in randoms().take(1000) {
            let first = draw.at((random >> 32) as u32);
            let second = draw.at(u32::try_from(random & 0xffff_ffff).unwrap());
            let taken = draw.less_loaded(random, |at| at as u64).unwrap();
            assert_eq!(Some(taken), first.min(second));
        }
    }

    /// Requests that last equally long: the longest queue stays close to the mean, which a draw
    /// without looking does not achieve.
    #[test]
    fn loads_stay_close_together() {
        let draw = Draw::compile(&[1; 100]);
        let mut loads = vec![0_u64; 100];
        for random in randoms().take(10_000) {
            let taken = draw.less_loaded(random, |at| loads[at]).unwrap();
            loads[taken] += 1;
        }
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 10, "{least} to {most}");
    }
}
