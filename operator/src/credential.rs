//! Credentials of callers: what a command adds to the entry of a caller, so that it can authenticate.

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use crate::secret::RandomSecret;

/// A new credential of a caller.
pub(crate) enum Credential {
    /// A secret, of which the policy has the digest.
    Secret(RandomSecret),
    /// A key of the caller's own, as a public JWK.
    Key(Value),
    /// Tokens of an issuer that have these claims.
    Identity(Identity),
}

/// Tokens of an issuer with these claims, each with the values that are permitted.
pub(crate) struct Identity {
    issuer: String,
    claims: Map<String, Value>,
}

impl Identity {
    /// Makes an identity from the name of an issuer and claims as `CLAIM=VALUE`. A name that appears
    /// several times permits each of its values.
    ///
    /// # Errors
    ///
    /// If a claim has no `=`.
    pub(crate) fn new(issuer: &str, claims: &[String]) -> anyhow::Result<Self> {
        let mut found = Map::new();
        for claim in claims {
            let (name, value) =
                claim.split_once('=').with_context(|| format!("--claim {claim:?} has no =, expected CLAIM=VALUE"))?;
            match found.get_mut(name) {
                None => drop(found.insert(name.to_owned(), value.into())),
                Some(Value::Array(values)) => values.push(value.into()),
                Some(first) => *first = json!([first, value]),
            }
        }
        Ok(Self { issuer: issuer.to_owned(), claims: found })
    }
}

impl Credential {
    /// Field of a caller's entry that lists credentials of this kind.
    fn field(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret_sha256",
            Self::Key(_) => "keys",
            Self::Identity(_) => "identities",
        }
    }

    /// Makes the entry of a caller with only this credential.
    pub(crate) fn entry(&self, scopes: &[String]) -> Value {
        let mut entry = Map::new();
        entry.insert(self.field().to_owned(), json!([self.value()]));
        if !scopes.is_empty() {
            entry.insert("scopes".to_owned(), scopes.into());
        }
        entry.into()
    }

    fn value(&self) -> Value {
        match self {
            Self::Secret(secret) => secret.sha256().into(),
            Self::Key(jwk) => jwk.clone(),
            Self::Identity(Identity { issuer, claims }) => json!({ "issuer": issuer, "claims": claims }),
        }
    }

    /// Adds this credential to the entry of a caller. With `expires`, the present credentials that it
    /// replaces expire then, if they have no expiry yet: a secret replaces secrets, and a key or an
    /// identity replaces secrets and keys.
    ///
    /// # Errors
    ///
    /// If a secret should be added to a caller that has none.
    pub(crate) fn add_to(
        &self,
        name: &str,
        entry: &mut Map<String, Value>,
        expires: Option<&str>,
    ) -> anyhow::Result<()> {
        let is_secret = matches!(self, Self::Secret(_));
        ensure!(
            !is_secret || entry.contains_key(self.field()),
            "the caller {name:?} has no secret that another could follow: --key or --issuer adds a key or an identity; for \
             a secret in place of these, use `caller remove` and `caller new`"
        );
        let replaced: &[_] =
            if is_secret { &[("secret_sha256", "sha256")] } else { &[("secret_sha256", "sha256"), ("keys", "jwk")] };
        for (field, member) in replaced {
            let present = entry.get_mut(*field).and_then(Value::as_array_mut).into_iter().flatten();
            for credential in present {
                let (value, has_expiry) = match &*credential {
                    // With an expiry, or an object without one; a JWK as it is has no such member.
                    Value::Object(fields) if fields.contains_key(*member) => {
                        (&fields[*member], fields.contains_key("expires"))
                    }
                    value => (value, false),
                };
                if let Some(expires) = expires.filter(|_| !has_expiry) {
                    *credential = json!({ *member: value, "expires": expires });
                }
            }
        }
        let list = entry.entry(self.field()).or_insert_with(|| json!([]));
        list.as_array_mut().expect("the component accepts only an array").push(self.value());
        Ok(())
    }
}
