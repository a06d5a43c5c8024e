//! Compares a manifest with the component: does it pass every variable, and allow only OfficeRnD?

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::ensure;
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::config::{Mistakes, VARIABLES, Variable, escape};

use super::{Findings, GivenVariables};
use crate::spin::{AllowedHosts, Manifest};

/// Label of the store that the component opens.
const STORE: &str = "default";

impl GivenVariables {
    /// Adds to `findings` whatever is outdated in the manifest at `path`, for these variables.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub(crate) fn check_manifest(&self, path: &Path, findings: &mut Findings) -> anyhow::Result<()> {
        let file = path.display();
        ensure!(path.is_file(), "{file} is not a file, expected a spin.toml");
        // The cause is left out, because it may quote a default, which may be a secret.
        let Ok(manifest) = Manifest::read(path) else {
            findings
                .warnings
                .push(format!("{file}: cannot be checked: the program `broker` says why with `--manifest {file}`"));
            return Ok(());
        };
        for Variable { name, default } in
            VARIABLES.iter().filter(|variable| !manifest.declarations.passes(variable.name))
        {
            let expected = format!("expected {name} in [variables] and in the variables of the component");
            match default {
                Some(_) => {
                    findings.warnings.push(format!("{file}: {name} is missing, so its default is in use, {expected}"))
                }
                None => findings.mistakes.push(format!("{file}: {name} is missing, {expected}")),
            }
        }
        if !manifest.key_value_stores.contains(STORE) {
            findings.warnings.push(format!("{file}: key_value_stores lacks {STORE:?}, so the broker has no store"));
        }
        let set: BTreeMap<_, _> = self.readable().into_iter().collect();
        let identity = set.get(IDENTITY).copied().unwrap_or_else(|| Variable::default_of(IDENTITY)).trim();
        // Without the value of a required variable, or with one that is no URL, another line says so.
        let (Ok(hosts), Ok(uri)) = (AllowedHosts::resolve(&manifest, &set), identity.parse()) else {
            return Ok(());
        };
        let expected =
            r#"expected only "{{ officernd_identity_url }}" and "{{ keys_origin_1 }}" to "{{ keys_origin_4 }}""#;
        if !hosts.allow(&uri) {
            findings
                .mistakes
                .push(format!("{file}: allowed_outbound_hosts lacks {IDENTITY}, so no call leaves, {expected}"));
        }
        let issuers =
            Issuers::parse(set.get("issuers").copied().unwrap_or_default().trim(), &mut Mistakes::of("issuers"));
        let mut origins = vec![identity.to_owned()];
        for (issuer, uri) in issuers.iter().filter_map(|issuer| Some((issuer, issuer.jwks_uri()?))) {
            if !hosts.allow(uri) {
                let name = escape(&issuer.name);
                findings.mistakes.push(format!(
                    "issuers: {name}.jwks_uri: its origin is not in allowed_outbound_hosts of {file}, so its keys cannot be \
                     fetched, expected it in one of keys_origin_1 to keys_origin_4"
                ));
            }
            origins.extend(uri.scheme_str().zip(uri.authority()).map(|(scheme, host)| format!("{scheme}://{host}")));
        }
        if hosts.allow(&uri) && !hosts.are_only(&origins) {
            findings.warnings.push(format!(
                "{file}: allowed_outbound_hosts allows more than {IDENTITY} and the keys of the issuers, {expected}"
            ));
        }
        Ok(())
    }
}

const IDENTITY: &str = "officernd_identity_url";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const VALUES: &str = "officernd_client_id = 'id'\nofficernd_client_secret = 's'\ncallers = '{}'\n";

    /// Checks the project's manifest after replacements, for these variables as well.
    fn check_with(values: &str, changes: &[(&str, &str)], mistakes: &[&str], warnings: &[&str]) {
        let mut text = include_str!("../../../spin.toml").to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, variables) = (folder.path().join("spin.toml"), folder.path().join("variables.toml"));
        fs::write(&path, text).unwrap();
        fs::write(&variables, format!("{VALUES}{values}")).unwrap();
        let mut findings = Findings::default();
        GivenVariables::from_file(&variables).unwrap().check_manifest(&path, &mut findings).unwrap();
        for (found, expected) in [(&findings.mistakes, mistakes), (&findings.warnings, warnings)] {
            assert_eq!(found.len(), expected.len(), "{changes:?}: {findings:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(&format!("spin.toml: {expected}")), "{found} should contain {expected}");
            }
        }
    }

    #[test]
    fn manifest_of_the_project_is_up_to_date() {
        check_with("", &[], &[], &[]);
        check_with("officernd_identity_url = 'https://identity-staging.officernd.com'", &[], &[], &[]);
    }

    #[test]
    fn origin_of_an_issuers_keys_is_in_one_of_four_variables() {
        let issuers =
            r#"issuers = '{"github": {"issuer": "https://a.example", "jwks_uri": "https://keys.example/jwks"}}'"#;
        let check = |values: &str, mistakes: &[&str], warnings: &[&str]| {
            let mut findings = Findings::default();
            let values = toml::from_str::<GivenVariables>(&format!("{VALUES}{values}\n")).unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spin.toml");
            values.check_manifest(&path, &mut findings).unwrap();
            for (found, expected) in [(&findings.mistakes, mistakes), (&findings.warnings, warnings)] {
                assert_eq!(found.len(), expected.len(), "{findings:?}");
                assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{findings:?}");
            }
        };
        let lacks = ["issuers: github.jwks_uri: its origin is not in allowed_outbound_hosts"];
        let more = ["allowed_outbound_hosts allows more than officernd_identity_url and the keys of the issuers"];
        check(&format!("{issuers}\nkeys_origin_3 = 'https://keys.example'"), &[], &[]);
        check(issuers, &lacks, &[]);
        check(&format!("{issuers}\nkeys_origin_1 = 'https://other.example'"), &lacks, &more);
        check("keys_origin_1 = 'https://keys.example'", &[], &more);
    }

    #[test]
    fn manifest_that_lacks_a_variable_is_outdated() {
        let audit = ("audit = \"{{ audit }}\"\n", "");
        check_with("", &[audit], &[], &["audit is missing, so its default"]);
        check_with("", &[audit, ("audit = { default = \"all\" }\n", "")], &[], &["audit is missing, so its default"]);
        check_with("", &[("\ncallers = \"{{ callers }}\"\n", "\n")], &["callers is missing, expected"], &[]);
        check_with("", &[("key_value_stores = [\"default\"]\n", "")], &[], &["key_value_stores lacks \"default\""]);
        check_with("", &[("[application]", "[application")], &[], &["cannot be checked"]);
    }

    #[test]
    fn manifest_that_allows_other_hosts_is_outdated() {
        let text = include_str!("../../../spin.toml");
        let (_, rest) = text.split_once("allowed_outbound_hosts = ").unwrap();
        let (list, _) = rest.split_once(']').unwrap();
        let present = format!("{list}]");
        let check = |hosts: &str, values: &str, mistakes: &[&str], warnings: &[&str]| {
            check_with(values, &[(&present, hosts)], mistakes, warnings);
        };
        let staging = "officernd_identity_url = 'https://identity-staging.officernd.com'";
        let more = ["allowed_outbound_hosts allows more than officernd_identity_url"];
        let lacks = ["allowed_outbound_hosts lacks officernd_identity_url"];
        check(r#"["https://identity.officernd.com"]"#, "", &[], &[]);
        check(r#"["https://identity.officernd.com"]"#, staging, &lacks, &[]);
        check(r#"["{{ officernd_identity_url }}", "https://app.officernd.com"]"#, "", &[], &more);
        check(r#"["https://*:*"]"#, "", &[], &more);
        check(r#"["https://*.officernd.com"]"#, staging, &[], &more);
        check("[]", "", &lacks, &[]);
    }
}
