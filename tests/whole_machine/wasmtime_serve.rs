//! The component in an unmodified `wasmtime serve`, started with the command of docs/hosts.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use broker_host::sandbox::Config;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Broker, MEMBERS, Setup, all_at_once, crowd, different_tokens, root};

/// The tests of `black_box` that cannot pass in `wasmtime serve`, by the reason. All others
/// must pass.
const NOT_IN_WASMTIME_SERVE: [(&str, &[&str]); 11] = [
    (
        "a store outside of the instances, which the test fills, reads, makes fail, or keeps over a restart of the host: \
         `wasmtime serve` has one for each instance, so the command leaves it out",
        &[
            "beneath::revocations::revocations_in_bad_times_get_the_answers_of_faults_md",
            "beneath::stores::stores_that_refuse_throttle_vanish_or_are_locked_get_the_answers_of_faults_md",
            "faults::faults_get_the_answers_of_faults_md",
            "gate::call_made_without_the_store_counts_for_others_once_it_works",
            "gate::crowd_in_an_instance_without_store_makes_one_call",
            "gate::record_with_broader_scope_than_requested_is_not_served",
            "gate::failing_or_slow_store_still_serves_tokens",
            "gate::instance_without_store_keeps_the_call_quota",
            "gate::job_waits_at_most_one_store_operation_while_the_store_never_answers",
            "gate::garbage_in_the_store_is_treated_as_absent",
            "issuer_keys::record_of_keys_that_was_changed_or_moved_counts_as_absent",
            "audit::each_call_leaves_one_line",
            "metrics::no_counter_decreases_if_the_store_fails_for_one_instance_or_for_a_new_one",
            "metrics::metrics_show_calls_gate_credentials_and_expirations",
            "metrics::counters_survive_a_restart_of_the_host",
            "life::caller_with_min_remaining_seconds_gets_a_longer_token_than_others",
            "life::fresh_token_is_served_without_a_call",
            "life::late_token_is_served_when_its_renewal_fails",
            "life::reissued_token_is_not_fetched_repeatedly",
            "life::token_with_less_than_60_s_left_is_not_served",
            "life::aging_token_in_an_outage_is_served_after_one_failed_call",
            "life::aging_token_is_served_while_one_request_renews_it",
            "life::min_remaining_seconds_sets_when_token_is_late",
            "life::aging_token_renewal_is_awaited_by_one_request_of_a_crowd",
            "life::renewal_of_usable_token_leaves_two_calls_of_the_quota",
            "life::token_stored_or_deleted_by_another_host_takes_effect",
            "life::late_token_is_renewed_before_the_answer",
            "revocation::token_that_only_memory_has_is_revoked_while_the_store_fails",
            "revocation::token_that_the_index_lacks_is_revoked",
            "store::tampered_or_moved_record_counts_as_absent",
            "rotation::token_fetched_with_both_secrets_is_revoked_for_both",
            "readiness::readiness_reports_only_the_class_of_the_problem",
            "rotation::swapping_the_two_secrets_keeps_every_token",
            "secrets::secrets_appear_in_no_log_and_no_answer_but_the_token_itself",
            "store::sqlite_file_keeps_tokens_for_another_process_and_no_secret",
            "store::secret_leaked_into_any_kind_of_store_is_found_on_drop",
            "store::token_in_a_lasting_store_survives_a_host_restart",
            "store::store_contains_no_secret_and_no_name",
        ],
    ),
    (
        "a store that two hosts share",
        &[
            "beneath::applications::applications_that_are_replaced_get_the_answers_of_faults_md",
            "metrics::counters_of_two_hosts_equal_the_calls_that_officernd_saw_although_instances_die",
            "beneath::clocks::hosts_whose_clocks_differ_get_the_answers_of_faults_md",
            "gate::lease_of_a_dead_holder_expires",
            "gate::sixth_scope_set_in_a_minute_gets_503_with_retry_after",
            "gate::two_hosts_on_one_redis_make_one_call",
            "issuer_keys::keys_are_fetched_by_one_host_for_all_and_renewed_after_an_answer",
            "revocation::revoked_token_is_dropped_by_all_hosts_at_most_once_a_minute",
        ],
    ),
    (
        "variables that change while the broker runs: environment variables do not",
        &[
            "beneath::variables::variables_that_are_slow_crowded_wrong_or_gone_get_the_answers_of_faults_md",
            "configuration::failing_variable_provider_at_start_gives_503_with_retry_after",
            "configuration::last_good_configuration_outlives_a_failing_provider_and_a_mistake",
            "configuration::mistake_in_one_live_entry_refuses_only_that_caller",
            "configuration::variable_with_mistake_stops_one_caller_or_all_until_fixed",
            "identities::withdrawn_issuer_or_key_is_refused_once_the_change_takes_effect",
            "rotation::changed_policy_or_secret_takes_effect_without_restart",
            "applications::tokens_and_pauses_of_two_applications_never_mix",
            "upstream::call_that_the_host_denies_uses_no_quota_and_closes_no_gate",
        ],
    ),
    (
        "a host that counts operations and instructions, or that runs the component which logs its allocations",
        &[
            "readiness::broker_without_a_token_yet_is_ready",
            "costs::memory_hit_allocates_at_most_its_answer_at_once",
            "costs::request_costs_match_performance_md",
            "costs::component_size_and_memory_match_performance_md",
            "costs::unknown_caller_costs_as_much_as_a_wrong_secret",
            "costs::unknown_caller_costs_as_much_as_a_wrong_signature",
            "costs::signature_of_a_kind_that_no_caller_has_is_not_verified",
        ],
    ),
    (
        "a clock that the test sets, or the list allowed_outbound_hosts",
        &[
            "issuer_keys::bad_issuer_stops_only_its_callers_and_its_keys_serve_for_a_day",
            "issuer_keys::issuer_whose_origin_is_not_allowed_is_named_on_stderr",
            "issuer_keys::stranger_causes_at_most_one_fetch_a_minute",
            "peers::issuer::another_projects_issuer_rotates_its_keys_under_load",
        ],
    ),
    (
        "requests that tell the origin for the metadata",
        &["assertions::without_a_public_url_secrets_work_and_assertions_do_not"],
    ),
    (
        "several requests at a time, which the command of docs/hosts.md forbids",
        &[
            "beneath::instances::instances_that_live_briefly_or_long_get_the_answers_of_faults_md",
            "issuer_keys::crowd_of_jobs_waits_for_one_fetch",
            "gate::cold_crowd_in_one_instance_costs_the_store_one_fetch",
            "gate::hundred_cold_requests_in_an_instance_each_make_one_call",
            "gate::five_hundred_cold_requests_cost_the_store_few_operations",
            "gate::two_hundred_cold_requests_make_one_call",
            "audit::audit_lines_match_their_schema_and_page",
            "token::sixteen_requests_in_one_instance_make_one_call",
        ],
    ),
    (
        "a host that reads the rest of a body which the component has refused: this one may close the connection before its \
         client has read the 413",
        &["denials::body_over_16_kib_gets_413_with_or_without_content_length"],
    ),
    ("HTTP/2, which this host lacks", &["peers::curl_gets_tokens_and_reads_every_error"]),
    (
        "an issuer without public_url: this host does not pass `Host` to the component",
        &["peers::oauth4webapi_gets_tokens_and_reads_every_error", "peers::openapi_description_passes_schemathesis"],
    ),
    (
        "the program `broker`, which is a host itself",
        &[
            "commands::caller_made_by_the_command_gets_tokens_until_removed",
            "commands::check_of_invalid_file_fails_without_repeating_its_text",
            "commands::refused_edit_prints_neither_policy_nor_secret",
            "commands::check_reports_all_mistakes_at_once_without_values",
            "commands::check_of_valid_variables_succeeds",
            "commands::both_programs_have_the_same_commands",
            "commands::check_tells_warnings_from_mistakes",
            "commands::caller_commands_warn_of_the_new_policy",
            "commands::caller_new_without_old_policy_makes_a_policy_of_one",
            "program::broker_with_some_variables_names_the_missing_ones_and_stops",
            "program::broker_with_variables_calls_their_officernd_and_keeps_tokens_in_state_dir",
            "report::figures_of_report_are_those_of_jq",
            "report::page_shows_the_figures_on_a_phone_and_a_wide_screen_light_and_dark",
            "report::page_replaces_only_a_page",
            "release::folder_of_a_release_runs_the_component_that_its_manifest_means",
            "program::broker_without_variables_prints_a_curl_line_that_gets_a_token",
            "identities::check_of_an_assertion_has_the_outcome_and_the_reason_of_the_log",
            "issuer_keys::check_with_fetch_and_issuer_new_give_up_after_5_s_and_name_the_issuer",
            "issuer_keys::check_with_fetch_names_the_keys_and_checks_the_signature_with_them",
            "peers::examples::examples_with_a_key_in_jobs_md_wait_out_a_pause_and_no_longer_than_the_page_says",
        ],
    ),
];

/// Builds the test binary `black_box` in the target folder of this one, and returns its path.
fn black_box() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // Without --package: selecting packages also selects features, and cargo would build most
    // dependencies again.
    cargo.args(["test", "--no-run", "--test", "black_box", "--message-format", "json", "--target-dir"]).arg(target);
    let output = cargo.current_dir(root()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "black_box does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().rev().find_map(executable).expect("cargo prints the path of black_box")
}

/// Runs the test binary with this host, and returns its output.
fn run(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("BROKER_HOST", "wasmtime-serve").current_dir(root().join("tests"));
    let output = command.output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn black_box_tests_pass_in_wasmtime_serve_unless_listed_with_a_reason() {
    let _alone = crowd().await;
    let tested = tokio::task::spawn_blocking(|| {
        let program = black_box();
        let list = run(&program, &["--list"]);
        let all: BTreeSet<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let listed: Vec<_> = NOT_IN_WASMTIME_SERVE.iter().flat_map(|(_, names)| *names).copied().collect();
        for name in &listed {
            assert!(all.contains(name), "test {name} does not exist");
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
async fn hundred_cold_requests_in_one_wasmtime_instance_make_one_call() {
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
async fn instance_without_store_warns_and_is_ready() {
    let _alone = crowd().await;
    let broker = start().await;
    let answer = broker.fetch(Method::GET, "/readyz").await;
    let version = env!("CARGO_PKG_VERSION");
    let expected = json!({ "status": "ready", "problem": "budget_per_instance", "version": version });
    assert_eq!((answer.status, answer.json()), (StatusCode::OK.as_u16(), expected));
    assert_eq!(broker.server.instances_alone(), 1, "{}", broker.server.output());
}
