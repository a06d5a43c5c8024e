//! The operator's commands `caller` and `check`.

use std::fs;
use std::path::Path;

use officernd_token_broker::config::Mistakes;
use officernd_token_broker::config::caller::Callers;
use officernd_token_broker::config::issuer::Issuers;
use serde_json::json;
use tempfile::TempDir;
use tests::{COMPANIES, Caller, Ended, MEMBERS, Program, RESOURCES, Secret, Setup, find_leaks, random, read};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs `broker caller` with these arguments and with `old` on stdin.
fn caller(arguments: &[&str], old: &str) -> Ended {
    let arguments = [&["caller"], arguments].concat();
    Program::run(&arguments, old, folder().path())
}

/// Returns the new policy and the new secret, which has a line of its own.
fn edited(ended: &Ended) -> (String, String) {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut mistakes = Mistakes::of("callers");
    Callers::parse(&ended.stdout, |name| name == "berlin", &Issuers::unread(), &mut mistakes);
    assert_eq!(mistakes.into_iter().count(), 0, "{}", ended.stdout);
    let secret = ended.stderr.lines().find(|line| line.len() == 43 && !line.contains(' '));
    let secret = secret.unwrap_or_else(|| panic!("no secret is printed: {}", ended.stderr)).to_owned();
    assert_eq!(find_leaks(ended.stdout.as_bytes(), &[Secret::new("the secret", &secret)]), [""; 0]);
    (ended.stdout.clone(), secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_made_by_the_command_gets_tokens_until_removed() {
    let mut setup = Setup::default();
    let (name, old) = (random("made"), setup.policy().to_string());
    let scopes = format!("{COMPANIES} {RESOURCES}");
    let new = ["new", &name, "--scope", MEMBERS, "--scope", &scopes, "--callers", "-"];
    let (first, secret) = edited(&caller(&new, &old));
    let (second, rotated) = edited(&caller(&["rotate", &name, "--callers", "-"], &first));
    let past = caller(&["rotate", &name, "--expires", "2020-01-31", "--callers", "-"], &second);
    assert_eq!((past.code, past.stdout.as_str()), (1, ""));
    assert!(past.stderr.contains("--expires is in the past"), "{}", past.stderr);
    let (third, last) = edited(&caller(&["rotate", &name, "--expires", "2999-01-31", "--callers", "-"], &second));
    // Time passes.
    let third = third.replace("2999-01-31", "2020-01-31");
    let removed = caller(&["remove", &name, "--callers", "-"], &third);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(removed.stderr, "");
    assert_eq!(removed.stdout, format!("{:#}\n", setup.policy()), "only the caller is removed");
    assert_ne!(secret, rotated);

    let made = |secret: &str| Caller { name: name.clone(), secret: secret.to_owned(), scopes: Vec::new() };
    setup.variables.push(("callers", first));
    let broker = setup.start().await;
    for scope in [MEMBERS, COMPANIES, RESOURCES] {
        assert_eq!(broker.token(&made(&secret), Some(scope)).await.status, 200, "{}", broker.server.output());
    }
    assert_eq!(broker.nightly(MEMBERS).await.status, 200, "the other callers are kept");
    assert_eq!(broker.token(&made(&rotated), Some(MEMBERS)).await.status, 401);

    // A new host reads the variables at its start.
    broker.variables.set("callers", second);
    let broker = broker.restart().await;
    for secret in [&secret, &rotated] {
        assert_eq!(broker.token(&made(secret), Some(MEMBERS)).await.status, 200, "{}", broker.server.output());
    }
    broker.variables.set("callers", third);
    let broker = broker.restart().await;
    for (secret, status) in [(&secret, 401), (&rotated, 401), (&last, 200)] {
        assert_eq!(broker.token(&made(secret), Some(MEMBERS)).await.status, status, "{}", broker.server.output());
    }
    broker.variables.set("callers", removed.stdout);
    let broker = broker.restart().await;
    assert_eq!(broker.token(&made(&last), Some(MEMBERS)).await.status, 401);
}

#[test]
fn both_programs_have_the_same_commands() {
    let folder = folder();
    let (policy, _) = edited(&caller(&["new", "a", "--scope", MEMBERS], ""));
    write_variables(folder.path(), "{{ hunter2 }}", &policy, &[]);
    for arguments in [
        &["caller", "--help"][..],
        &["caller", "new", "--help"],
        &["caller", "rotate", "--help"],
        &["caller", "remove", "--help"],
        &["check", "--help"],
        &["issuer", "new", "--help"],
        &["issuer", "new", "a", "http://issuer.example"],
        &["caller", "nwe"],
        &["caller", "new", "a", "--scope", MEMBERS, "--callers", "-"],
        &["caller", "rotate", "b", "--callers", "-"],
        &["check"],
    ] {
        let [broker, operator] =
            [Program::run, Program::run_operator].map(|run| run(arguments, &policy, folder.path()));
        let named = |text: &str| text.replace("broker-operator", "broker");
        assert_eq!((operator.code, named(&operator.stdout)), (broker.code, broker.stdout), "{arguments:?}");
        assert_eq!(named(&operator.stderr), broker.stderr, "{arguments:?}");
    }
}

#[test]
fn caller_new_without_old_policy_makes_a_policy_of_one() {
    let (policy, _) = edited(&caller(&["new", "a", "--scope", MEMBERS], ""));
    let new = ["new", "b", "--scope", "flex.community.**", "--application", "berlin", "--callers", "-"];
    let (policy, _) = edited(&caller(&new, &policy));
    assert!(policy.contains(r#""application": "berlin""#), "{policy}");
    let last = caller(&["remove", "b", "--callers", "-"], &policy);
    let refused = caller(&["remove", "a", "--callers", "-"], &last.stdout);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("only caller"), "{}", refused.stderr);
}

#[test]
fn refused_edit_prints_neither_policy_nor_secret() {
    let (policy, _) = edited(&caller(&["new", "a", "--scope", MEMBERS], ""));
    let twice = format!("{}, {}", policy.trim_end().trim_end_matches('}'), &policy[1..]);
    let check = |arguments: &[&str], old: &str, told: &str| {
        let ended = caller(arguments, old);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("secret of"), "{}", ended.stderr);
    };
    check(&["new", "a", "--scope", MEMBERS, "--callers", "-"], &policy, "`caller rotate`");
    check(&["rotate", "b", "--callers", "-"], &policy, "`caller new`");
    check(&["remove", "b", "--callers", "-"], &policy, "`caller new`");
    check(&["new", "b", "--scope", "a\"b", "--callers", "-"], &policy, "b.scopes");
    check(
        &["new", "b", "--scope", MEMBERS, "--callers", "-"],
        &twice,
        "callers: a: appears twice, expected each caller once",
    );
    check(&["new", "b", "--scope", MEMBERS, "--callers", "no such file"], "", "cannot read no such file");
}

/// Writes a `.env` and files for `--variables` into a folder, with this policy, this client
/// secret, the client id and `more` variables.
fn write_variables(folder: &Path, secret: &str, callers: &str, more: &[(&str, &str)]) {
    let variables = [("officernd_client_id", "id"), ("officernd_client_secret", secret), ("callers", callers)];
    let variables: Vec<_> = variables.iter().chain(more).collect();
    let dotenv = variables.iter().map(|(name, value)| format!("SPIN_VARIABLE_{}='{value}'\n", name.to_uppercase()));
    let toml = variables.iter().map(|(name, value)| format!("{name} = '{value}'\n"));
    let json = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
    fs::write(folder.join(".env"), dotenv.collect::<String>()).unwrap();
    fs::write(folder.join("variables.toml"), toml.collect::<String>()).unwrap();
    fs::write(folder.join("variables.json"), serde_json::Value::Object(json.collect()).to_string()).unwrap();
}

const SOURCES: [&[&str]; 3] =
    [&["check"], &["check", "--variables", "variables.toml"], &["check", "--variables", "variables.json"]];

#[test]
fn check_of_valid_variables_succeeds() {
    let folder = folder();
    write_variables(folder.path(), "hunter2", &Setup::default().policy().to_string(), &[]);
    for arguments in SOURCES {
        let ended = Program::run(arguments, "", folder.path());
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "every variable is valid\n"), "{arguments:?} {ended:?}");
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn check_reports_all_mistakes_at_once_without_values() {
    let (folder, marker) = (folder(), random("marker"));
    let digest = "0".repeat(64);
    let callers = json!({
        "short": { "secret_sha256": [&marker], "scopes": ["x"] },
        "wordy": { "secret_sha256": [digest], "scopes": [format!("{marker} {marker}")], "note": marker },
    });
    let applications = json!({ "berlin": { "client_id": marker, "client_secret": [marker] } });
    let more = [
        ("officernd_identity_url", format!("http://{marker}")),
        ("applications", applications.to_string()),
        ("min_remaining_seconds", marker.clone()),
    ];
    let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
    write_variables(folder.path(), " ", &callers.to_string(), &more);
    let expected = [
        "officernd_client_secret: ",
        "officernd_identity_url: ",
        "applications: berlin.client_secret: ",
        "callers: short.secret_sha256: ",
        "callers: wordy.scopes: ",
        "callers: wordy.note: ",
        "min_remaining_seconds: ",
    ];
    for arguments in SOURCES {
        let ended = Program::run(arguments, "", folder.path());
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{arguments:?}: {}", ended.stderr);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{arguments:?} {lines:?}");
        for begin in expected {
            assert!(lines.iter().any(|line| line.starts_with(begin)), "{arguments:?}: {begin} {lines:?}");
        }
        assert_eq!(find_leaks(ended.stderr.as_bytes(), &[Secret::new("a value", &marker)]), [""; 0]);
    }
}

#[test]
fn check_tells_warnings_from_mistakes() {
    let folder = folder();
    let setup = Setup::default();
    let mut policy = setup.policy();
    let entry = policy[&setup.nightly.name].clone();
    let expired = json!([{ "sha256": "0".repeat(64), "expires": "2026-01-31" }, entry["secret_sha256"][0]]);
    policy[&setup.nightly.name]["secret_sha256"] = expired;
    for name in ["a+b", "50%", "a:b", "a b"] {
        policy[name] = entry.clone();
    }
    for number in 0..1000 {
        policy[format!("job-{number}")] = entry.clone();
    }
    write_variables(folder.path(), "hunter2", &policy.to_string(), &[]);
    let manifest = read("spin.toml").replace("audit = \"{{ audit }}\"\n", "");
    let manifest = manifest.replace("\"{{ keys_origin_4 }}\",", "\"https://*:*\",");
    fs::write(folder.path().join("spin.toml"), &manifest).unwrap();
    let expected = [
        "callers: is longer than 128 KiB".to_owned(),
        format!("callers: {}.secret_sha256: digest 1 of 2 has expired", setup.nightly.name),
        "callers: a+b: ".to_owned(),
        "callers: 50%: ".to_owned(),
        "callers: a:b: ".to_owned(),
        "callers: a b: ".to_owned(),
        "spin.toml: audit is missing".to_owned(),
        "spin.toml: allowed_outbound_hosts allows more".to_owned(),
    ];
    let check = |ended: &Ended, what: &dyn std::fmt::Debug| {
        let warnings: Vec<_> = ended.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
        assert_eq!(warnings.len(), expected.len(), "{what:?}: {warnings:?}");
        for begin in &expected {
            assert!(warnings.iter().any(|warning| warning.starts_with(begin)), "{what:?}: {begin} {warnings:?}");
        }
        warnings.len()
    };
    for arguments in SOURCES {
        let ended = Program::run(arguments, "", folder.path());
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "every variable is valid\n"), "{arguments:?} {ended:?}");
        assert_eq!(check(&ended, &arguments), ended.stderr.lines().count(), "{arguments:?}");
    }
    // One mistake, and the exit code is another one.
    for secret in ["{{ hunter2 }}", "$HUNTER2", "\u{feff}hunter2", "hun\u{200b}ter2", "\"hunter2\"", "hunter 2"] {
        write_variables(folder.path(), secret, &policy.to_string(), &[]);
        for arguments in &SOURCES[1..] {
            let ended = Program::run(arguments, "", folder.path());
            assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{secret:?} {arguments:?} {ended:?}");
            assert_eq!(check(&ended, &secret) + 1, ended.stderr.lines().count(), "{secret:?}");
            let mistake = ended.stderr.lines().find(|line| !line.starts_with("warning: "));
            assert!(mistake.is_some_and(|line| line.starts_with("officernd_client_secret: ")), "{secret:?} {ended:?}");
        }
    }
    write_variables(folder.path(), "hunter2", &policy.to_string(), &[]);
    fs::write(folder.path().join("old.toml"), manifest.replace("\ncallers = \"{{ callers }}\"", "")).unwrap();
    let ended = Program::run(&["check", "--manifest", "old.toml", "--variables", "variables.toml"], "", folder.path());
    assert!(ended.code == 1 && ended.stderr.starts_with("old.toml: callers is missing"), "{}", ended.stderr);
}

#[test]
fn caller_commands_warn_of_the_new_policy() {
    let ended = caller(&["new", "door:1", "--scope", MEMBERS], "");
    let (policy, _) = edited(&ended);
    assert!(ended.stderr.contains("\nwarning: callers: door:1: some clients"), "{}", ended.stderr);
    let ended = caller(&["new", "door-2", "--scope", MEMBERS], "");
    edited(&ended);
    assert!(!ended.stderr.contains("warning: "), "{}", ended.stderr);
    let ended = caller(&["rotate", "door:1", "--expires", "2999-01-31", "--callers", "-"], &policy);
    let (policy, _) = edited(&ended);
    let ended = caller(&["rotate", "door:1", "--callers", "-"], &policy.replace("2999", "2020"));
    edited(&ended);
    let expired = "warning: callers: door:1.secret_sha256: digest 1 of 3 has expired";
    assert!(ended.stderr.contains(expired), "{}", ended.stderr);
}

#[test]
fn check_of_invalid_file_fails_without_repeating_its_text() {
    let (folder, marker) = (folder(), random("marker"));
    let check = |file: &str, text: &str, arguments: &[&str], told: &[&str]| {
        fs::write(folder.path().join(file), text).unwrap();
        let ended = Program::run(arguments, "", folder.path());
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{text}: {}", ended.stderr);
        for told in told {
            assert!(ended.stderr.contains(told), "{text}: {}", ended.stderr);
        }
        assert_eq!(find_leaks(ended.stderr.as_bytes(), &[Secret::new("a value", &marker)]), [""; 0]);
    };
    let file = |text: &str, file: &str, told: &[&str]| check(file, text, &["check", "--variables", file], told);
    file(&format!("callers = 1\nofficernd_client_secret = {marker}"), "a.toml", &["a.toml", "line 2"]);
    file(&format!("{{\n\"officernd_client_secret\": {marker}}}"), "a.json", &["a.json", "line 2"]);
    file(&format!("officernd_client_secret = '{marker}'"), "a.yaml", &[".toml or .json"]);
    let other = format!("callers = {{ {marker} = 1 }}\nclient_id = '{marker}'");
    file(&other, "b.toml", &["callers: is not a string", "\"client_id\" is not a variable", "officernd_client_id: "]);
    check(".env", &format!("A=1\nSPIN_VARIABLE_CALLERS={marker} {marker}"), &["check"], &[".env does not parse"]);
}
