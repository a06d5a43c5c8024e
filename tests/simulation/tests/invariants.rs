//! Tests of the gate in the simulation: its invariants hold under all faults, and switching off
//! any of its rules breaks one.

use std::time::Duration;

use officernd_token_broker::mutation::Rule;
use simulation::{Fleet, Victim, die_at_each_await, play_seeds};

#[test]
fn thousand_seeds_break_no_invariant() {
    match play_seeds(1..1001, None) {
        Ok(total) => println!("1000 seeds: {total:?}"),
        Err(violation) => panic!("{violation}"),
    }
}

/// Every rule is needed: with any one switched off, a seed of the same thousand breaks an
/// invariant.
#[test]
fn each_disabled_rule_breaks_an_invariant() {
    for (rule, symptoms) in [
        (Rule::ReadBack, ["calls in a minute", "after the last call for it"].as_slice()),
        (Rule::SecondLook, &["after the last call for it"]),
        (Rule::Ledger, &["calls in a minute"]),
        (Rule::LeaseDeadline, &["gets no token although all faults have ended"]),
        (Rule::ClockSkew, &["calls in a minute"]),
        (Rule::Patience, &["got no token although the store has one"]),
    ] {
        let violation =
            play_seeds(1..1001, Some(rule)).expect_err(&format!("{rule:?} is switched off and no invariant breaks"));
        println!("{rule:?}: {violation}");
        let is_its_symptom = symptoms.iter().any(|symptom| violation.contains(symptom));
        assert!(is_its_symptom, "{rule:?} should break as one of {symptoms:?}: {violation}");
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
