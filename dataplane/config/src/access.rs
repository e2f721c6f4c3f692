//! Who may come in by address: the lists of a SecurityPolicy, read once.
//!
//! Listeners, rules and clusters hold one where a policy has lists, and nothing otherwise, so that a
//! request pays for them only where they are.

use std::net::IpAddr;
use std::sync::Arc;

use ir::Network;
use ir::policy::SecurityPolicy;

/// Address blocks that may come in and that may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressLists {
    allowed: Vec<Network>,
    denied: Vec<Network>,
}

impl AddressLists {
    /// The lists of `policy`; nothing where it has none.
    pub fn compile(policy: Option<&SecurityPolicy>) -> Option<Arc<Self>> {
        let policy = policy?;
        if policy.allow_cidrs.is_empty() && policy.deny_cidrs.is_empty() {
            return None;
        }
        // The snapshot holds no text that is not a block.
        let read = |list: &[String]| list.iter().filter_map(|block| block.parse().ok()).collect();
        Some(Arc::new(Self {
            allowed: read(&policy.allow_cidrs),
            denied: read(&policy.deny_cidrs),
        }))
    }

    /// True when a client of that address may come in; what is denied is never allowed.
    pub fn admit(&self, address: IpAddr) -> bool {
        let is_in = |list: &[Network]| list.iter().any(|block| block.contains(address));
        !is_in(&self.denied) && (self.allowed.is_empty() || is_in(&self.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(allow: &[&str], deny: &[&str]) -> Option<Arc<AddressLists>> {
        let owned = |list: &[&str]| list.iter().map(|block| (*block).to_owned()).collect();
        AddressLists::compile(Some(&SecurityPolicy {
            allow_cidrs: owned(allow),
            deny_cidrs: owned(deny),
            ..SecurityPolicy::default()
        }))
    }

    #[test]
    fn denied_blocks_win_and_an_empty_list_lets_everyone_in() {
        let cases: &[(&[&str], &[&str], &str, bool)] = &[
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "2001:db8::1", false),
            (&["10.0.0.0/8"], &["10.6.6.0/24"], "10.6.6.6", false),
            (&["10.0.0.0/8"], &["10.6.6.0/24"], "10.6.7.6", true),
            (&[], &["10.6.6.0/24"], "10.6.6.6", false),
            (&[], &["10.6.6.0/24"], "2001:db8::1", true),
            (&["2001:db8::/32"], &[], "2001:db8::1", true),
            (&[], &["0.0.0.0/0", "::/0"], "::ffff:127.0.0.1", false),
            (&[], &["0.0.0.0/0", "::/0"], "127.0.0.1", false),
            (&[], &["0.0.0.0/0", "::/0"], "::1", false),
        ];
        for (allow, deny, address, admitted) in cases {
            let lists = lists(allow, deny).unwrap();
            let address = address.parse().unwrap();
            assert_eq!(
                lists.admit(address),
                *admitted,
                "{allow:?} {deny:?} {address}"
            );
        }
    }

    #[test]
    fn without_lists_there_is_nothing_to_ask() {
        assert_eq!(lists(&[], &[]), None);
        assert_eq!(AddressLists::compile(None), None);
    }
}
