//! Supply chain: licences, sources and versions of all crates, as far as they can be checked
//! without `cargo deny`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Once;

use tests::{read, root};

/// Runs cargo offline and returns its output. Fetches the crates of all targets first, because
/// a build fetches only those of its own.
fn cargo(arguments: &[&str]) -> String {
    static FETCHED: Once = Once::new();
    FETCHED.call_once(|| {
        let fetched = Command::new(env!("CARGO")).args(["fetch", "--locked"]).current_dir(root()).status();
        assert!(fetched.unwrap().success(), "cargo fetch --locked fails");
    });
    let output =
        Command::new(env!("CARGO")).args(arguments).args(["--locked", "--offline"]).current_dir(root()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lists the packages of the component for Spin with their depth, in the order of `cargo tree`.
fn component() -> Vec<(usize, String, String)> {
    component_for("spin")
}

fn component_for(host: &str) -> Vec<(usize, String, String)> {
    let tree = cargo(&[
        "tree",
        "--package=officernd-token-broker",
        "--no-default-features",
        &format!("--features={host}"),
        "--target=wasm32-wasip2",
        "--edges=normal,no-proc-macro",
        "--prefix=depth",
        "--format= {p}",
    ]);
    let package = |line: &str| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap().to_owned();
        (word().parse().unwrap(), word(), word())
    };
    tree.lines().map(package).collect()
}

#[test]
fn dependency_list_in_architecture_md_is_that_of_cargo() {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for (depth, name, _) in component().into_iter().filter(|(depth, ..)| *depth > 0) {
        let is_new = seen.insert(name.clone());
        match rows.last_mut() {
            _ if depth == 1 => rows.push((name, Vec::new())),
            Some((_, brought)) if is_new => brought.push(name),
            _ => {}
        }
    }
    let print = |(name, brought): &(String, Vec<String>)| {
        format!("{name}: {}", brought.join(", ")).trim_end_matches(": ").to_owned()
    };
    let list = rows.iter().map(print).collect::<Vec<_>>().join("\n");
    assert!(read("ARCHITECTURE.md").contains(&format!("```text\n{list}\n```")), "ARCHITECTURE.md must have\n{list}");
}

#[test]
fn component_has_no_crate_in_two_versions() {
    let mut versions = BTreeMap::new();
    for (_, name, version) in component() {
        let known = versions.entry(name.clone()).or_insert_with(|| version.clone());
        assert_eq!(*known, version, "{name}");
    }
    assert!(versions.len() < 80, "{} packages", versions.len());
}

#[test]
fn wasi_build_has_the_crates_of_the_spin_build_without_spin_sdk() {
    let names = |host| component_for(host).into_iter().map(|(_, name, _)| name).collect::<BTreeSet<_>>();
    let (spin, wasi) = (names("spin"), names("wasi"));
    assert!(wasi.is_subset(&spin), "{wasi:?}");
    // `spin-sdk` enables wasip3's HTTP types and `spawn`, which need these crates.
    let spawn = ["futures", "futures-channel", "futures-executor", "futures-io", "futures-sink"];
    let expected = BTreeSet::from_iter([&["anyhow", "http-body", "spin-sdk"], &spawn[..]].concat());
    assert_eq!(spin.difference(&wasi).map(String::as_str).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn packages_come_from_crates_io_and_the_fuzzer_has_the_same_versions() {
    let lock = |path| {
        let lock: toml::Table = toml::from_str(&read(path)).unwrap();
        let packages = lock["package"].as_array().unwrap().clone();
        for package in &packages {
            let source = package.get("source").map_or("here", |source| source.as_str().unwrap());
            assert!(["here", "registry+https://github.com/rust-lang/crates.io-index"].contains(&source), "{package}");
        }
        packages
            .iter()
            .map(|package| (package["name"].to_string(), package["version"].to_string()))
            .collect::<BTreeSet<_>>()
    };
    let (project, fuzzer) = (lock("Cargo.lock"), lock("tests/fuzz/Cargo.lock"));
    let of_component: BTreeSet<_> = component().into_iter().map(|(_, name, _)| format!("\"{name}\"")).collect();
    for package in fuzzer.iter().filter(|(name, _)| of_component.contains(name)) {
        assert!(project.contains(package), "tests/fuzz/Cargo.lock has another version: {package:?}");
    }
}

#[test]
fn licences_of_all_packages_are_allowed_by_deny_toml() {
    let rules: toml::Table = toml::from_str(&read("deny.toml")).unwrap();
    let allowed: Vec<_> =
        rules["licenses"]["allow"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    for target in ["wasm32-wasip2", "host-tuple"] {
        let target = format!("--target={target}");
        let tree = cargo(&["tree", "--workspace", &target, "--prefix=none", "--format={p}|{l}"]);
        for line in tree.lines().filter(|line| !line.is_empty()).collect::<BTreeSet<_>>() {
            // The part of SPDX that these packages use: AND joins groups in parentheses, and
            // `/` is an old OR.
            let (package, licence) = line.split_once('|').unwrap();
            let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
            let is_allowed = licence.split(" AND ").all(|all| {
                let any = all.trim_matches(['(', ')']);
                any.split(" OR ").any(|one| allowed.contains(&one.trim()))
            });
            assert!(is_allowed, "{package}: {licence}");
        }
    }
}

#[test]
fn dependencies_each_have_a_comment_that_says_their_purpose() {
    let mut count = 0;
    for folder in [
        "",
        "host/",
        "tests/",
        "tests/allocations/",
        "tests/bench/",
        "tests/bench/floor/",
        "tests/bench/floor-with-store/",
        "tests/bench/report/",
        "tests/fuzz/",
        "tests/simulation/",
    ] {
        let path = &format!("{folder}Cargo.toml");
        let text = read(path);
        let mut is_list = false;
        let mut before = "";
        for line in text.lines() {
            if line.starts_with('[') {
                is_list = line.contains("dependencies]");
            } else if is_list && line.contains(" = ") && !line.starts_with('#') {
                assert!(before.starts_with("# "), "{path}: {line}");
                count += 1;
            }
            before = line;
        }
    }
    assert!(count > 60, "found only {count} dependencies");
}

#[test]
fn component_build_commands_all_optimise_at_link_time_and_set_the_stack() {
    // With `cargo build`, or with a second crate type, cargo would silently skip link-time
    // optimisation. Without the argument for the linker, an instance has a stack of 1 MiB.
    for path in ["spin.toml", ".cargo/config.toml", "release/build"] {
        let text = read(path).replace("\", \"", " ");
        assert!(text.contains("rustc ") && text.contains("--crate-type cdylib "), "{path}");
        assert!(text.contains("-- -C link-arg=-zstack-size=262144"), "{path}");
        // A release also has the program `broker`, which is no component.
        let text = text.replace("cargo build --quiet --locked --profile program --package broker-host ", "");
        assert!(!text.contains("cargo build"), "{path}");
    }
}
