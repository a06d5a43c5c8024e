//! Rules about the text of `src/`, `host/src/` and `operator/src/`: no circle of imports, and limits
//! for files, `impl` blocks and functions.
//!
//! A test binary of its own, because it needs only the standard library and is built in a
//! second.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Longest file, `impl` block and function, in lines.
const FILE_LIMIT: usize = 450;
const IMPL_LIMIT: usize = 200;
const FUNCTION_LIMIT: usize = 60;

/// What each module or folder imports. A module is named by its path without `.rs`.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The files of a folder by path without `.rs`.
fn files_of(folder: &str, known: &str) -> BTreeMap<String, String> {
    fn read(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_stem().unwrap().to_str().unwrap());
            if path.is_dir() {
                read(&path, &format!("{name}/"), found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), "", &mut found);
    assert!(found.len() > 10 && found.contains_key(known), "{folder}/ is not where it was: {:?}", found.keys());
    found
}

/// The files of the component.
fn sources() -> BTreeMap<String, String> {
    files_of("src", "broker/fetch")
}

/// The files of the dev host.
fn host_sources() -> BTreeMap<String, String> {
    files_of("host/src", "runtime/cache")
}

/// The files of the operator's tasks.
fn operator_sources() -> BTreeMap<String, String> {
    files_of("operator/src", "check/manifest")
}

/// All files of the three, by path with the folder and `.rs`.
fn all_sources() -> BTreeMap<String, String> {
    let with = |folder: &str, files: BTreeMap<String, String>| {
        files.into_iter().map(|(module, text)| (format!("{folder}/{module}.rs"), text)).collect::<Vec<_>>()
    };
    let folders = [("src", sources()), ("host/src", host_sources()), ("operator/src", operator_sources())];
    folders.into_iter().flat_map(|(folder, files)| with(folder, files)).collect()
}

/// The code of a file without its comments, and without items under `#[cfg(test)]`.
fn code(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line.find("//").map_or(line, |comment| &line[..comment]));
            continue;
        }
        let item = lines.next().unwrap_or_default();
        if !item.ends_with(';') {
            let end = format!("{}}}", indent(item));
            lines.find(|line| *line == end).unwrap_or_else(|| panic!("no end of {item}"));
        }
    }
    kept.join("\n")
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// Every path of a `use`, and every other path that begins with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let words = line.trim_start();
        let is_use =
            ["use ", "pub use ", "pub(super) use ", "pub(crate) use "].iter().any(|begin| words.starts_with(begin));
        if !is_use {
            rest.extend([line, "\n"]);
            continue;
        }
        let mut tree = words.split_once("use ").unwrap().1.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().expect("the end of a use").trim());
        }
        expand("", tree.split(';').next().unwrap(), &mut found);
    }
    for begin in ["crate::", "super::", "self::"] {
        for (place, _) in rest.match_indices(begin) {
            let is_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
            if !rest[..place].ends_with(is_path) {
                found.push(rest[place..].split(|letter| !is_path(letter)).next().unwrap().to_owned());
            }
        }
    }
    found
}

/// Adds the paths of a `use` tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        found.push(format!("{prefix}{path}").trim_end_matches("::self").to_owned());
        return;
    };
    let inner = rest.strip_suffix('}').unwrap_or_else(|| panic!("a brace in {tree}"));
    let (mut depth, mut begin) = (0, 0);
    for (place, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[begin..place].trim().is_empty() {
                    expand(&format!("{prefix}{}", head.trim()), &inner[begin..place], found);
                }
                begin = place + 1;
            }
            _ => {}
        }
    }
}

/// The file that a path leads to: its longest prefix that names one.
fn target(path: &str, module: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut place: Vec<_> = module.split('/').collect();
    let mut parts: Vec<_> = path.split("::").collect();
    match parts[0] {
        "crate" => {
            place.clear();
            parts.remove(0);
        }
        "super" | "self" => {
            while parts.first() == Some(&"super") {
                place.pop();
                parts.remove(0);
            }
            parts.retain(|part| *part != "self");
        }
        // A module below this file, or another crate.
        _ => {}
    }
    place.extend(parts);
    (1..=place.len()).rev().map(|length| place[..length].join("/")).find(|file| files.contains_key(file))
}

/// The methods of `Broker` that a file defines, and those that it calls on `self` or `broker`:
/// an inherent `impl` in many files needs no `use`.
fn methods(code: &str) -> (Vec<String>, Vec<String>) {
    let name =
        |text: &str| text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap().to_owned();
    let (mut defined, mut is_broker) = (Vec::new(), false);
    for line in code.lines() {
        is_broker = if indent(line).is_empty() && !line.is_empty() {
            line.starts_with("impl<P: Ports> Broker<P>")
        } else {
            is_broker
        };
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_broker && indent(line).len() == 4) {
            defined.push(name(rest));
        }
    }
    let calls = ["self.", "broker."].iter().flat_map(|owner| code.split(owner).skip(1));
    let called = calls.filter(|text| text[name(text).len()..].starts_with('(')).map(name).collect();
    (defined, called)
}

fn imports(files: &BTreeMap<String, String>) -> Imports {
    let mut imports = Imports::new();
    for (module, text) in files {
        let found = paths(&code(text)).into_iter().filter_map(|path| target(&path, module, files));
        imports.insert(module.clone(), found.filter(|other| other != module).collect());
    }
    let in_broker = files.iter().filter(|(module, _)| module.starts_with("broker/"));
    let methods: Vec<_> = in_broker.map(|(module, text)| (module, methods(&code(text)))).collect();
    for (module, (_, called)) in &methods {
        for (other, (defined, _)) in &methods {
            if module != other && called.iter().any(|name| defined.contains(name)) {
                imports.get_mut(*module).unwrap().insert((*other).clone());
            }
        }
    }
    imports
}

/// The imports between folders: of each path, only the first `depth` parts count.
fn folders(imports: &Imports, depth: usize) -> Imports {
    let folder = |module: &str| module.split('/').take(depth).collect::<Vec<_>>().join("/");
    let mut found = Imports::new();
    for (module, others) in imports {
        let others = others.iter().map(|other| folder(other)).filter(|other| *other != folder(module));
        found.entry(folder(module)).or_default().extend(others);
    }
    found
}

/// The circles: what is left when everything that imports nothing of the rest, or that nothing
/// of the rest imports, is taken away again and again.
fn circles(imports: &Imports) -> Imports {
    let mut left = imports.clone();
    loop {
        let before = left.len();
        let names: BTreeSet<_> = left.keys().cloned().collect();
        left.values_mut().for_each(|others| others.retain(|other| names.contains(other)));
        let imported: BTreeSet<_> = left.values().flatten().cloned().collect();
        left.retain(|module, others| !others.is_empty() && imported.contains(module));
        if left.len() == before {
            return left;
        }
    }
}

#[test]
fn src_imports_form_no_circle_between_files_or_folders() {
    let imports = imports(&sources());
    // A rule that sees no import must not pass.
    assert!(imports["broker/issue"].contains("broker/lead"), "{:?}", imports["broker/issue"]);
    assert!(imports["broker/fetch"].contains("broker/cache"), "{:?}", imports["broker/fetch"]);
    assert!(imports["gate/ledger"].contains("error"), "{:?}", imports["gate/ledger"]);
    assert_eq!(circles(&imports), Imports::new(), "these files import in a circle");
    for depth in 1..4 {
        assert_eq!(circles(&folders(&imports, depth)), Imports::new(), "these folders import in a circle");
    }
}

#[test]
fn src_imports_follow_the_list_in_lib_rs() {
    let files = sources();
    let list = files["lib"].lines().filter_map(|line| line.strip_prefix("//! - "));
    let order: Vec<_> = list.flat_map(|line| line.split(", ")).collect();
    let place = |module: &str| {
        order.iter().position(|known| *known == module).unwrap_or_else(|| panic!("lib.rs does not list {module}"))
    };
    for (module, others) in folders(&imports(&files), 1) {
        for other in others.iter().filter(|_| module != "lib") {
            assert!(place(other) < place(&module), "{module} imports {other}, which src/lib.rs names after it");
        }
    }
}

#[test]
fn host_imports_form_no_circle_between_files_or_folders() {
    let imports = imports(&host_sources());
    assert!(imports["server/workers"].contains("runtime/app"), "{:?}", imports["server/workers"]);
    assert!(imports["runtime/key_value"].contains("runtime/instance"), "{:?}", imports["runtime/key_value"]);
    assert_eq!(circles(&imports), Imports::new(), "these files import in a circle");
    assert_eq!(circles(&folders(&imports, 1)), Imports::new(), "these folders import in a circle");
}

#[test]
fn operator_imports_form_no_circle_between_files_or_folders() {
    let imports = imports(&operator_sources());
    assert!(imports["cli/check"].contains("check"), "{:?}", imports["cli/check"]);
    assert!(imports["check"].contains("warning"), "{:?}", imports["check"]);
    assert_eq!(circles(&imports), Imports::new(), "these files import in a circle");
    assert_eq!(circles(&folders(&imports, 1)), Imports::new(), "these folders import in a circle");
}

#[test]
fn files_impls_and_functions_stay_within_their_limits() {
    for (file, text) in all_sources() {
        assert!(text.lines().count() <= FILE_LIMIT, "{file} has more than {FILE_LIMIT} lines");
        let lines: Vec<_> = text.lines().collect();
        for (place, line) in lines.iter().enumerate() {
            let words = line.trim_start();
            let item =
                words.strip_prefix("pub").map_or(words, |rest| rest.split_once(' ').map_or("", |(_, rest)| rest));
            let limit = match item.trim_start_matches("const ").trim_start_matches("async ") {
                item if item.starts_with("fn ") => FUNCTION_LIMIT,
                item if item.starts_with("impl ") || item.starts_with("impl<") => IMPL_LIMIT,
                _ => continue,
            };
            if line.ends_with([';', '}']) {
                continue;
            }
            // rustfmt puts the end of an item as far in as its beginning.
            let (end, declared) = (format!("{}}}", indent(line)), format!("{})", indent(line)));
            let is_end = |line: &&str| **line == end || line.starts_with(&declared) && line.ends_with(';');
            let length = 1 + lines[place..].iter().position(is_end).unwrap_or_else(|| panic!("no end of {words}"));
            assert!(length <= limit, "{file}:{}: {length} lines are more than {limit}: {words}", place + 1);
        }
    }
}

#[test]
fn every_module_begins_with_its_job() {
    for (file, text) in all_sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 20, "{file} does not begin with its job: {first}");
    }
}
