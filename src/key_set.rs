//! Sets of public keys (RFC 7517 section 5).

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::signature::{Algorithm, JwkMistake, PublicKey};

/// Public keys of one issuer. An assertion is verified with at most one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet(Vec<PublicKey>);

/// A mistake in a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetMistake {
    /// Index of the key in the list.
    pub(crate) index: usize,
    /// What is wrong with it.
    pub(crate) mistake: JwkMistake,
}

impl KeySet {
    /// Reads the keys in a JWK Set, and ignores those that serve another purpose, or are of a kind
    /// that the broker does not verify (RFC 7517 section 5). `None` if it is no JWK Set.
    pub(crate) fn from_json(set: Json<'_, '_>) -> Option<(Self, Vec<SetMistake>)> {
        let mut lists = set.fields()?.filter(|(name, _)| *name == "keys").map(|(_, list)| list);
        let list = lists.next().filter(|_| lists.next().is_none())?;
        let (mut keys, mut mistakes): (Vec<PublicKey>, Vec<SetMistake>) = Default::default();
        for (index, jwk) in list.values()?.enumerate() {
            match PublicKey::from_json(jwk) {
                Ok(key)
                    if keys.iter().any(|known| known.kid() == key.kid() && known.algorithm() == key.algorithm()) =>
                {
                    let problem = "is that of another key too, expected a different one in each";
                    mistakes.push(SetMistake { index, mistake: JwkMistake { member: "kid", problem } });
                }
                Ok(key) => keys.push(key),
                Err(mistake) if OTHER_KEYS.contains(&mistake.member) => {}
                Err(mistake) => mistakes.push(SetMistake { index, mistake }),
            }
        }
        Some((Self(keys), mistakes))
    }

    /// Keeps only the first `most` keys that have an id.
    pub(crate) fn keep_named(&mut self, most: usize) {
        self.0.retain(|key| key.kid().is_some());
        self.0.truncate(most);
    }

    /// The keys, in the order of the set.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    /// Number of keys.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key that may have signed an assertion whose header names this id and this algorithm. An
    /// assertion without an id can only be by the one key of its algorithm.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let is_wanted = |key: &&PublicKey| key.algorithm() == algorithm && (kid.is_none() || key.kid() == kid);
        let mut keys = self.0.iter().filter(is_wanted);
        keys.next().filter(|_| keys.next().is_none())
    }
}

/// Members that say that a key is for something else, as other keys of an issuer are.
const OTHER_KEYS: [&str; 5] = ["kty", "crv", "alg", "use", "key_ops"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::read_value;

    /// The point of RFC 7515 appendix A.3.
    const POINT: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn parse(keys: &str) -> Option<(KeySet, Vec<(usize, &'static str)>)> {
        let set = read_value(&format!(r#"{{"keys":{keys}}}"#), KeySet::from_json).unwrap();
        set.map(|(keys, mistakes)| {
            (keys, mistakes.iter().map(|SetMistake { index, mistake }| (*index, mistake.member)).collect())
        })
    }

    #[test]
    fn keys_for_another_purpose_are_ignored_and_wrong_ones_are_mistakes() {
        let (set, mistakes) = parse(&format!(
            r#"[{{"kty":"OKP","crv":"Ed25519"}},
                {{{POINT},"kid":"1"}},
                {{{POINT},"kid":"2","use":"enc"}},
                {{"kty":"EC","crv":"P-384"}},
                {{{POINT},"kid":"3","d":"x"}},
                {{{POINT},"kid":"1"}},
                {{"kty":"RSA","e":"AQAB","n":"AA"}}]"#
        ))
        .unwrap();
        assert_eq!(set.count(), 1);
        assert_eq!(mistakes, [(4, "d"), (5, "kid"), (6, "n")]);
    }

    #[test]
    fn key_is_found_by_its_id_or_as_the_only_one_of_its_algorithm() {
        let (set, _) = parse(&format!(r#"[{{{POINT},"kid":"1"}}]"#)).unwrap();
        let is_found = |set: &KeySet, kid, algorithm| set.find(kid, algorithm).is_some();
        assert!(is_found(&set, Some("1"), Algorithm::Es256));
        assert!(is_found(&set, None, Algorithm::Es256));
        assert!(!is_found(&set, Some("2"), Algorithm::Es256));
        assert!(!is_found(&set, Some("1"), Algorithm::Rs256));
        let (two, _) = parse(&format!(r#"[{{{POINT},"kid":"1"}}, {{{POINT},"kid":"2"}}]"#)).unwrap();
        assert!(is_found(&two, Some("2"), Algorithm::Es256));
        assert!(!is_found(&two, None, Algorithm::Es256));
        let (without_id, _) = parse(&format!("[{{{POINT}}}]")).unwrap();
        assert!(is_found(&without_id, None, Algorithm::Es256));
        assert!(!is_found(&without_id, Some("1"), Algorithm::Es256), "the id is not that of the key");
    }

    #[test]
    fn set_without_one_list_of_keys_is_no_set() {
        for text in ["[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":null}"#] {
            assert!(read_value(text, KeySet::from_json).unwrap().is_none(), "{text}");
        }
        assert_eq!(parse("[]").unwrap().0.count(), 0);
    }
}
