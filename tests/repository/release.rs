//! The folder of a release, as `release/describe` makes it from the built files, and its template.
//!
//! The built files are stand-ins here. `black_box/release.rs` has a folder with the real component,
//! and `tests/reproducible` makes a whole folder twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use broker_host::Manifest;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tests::{installed, read, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");

const URL: &str = "https://downloads.example.com/v1";

/// Returns a folder that `release/describe` has described, the same for all tests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        // For its `jq`.
        installed();
        let folder = tempfile::tempdir().unwrap();
        for file in ["officernd-token-broker-spin.wasm", "officernd-token-broker-wasi.wasm", "broker-x86_64-linux"] {
            fs::write(folder.path().join(file), file).unwrap();
        }
        let mut describe = Command::new(root().join("release/describe"));
        let described = describe.arg(format!("--url={URL}")).arg(folder.path()).output().unwrap();
        assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));
        folder
    });
    made.path()
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the manifest of the project without what a release replaces, and without its names.
fn comparable(mut manifest: toml::Table) -> toml::Table {
    let mut components = manifest.remove("component").unwrap().as_table().unwrap().clone();
    assert_eq!(components.len(), 1, "{components:?}");
    let mut component = components.remove(&components.keys().next().unwrap().clone()).unwrap();
    for field in ["source", "build"] {
        component.as_table_mut().unwrap().remove(field);
    }
    let variables = manifest.remove("variables").unwrap();
    toml::Table::from_iter([("component".into(), component), ("variables".into(), variables)])
}

/// Checks a manifest that users get: the dev host reads it, it names the released component, and has
/// the variables, hosts and stores of the project's own.
fn check_manifest(path: &Path) -> toml::Table {
    Manifest::read(path).unwrap();
    let manifest = table(&fs::read_to_string(path).unwrap());
    assert_eq!(comparable(manifest.clone()), comparable(table(&read("spin.toml"))), "{}", path.display());
    let component = manifest["component"].as_table().unwrap().values().next().unwrap();
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
    let file = "officernd-token-broker-spin.wasm";
    let line = sums.lines().find(|line| line.ends_with(file)).unwrap();
    let digest = line.split_whitespace().next().unwrap();
    let source = toml::Table::from_iter([
        ("url".into(), format!("{URL}/{file}").into()),
        ("digest".into(), format!("sha256:{digest}").into()),
    ]);
    assert_eq!(component["source"], source.into());
    assert!(component.get("build").is_none(), "{component}");
    manifest
}

#[test]
fn released_manifest_differs_from_spin_toml_in_its_source() {
    let released = check_manifest(&folder().join("spin.toml"));
    let own = table(&read("spin.toml"));
    assert_eq!((&released["application"], &released["trigger"]), (&own["application"], &own["trigger"]));
}

#[test]
fn sums_of_a_release_are_right_and_complete() {
    let check = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder()).output();
    let check = check.unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
    let listed: BTreeSet<_> = sums.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(listed, files.filter(|file| file != "SHA256SUMS").collect());
}

fn bill(file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

/// Returns the crates of `cargo tree`, as `NAME VERSION`.
fn crates(arguments: &[&str], edges: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--prefix=none", "--format={p}", "--edges", edges]).args(arguments);
    let output = cargo.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ").replace(" v", " ");
    text.lines().map(name).collect()
}

#[test]
fn bill_of_materials_has_exactly_the_crates_of_cargo_tree() {
    const COMPONENT: [&str; 2] = ["--package=officernd-token-broker", "--target=wasm32-wasip2"];
    let wasi = [&COMPONENT[..], &["--no-default-features", "--features=wasi"]].concat();
    for (file, arguments) in [
        ("officernd-token-broker-spin.cdx.json", &COMPONENT[..]),
        ("officernd-token-broker-wasi.cdx.json", &wasi),
        ("broker-x86_64-linux.cdx.json", &["--package=broker-host", "--target=x86_64-unknown-linux-gnu"]),
    ] {
        let bill = bill(file);
        let components = bill["components"].as_array().unwrap();
        let text = |component: &Value, field: &str| component[field].as_str().unwrap().to_owned();
        let of_scope = |wanted: &str| -> BTreeSet<_> {
            let found = components.iter().filter(|component| component["scope"] == wanted);
            found.map(|component| format!("{} {}", text(component, "name"), text(component, "version"))).collect()
        };
        let rust = Command::new("rustc").arg("--version").output().unwrap().stdout;
        let rust = String::from_utf8(rust).unwrap();
        // What is in the file: the crates without procedural macros, and the standard library.
        let mut contained = crates(arguments, "normal,no-proc-macro");
        let all = crates(arguments, "normal");
        let excluded = all.difference(&contained).cloned().collect();
        contained.insert(format!("rust-std {}", rust.split_whitespace().nth(1).unwrap()));
        assert_eq!(of_scope("required"), contained, "{file}");
        assert_eq!(of_scope("excluded"), excluded, "{file}");

        // Every reference is that of one component, and each is reached from the file.
        let mut above: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in bill["dependencies"].as_array().unwrap() {
            for below in entry["dependsOn"].as_array().unwrap() {
                above.entry(below.as_str().unwrap().to_owned()).or_default().push(text(entry, "ref"));
            }
        }
        let references: BTreeSet<_> = components.iter().map(|component| text(component, "bom-ref")).collect();
        assert_eq!(references.len(), components.len(), "{file}");
        assert_eq!(above.into_keys().collect::<BTreeSet<_>>(), references, "{file}");
    }
}

/// Reads the schemas that the schema of CycloneDX refers to from the folder of the package that has
/// all of them.
struct Schemas(PathBuf);

impl Schemas {
    fn read(&self, name: &str) -> Value {
        let path = self.0.join(name);
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))).unwrap()
    }
}

impl jsonschema::Retrieve for Schemas {
    fn retrieve(&self, uri: &jsonschema::Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read(uri.path().as_str().rsplit('/').next().unwrap_or_default()))
    }
}

#[test]
fn bill_of_materials_is_valid_cyclonedx_with_a_licence_for_each_crate() {
    let libraries = fs::read_dir(installed().join(".venv/lib")).unwrap().next().unwrap().unwrap().path();
    let schemas = Schemas(libraries.join("site-packages/cyclonedx/schema/_res"));
    let schema = schemas.read("bom-1.5.SNAPSHOT.schema.json");
    let validator = jsonschema::options().with_retriever(schemas).build(&schema).unwrap();
    let problems = |bill: &Value| validator.iter_errors(bill).map(|error| error.to_string()).collect::<Vec<_>>();
    let mut bill = bill("officernd-token-broker-spin.cdx.json");
    assert_eq!(problems(&bill), [""; 0]);
    for component in bill["components"].as_array().unwrap() {
        let licence = component["licenses"][0]["expression"].as_str();
        assert!(licence.is_some_and(|text| !text.is_empty() && !text.contains('/')), "{component}");
    }
    bill["components"][0]["scope"] = "sometimes".into();
    assert!(!problems(&bill).is_empty(), "the schema refuses an unknown scope");
}

/// Spin's own reader of a template (crates/templates/src/reader.rs of Spin 4.1), as far as this
/// template needs it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "reading them is the test")]
struct Template {
    manifest_version: String,
    id: String,
    description: String,
    trigger_type: String,
    tags: BTreeSet<String>,
    add_component: AddComponent,
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddComponent {
    skip_files: BTreeSet<String>,
    skip_parameters: BTreeSet<String>,
    snippets: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "reading them is the test")]
struct Parameter {
    r#type: String,
    prompt: String,
    default: Option<String>,
}

/// Unpacks the template of the release as `spin templates install --dir` expects it, and returns
/// its folder.
fn unpacked(into: &Path) -> PathBuf {
    let archive = folder().join("officernd-token-broker-templates.tar.gz");
    let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).status();
    assert!(tar.unwrap().success());
    let templates: Vec<_> = fs::read_dir(into.join("templates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(templates.len(), 1, "{templates:?}");
    templates[0].clone()
}

/// Renders a file of a template for an application `My Tokens`.
fn render(file: &Path) -> String {
    let values = ["project-name=My Tokens", "authors=Ada", "username=ada", "project-description=Tokens for jobs"];
    let mut node = Command::new("node");
    let rendered = node.arg(installed().join("render_template.mjs")).arg(file).args(values).output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    String::from_utf8(rendered.stdout).unwrap()
}

#[test]
fn template_makes_an_application_with_the_released_component() {
    let place = tempfile::tempdir().unwrap();
    let folder = unpacked(place.path());
    let template: Template =
        toml::from_str(&fs::read_to_string(folder.join("metadata/spin-template.toml")).unwrap()).unwrap();
    assert_eq!((&*template.manifest_version, &*template.id), ("1", "officernd-token-broker"));
    // Values that Spin does not ask for: those of its own, and skipped ones in `spin add`.
    assert!(template.parameters.keys().eq(&template.add_component.skip_parameters));
    let content = fs::read_dir(folder.join("content")).unwrap();
    let content: BTreeSet<_> = content.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(content, template.add_component.skip_files, "`spin add` writes no file");

    // spin new
    let path = place.path().join("spin.toml");
    fs::write(&path, render(&folder.join("content/spin.toml"))).unwrap();
    let new = check_manifest(&path);
    assert_eq!(new["application"]["name"].as_str(), Some("my-tokens"));
    assert_eq!(new["trigger"], table(&read("spin.toml").replace("\"broker\"", "\"my-tokens\""))["trigger"]);

    // spin add: Spin appends the snippet of the component, and merges that of the variables.
    assert!(template.add_component.snippets.keys().eq(["component", "variables"]));
    let snippet = |name: &str| render(&folder.join("metadata/snippets").join(&template.add_component.snippets[name]));
    let application = "spin_manifest_version = 2\n[application]\nname = \"shop\"\n[variables]\n";
    fs::write(&path, [application, &snippet("variables"), "\n", &snippet("component")].concat()).unwrap();
    let added = check_manifest(&path);
    let routes = added["trigger"]["http"].as_array().unwrap().iter();
    let routes: BTreeSet<_> = routes.map(|trigger| trigger["route"].as_str().unwrap().to_owned()).collect();
    let api = read("docs/openapi.yaml");
    let paths = api.lines().filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':'));
    assert_eq!(routes, paths.map(|path| format!("/{path}")).collect(), "the paths of docs/openapi.yaml");
}

#[test]
fn notes_of_a_release_are_its_section_of_the_changelog() {
    // A copy, because the section of the present version has a date only when it is released.
    let copy = tempfile::tempdir().unwrap();
    for file in ["release/notes", "release/version", "Cargo.toml"] {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(file), to).unwrap();
    }
    let notes = |tag: &str, changelog: &str| {
        fs::write(copy.path().join("CHANGELOG.md"), changelog).unwrap();
        let mut notes = Command::new(copy.path().join("release/notes"));
        let output = notes.arg(tag).env("GITHUB_REPOSITORY", "me/broker").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    };
    let tag = format!("v{VERSION}");
    let dated = format!(
        "# C\n\n## 9.0.0 - 2027-01-01\n\nLater.\n\n## {VERSION} - 2026-12-31\n\nNew.\n\n### A\n\n- [b](docs/b.md)\n- [c](https://c.example)\n\n## 0.0.1\nOld.\n"
    );
    let link = format!("https://github.com/me/broker/blob/{tag}/docs/b.md");
    let expected = format!("\nNew.\n\n### A\n\n- [b]({link})\n- [c](https://c.example)\n");
    assert_eq!(notes(&tag, &dated), Ok(expected));
    for (tag, changelog, expected) in [
        ("v9.0.0", dated.clone(), "expected v"),
        ("", dated.clone(), "expected v"),
        (&tag, dated.replace("2026-12-31", "unreleased"), "has no section"),
        (&tag, dated.replace(VERSION, "0.0.2"), "has no section"),
    ] {
        let refused = notes(tag, &changelog).unwrap_err();
        assert!(refused.contains(expected), "{tag}: {refused}");
    }
}

#[test]
fn version_is_the_same_in_every_place() {
    let mut places: Vec<_> =
        ["spin.toml", "README.md", "RELEASING.md"].into_iter().map(|path| (path.to_owned(), read(path))).collect();
    let mut folders = vec!["docs".to_owned(), "deploy".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if !path.ends_with(".png") {
                places.push((path.clone(), read(&path)));
            }
        }
    }
    let mut count = 0;
    for (path, text) in &places {
        for before in [
            "\nversion = \"",
            "\n  version: ",
            "\nVersion ",
            " version=",
            "\"version\":\"",
            "officernd-token-broker:",
            "refs/tags/v",
            " v",
            "release-",
            ",,}:",
            "/wasi:",
        ] {
            for place in text.split(before).skip(1) {
                let end = place.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(place.len());
                let found = place[..end].trim_end_matches('.');
                // A word such as `v4` is not a version.
                if found.matches('.').count() == 2 {
                    assert_eq!(found, VERSION, "{path}: {before}{found}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 20, "found only {count} places");
}

/// Stands in for `spin`, `wkg` and `cosign`: writes its arguments into a file, and the manifest that
/// `spin` would push; prints a digest as these programs do.
const FAKE: &str = r#"#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
case $(basename "$0") in
    spin) grep '^source' "$4" >> "$CALLS"; ls "$(dirname "$4")" >> "$CALLS"; echo "Pushed with digest sha256:$(printf '1%.0s' {1..64})" ;;
    wkg) echo "digest: sha256:$(printf '2%.0s' {1..64})" ;;
esac
"#;

#[test]
fn push_of_a_release_signs_what_it_has_pushed() {
    let place = tempfile::tempdir().unwrap();
    for name in ["spin", "wkg", "cosign"] {
        let program = place.path().join(name);
        fs::write(&program, FAKE).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let calls = place.path().join("calls");
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap());
    let mut push = Command::new(root().join("release/push"));
    let output =
        push.arg(folder()).arg("registry.example.com/tokens").env("PATH", path).env("CALLS", &calls).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = fs::read_to_string(calls).unwrap();
    let lines: Vec<_> = calls.lines().collect();
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let name = "registry.example.com/tokens";
    // The address of the released manifest does not exist before the release does.
    let spin = lines[0].split(' ').collect::<Vec<_>>();
    assert_eq!((&spin[..4], spin[5]), (&["spin", "registry", "push", "--from"][..], &*format!("{name}:{VERSION}")));
    let file = "officernd-token-broker-spin.wasm";
    assert_eq!(lines[1..4], [&format!("source = \"{file}\"")[..], file, "spin.toml"]);
    assert_eq!(lines[4], format!("cosign sign --yes {name}@sha256:{one}"));
    let wasi = folder().join("officernd-token-broker-wasi.wasm");
    assert!(lines[5].starts_with(&format!("wkg oci push {name}/wasi:{VERSION} {}", wasi.display())), "{calls}");
    assert_eq!(lines[6..], [format!("cosign sign --yes {name}/wasi@sha256:{two}")]);
}
