//! Fuzzes policies and scopes: entries of a policy, one per line, an empty line, and the scopes
//! of a request. A second reading of the same rules permits the same scopes, in any order and
//! with repetition.

#![no_main]

use std::collections::BTreeSet;

use fuzz::{is_entry, is_scope, permits};
use libfuzzer_sys::fuzz_target;
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::scope::policy::ScopePolicy;

fuzz_target!(|input: &str| {
    let (entries, request) = input.split_once("\n\n").unwrap_or(("a\nflex.*.read\nflex.billing.**", input));
    let entries: Vec<_> = entries.split('\n').collect();
    let is_small = |tokens: &[&str]| tokens.iter().collect::<BTreeSet<_>>().len() <= 512;

    let tokens: Vec<_> = request.split_ascii_whitespace().collect();
    let scopes = Scopes::parse(request);
    assert_eq!(scopes.is_ok(), !tokens.is_empty() && tokens.iter().all(|token| is_scope(token)) && is_small(&tokens));
    if let Ok(scopes) = &scopes {
        assert!(scopes.tokens().eq(tokens.iter().copied().collect::<BTreeSet<_>>()), "{scopes:?}");
        assert_eq!(Scopes::parse(scopes.as_str()).as_ref(), Ok(scopes), "printed and read again");
        let reversed = tokens.iter().rev().chain(&tokens).copied();
        assert_eq!(Scopes::from_tokens(reversed).as_ref(), Ok(scopes), "in another order");
    }

    let policy = ScopePolicy::from_entries(entries.iter().copied());
    assert_eq!(policy.is_ok(), entries.iter().all(|entry| is_entry(entry)) && is_small(&entries));
    let Ok(policy) = policy else { return };
    assert_eq!(ScopePolicy::from_entries(entries.iter().rev().chain(&entries).copied()).as_ref(), Ok(&policy));
    if let Some(everything) = policy.everything() {
        assert!(everything.tokens().eq(entries.iter().copied().collect::<BTreeSet<_>>()));
        assert!(policy.permits(everything));
    }
    if let Ok(scopes) = &scopes {
        let expected = scopes.tokens().all(|scope| permits(&entries, scope));
        assert_eq!(policy.permits(scopes), expected, "{entries:?} and {scopes:?}");
        let is_within = |scope| policy.permits(&Scopes::parse(scope).expect("a token of a set is one"));
        assert_eq!(scopes.tokens().all(is_within), expected, "one by one");
    }
});
