//! Every file of deploy/ is valid for the program that reads it, as far as a test can tell
//! without that program.
//!
//! Checked with tools of other projects: the systemd unit (`systemd-analyze`), the Caddyfile
//! (`caddy`), Kubernetes' own kinds, and the parts of a SpinApp that become one (Kubernetes'
//! schemas), Prometheus' files (`promtool`; `black_box/prometheus.rs` also runs them), the dashboard
//! (Grafana's SDK). Checked by the broker's own parser: the variables. Checked by rules that this
//! project took from Spin 4.1 and its operator, and from the operator of wasmCloud 2.7, because
//! no registry has a schema: the runtime configuration, the flags of `spin`, the fields of a
//! SpinApp and of a WorkloadDeployment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use officernd_token_broker::config::Config;
use serde::Deserialize;
use serde_json::Value;
use tests::{installed, read, root};

/// Runs a program and returns its stdout and stderr. Fails unless the program succeeds.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{printed}");
    printed
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files
}

/// Lists the files of deploy/ by their paths from the root.
fn all() -> BTreeSet<String> {
    let name = |path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    files_of(&root().join("deploy")).into_iter().map(name).collect()
}

const UNIT: &str = "deploy/spin/officernd-token-broker.service";
const UNIT_WITH_VAULT: &str = "deploy/vault/no-variables.conf";
const CADDYFILE: &str = "deploy/spin/Caddyfile";
const POLICY: &str = "deploy/vault/policy.json";
const VARIABLES: [&str; 2] = ["deploy/spin/variables.toml", "deploy/akamai/variables.toml"];
const RUNTIME_CONFIGS: [&str; 5] = [
    "deploy/spin/runtime-config.toml",
    "deploy/redis/runtime-config.toml",
    "deploy/dynamodb/runtime-config.toml",
    "deploy/cosmosdb/runtime-config.toml",
    "deploy/vault/runtime-config.toml",
];
const DYNAMODB_POLICY: &str = "deploy/dynamodb/policy.json";
const PROMETHEUS: [&str; 2] = ["deploy/prometheus/prometheus.yml", "deploy/prometheus/alerts.yml"];
const DASHBOARD: &str = "deploy/grafana/dashboard.json";
const SPINKUBE: &str = "deploy/spinkube/";
const CONTAINERFILE: &str = "deploy/spinkube/Containerfile";
const WASMCLOUD: &str = "deploy/wasmcloud/";

#[test]
fn deploy_files_are_all_checked_and_named_in_the_guide() {
    let checked = [UNIT, UNIT_WITH_VAULT, CADDYFILE, POLICY, DYNAMODB_POLICY, DASHBOARD];
    let checked = checked.into_iter().chain(VARIABLES).chain(RUNTIME_CONFIGS).chain(PROMETHEUS);
    let checked: BTreeSet<_> = checked.map(str::to_owned).collect();
    let in_kubernetes = |file: &String| file.starts_with(SPINKUBE) || file.starts_with(WASMCLOUD);
    let others: BTreeSet<_> = all().into_iter().filter(|file| !in_kubernetes(file)).collect();
    assert_eq!(others, checked);
    let guide = read("docs/deploy.md");
    for file in all() {
        assert!(guide.contains(&file), "docs/deploy.md does not name {file}");
    }
}

/// Returns the variables of spin.toml with their defaults.
fn declared() -> BTreeMap<String, Option<String>> {
    let manifest: toml::Table = toml::from_str(&read("spin.toml")).unwrap();
    let default = |variable: &toml::Value| Some(variable.get("default")?.as_str()?.to_owned());
    let variables = manifest["variables"].as_table().unwrap();
    variables.iter().map(|(name, variable)| (name.clone(), default(variable))).collect()
}

/// Checks that the broker accepts the variables, and that no required one is missing.
fn check_variables(values: &BTreeMap<String, String>, file: &str) {
    let declared = declared();
    for name in values.keys() {
        assert!(declared.contains_key(name), "{file}: spin.toml does not declare {name}");
    }
    for (name, default) in &declared {
        assert!(default.is_some() || values.contains_key(name), "{file}: {name} is missing");
    }
    let lookup = |name: &str| match values.get(name) {
        Some(value) => value.as_str(),
        None => declared[name].as_deref().unwrap_or_default(),
    };
    let mistakes = Config::mistakes(lookup);
    assert!(mistakes.is_empty(), "{file}: {}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
}

#[test]
fn variables_in_deploy_files_are_accepted_by_the_broker() {
    for file in VARIABLES {
        // Spin reads the file so: names and strings.
        check_variables(&toml::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}")), file);
    }
}

/// The part of Spin 4.1's runtime configuration that this project uses. Spin, too, refuses
/// unknown fields, except in a store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuntimeConfig {
    log_dir: Option<String>,
    #[serde(default)]
    key_value_store: BTreeMap<String, Store>,
    #[serde(default)]
    variables_provider: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
enum Store {
    Redis { url: String },
    AwsDynamo { region: String, table: String, consistent_read: bool, access_key: String, secret_key: String },
    AzureCosmos { account: String, database: String, container: String, key: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
enum Provider {
    Vault { url: String, token: String, mount: String, prefix: String },
}

/// Checks a URL `rediss://NAME:PASSWORD@HOST:PORT/NUMBER`: TLS, and a placeholder as the
/// password.
fn check_redis(url: &str, file: &str) {
    let rest = url.strip_prefix("rediss://").unwrap_or_else(|| panic!("{file}: Redis must use TLS"));
    let (credential, place) = rest.split_once('@').unwrap_or_else(|| panic!("{file}: no password"));
    assert_eq!(credential.split_once(':').unwrap().1, "replace-me", "{file}");
    let (address, database) = place.split_once('/').unwrap();
    let (_, port) = address.split_once(':').unwrap();
    assert!(port.parse::<u16>().is_ok() && database.parse::<u8>().is_ok(), "{file}: {url}");
}

/// Checks that instances on this store see each other's writes at once, as far as the file says
/// so, and that it has only placeholders.
fn check_store(store: &Store, file: &str) {
    match store {
        Store::Redis { url } => check_redis(url, file),
        Store::AwsDynamo { region, table, consistent_read, access_key, secret_key } => {
            // By default, a read of DynamoDB may miss the latest write.
            assert!(consistent_read, "{file}: without consistent reads, two requests may hold the lease");
            assert_eq!([access_key, secret_key], ["replace-me"; 2], "{file}");
            // The policy allows only what the broker does, and only with this table.
            let expected = serde_json::json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow",
                "Action": ["dynamodb:GetItem", "dynamodb:PutItem"],
                "Resource": format!("arn:aws:dynamodb:{region}:000000000000:table/{table}"),
            }]});
            assert_eq!(serde_json::from_str::<Value>(&read(DYNAMODB_POLICY)).unwrap(), expected);
        }
        Store::AzureCosmos { account, database, container, key } => {
            assert_eq!([account, key], ["replace-me"; 2], "{file}");
            // The guide's commands set the consistency and the partition key.
            let guide = read("docs/deploy.md").replace("\\\n", " ");
            let guide = guide.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(guide.contains("--default-consistency-level Strong"));
            let of_container = format!("--database-name {database} --name {container} --partition-key-path /id");
            assert!(guide.contains(&of_container), "docs/deploy.md: no {of_container}");
        }
    }
}

#[test]
fn runtime_configurations_follow_the_rules_of_spin() {
    for file in RUNTIME_CONFIGS {
        let config: RuntimeConfig = toml::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        // An empty `log_dir`: Spin writes no log files, which would repeat the log and grow.
        assert_eq!(config.log_dir.as_deref(), Some(""), "{file}");
        let stores: Vec<_> = config.key_value_store.keys().map(String::as_str).collect();
        let has_none = ["deploy/spin/", "deploy/vault/"].iter().any(|folder| file.starts_with(folder));
        assert_eq!(stores, if has_none { vec![] } else { vec!["default"] }, "{file}");
        config.key_value_store.values().for_each(|store| check_store(store, file));
        assert_eq!(config.variables_provider.len(), usize::from(file.contains("vault")), "{file}");
        for Provider::Vault { url, token, mount, prefix } in &config.variables_provider {
            assert!(url.starts_with("https://"), "{file}: Vault must use TLS");
            assert_eq!(token, "replace-me", "{file}");
            // The policy allows only reading, and only of this path.
            let policy: Value = serde_json::from_str(&read(POLICY)).unwrap();
            let expected =
                serde_json::json!({"path": {format!("{mount}/data/{prefix}/*"): {"capabilities": ["read"]}}});
            assert_eq!(policy, expected);
        }
    }
}

/// Spin's table of the runtime configuration for outbound connections. With one key, Spin takes
/// `false` for the other, although without the table it takes `true`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundHttp {
    max_connections: u32,
    connection_pooling: bool,
}

#[test]
fn table_outbound_http_in_the_guide_sets_both_keys() {
    let guide = read("docs/deploy.md");
    let table = guide.split("```toml\n[outbound_http]\n").nth(1).unwrap().split("```").next().unwrap();
    let table: OutboundHttp = toml::from_str(table).unwrap();
    assert!(table.max_connections > 0 && table.connection_pooling);
}

/// The flags of Spin 4.1's commands, from its source, and of `spin aka`, from its reference;
/// only those that pages and units use.
const FLAGS: [(&str, &[&str]); 11] = [
    (
        "spin up",
        &[
            "--from",
            "--listen",
            "--idle-instance-timeout",
            "--state-dir",
            "--runtime-config-file",
            "--variable",
            "--build",
        ],
    ),
    ("spin build", &[]),
    ("spin --version", &[]),
    ("spin registry push", &["--build"]),
    ("spin templates install", &["--tar", "--dir"]),
    ("spin new", &["--template"]),
    ("spin add", &["--template"]),
    ("spin aka login", &[]),
    ("spin aka deploy", &["--variable", "--create-name", "--build", "--no-confirm"]),
    ("spin plugins install", &[]),
    ("spin aka logs", &["--tail"]),
];

fn check_spin_command(line: &str, file: &str) {
    let known = FLAGS.iter().find(|(command, _)| line == *command || line.starts_with(&format!("{command} ")));
    let (command, flags) = known.unwrap_or_else(|| panic!("{file}: unknown command of spin: {line:?}"));
    for word in line[command.len()..].split_whitespace().filter(|word| word.starts_with('-')) {
        assert!(flags.contains(&word), "{file}: {command} has no {word}");
    }
}

#[test]
fn spin_commands_in_deploy_files_use_existing_flags() {
    let mut found = 0;
    for file in [UNIT, UNIT_WITH_VAULT, "docs/deploy.md", "README.md"] {
        for line in read(file).replace("\\\n", " ").lines() {
            let line = line.trim_start_matches("$ ").trim_start_matches("ExecStart=/usr/local/bin/");
            if line.starts_with("spin ") {
                check_spin_command(line, file);
                found += 1;
            }
        }
    }
    assert!(found >= 10, "found only {found} commands");
}

/// How long Spin keeps an idle instance: longer than the interval of an hourly job.
const IDLE_TIMEOUT: &str = "--idle-instance-timeout 7200s";

#[test]
fn idle_instances_are_kept_by_every_file_that_starts_spin() {
    for file in [UNIT, UNIT_WITH_VAULT] {
        for line in read(file).lines().filter(|line| line.contains("/spin up ")) {
            assert!(line.contains(IDLE_TIMEOUT), "{file}: {line}");
        }
    }
    // What Spin gets if the operator starts the container with these arguments.
    let from_operator =
        ["up", "--listen", "0.0.0.0:80", "-f", "an image", "--runtime-config-file", "/runtime-config.toml"];
    let file = read(CONTAINERFILE).replace("exec spin ", "exec printf '%s|' ");
    let entry_point = file.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let entry_point: Vec<String> = serde_json::from_str(entry_point).unwrap();
    let printed = run(Command::new(&entry_point[0]).args(&entry_point[1..]).args(from_operator));
    assert_eq!(printed, format!("{}|{}|", from_operator.join("|"), IDLE_TIMEOUT.replace(' ', "|")));
}

/// Lets systemd parse the unit, with or without a drop-in, and with the credentials that it
/// loads.
fn check_unit(drop_in: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("officernd-token-broker.service");
    // systemd checks that the program exists.
    let with_program = |file: &str| read(file).replace("/usr/local/bin/spin ", "/bin/true ");
    fs::write(&unit, with_program(UNIT)).unwrap();
    if let Some(file) = drop_in {
        let beside = folder.path().join("officernd-token-broker.service.d");
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("vault.conf"), with_program(file)).unwrap();
    }
    let printed = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    // systemd warns of unknown settings and still succeeds.
    assert_eq!(printed.trim(), "");
}

#[test]
fn systemd_unit_is_valid_and_restricts_the_service() {
    installed();
    check_unit(None);
    check_unit(Some(UNIT_WITH_VAULT));
    // Exposure in tenths, from 0 (none) to 100 (everything).
    run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(root().join(UNIT)));
    // Secrets are credentials of the unit. They are on no command line and in no environment
    // variable.
    for file in [UNIT, UNIT_WITH_VAULT] {
        let unit = read(file);
        let credentials = unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split_once(':'));
        let credentials: BTreeSet<_> = credentials.map(|(name, _)| name).collect();
        let uses = unit.split("${CREDENTIALS_DIRECTORY}/").skip(1);
        let uses: BTreeSet<_> = uses.map(|rest| rest.split_whitespace().next().unwrap()).collect();
        assert_eq!(credentials, uses, "{file}");
        assert!(!unit.contains("SPIN_VARIABLE_"), "{file}");
    }
}

#[test]
fn caddyfile_is_valid() {
    installed();
    let printed =
        run(Command::new("caddy").args(["validate", "--adapter", "caddyfile", "--config"]).arg(root().join(CADDYFILE)));
    assert!(printed.contains("Valid configuration"), "{printed}");
    assert!(!printed.contains("\"warn\""), "{printed}");
    // The proxy's target is the address on which Spin listens.
    let listens = read(UNIT).split("--listen ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(read(CADDYFILE).contains(&format!("reverse_proxy {listens}\n")));
}

#[test]
fn limits_in_front_of_the_broker_are_set() {
    installed();
    let mut adapt = Command::new("caddy");
    adapt.args(["adapt", "--adapter", "caddyfile", "--config"]).arg(root().join(CADDYFILE)).stderr(Stdio::null());
    let caddy: Value = serde_json::from_str(run(&mut adapt).lines().next().unwrap()).unwrap();
    let server = &caddy["apps"]["http"]["servers"]["srv0"];
    // The broker gives a body 4 s: its own answer must come before that of the proxy.
    for (limit, seconds) in [("read_header_timeout", 5), ("read_timeout", 10), ("idle_timeout", 120)] {
        assert_eq!(server[limit], serde_json::json!(seconds * 1_000_000_000_u64), "{CADDYFILE}: {limit}");
    }
    for (file, limit) in [
        (CADDYFILE, "max_size 100KB"),
        (UNIT, "MemoryMax=512M"),
        ("deploy/spinkube/spinapp.yaml", "memory: 512Mi"),
        ("deploy/spinkube/ingress.yaml", "nginx.ingress.kubernetes.io/proxy-body-size: 100k"),
        ("deploy/spinkube/ingress.yaml", "nginx.org/client-max-body-size: 100k"),
    ] {
        assert!(read(file).lines().any(|line| line.trim() == limit), "{file}: no {limit}");
    }
}

#[test]
fn spinkube_manifests_are_valid() {
    let peers = installed();
    let mut check = Command::new(peers.join(".venv/bin/python"));
    check.arg(peers.join("check_spinkube.py")).arg(root().join(SPINKUBE));
    let printed = run(&mut check);
    let app: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}"));
    let texts = |value: &Value| -> BTreeMap<String, String> { serde_json::from_value(value.clone()).unwrap() };
    check_variables(&texts(&app["variables"]), SPINKUBE);
    // A Kubernetes secret may lack only variables with a default.
    for name in app["optional"].as_array().unwrap() {
        assert!(declared()[name.as_str().unwrap()].is_some(), "{SPINKUBE}: {name} is required");
    }
    let stores = app["stores"].as_object().unwrap();
    assert_eq!(stores.keys().collect::<Vec<_>>(), ["default"], "the pods must share the store");
    let store = serde_json::from_value(stores["default"].clone()).unwrap();
    check_store(&store, SPINKUBE);
}

#[test]
fn wasmcloud_manifests_are_valid() {
    let peers = installed();
    let mut check = Command::new(peers.join(".venv/bin/python"));
    check.arg(peers.join("check_wasmcloud.py")).arg(root().join(WASMCLOUD));
    let environment: BTreeMap<String, String> = serde_json::from_str(&run(&mut check)).unwrap();
    let variables = environment.into_iter().map(|(name, value)| {
        assert_eq!(name, name.to_uppercase(), "{WASMCLOUD}");
        (name.to_lowercase(), value)
    });
    check_variables(&variables.collect(), WASMCLOUD);
}

#[test]
fn alerts_fire_on_their_series_and_each_has_its_heading_in_the_operations_page() {
    println!("{}", run(Command::new(installed().join("check_alerts")).current_dir(root())));
    let (alerts, page) = (read(PROMETHEUS[1]), read("docs/operations.md"));
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let headings: Vec<_> = names.map(|name| format!("### Alert {name}\n")).collect();
    assert!(headings.len() >= 7, "{headings:?}");
    for heading in headings {
        assert!(page.contains(&heading), "{heading}");
        let anchor = heading.trim_start_matches("### ").trim().to_lowercase().replace(' ', "-");
        assert!(alerts.contains(&format!("https://repository.example.com/docs/operations.md#{anchor}\n")), "{anchor}");
    }
}

#[test]
fn dashboard_is_read_by_the_sdk_of_grafana_and_shows_every_metric() {
    let peers = installed();
    let mut check = Command::new(peers.join(".venv/bin/python"));
    let expressions = run(check.arg(peers.join("check_dashboard.py")).arg(root().join(DASHBOARD)));
    let page = read("docs/monitoring.md");
    let table = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let metrics: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(metrics.len() >= 12, "{metrics:?}");
    for metric in metrics {
        assert!(expressions.contains(&format!("officernd_broker_{metric}")), "{DASHBOARD} does not show {metric}");
    }
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    // A dashboard with an id overwrites another one; with a uid it can be imported again.
    assert_eq!((&dashboard["id"], dashboard["uid"].as_str()), (&Value::Null, Some("officernd-token-broker")));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{panel}");
        // Any other name of a data source is that of one Grafana.
        assert_eq!(panel["datasource"], serde_json::json!({ "type": "prometheus", "uid": "${datasource}" }));
    }
}

/// Whether a word could be a secret: long, of letters and digits, and not a plain word.
fn looks_like_a_secret(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.bytes().any(|byte| kind(&byte));
    word.len() >= 20 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

#[test]
fn deploy_files_have_no_secret_and_only_example_hosts() {
    for file in all() {
        let text = read(&file);
        let is_part = |byte: char| byte.is_ascii_alphanumeric() || "+/_-".contains(byte);
        for word in text.split(|byte| !is_part(byte)).flat_map(|word| word.split("//")) {
            assert!(!looks_like_a_secret(word), "{file}: {word}");
            let is_digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!is_digest || word.bytes().all(|byte| byte == b'0'), "{file}: {word}");
        }
        for name in [
            "officernd_client_id",
            "officernd_client_secret",
            "officernd-client-id",
            "officernd-client-secret",
            "token",
        ] {
            for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '-'])) {
                if let Some((key, value)) = line.split_once([':', '=']).filter(|(key, _)| key.trim() == name) {
                    assert_eq!(value.trim().trim_matches('"'), "replace-me", "{file}: {key}");
                }
            }
        }
        for place in text.split("://").skip(1) {
            let host = place.split(['/', '"', '\n']).next().unwrap().rsplit('@').next().unwrap();
            let host = host.split(':').next().unwrap();
            assert!(host.ends_with(".example.com"), "{file}: {host}");
        }
    }
}

#[test]
fn secret_detector_accepts_ordinary_text() {
    for word in ["c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7", "A8f_k2-Zq91LmN0pQrStUvWx"] {
        assert!(looks_like_a_secret(word), "{word}");
    }
    for word in ["replace-me", "officernd-token-broker", "0000000000000000000000000000000000000000"] {
        assert!(!looks_like_a_secret(word), "{word}");
    }
}
