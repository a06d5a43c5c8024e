//! Reads `spin.toml`, and refuses everything that the dev host does not support.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::variables::{Declarations, Error, Template, Values};

/// A `spin.toml` with one component behind one or more HTTP routes.
#[derive(Debug)]
pub struct Manifest {
    /// Folder of `spin.toml`, in which the build command runs.
    pub folder: PathBuf,
    /// File of the component.
    pub source: PathBuf,
    /// SHA-256 that the file must have, in hexadecimal digits.
    pub digest: Option<String>,
    /// Command that makes [`source`](Self::source), for a shell.
    pub build_command: Option<String>,
    /// Routes that lead to the component, in the order of the file.
    pub routes: Vec<Route>,
    pub(crate) declarations: Declarations,
    pub(crate) allowed_outbound_hosts: Vec<Template>,
    /// Labels of the key-value stores that the component may open.
    pub key_value_stores: BTreeSet<String>,
}

/// Paths that lead to the component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Only this path.
    Exact(String),
    /// This path, which has no slash at its end, and all paths below it.
    Tree(String),
}

impl Manifest {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a Spin manifest of version 2, or asks for a feature
    /// that the dev host does not support.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        // A command cannot run in a folder with an empty path.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self::parse(&text, folder).with_context(|| {
            format!("the dev host cannot run the manifest {} (Spin itself supports more)", path.display())
        })
    }

    /// Checks that every required variable has a value.
    ///
    /// # Errors
    ///
    /// If one has none, with its name and its environment variable, or if `variables` cannot be
    /// read.
    pub fn check_variables(&self, variables: &dyn Values) -> anyhow::Result<()> {
        self.declarations.check_required(variables)
    }

    /// Returns the value of the application's variable `name`, or its default.
    ///
    /// # Errors
    ///
    /// If it is not declared, if it is required and has no value, or if `variables` cannot be
    /// read.
    pub fn variable(&self, name: &str, variables: &dyn Values) -> anyhow::Result<String> {
        Ok(self.declarations.application_value(name, variables)?)
    }

    /// Returns the present value of the variable `name` of the component.
    ///
    /// # Errors
    ///
    /// If the component may not read such a variable, or if it has no value.
    pub fn component_variable(&self, name: &str, variables: &dyn Values) -> Result<String, Error> {
        self.declarations.get(name, variables)
    }

    pub(crate) fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let File { spin_manifest_version, application: _, variables, trigger, mut component } = toml::from_str(text)?;
        ensure!(spin_manifest_version == 2, "spin_manifest_version is {spin_manifest_version}, expected 2");

        let triggers = trigger.http;
        let name = triggers.first().context("[[trigger.http]] is missing")?.component.clone();
        ensure!(triggers.iter().all(|trigger| trigger.component == name), "the routes lead to more than one component");
        let routes = triggers.iter().map(|trigger| Route::parse(&trigger.route)).collect::<Result<_, _>>()?;
        let component_table = component.remove(&name).with_context(|| format!("[component.{name}] is missing"))?;
        if let Some(other) = component.keys().next() {
            bail!("no route leads to [component.{other}]");
        }

        let application = variables.into_iter().map(|(name, variable)| Ok((name.clone(), variable.default(&name)?)));
        let templates = component_table.variables.iter().map(|(name, text)| Ok((name.clone(), Template::parse(text)?)));
        let declarations = Declarations::new(
            name,
            application.collect::<anyhow::Result<_>>()?,
            templates.collect::<anyhow::Result<_>>()?,
        )?;
        let mut allowed_outbound_hosts = Vec::new();
        for text in &component_table.allowed_outbound_hosts {
            let template = Template::parse(text)?;
            declarations.check(&template).context("allowed_outbound_hosts")?;
            allowed_outbound_hosts.push(template);
        }

        let (source, digest) = component_table.source.file_and_digest()?;
        Ok(Self {
            folder: folder.to_owned(),
            source: folder.join(source),
            digest,
            build_command: component_table.build.map(|build| build.command),
            routes,
            declarations,
            allowed_outbound_hosts,
            key_value_stores: component_table.key_value_stores,
        })
    }
}

impl Route {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (path, tree) = match text.strip_suffix("/...") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let plain = !path.contains([':', '*']) && !path.contains("...");
        ensure!(text.starts_with('/') && plain, "route {text:?} is not supported, expected /path or /path/...");
        Ok(if tree { Self::Tree(path.into()) } else { Self::Exact(path.into()) })
    }

    /// Returns the part of `path` below the route, such as `/b` of `/a/b` for the route
    /// `/a/...`; `None` if the route does not match.
    pub fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(exact) => (path == exact).then_some(""),
            Self::Tree(root) => {
                path.strip_prefix(root.as_str()).filter(|below| below.is_empty() || below.starts_with('/'))
            }
        }
    }
}

/// Tables of the file. With `deny_unknown_fields`, each field that is not listed here is an
/// error with its line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct File {
    spin_manifest_version: u32,
    application: ApplicationTable,
    #[serde(default)]
    variables: BTreeMap<String, VariableTable>,
    trigger: TriggerTables,
    component: BTreeMap<String, ComponentTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct ApplicationTable {
    name: String,
    version: Option<String>,
    description: Option<String>,
    authors: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct VariableTable {
    #[serde(default)]
    required: bool,
    default: Option<String>,
    /// Has no effect: neither Spin nor the dev host redacts anything because of it.
    secret: Option<bool>,
    description: Option<String>,
}

impl VariableTable {
    /// Returns the default, or `None` if a value is required.
    fn default(self, name: &str) -> anyhow::Result<Option<String>> {
        ensure!(self.required == self.default.is_none(), "variable {name:?} must either be required or have a default");
        Ok(self.default)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerTables {
    http: Vec<HttpTriggerTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct HttpTriggerTable {
    id: Option<String>,
    route: String,
    component: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct ComponentTable {
    description: Option<String>,
    source: SourceTable,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    key_value_stores: BTreeSet<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    build: Option<BuildTable>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "source is not supported, expected a path, or a table of url and digest")]
enum SourceTable {
    File(PathBuf),
    Download(DownloadTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DownloadTable {
    url: String,
    digest: String,
}

impl SourceTable {
    /// Returns the component's file, and the digest that it must have. The dev host downloads
    /// nothing: it expects the file of a URL beside the manifest, under its own name.
    fn file_and_digest(self) -> anyhow::Result<(PathBuf, Option<String>)> {
        let DownloadTable { url, digest } = match self {
            Self::File(path) => return Ok((path, None)),
            Self::Download(table) => table,
        };
        let hex = digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        let hex = hex.context("source: digest is not supported, expected sha256: and 64 hexadecimal digits")?;
        let name = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('/')).map(|(_, name)| name);
        let name = name.filter(|name| name.ends_with(".wasm") && !name.contains(['?', '#', '%', '\\']));
        let name = name.context("source: url is not supported, expected one that ends in the name of a .wasm file")?;
        Ok((name.into(), Some(hex.to_owned())))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted, and without effect in the dev host")]
struct BuildTable {
    command: String,
    /// Only used by `spin watch`.
    watch: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    const MINIMAL: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "app"
        [[trigger.http]]
        route = "/..."
        component = "one"
        [component.one]
        source = "one.wasm"
    "#;

    fn parse(text: &str) -> anyhow::Result<Manifest> {
        Manifest::parse(text, Path::new("folder"))
    }

    #[test]
    fn manifest_of_the_project_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spin.toml");
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!(manifest.routes, [Route::Tree(String::new())]);
        assert_eq!(manifest.key_value_stores, ["default".to_owned()].into());
        assert!(manifest.build_command.is_some());
    }

    #[test]
    fn source_path_is_relative_to_the_manifest() {
        let manifest = parse(MINIMAL).unwrap();
        assert_eq!(manifest.source, Path::new("folder/one.wasm"));
        assert_eq!(manifest.build_command, None);
    }

    #[test]
    fn source_with_a_url_is_the_file_of_that_name_with_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let source = |source: &str| parse(&MINIMAL.replace("\"one.wasm\"", source));
        let url = "https://a.example/v1/released.wasm";
        let manifest = source(&format!("{{ url = {url:?}, digest = \"sha256:{digest}\" }}")).unwrap();
        assert_eq!((manifest.source, manifest.digest), (PathBuf::from("folder/released.wasm"), Some(digest.clone())));
        for (url, digest, named) in [
            (url, digest.as_str(), "digest"),
            (url, "sha256:", "digest"),
            (url, &format!("sha256:{}", digest.to_uppercase()), "digest"),
            ("https://a.example", &format!("sha256:{digest}"), "url"),
            ("https://a.example/..", &format!("sha256:{digest}"), "url"),
            ("https://a.example/a.wasm?b=/c.wasm#d", &format!("sha256:{digest}"), "url"),
        ] {
            let error = format!("{:#}", source(&format!("{{ url = {url:?}, digest = {digest:?} }}")).unwrap_err());
            assert!(error.contains(&format!("source: {named}")), "{url} {digest}: {error}");
        }
    }

    #[test]
    fn unsupported_feature_is_refused_by_name() {
        let cases = [
            ("[component.one]", "[component.one]\nfiles = [\"a\"]", "files"),
            ("[component.one]", "[component.one]\nenvironment = { A = \"b\" }", "environment"),
            ("[component.one]", "[component.one]\nsqlite_databases = [\"default\"]", "sqlite_databases"),
            ("[component.one]", "[component.one.dependencies]\n[component.one]", "dependencies"),
            ("[component.one]", "[component.two]\nsource = \"two.wasm\"\n[component.one]", "two"),
            ("component = \"one\"", "component = \"one\"\nexecutor = { type = \"wagi\" }", "executor"),
            ("component = \"one\"", "component = \"three\"", "three"),
            ("[[trigger.http]]", "[[trigger.redis]]\nchannel = \"c\"\n[[trigger.http]]", "redis"),
            ("\"/...\"", "\"/:user\"", "/:user"),
            ("\"/...\"", "\"relative\"", "relative"),
            ("spin_manifest_version = 2", "spin_manifest_version = 1", "spin_manifest_version"),
            ("[application]", "[variables]\na = { secret = true }\n[application]", "\"a\""),
            ("[application]", "[variables]\na = { required = true, default = \"\" }\n[application]", "\"a\""),
            ("[application]", "[variables]\nA = { required = true }\n[application]", "\"A\""),
            ("source = \"one.wasm\"", "source = { url = \"https://a.example/a.wasm\" }", "source"),
            ("source = \"one.wasm\"", "source = { registry = \"a\", package = \"b:c\", version = \"1\" }", "source"),
            ("[component.one]", "[component.one]\nallowed_outbound_hosts = [\"{{ url }}\"]", "url"),
        ];
        for (from, to, named) in cases {
            let error = format!("{:#}", parse(&MINIMAL.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(named), "{to}: {error}");
        }
    }

    #[test]
    fn route_matches_its_path_or_all_paths_below() {
        let cases = [
            ("/...", "/", Some("/")),
            ("/...", "/oauth/token", Some("/oauth/token")),
            ("/api/...", "/api", Some("")),
            ("/api/...", "/api/x", Some("/x")),
            ("/api/...", "/apix", None),
            ("/api", "/api", Some("")),
            ("/api", "/api/x", None),
        ];
        for (route, path, below) in cases {
            assert_eq!(Route::parse(route).unwrap().matches(path), below, "{route} {path}");
        }
    }

    /// The project's manifest with lines removed, repeated and moved, and with pieces of syntax
    /// inserted anywhere.
    fn mutated() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "[", "]", "\"", "'", "=", "{{ ", " }}", "{{", "...", "/", ":", "*", "\n", "\\", "\u{e9}", "\0", "9",
        ]);
        let change = (any::<Index>(), any::<Index>(), 0..4, piece);
        prop::collection::vec(change, 0..4).prop_map(|changes| {
            let mut lines: Vec<_> = include_str!("../../../spin.toml").lines().map(str::to_owned).collect();
            for (from, to, kind, piece) in changes {
                let (from, place) = (from.index(lines.len()), to.index(lines.len()));
                match kind {
                    0 if lines.len() > 1 => drop(lines.remove(from)),
                    1 => lines.insert(place, lines[from].clone()),
                    2 => lines.swap(from, place),
                    _ => {
                        let line = &mut lines[from];
                        let ends: Vec<_> = line.char_indices().map(|(end, _)| end).chain([line.len()]).collect();
                        line.insert_str(ends[to.index(ends.len())], piece);
                    }
                }
            }
            lines.join("\n")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn mutated_manifest_is_refused_or_has_one_meaning(text in mutated()) {
            let Ok(manifest) = parse(&text) else { return Ok(()) };
            // It has the same meaning after TOML has printed it, and an unknown field is
            // refused.
            let table: toml::Table = text.parse().unwrap();
            let printed = parse(&toml::to_string(&table).unwrap()).unwrap();
            prop_assert_eq!(format!("{manifest:?}"), format!("{printed:?}"));
            let component = table["trigger"]["http"][0]["component"].as_str().unwrap();
            for path in [&["application"][..], &["component", component]] {
                let mut more = table.clone();
                let inner = path.iter().fold(&mut more, |table, name| table[*name].as_table_mut().unwrap());
                inner.insert("surprise".into(), true.into());
                prop_assert!(parse(&toml::to_string(&more).unwrap()).is_err(), "{path:?}");
            }
        }

        #[test]
        fn printed_template_parses_to_the_same_template(text in "([a-z:/. ]|\\{\\{|\\}\\}|\u{e9}){0,12}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()).unwrap(), template, "{}", text);
            }
        }

        #[test]
        fn route_matches_only_paths_below_itself(route in "/?[a-b/.:*]{0,8}(/\\.\\.\\.)?", path in "/[a-b/.]{0,8}") {
            let Ok(parsed) = Route::parse(&route) else { return Ok(()) };
            let root = route.strip_suffix("/...");
            let below = parsed.matches(&path);
            let expected = root.map_or(path == route, |root| path == root || path.starts_with(&format!("{root}/")));
            prop_assert_eq!(below.is_some(), expected);
            let joined = |below| [root.unwrap_or(&route), below].concat();
            prop_assert!(below.is_none_or(|below| joined(below) == path), "{}", path);
        }
    }
}
