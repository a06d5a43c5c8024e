//! Public keys of callers: how the policy lists them, and how a caller authenticates with one.

use std::rc::Rc;

use super::{Caller, Callers, LONGEST_LIFE, Refused, Unauthenticated};
use crate::assertion::{Assertion, Reason};
use crate::config::mistake::Mistakes;
use crate::config::origin::Origin;
use crate::json::Json;
use crate::signature::{Algorithm, JwkMistake, PublicKey, verify};
use crate::time::Timestamp;

/// Most keys of one caller: an assertion that does not name its key is verified with as many.
const MOST_KEYS: usize = 4;

/// A public key that verifies a caller's assertions, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownKey {
    key: PublicKey,
    pub(super) expires_at: Option<Timestamp>,
}

impl Callers {
    /// Authenticates the caller that an assertion names as its issuer and subject, and that has
    /// signed it with one of its keys (RFC 7523 section 3). `audience` is the broker's issuer
    /// identifier, which the assertion must name as its only audience; without one the broker accepts
    /// no assertion.
    ///
    /// An assertion that names its key is verified once, any other as often as one caller has keys of
    /// that kind at most. Neither number tells whether the policy has this caller. If no caller has a key
    /// of that kind, nothing is verified, so that a stranger cannot choose the most expensive kind.
    ///
    /// # Errors
    /// When the assertion is for another audience, too old, too early or too long-lived, is not by
    /// this caller about itself, or no unexpired key of the caller has signed it. Only the log may tell
    /// which.
    pub fn authenticate_by_assertion(
        &self,
        assertion: &Assertion,
        audience: Option<&Origin>,
        now: Timestamp,
    ) -> Result<Rc<Caller>, Refused> {
        let caller = self.find(assertion.subject());
        match (self.check_assertion(caller, assertion, audience, now), caller) {
            (Ok(()), Some(caller)) => Ok(caller.clone()),
            (Ok(()), None) => Err(self.refused(Unauthenticated::UnknownCaller, None)),
            (Err(because), caller) => Err(self.refused(because, caller)),
        }
    }

    fn check_assertion(
        &self,
        caller: Option<&Rc<Caller>>,
        assertion: &Assertion,
        audience: Option<&Origin>,
        now: Timestamp,
    ) -> Result<(), Unauthenticated> {
        assertion.check_own_key_type()?;
        assertion.check_audience(audience.ok_or(Reason::WrongAudience)?.as_str())?;
        assertion.check_times(now, LONGEST_LIFE)?;
        let keys = caller.map_or(&[][..], |caller| &caller.keys);
        let is_candidate = keys.iter().any(|known| known.may_have_signed(assertion));
        let kind = Kind::of_signature(assertion);
        let mut candidates =
            keys.iter().filter(|known| known.may_have_signed(assertion) && Kind::of_key(&known.key) == kind);
        let most = self.most_keys.of(kind);
        let tries = if assertion.kid().is_some() { most.min(1) } else { most };
        let (mut is_known, mut opens) = (false, false);
        for _ in 0..tries {
            let candidate = candidates.next();
            let key = candidate.map(|known| &known.key);
            let is_signed = verify(key, assertion.algorithm(), assertion.signed(), assertion.signature());
            let is_unexpired =
                candidate.is_some_and(|known| known.expires_at.is_none_or(|expires_at| now < expires_at));
            is_known |= is_signed;
            opens |= is_signed && is_unexpired;
        }
        match caller {
            None => Err(Unauthenticated::UnknownCaller),
            Some(caller) if caller.is_disabled => Err(Unauthenticated::DisabledCaller),
            Some(_) if opens => Ok(()),
            Some(_) if is_known => Err(Reason::ExpiredKey.into()),
            Some(_) if is_candidate => Err(Reason::WrongSignature.into()),
            Some(_) => Err(Reason::UnknownKey.into()),
        }
    }
}

/// A kind of keys, which tells what verifying costs: the algorithm, and the bytes of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(Algorithm, usize);

impl Kind {
    fn of_signature(assertion: &Assertion) -> Self {
        Self(assertion.algorithm(), assertion.signature().len())
    }

    fn of_key(key: &PublicKey) -> Self {
        Self(key.algorithm(), key.signature_bytes())
    }
}

/// How many keys of each kind one caller has at most.
#[derive(Clone, Debug, Default)]
pub(super) struct MostKeys(Vec<(Kind, usize)>);

impl MostKeys {
    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, kind: Kind) -> usize {
        self.0.iter().find(|(known, _)| *known == kind).map_or(0, |(_, most)| *most)
    }

    /// Counts the keys of one more caller.
    pub(super) fn note(&mut self, keys: &[KnownKey]) {
        for kind in keys.iter().map(|known| Kind::of_key(&known.key)) {
            let count = keys.iter().filter(|known| Kind::of_key(&known.key) == kind).count();
            match self.0.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, most)) => *most = count.max(*most),
                None => self.0.push((kind, count)),
            }
        }
    }
}

impl KnownKey {
    /// Whether algorithm and key id permit that this key has signed the assertion. A key without an
    /// id is the caller's only one.
    fn may_have_signed(&self, assertion: &Assertion) -> bool {
        let has_id = match (self.key.kid(), assertion.kid()) {
            (Some(known), Some(named)) => known == named,
            _ => true,
        };
        has_id && self.key.algorithm() == assertion.algorithm()
    }
}

/// Parses the field `keys` of a caller: a list of JWKs (RFC 7517 section 4), each as it is or
/// as `{"jwk": …, "expires": …}`. Adds every mistake, and returns `None` if there is one.
pub(super) fn parse_keys(
    place: impl Fn() -> String,
    value: Json<'_, '_>,
    mistakes: &mut Mistakes,
) -> Option<Box<[KnownKey]>> {
    let entries = value.values().into_iter().flatten();
    let count = entries.clone().count();
    if !(1..=MOST_KEYS).contains(&count) {
        mistakes.add(&place(), "is not valid, expected a list of 1 to 4 public keys, each a JWK of RFC 7517");
        return None;
    }
    let mut keys = Vec::with_capacity(count);
    for (index, entry) in entries.enumerate() {
        match parse_key(entry) {
            Ok(key) => keys.push(key),
            Err(mistake) => mistakes.add_key(&place(), index, mistake),
        }
    }
    // An assertion names its key, or any of them may have signed it.
    let has_own_id = |key: &KnownKey| {
        let id = key.key.kid();
        id.is_some() && keys.iter().filter(|other| other.key.kid() == id).count() == 1
    };
    if keys.len() > 1 && !keys.iter().all(has_own_id) {
        mistakes.add(&place(), "has several keys, expected a kid in each, and all different");
        return None;
    }
    (keys.len() == count).then(|| keys.into_boxed_slice())
}

/// Parses a JWK. It has no `expires`: as an unknown member it would be ignored, and the key would
/// never expire.
fn parse_jwk(jwk: Json<'_, '_>) -> Result<PublicKey, JwkMistake> {
    if jwk.fields().into_iter().flatten().any(|(name, _)| name == "expires") {
        let problem = "is inside of the JWK, expected {\"jwk\": {…}, \"expires\": …}";
        return Err(JwkMistake { member: "expires", problem });
    }
    PublicKey::from_json(jwk)
}

fn parse_key(entry: Json<'_, '_>) -> Result<KnownKey, JwkMistake> {
    let mistake = |member, problem| JwkMistake { member, problem };
    let fields = entry.fields().into_iter().flatten();
    if !fields.clone().any(|(name, _)| name == "jwk") {
        return Ok(KnownKey { key: parse_jwk(entry)?, expires_at: None });
    }
    let (mut key, mut expires_at) = (None, None);
    for (name, value) in fields {
        let is_repeated = match name {
            "jwk" => key.replace(parse_jwk(value)?).is_some(),
            "expires" => {
                let time = value.text().and_then(|text| Timestamp::parse_rfc3339(text));
                let time = time.ok_or(mistake("expires", "is not valid, expected a date or time of RFC 3339"))?;
                expires_at.replace(time).is_some()
            }
            _ => return Err(mistake("", "has an unknown field, expected jwk and expires")),
        };
        if is_repeated {
            return Err(mistake("", "has a field twice, expected each once"));
        }
    }
    let key = key.ok_or(mistake("jwk", "is missing"))?;
    Ok(KnownKey { key, expires_at })
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::check;

    /// The key of RFC 7515 appendix A.3, with more members.
    fn jwk(members: &str) -> String {
        format!(
            r#"{{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                 "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"{members}}}"#
        )
    }

    #[track_caller]
    fn check_keys(keys: &str, expected: &[&str]) {
        check(&format!(r#"{{"a": {{"keys": {keys}, "scopes": ["x"]}}}}"#), expected);
    }

    #[test]
    fn mistake_in_a_key_names_its_number_and_member() {
        let (plain, one, two) = (jwk(""), jwk(r#", "kid": "1""#), jwk(r#", "kid": "2""#));
        check_keys(&format!("[{plain}]"), &[]);
        check_keys(&format!("[{one}, {two}]"), &[]);
        check_keys(&format!(r#"[{{"jwk": {plain}, "expires": "2027-01-31"}}]"#), &[]);
        let list = "callers: a.keys: is not valid, expected a list of 1 to 4";
        let five = ["{}"; 5].join(",");
        for keys in ["[]", "{}", "null", &plain, &format!("[{five}]")] {
            check_keys(keys, &[list]);
        }
        for keys in [format!("[{plain}, {two}]"), format!("[{one}, {one}]")] {
            check_keys(&keys, &["callers: a.keys: has several keys, expected a kid in each"]);
        }
        let private = jwk(r#", "kid": "2", "d": "hunter2""#);
        check_keys(&format!("[{one}, {private}]"), &["callers: a.keys: key 2, d: is part of a private key"]);
        check_keys("[1]", &["callers: a.keys: key 1: is not a JSON object, expected a JWK"]);
        for (entry, expected) in [
            (format!(r#"{{"jwk": {plain}, "expires": "soon"}}"#), "key 1, expires: is not valid, expected a date"),
            (format!(r#"{{"jwk": {plain}, "expires": null}}"#), "key 1, expires: is not valid, expected a date"),
            (format!(r#"{{"jwk": {plain}, "expiry": "2027-01-31"}}"#), "key 1: has an unknown field, expected jwk"),
            (format!(r#"{{"jwk": {plain}, "jwk": {plain}}}"#), "key 1: has a field twice"),
            (r#"{"jwk": 1}"#.to_owned(), "key 1: is not a JSON object"),
            (jwk(r#", "expires": "2027-01-31""#), "key 1, expires: is inside of the JWK"),
            (format!(r#"{{"jwk": {}}}"#, jwk(r#", "expires": "2027-01-31""#)), "key 1, expires: is inside of the JWK"),
        ] {
            check_keys(&format!("[{entry}]"), &[&format!("callers: a.keys: {expected}")]);
        }
    }
}
