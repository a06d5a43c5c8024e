//! Adds an issuer to the variable `issuers`, with its keys or with the address that it names for them.

use std::fmt;

use anyhow::{Context as _, anyhow, bail, ensure};
use http::{StatusCode, Uri};
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::config::{Mistakes, Origin, escape};
use serde_json::{Map, Value};

use crate::fetch;

/// A value of the variable `issuers` that the component accepts. An edit leaves everything else
/// unchanged and in its place.
#[derive(Debug)]
pub(crate) struct IssuerList(Map<String, Value>);

impl IssuerList {
    /// Reads a value of the variable; an empty one has no issuer.
    ///
    /// # Errors
    ///
    /// All mistakes that the component would find, one line each.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let mut mistakes = Mistakes::of("issuers");
        Issuers::parse(text, &mut mistakes);
        let mistakes: Vec<_> = mistakes.into_iter().map(|mistake| mistake.to_string()).collect();
        ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
        Ok(Self(if text.is_empty() { Map::new() } else { serde_json::from_str(text)? }))
    }

    /// Adds an issuer at the end, with these fields of its entry.
    ///
    /// # Errors
    ///
    /// If an issuer of that name exists, or if the component would refuse the entry.
    pub(crate) fn add(mut self, name: &str, entry: Map<String, Value>) -> anyhow::Result<Self> {
        ensure!(!self.0.contains_key(name), "the issuer {name:?} already exists, expected another name");
        self.0.insert(name.into(), entry.into());
        Self::parse(&self.to_string())
    }
}

impl fmt::Display for IssuerList {
    /// Writes the value of the variable on several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(&self.0).map_err(|_| fmt::Error)?)
    }
}

/// The address of the keys of an issuer, from its metadata (OpenID Connect Discovery section 4), and
/// the origin of this address. The keys have been fetched once.
///
/// # Errors
///
/// If the metadata cannot be had, is that of another issuer, or names no usable keys.
pub(crate) fn discover(issuer: &str) -> anyhow::Result<(String, Origin)> {
    // Section 4.1.
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let (uri, _) = fetchable(&address).context("the address of the issuer is wrong")?;
    let offline = "with --jwks FILE no address is fetched";
    let (status, body) =
        fetch::document(&uri).map_err(|problem| anyhow!("no metadata from {uri}: {problem}: {offline}"))?;
    ensure!(status == StatusCode::OK, "no metadata from {uri}: the status is not 200: {offline}");
    let metadata: Value = serde_json::from_slice(&body).map_err(|_| anyhow!("the metadata at {uri} is not JSON"))?;
    let named = metadata["issuer"].as_str().with_context(|| format!("the metadata at {uri} names no issuer"))?;
    ensure!(
        named == issuer,
        "the metadata at {uri} is of the issuer \"{}\" and not of \"{}\", expected the same text, because tokens have the \
         former",
        escape(named),
        escape(issuer)
    );
    let Some(jwks_uri) = metadata["jwks_uri"].as_str() else { bail!("the metadata at {uri} has no jwks_uri") };
    let (keys_at, origin) =
        fetchable(jwks_uri).with_context(|| format!("jwks_uri in the metadata at {uri} is wrong"))?;
    fetch::keys(&keys_at).map_err(|problem| anyhow!("no keys from {keys_at}: {problem}"))?;
    Ok((jwks_uri.to_owned(), origin))
}

/// A URL to which the component would send a request, and its origin.
fn fetchable(text: &str) -> anyhow::Result<(Uri, Origin)> {
    let uri: Option<Uri> = text.parse().ok();
    let origin = uri.as_ref().and_then(|uri| {
        let (scheme, authority) = uri.scheme_str().zip(uri.authority())?;
        Origin::parse(&format!("{scheme}://{authority}"))
    });
    uri.zip(origin)
        .with_context(|| format!("it is \"{}\", expected https://HOST/PATH; http only for this machine", escape(text)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fetch::tests::{SET, reply, serve};

    fn entry(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn issuer_is_added_at_the_end_and_what_the_component_refuses_is_not() {
        let keys: Value = serde_json::from_str(SET).unwrap();
        let first =
            IssuerList::parse("").unwrap().add("b", entry(json!({ "issuer": "https://b.example", "jwks": keys })));
        let first = first.unwrap().to_string();
        let more = |name: &str, value: Value| IssuerList::parse(&first).unwrap().add(name, entry(value));
        let second = more("a", json!({ "issuer": "https://a.example", "jwks_uri": "https://a.example/keys" })).unwrap();
        assert!(second.to_string().starts_with(first.trim_end_matches("\n}")), "{second}");
        let refused = |name: &str, value: Value| more(name, value).unwrap_err().to_string();
        assert!(refused("b", json!({})).contains("already exists"));
        let twice = refused("a", json!({ "issuer": "https://b.example", "jwks": keys }));
        assert_eq!(twice, "issuers: a.issuer: is that of another issuer too, expected each once");
        let mut private = keys.clone();
        private["keys"][0]["d"] = "hunter2".into();
        let private = refused("a", json!({ "issuer": "https://a.example", "jwks": private }));
        assert!(private.contains("private key") && !private.contains("hunter2"), "{private}");
    }

    #[test]
    fn discovery_accepts_only_the_issuer_itself_with_usable_keys() {
        let origin = serve(|here, path| {
            let (tenant, rest) = path.trim_start_matches('/').split_once('/')?;
            let (issuer, keys) = match tenant {
                "good" => (format!("{here}/good"), format!("{here}/good/keys")),
                "slash" => (format!("{here}/slash/"), format!("{here}/good/keys")),
                "other" => (format!("{here}/good"), format!("{here}/good/keys")),
                "keyless" => (format!("{here}/keyless"), format!("{here}/none")),
                "plain" => (format!("{here}/plain"), "http://keys.example/".into()),
                _ => return None,
            };
            let metadata = json!({ "issuer": issuer, "jwks_uri": keys, "token_endpoint": 1 }).to_string();
            Some(reply("200 OK", if rest == "keys" { SET } else { &metadata }))
        });
        let at =
            |path: &str| discover(&format!("{origin}/{path}")).map(|(uri, origin)| (uri, origin.as_str().to_owned()));
        let good = (format!("{origin}/good/keys"), origin.clone());
        assert_eq!(at("good").unwrap(), good);
        assert_eq!(at("slash/").unwrap(), good);
        let check = |path: &str, told: &[&str]| {
            let problem = format!("{:#}", at(path).unwrap_err());
            assert!(told.iter().all(|told| problem.contains(told)), "{path}: {problem}");
        };
        check("good/", &["/good\" and not of", "/good/\", expected the same text"]);
        check("slash", &["/slash/\" and not of"]);
        check("other", &["/good\" and not of"]);
        check("keyless", &["no keys from http://127.0.0.1", "the status is not 200"]);
        check("plain", &["jwks_uri in the metadata", "\"http://keys.example/\", expected https://"]);
        check("absent", &["no metadata from", "--jwks FILE"]);
        assert!(format!("{:#}", discover("http://issuer.example").unwrap_err()).contains("expected https://"));
    }
}
