//! The component in an unmodified `wasmtime serve`, run as docs/hosts.md says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use broker_host::sandbox::Config;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Broker, MEMBERS, Setup, all_at_once, crowd, different_tokens, root};

/// The tests of `black_box` that cannot pass there, by what they need. All others must.
const NOT_THERE: [(&str, &[&str]); 9] = [
    (
        "a store outside of the instances, to put something there, to look into it, to make it fail, or to outlive the host: \
         the one of `wasmtime serve` is another for every instance, so there is none",
        &[
            "faults::every_fault_is_answered_and_survived_as_the_page_says",
            "gate::a_crowd_in_an_instance_without_a_store_makes_one_call",
            "gate::a_record_of_more_scope_than_was_asked_for_is_not_served",
            "gate::a_store_out_of_order_is_no_reason_to_refuse",
            "gate::an_instance_without_a_store_keeps_the_limit_by_itself",
            "gate::garbage_in_the_store_counts_as_nothing",
            "life::a_fresh_token_is_served_and_nobody_is_asked",
            "life::a_late_token_is_served_when_no_successor_comes",
            "life::a_token_that_officernd_issues_again_is_not_asked_for_again_and_again",
            "life::a_token_with_less_than_half_a_minute_is_served_to_nobody",
            "life::an_aging_token_is_served_through_an_outage_and_officernd_is_left_alone",
            "life::an_aging_token_is_served_while_one_request_fetches_its_successor",
            "life::min_remaining_seconds_sets_when_a_token_is_late",
            "life::of_a_crowd_that_meets_an_aging_token_one_waits_for_its_successor",
            "life::renewing_a_living_token_never_takes_the_last_two_calls_of_a_minute",
            "life::what_another_node_fetched_or_forgot_gets_around",
            "life::who_meets_a_late_token_gets_its_successor",
            "store::a_record_that_was_tampered_with_or_moved_is_a_miss",
            "rotation::a_token_that_both_secrets_brought_is_revoked_for_both",
            "readiness::readiness_tells_the_class_of_the_problem_and_no_more",
            "rotation::swapping_the_two_secrets_loses_no_token",
            "secrets::no_secret_is_in_the_log_or_in_an_answer_that_is_no_token",
            "store::a_file_keeps_a_token_for_another_process_and_no_secret",
            "store::a_leak_into_a_store_of_any_kind_is_found_when_its_broker_is_dropped",
            "store::a_token_outlives_the_host_when_the_store_does",
            "store::the_store_has_no_secret_and_no_name_in_it",
        ],
    ),
    (
        "a store that two hosts share",
        &[
            "gate::a_lease_whose_holder_has_died_ends_by_itself",
            "gate::the_sixth_scope_set_of_a_minute_is_told_when",
            "gate::two_hosts_on_one_redis_make_one_call",
            "revocation::a_revoked_token_is_forgotten_everywhere_and_once_a_minute",
        ],
    ),
    (
        "variables that change while it runs: an environment does not",
        &[
            "configuration::a_provider_that_fails_for_a_while_is_no_reason_to_fail",
            "configuration::a_provider_that_fails_is_no_configuration",
            "configuration::a_variable_with_a_mistake_stops_everything_until_it_is_mended",
            "rotation::an_operators_year_without_a_restart",
            "applications::tokens_and_pauses_of_two_applications_never_mix",
        ],
    ),
    (
        "a host that counts what a component does, or runs the one that tells what it allocates",
        &[
            "readiness::a_broker_in_order_is_ready_before_it_has_a_token",
            "costs::a_memory_hit_allocates_nothing_larger_than_its_answer",
            "costs::a_request_costs_what_the_page_says",
            "costs::the_component_is_as_small_as_the_page_says",
            "costs::nobody_costs_what_a_caller_with_a_wrong_secret_costs",
        ],
    ),
    (
        "several requests at a time, which the command of docs/hosts.md forbids",
        &[
            "gate::two_hundred_cold_requests_make_one_call",
            "audit::the_log_is_as_its_schema_says",
            "token::sixteen_requests_in_one_instance_make_one_call",
        ],
    ),
    (
        "a host that takes the rest of a body which the component has refused: this one may close the connection before its \
         client has read the 413",
        &["denials::a_body_over_16_kib_is_refused_whether_its_length_is_announced_or_not"],
    ),
    ("HTTP/2, which the host lacks", &["peers::curl_is_served_and_reads_every_error"]),
    (
        "an issuer without public_url: the host hands the component no Host",
        &["peers::oauth4webapi_is_served_and_reads_every_error", "peers::the_description_is_what_schemathesis_finds"],
    ),
    (
        "the program `broker`, which is a host of its own",
        &[
            "commands::a_caller_that_it_makes_gets_tokens_until_it_is_removed",
            "commands::a_file_that_is_not_what_spin_takes_is_refused_without_a_word_of_it",
            "commands::an_edit_that_is_refused_prints_neither_policy_nor_secret",
            "commands::every_mistake_is_told_at_once_and_no_value",
            "commands::sound_variables_are_sound",
            "commands::without_an_old_policy_the_new_caller_is_the_only_one",
            "program::with_some_of_the_variables_it_names_the_others_and_stops",
            "program::with_the_variables_it_asks_their_officernd_and_keeps_tokens_in_its_folder",
            "program::without_variables_it_is_a_demo_whose_curl_line_gets_a_token",
        ],
    ),
];

/// The program of the tests in `black_box`, built beside this one.
fn black_box() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // Without --package: a choice of packages is a choice of features, and most dependencies would be built anew.
    cargo.args(["test", "--no-run", "--test", "black_box", "--message-format", "json", "--target-dir"]).arg(target);
    let output = cargo.current_dir(root()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "black_box does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().rev().find_map(executable).expect("cargo says where it is")
}

/// Runs it, and returns what it prints.
fn run(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("BROKER_HOST", "wasmtime-serve").current_dir(root().join("tests"));
    let output = command.output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_black_box_test_passes_there_but_those_that_are_listed_with_their_reason() {
    let _alone = crowd().await;
    let tested = tokio::task::spawn_blocking(|| {
        let program = black_box();
        let list = run(&program, &["--list"]);
        let all: BTreeSet<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let listed: Vec<_> = NOT_THERE.iter().flat_map(|(_, names)| *names).copied().collect();
        for name in &listed {
            assert!(all.contains(name), "there is no test {name}");
        }
        let mut arguments = vec!["--exact"];
        listed.iter().for_each(|name| arguments.extend(["--skip", name]));
        let printed = run(&program, &arguments);
        let passed = format!("{} passed; 0 failed; 0 ignored", all.len() - listed.len());
        assert!(printed.contains(&passed), "{passed} is not in {printed}");
        println!("{passed}, {} listed", listed.len());
    });
    tested.await.unwrap_or_else(|error| panic!("{error}"));
}

async fn start() -> Broker {
    let sandbox = Config { calls_per_minute: 1000, ..Config::default() };
    Setup { in_wasmtime_serve: true, sandbox, ..Setup::default() }.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_cold_requests_make_one_call_in_one_instance() {
    const ROUNDS: usize = 10;
    let _alone = crowd().await;
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let broker = start().await;
        let answers = all_at_once(&[&broker], 100, MEMBERS).await;
        assert_eq!(different_tokens(&answers), broker.calls().len());
        assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
        seen.push((broker.calls().len(), broker.server.instances_alone()));
    }
    println!("calls and instances, {ROUNDS} rounds of 100 cold requests: {seen:?}");
    assert_eq!(seen, [(1, 1); ROUNDS]);
}

#[tokio::test]
async fn an_instance_without_a_store_says_that_it_counts_alone() {
    let _alone = crowd().await;
    let broker = start().await;
    let answer = broker.fetch(Method::GET, "/readyz").await;
    let expected = json!({ "status": "ready", "problem": "budget_per_instance" });
    assert_eq!((answer.status, answer.json()), (StatusCode::OK.as_u16(), expected));
    assert_eq!(broker.server.instances_alone(), 1, "{}", broker.server.output());
}
