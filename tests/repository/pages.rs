//! Pages: the tests, links, paths and commands that they name exist and work.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Program, installed, read, root};

const PAGES: [&str; 19] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "RELEASING.md",
    "docs/api.md",
    "docs/audit.md",
    "docs/configuration.md",
    "docs/deploy.md",
    "docs/faults.md",
    "docs/hosts.md",
    "docs/jobs.md",
    "docs/monitoring.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/testing.md",
    "docs/verify.md",
    "tests/README.md",
];

/// Returns the texts between backticks, outside of fenced blocks.
fn code(page: &str) -> Vec<String> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for line in page.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        if !is_fenced && !is_fence {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// Returns the file that SECURITY.md means by `black_box/gate`, `src/gate` and so on.
fn file_of(name: &str) -> String {
    match name.split_once('/') {
        Some(("black_box" | "repository" | "whole_machine", _)) => format!("tests/{name}.rs"),
        Some(("simulation", file)) => format!("tests/simulation/tests/{file}.rs"),
        Some((package @ ("host" | "operator"), file)) => format!("{package}/src/{file}.rs"),
        Some(("src", _)) => format!("{name}.rs"),
        _ => panic!("{name} is not in a known folder"),
    }
}

/// Whether `file` has a test of this name: a function with a test attribute right above it.
fn has_test(file: &str, test: &str) -> bool {
    let text = read(file);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| line.trim_start_matches("async ").starts_with(&format!("fn {test}("));
    let is_attribute = |line: &&str| line.starts_with("#[test") || line.starts_with("#[tokio::test");
    let Some(place) = lines.iter().position(|line| is_it(line)) else { return false };
    lines[..place].iter().rev().take_while(|line| line.starts_with(['#', '/'])).any(is_attribute)
}

#[test]
fn tests_named_in_security_md_exist() {
    let page = read("SECURITY.md");
    let names: Vec<_> = code(&page).into_iter().filter(|text| text.contains("::") && !text.contains("FILE")).collect();
    assert!(names.len() > 50, "{} tests", names.len());
    for name in names {
        let (file, test) = name.split_once("::").unwrap();
        assert!(has_test(&file_of(file), test), "SECURITY.md: test {name} does not exist");
    }
    // Every threat has a test: its row has three cells, and the last one has only tests.
    let threats = page.split("## Caller").nth(1).unwrap().split("## Out of scope").next().unwrap();
    for row in threats.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat ")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let tests = cells.get(3).copied().unwrap_or_default().split(", ");
        let is_named = |test: &str| test.starts_with('`') && test.ends_with('`') && test.contains("::");
        assert!(cells.len() == 5 && tests.into_iter().all(is_named), "SECURITY.md: {row}");
    }
}

#[test]
fn has_test_recognises_a_test_by_its_attribute() {
    assert!(has_test("tests/repository/pages.rs", "has_test_recognises_a_test_by_its_attribute"));
    assert!(has_test("tests/black_box/gate.rs", "two_hundred_cold_requests_make_one_call"));
    assert!(!has_test("tests/repository/pages.rs", "has_test"));
    assert!(!has_test("tests/repository/pages.rs", "there_is_no_such_test"));
}

/// Returns the anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = |letter: char| match letter {
        ' ' => Some('-'),
        letter if letter.is_alphanumeric() || "-_".contains(letter) => Some(letter.to_ascii_lowercase()),
        _ => None,
    };
    heading.trim_start_matches('#').trim().chars().filter_map(kept).collect()
}

#[test]
fn links_and_paths_on_pages_exist() {
    for page in PAGES {
        let text = read(page);
        let folder = Path::new(page).parent().unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.into() } else { folder.join(path) };
            // A link without a section may lead to a folder or a picture.
            if section.is_empty() {
                assert!(root().join(&target).exists(), "{page}: {link} does not exist");
                continue;
            }
            let target = read(target.to_str().unwrap());
            let is_it = |line: &str| line.starts_with('#') && anchor(line) == section;
            assert!(target.lines().any(is_it), "{page}: {link} does not exist");
        }
        // A text in backticks that looks like a path of this repository must be one.
        for path in code(&text) {
            // A script may have arguments.
            let path = path.split(' ').next().unwrap_or_default();
            let is_path = ["src/", "deploy/", "docs/", "host/", "operator/", "release/", "tests/", ".ci/", ".github/"]
                .iter()
                .any(|begin| path.starts_with(begin));
            if is_path && !path.contains("::") {
                assert!(root().join(path).exists(), "{page}: {path} does not exist");
            }
        }
        assert!(!text.contains("TODO"), "{page} has a TODO");
    }
}

#[test]
fn code_map_names_every_file_of_src() {
    let page = read("ARCHITECTURE.md");
    let mut folders = vec!["src".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            let is_folder = entry.file_type().unwrap().is_dir();
            // lib.rs is the list itself. If the map names a folder as a whole, its files need
            // no entry.
            if path == "src/lib.rs" || page.contains(&format!("`{path}{}`", if is_folder { "/" } else { "" })) {
                continue;
            }
            assert!(is_folder, "ARCHITECTURE.md does not name {path}");
            folders.push(path);
        }
    }
}

/// Runs the arguments of `cargo operator` from a line of a page. Like a shell, it first empties the
/// file after `>` and writes stdout there.
fn run_line(line: &str, folder: &Path, page: &str) {
    let line = line.split_once(" #").map_or(line, |(command, _)| command);
    assert!(!line.contains(['\'', '"', '\\', '|', '<', '$', '&', ';']), "{page}: {line} needs a shell");
    let (command, file) = line.split_once('>').map_or((line, None), |(command, file)| (command, Some(file.trim())));
    if let Some(file) = file {
        fs::write(folder.join(file), "").unwrap();
    }
    let arguments: Vec<_> = command.split_whitespace().collect();
    let ended = Program::run_operator(&arguments, "", folder);
    assert_eq!(ended.code, 0, "{page}: {line}: {}", ended.stderr);
    if let Some(file) = file {
        fs::write(folder.join(file), ended.stdout).unwrap();
    }
}

/// How pages run the operator's commands: from the sources, and with the program of a release.
const PROGRAM: [&str; 2] = ["cargo operator ", "./broker-x86_64-linux "];

/// A public key for the commands that read one.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVRhfEUvEv/okhByBS/+L6LUD/hf+
/l5w6Zn+Oz/BXhc9u0hbkn9IEyImFltdEt4byzHZQQQDhg3y/57rCuErkA==
-----END PUBLIC KEY-----
";

#[test]
fn operator_commands_on_pages_succeed() {
    for page in PAGES {
        // The folder has the files that the commands read: a policy, valid variables and a public key.
        let folder = tempfile::tempdir().unwrap();
        let variables: toml::Table = toml::from_str(&read("deploy/spin/variables.toml")).unwrap();
        fs::write(folder.path().join("variables.toml"), variables.to_string()).unwrap();
        let in_one_line = |value: &toml::Value| value.as_str().unwrap().split_whitespace().collect::<String>();
        fs::write(folder.path().join("job.pem"), PUBLIC_KEY).unwrap();
        fs::write(folder.path().join("callers.json"), in_one_line(&variables["callers"])).unwrap();
        let lines = variables
            .iter()
            .map(|(name, value)| format!("SPIN_VARIABLE_{}='{}'\n", name.to_uppercase(), in_one_line(value)));
        fs::write(folder.path().join(".env"), lines.collect::<String>()).unwrap();

        let text = read(page);
        let in_blocks = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
        let commands = in_blocks.map(str::to_owned).chain(code(&text));
        let commands: Vec<_> = commands
            .filter_map(|command| PROGRAM.iter().find_map(|run| command.strip_prefix(run).map(str::to_owned)))
            .collect();
        for command in &commands {
            run_line(command, folder.path(), page);
        }
        assert!(
            commands.len() >= 5 || !["docs/configuration.md", "docs/operations.md"].contains(&page),
            "{page}: {commands:?}"
        );
    }
}

#[test]
fn diagrams_on_pages_are_valid_mermaid() {
    let check =
        Command::new("node").arg(installed().join("check_mermaid.mjs")).args(PAGES).current_dir(root()).output();
    let check = check.expect("node is installed");
    let printed = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{printed}{}", String::from_utf8_lossy(&check.stderr));
    // The README's, three of ARCHITECTURE.md, and those of docs/hosts.md and docs/operations.md.
    assert_eq!(printed.lines().filter(|line| line.ends_with(" ok")).count(), 7, "{printed}");
}

/// Returns the version of a package in Cargo.lock.
fn locked(package: &str) -> String {
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let found = packages.iter().find(|one| one["name"].as_str() == Some(package)).unwrap();
    found["version"].as_str().unwrap().to_owned()
}

/// The first release of a Wasmtime series without the advisories that docs/hosts.md lists.
fn first_without_advisories(series: u32) -> [u32; 3] {
    match series {
        48 => [48, 0, 3],
        49 => [49, 0, 1],
        other => [other.max(50), 0, 0],
    }
}

#[test]
fn wasmtime_versions_on_hosts_md_are_those_in_use_and_past_the_advisories() {
    let page = read("docs/hosts.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let program = Command::new(installed().join(".venv/bin/wasmtime")).arg("--version").output().unwrap();
    let program = String::from_utf8(program.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let dev_host = locked("wasmtime");
    for sentence in [
        format!("has Spin's interfaces on Wasmtime {dev_host}."),
        format!("The dev host has Wasmtime {dev_host}, and the tests run `wasmtime serve` {program}."),
        format!("| wasmtime serve | {program} |"),
        format!("the tests run {program} |"),
    ] {
        assert!(page.contains(&sentence), "docs/hosts.md does not say: {sentence}");
    }
    for version in [dev_host, program] {
        let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
        let first = first_without_advisories(parts[0]);
        assert!(parts[..] >= first[..], "Wasmtime {version} has advisories, the first without is {first:?}");
    }
    let fixed = ["Wasmtime 48.0.3 and 49.0.1", "Wasmtime 46.0.3, 47.0.4 and 48.0.0"];
    assert!(fixed.iter().all(|versions| page.contains(versions)));
}
