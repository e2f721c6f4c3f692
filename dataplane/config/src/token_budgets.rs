//! Budgets of tokens as a call meets them: the policy of a cluster and what its callers have spent.
//!
//! A [`Budget`] is made by `kept.rs` whenever its cluster is compiled; what was spent stays in the one
//! ledger of the process, so a policy that changes forgets nobody. By what a caller is told apart is
//! the request line's affair, as is waiting.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use dataplane_ai::token_policy::{Ledger, Reservation, Standing, TokenBudget, Verdict};
use ir::ai::{TokenPolicy, TokenScope};

/// The ledger of the process.
#[derive(Debug)]
pub(crate) struct Spent {
    ledger: Ledger,
    keys: RandomState,
}

impl Spent {
    pub(crate) fn with_room_for(keys: usize) -> Self {
        Self {
            ledger: Ledger::with_room_for(keys),
            keys: RandomState::new(),
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.ledger.lost()
    }
}

/// The budgets of one policy.
#[derive(Debug)]
pub struct Budget {
    policy: TokenBudget,
    scope: TokenScope,
    /// The object that the policy is for.
    place: Arc<str>,
    spent: Arc<Spent>,
}

impl Budget {
    pub(crate) fn new(place: &Arc<str>, policy: &TokenPolicy, spent: &Arc<Spent>) -> Self {
        Self {
            policy: TokenBudget::compile(policy),
            scope: policy.scope.clone(),
            place: place.clone(),
            spent: spent.clone(),
        }
    }

    /// What callers are told apart by.
    pub fn scope(&self) -> &TokenScope {
        &self.scope
    }

    /// The account of the caller with that value; those without one share an account.
    pub fn key(&self, value: Option<&[u8]>) -> u64 {
        self.spent.keys.hash_one((&*self.place, value))
    }

    /// Where the caller of that account stands.
    pub fn standing(&self, key: u64, now: Duration) -> Standing {
        self.policy.peek(&self.spent.ledger, key, now)
    }

    /// Takes about so many tokens for a call, which may wait that long where the policy lets it.
    pub fn reserve(&self, key: u64, tokens: u64, wait_max: Duration, now: Duration) -> Verdict {
        let ledger = &self.spent.ledger;
        self.policy.reserve(ledger, key, tokens, wait_max, now)
    }

    /// Puts the real count in the place of the estimate.
    pub fn settle(&self, reservation: Reservation, used: u64, now: Duration) {
        self.policy
            .settle(&self.spent.ledger, reservation, used, now);
    }
}
