//! Interfaces that each build of the component imports and exports, as `wasm-tools component
//! wit` would print them.

use std::fs;
use std::path::Path;

use tests::{component_for_spin, component_for_wasi};

/// Returns the imported and the exported interfaces of a component.
fn interfaces(component: &Path) -> (Vec<String>, Vec<String>) {
    let decoded = wit_component::decode(&fs::read(component).unwrap()).unwrap();
    let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
        panic!("not a component but a WIT package")
    };
    let world = &resolve.worlds[world];
    let names = |keys: Vec<_>| keys.into_iter().map(|key| resolve.name_world_key(key)).collect();
    (names(world.imports.keys().collect()), names(world.exports.keys().collect()))
}

const HANDLER: &str = "wasi:http/handler@0.3.0";

/// Whether an interface is part of WASI 0.2, which Rust's standard library uses, or 0.3. Every
/// host has both: the world `http-trigger` of Spin 4.1 (`wit/world.wit` of spinframework/spin
/// includes `wasi:cli/imports` of 0.2.6 and 0.3.0), `wasmtime serve -S cli,p3`, and wasmCloud
/// 2.7.
fn is_common(interface: &str) -> bool {
    let packages = ["cli", "clocks", "io", "random"].map(|package| format!("wasi:{package}/"));
    let is_basic = packages.iter().any(|package| interface.starts_with(package));
    let version = interface.split_once('@').unwrap().1;
    (is_basic && (version == "0.2.6" || version == "0.3.0"))
        || ["wasi:http/types@0.3.0", "wasi:http/client@0.3.0"].contains(&interface)
}

fn check(component: &Path, own: &[&str]) {
    let (imports, exports) = interfaces(component);
    assert_eq!(exports, [HANDLER], "{}", component.display());
    let mut others: Vec<_> = imports.iter().map(String::as_str).filter(|interface| !is_common(interface)).collect();
    others.sort_unstable();
    assert_eq!(others, own, "{}", component.display());
}

#[test]
fn wasi_build_imports_no_spin_interface() {
    check(&component_for_wasi(), &["wasi:keyvalue/store@0.2.0-draft"]);
}

/// The target environment `akamai-functions` (spinframework/spin-environments,
/// `envs/akamai-functions/akamai-functions.toml`) accepts a component that fits one of its
/// worlds. Its `akamai:functions/http-trigger-async@1.1.0` exports [`HANDLER`]; its imports are
/// published only as a container image. So this test compares with Spin 4.1, of which Akamai's
/// world can only be a part. docs/hosts.md has the command that asks the environment itself.
#[test]
fn spin_build_imports_only_variables_and_key_value_of_spin() {
    check(&component_for_spin(), &["spin:key-value/key-value@3.0.0", "spin:variables/variables@3.0.0"]);
}
