//! Fuzzes Spin's manifest, as the dev host and the operator's commands read it. An accepted manifest means what TOML says,
//! has only fields that the dev host knows, resolves, and stays the same when printed and read
//! again. The same bytes are also read as a template, and as a route with a path.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use manifest::{Manifest, Route};
use toml::{Table, Value};
use variables::Template;

// Included by path: the parts under test are private in the package `broker-operator`.
#[allow(dead_code, reason = "the commands use more of it")]
#[path = "../../../operator/src/spin/manifest.rs"]
mod manifest;
#[allow(dead_code, reason = "the commands use more of it")]
#[path = "../../../operator/src/spin/variables.rs"]
mod variables;

fuzz_target!(|input: &str| {
    manifest(input);
    template(input);
    let (route, path) = input.split_once('\n').unwrap_or((input, "/"));
    leads(route, path);
});

fn read(text: &str) -> anyhow::Result<Manifest> {
    Manifest::parse(text, Path::new("folder"))
}

fn manifest(text: &str) {
    let manifest = match read(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            // The error may repeat the wrong part and its place, but not much more.
            let shown = format!("{error:#}");
            assert!(!shown.is_empty() && shown.len() < 1000 + 10 * text.len(), "{shown}");
            return;
        }
    };
    let table: Table = text.parse().expect("what is accepted is TOML");
    let printed = toml::to_string(&table).expect("it can be printed");
    let again = read(&printed).expect("what is accepted is accepted when it is printed");
    assert_eq!(format!("{manifest:?}"), format!("{again:?}"));
    says(&manifest, &table);
    resolves(&manifest, &table);

    for more in with_unknown_field(&Value::Table(table)) {
        let more = toml::to_string(&more).expect("it can be printed");
        assert!(read(&more).is_err(), "an unknown field is accepted in {more}");
    }
}

/// Returns copies of the value with one unknown field, in each of its tables in turn.
fn with_unknown_field(value: &Value) -> Vec<Value> {
    let mut surprises = Vec::new();
    match value {
        Value::Table(table) => {
            let with = |name: &str, value| {
                let mut more = table.clone();
                more.insert(name.into(), value);
                Value::Table(more)
            };
            surprises.push(with("surprise", true.into()));
            for (name, inner) in table {
                surprises.extend(with_unknown_field(inner).into_iter().map(|inner| with(name, inner)));
            }
        }
        Value::Array(values) => {
            for (index, inner) in values.iter().enumerate() {
                let with = |inner| [&values[..index], &[inner], &values[index + 1..]].concat().into();
                surprises.extend(with_unknown_field(inner).into_iter().map(with));
            }
        }
        _ => {}
    }
    surprises
}

/// Checks that the parsed manifest has the values of the text, read by TOML's own data model.
fn says(manifest: &Manifest, table: &Table) {
    let component = component(table);
    let texts = |value: Option<&Value>| -> Vec<String> {
        let values = value.and_then(Value::as_array).into_iter().flatten();
        values.map(|value| value.as_str().expect("a text").to_owned()).collect()
    };
    let (file, digest) = match &component["source"] {
        Value::Table(source) => {
            let text = |field: &str| source[field].as_str().expect("a text");
            (text("url").rsplit('/').next().expect("a name"), text("digest").strip_prefix("sha256:"))
        }
        path => (path.as_str().expect("a path"), None),
    };
    assert_eq!((&*manifest.source, manifest.digest.as_deref()), (&*Path::new("folder").join(file), digest));
    let command = component.get("build").map(|build| build["command"].as_str().expect("a text"));
    assert_eq!(manifest.build_command.as_deref(), command);
    let stores: BTreeSet<_> = texts(component.get("key_value_stores")).into_iter().collect();
    assert_eq!(manifest.key_value_stores, stores);
    // Spaces beside a name in a template are ignored.
    let bare = |text: &str| text.replace(char::is_whitespace, "");
    let hosts: Vec<_> = manifest.allowed_outbound_hosts.iter().map(|host| bare(&host.to_string())).collect();
    assert_eq!(hosts, texts(component.get("allowed_outbound_hosts")).iter().map(|text| bare(text)).collect::<Vec<_>>());
    assert_eq!(manifest.routes.len(), table["trigger"]["http"].as_array().expect("routes").len());
}

/// Checks that, with a value for every required variable, every variable of the component and
/// every host resolves. Without them, the missing ones are named.
fn resolves(manifest: &Manifest, table: &Table) {
    let entries = |table: Option<&Value>| table.and_then(Value::as_table).cloned().unwrap_or_default();
    let declared = entries(table.get("variables"));
    assert!(declared.keys().all(|name| is_name(name)), "{declared:?}");
    let required: Vec<_> = declared.iter().filter(|(_, variable)| variable.get("default").is_none()).collect();
    let missing = manifest.check_variables(&BTreeMap::new()).err().map(|error| error.to_string());
    let named =
        missing.iter().flat_map(|error| error.split([' ', '(', ')'])).filter(|word| declared.contains_key(*word));
    assert!(named.eq(required.iter().map(|(name, _)| *name)), "{missing:?}");

    let given: BTreeMap<_, _> = required.iter().map(|(name, _)| (name.as_str(), "given")).collect();
    manifest.check_variables(&given).expect("nothing is missing");
    let value = |name: &str| declared[name].get("default").map_or("given", |text| text.as_str().expect("a text"));
    for name in declared.keys() {
        assert_eq!(manifest.variable(name, &given).expect("it has a value"), value(name));
    }
    for (name, text) in entries(component(table).get("variables")) {
        assert!(is_name(&name), "{name}");
        let text = text.as_str().expect("a text");
        assert_eq!(manifest.declarations.get(&name, &given).expect("it has a value"), filled_in(text, value));
    }
    for template in &manifest.allowed_outbound_hosts {
        let resolved = manifest.declarations.resolve(template, &given).expect("it has a value");
        assert_eq!(resolved, filled_in(&template.to_string(), value));
    }
}

fn component(table: &Table) -> &Table {
    let name = table["trigger"]["http"][0]["component"].as_str().expect("a name");
    table["component"][name].as_table().expect("a table")
}

/// Whether a name follows Spin's rule, judged by the parts between underscores.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('_').all(is_part) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Fills a template with its values, parsed in another way than the dev host does.
fn filled_in<'a>(text: &str, value: impl Fn(&str) -> &'a str) -> String {
    let mut pieces = text.split("{{");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").expect("it is closed");
        filled += value(name.trim());
        filled += rest;
    }
    filled
}

fn template(text: &str) {
    if let Ok(template) = Template::parse(text) {
        assert_eq!(Template::parse(&template.to_string()).expect("it was printed"), template, "{text}");
        assert_eq!(template.is_literal(), !text.contains("{{"));
    }
}

/// Checks that a route leads only to itself, or to all paths below it.
fn leads(route: &str, path: &str) {
    let Ok(parsed) = Route::parse(route) else { return };
    let root = route.strip_suffix("/...");
    assert!(route.starts_with('/') && !root.unwrap_or(route).contains([':', '*']), "{route}");
    let below = parsed.matches(path);
    let expected = root.map_or(path == route, |root| path == root || path.starts_with(&format!("{root}/")));
    assert_eq!(below.is_some(), expected, "{route} {path}");
    assert!(below.is_none_or(|below| [root.unwrap_or(route), below].concat() == path), "{route} {path}");
}
