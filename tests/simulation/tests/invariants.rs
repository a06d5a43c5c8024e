//! Tests of the core in the simulation: its invariants hold under all faults, and switching off
//! any of its rules breaks one.

use std::ops::Range;
use std::time::Duration;

use officernd_token_broker::mutation::Rule;
use simulation::{Fleet, KeyReport, Scenario, Victim, die_at_each_await, play_keys, play_seeds};

/// Seeds of a sound core, and those among which one shows that a rule is switched off. The rarest
/// symptom occurs in one of 200.
const SOUND: Range<u64> = 1..501;
const BROKEN: Range<u64> = 1..2001;

#[test]
fn five_hundred_seeds_break_no_invariant() {
    match play_seeds(SOUND, None) {
        Ok(total) => println!("{total:?}"),
        Err(violation) => panic!("{violation}"),
    }
}

/// The part of a violation that tells one of a rule's symptoms.
fn symptoms(rule: Rule) -> &'static [&'static str] {
    const SIXTH_CALL: &str = "calls in a minute";
    const FOURTH_CALL: &str = "calls for caller";
    const NO_TOKEN: &str = "gets no token although all faults have ended";
    const NO_STORE: &str = "a call without the store, which has not failed long";
    match rule {
        Rule::ReadBack => &[SIXTH_CALL, FOURTH_CALL, NO_STORE],
        Rule::SecondLook => &["after the last call for it"],
        Rule::Ledger | Rule::ClockSkew | Rule::SaveLater => &[SIXTH_CALL, FOURTH_CALL],
        Rule::Share => &[FOURTH_CALL],
        Rule::LeaseDeadline => &[NO_TOKEN],
        Rule::LeaseEnd => &["after it acquired the lease"],
        Rule::Patience => &[NO_STORE],
        Rule::CompleteLook => &["overwrites a ledger that it has not read"],
        Rule::FailFast => &["after the store failed"],
        Rule::TokenMemory => &["after its revocation"],
        Rule::LastGood => &["although it had a configuration"],
        Rule::OneReader => &["twice at the same time"],
        Rule::KeyPause | Rule::KeyAge | Rule::KeyRenewal | Rule::KeysApart => &[],
        Rule::EntryMistake => &["although the variables are sound", "although it had a configuration"],
    }
}

/// Every rule is needed: with any one switched off, a seed breaks an invariant.
#[test]
fn each_disabled_rule_breaks_an_invariant() {
    for rule in Rule::ALL {
        let violation =
            play_seeds(BROKEN, Some(rule)).expect_err(&format!("{rule:?} is switched off and no invariant breaks"));
        println!("{rule:?}: {violation}");
        let symptoms = symptoms(rule);
        let is_its_symptom = symptoms.iter().any(|symptom| violation.contains(symptom));
        assert!(is_its_symptom, "{rule:?} should break as one of {symptoms:?}: {violation}");
    }
}

/// Issuers that are down, slow, empty, rotating or too long, for days, on a store that fails.
#[test]
fn two_hundred_seeds_of_issuers_break_no_invariant() {
    let mut total = KeyReport::default();
    for seed in 0..200 {
        let report = play_keys(seed, None).unwrap_or_else(|violation| panic!("{violation}"));
        total.requests += report.requests;
        total.found += report.found;
        total.unavailable += report.unavailable;
        total.fetches += report.fetches;
    }
    println!("{total:?}");
    assert!(total.found > total.requests / 3 && total.unavailable > 0, "{total:?}");
}

/// Every rule about the keys of issuers is needed.
#[test]
fn each_disabled_rule_of_keys_breaks_an_invariant() {
    for rule in Rule::OF_KEYS {
        let expected = match rule {
            Rule::KeyPause => "an instance fetched keys twice within",
            Rule::KeyAge => "that it last served",
            Rule::KeyRenewal => "has withdrawn",
            Rule::KeysApart => "has never served",
            other => panic!("{other:?} is not about keys"),
        };
        let mut violations = (0..200).filter_map(|seed| play_keys(seed, Some(rule)).err());
        let violation = violations.find(|violation| violation.contains(expected));
        println!(
            "{rule:?}: {}",
            violation.unwrap_or_else(|| panic!("{rule:?} is switched off, and no key is {expected}"))
        );
    }
}

/// Two callers beside one that asks for a new scope set each time always get their token.
#[test]
fn caller_with_greed_keeps_no_other_from_its_token() {
    for seed in 0..100 {
        let scenario = Scenario::beside_greed(seed);
        let report = scenario.run().unwrap_or_else(|violation| panic!("{violation}\n{scenario:?}"));
        assert!(report.told_when > 0, "no request was refused: {scenario:?}");
    }
}

/// 50 jobs of 5 scope sets, each with a request per minute, on 8 instances, for 24 hours.
#[test]
fn busy_fleet_makes_at_most_15_percent_more_calls_than_needed() {
    let day = Fleet::day().run().unwrap_or_else(|violation| panic!("{violation}"));
    println!(
        "24 hours: {} requests, {} calls, at least {:.1} needed: {:.3}",
        day.requests,
        day.calls,
        day.least,
        day.ratio()
    );
    assert_eq!(day.tokens, day.requests);
    assert!(day.ratio() <= 1.15, "{day:?}");
}

/// A fetch without a cached token, one that renews a token before the answer, and one that
/// renews it afterwards.
#[test]
fn death_at_any_await_of_a_fetch_leaves_others_their_token() {
    for (what, age, victim) in [
        ("no token", 0, Victim::Instance),
        ("no token", 0, Victim::LeadingRequest),
        ("a late token", 3400, Victim::Instance),
        ("a late token", 3400, Victim::LeadingRequest),
        // No request waits for this renewal.
        ("an aging token", 3150, Victim::Instance),
    ] {
        let deaths = die_at_each_await(victim, Duration::from_secs(age))
            .unwrap_or_else(|violation| panic!("{what}: {violation}"));
        println!("{what}, {victim:?}: {deaths:?}");
        assert!(deaths.count > 30, "{what}: {deaths:?}");
        // Two calls: the lost one, and the one that brings a token. It may come before the loss
        // if an old token still serves.
        assert_eq!(deaths.calls, 2, "{what}: {deaths:?}");
    }
}
