//! The invariants of the gate hold whatever happens, and breaking any of its rules is noticed.

use officernd_token_broker::rules::Rule;
use simulation::{Fleet, play_seeds};

#[test]
fn a_thousand_seeds_break_no_invariant() {
    match play_seeds(1..1001, None) {
        Ok(total) => println!("1000 seeds: {total:?}"),
        Err(violation) => panic!("{violation}"),
    }
}

/// Every rule is needed: with any one switched off, some seed of the same thousand breaks an invariant.
#[test]
fn a_broken_rule_is_noticed() {
    for (rule, symptoms) in [
        (Rule::ReadBack, ["calls in a minute", "after it had been"].as_slice()),
        (Rule::SecondLook, &["after it had been"]),
        (Rule::Ledger, &["calls in a minute"]),
        (Rule::LeaseDeadline, &["gets no token although everything is well again"]),
    ] {
        let violation = play_seeds(1..1001, Some(rule)).expect_err(&format!("{rule:?} is broken and nothing notices"));
        println!("{rule:?}: {violation}");
        let is_its_symptom = symptoms.iter().any(|symptom| violation.contains(symptom));
        assert!(is_its_symptom, "{rule:?} should show as one of {symptoms:?}: {violation}");
    }
}

/// 50 jobs of 5 scope sets, every minute, on 8 instances, for 24 hours.
#[test]
fn a_day_of_a_busy_fleet_costs_hardly_more_calls_than_tokens_expire() {
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
