//! Fuzzes the variables: lines of `name=value`; the others have their defaults. An accepted
//! configuration stays the same when printed and read again. A mistake fits into one log line.

#![no_main]

use std::net::Ipv4Addr;

use fuzz::{NOW, default_of, digest_of};
use libfuzzer_sys::fuzz_target;
use officernd_token_broker::config::Config;
use officernd_token_broker::secret::PresentedSecret;
use serde_json::Value;

fuzz_target!(|input: &str| {
    let fallback = format!(r#"{{"nightly": {{"secret_sha256": ["{}"], "scopes": ["a"]}}}}"#, digest_of("secret"));
    let lookup = |name: &str| {
        let given = input.lines().filter_map(|line| line.split_once('=')).find(|(other, _)| *other == name);
        given.map(|(_, value)| value.to_owned()).unwrap_or_else(|| match name {
            "officernd_client_id" => "id".to_owned(),
            "officernd_client_secret" => "secret".to_owned(),
            "callers" => fallback.clone(),
            _ => default_of(name).to_owned(),
        })
    };
    let config = match read(&lookup) {
        Ok(config) => config,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert!(mistake.len() < 2000 && !mistake.contains(char::is_control), "{mistake}");
            }
            return;
        }
    };

    let print = |name: &str| match name {
        "applications" | "issuers" | "callers" => match lookup(name).trim() {
            "" => String::new(),
            text => serde_json::from_str::<Value>(text).expect("what is accepted is JSON").to_string(),
        },
        "officernd_identity_url" => config.identity.as_str().to_owned(),
        "public_url" => config.public_url.as_ref().map(|url| url.as_str().to_owned()).unwrap_or_default(),
        "min_remaining_seconds" => config.min_remaining.as_secs().to_string(),
        "upstream_calls_per_minute" => config.calls_per_minute.to_string(),
        other => lookup(other).trim().to_owned(),
    };
    let again = read(&print).expect("what is accepted is accepted when it is printed");
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    for (one, other) in config.applications.iter().zip(&again.applications) {
        let pairs = |credential: &std::rc::Rc<officernd_token_broker::config::application::Credential>| {
            [credential.client_id.clone(), credential.client_secret.expose().to_owned()]
        };
        assert!(one.credentials().map(pairs).eq(other.credentials().map(pairs)), "{}", one.name);
    }

    // A credential goes only to the host in the text, and in plain text only to this machine.
    for origin in [Some(&config.identity), config.public_url.as_ref()].into_iter().flatten() {
        let endpoint = origin.token_endpoint();
        assert_eq!(endpoint.to_string(), format!("{}/oauth/token", origin.as_str()));
        let host = endpoint.host().expect("an origin has a host");
        let is_here = matches!(host, "localhost" | "[::1]") || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
        assert!(endpoint.scheme_str() == Some("https") || is_here, "{endpoint}");
    }

    // A caller is authenticated only if its digest is in the policy, and then it has an
    // application.
    let callers: Value = serde_json::from_str(&print("callers")).expect("JSON");
    for (name, entry) in callers.as_object().expect("an object") {
        if let Ok(caller) = config.callers.authenticate(name, &PresentedSecret::new("secret"), NOW) {
            assert!(entry["secret_sha256"].to_string().to_ascii_lowercase().contains(&digest_of("secret")));
            let application = config.application(&caller).expect("no application is disabled");
            assert_eq!(application.name, entry["application"].as_str().unwrap_or("default"));
        }
    }
});

fn read(lookup: &dyn Fn(&str) -> String) -> Result<Config, Vec<String>> {
    let values: Vec<_> = officernd_token_broker::config::VARIABLES.map(|known| (known.name, lookup(known.name))).into();
    let value_of = |name: &str| values.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
    // A configuration with a disabled entry has no printed form that means the same.
    let parsed = Config::parse(value_of).and_then(|mut config| match std::mem::take(&mut config.mistakes) {
        none if none.is_empty() => Ok(config),
        mistakes => Err(mistakes),
    });
    parsed.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}
