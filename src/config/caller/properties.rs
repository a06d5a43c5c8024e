//! Properties of authorization: for any policy and any request, the granted scopes lie within
//! both, however either is written.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sha2::{Digest as _, Sha256};

use super::{Caller, Callers};
use crate::config::issuer::Issuers;
use crate::config::mistake::Mistakes;
use crate::scope::{ScopeRefusal, Scopes};
use crate::secret::PresentedSecret;
use crate::time::Timestamp;

/// Builds a caller whose policy has these entries, through the JSON of the variable `callers`;
/// `None` if that contains a mistake.
fn caller(entries: &[String]) -> Option<std::rc::Rc<Caller>> {
    let digest: String = Sha256::digest(b"secret").iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = serde_json::json!({ "a": { "secret_sha256": [digest], "scopes": entries } });
    let mut mistakes = Mistakes::of("callers");
    let callers = Callers::parse(&policy.to_string(), |_| true, &Issuers::default(), &mut mistakes);
    let found = callers.authenticate("a", &PresentedSecret::new("secret"), Timestamp::from_unix_ms(0)).ok();
    assert_eq!(found.is_some(), mistakes.into_iter().next().is_none());
    found
}

/// The scopes that a request gets, as sorted tokens.
fn granted(caller: &Caller, request: &str) -> Result<Vec<String>, ScopeRefusal> {
    let requested = Scopes::parse(request).map_err(|_| ScopeRefusal::Malformed)?;
    Ok(caller.authorize(Some(requested))?.tokens().map(str::to_owned).collect())
}

/// Whether an entry permits a scope, by a different algorithm than the policy's.
fn is_within(entry: &[&str], scope: &[&str]) -> bool {
    let is_part = |part: &&str| !part.is_empty() && !part.contains('*');
    match (entry, scope) {
        (["**"], rest) => rest.iter().all(is_part),
        (["*", entry @ ..], [part, scope @ ..]) => is_part(part) && is_within(entry, scope),
        ([name, entry @ ..], [part, scope @ ..]) => name == part && is_within(entry, scope),
        (entry, scope) => entry.is_empty() && scope.is_empty(),
    }
}

fn is_permitted(entries: &[String], scope: &str) -> bool {
    let parts = |text| str::split(text, '.').collect::<Vec<_>>();
    entries.iter().any(|entry| is_within(&parts(entry), &parts(scope)))
}

/// A small choice of parts, so that policies and requests overlap: names that differ only in
/// case, empty ones, stars.
fn part() -> impl Strategy<Value = &'static str> {
    select(vec!["flex", "Flex", "members", "read", "READ", "x", "", "*", "**", "m*"])
}

fn dotted() -> impl Strategy<Value = String> {
    prop::collection::vec(part(), 1..5).prop_map(|parts| parts.join("."))
}

/// Entries that form a valid policy.
fn entries() -> impl Strategy<Value = Vec<String>> {
    let entry = dotted().prop_filter("no entry of a policy", |entry| caller(std::slice::from_ref(entry)).is_some());
    prop::collection::vec(entry, 1..6)
}

/// A policy and scopes that often lie within it: entries whose stars are replaced by names, or
/// arbitrary ones.
fn policy_and_scopes() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    entries().prop_flat_map(|entries| {
        let filled = (select(entries.clone()), part(), part())
            .prop_map(|(entry, one, other)| entry.replace("**", &format!("{one}.{other}")).replace('*', one));
        let scope = prop_oneof![4 => filled, 1 => dotted()].prop_filter("no scope", |scope| !scope.is_empty());
        (Just(entries), prop::collection::vec(scope, 1..6))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn granted_scopes_equal_the_request_within_the_policy((entries, scopes) in policy_and_scopes()) {
        let result = granted(&caller(&entries).unwrap(), &scopes.join(" "));
        if scopes.iter().all(|scope| is_permitted(&entries, scope)) {
            let requested: BTreeSet<_> = scopes.into_iter().collect();
            prop_assert_eq!(result, Ok(requested.into_iter().collect()));
        } else {
            prop_assert_eq!(result, Err(ScopeRefusal::OutsidePolicy));
        }
    }

    #[test]
    fn scope_order_and_repetition_do_not_change_authorization(
        (entries, scopes) in policy_and_scopes(),
        places in prop::collection::vec(any::<(Index, Index)>(), 0..12),
    ) {
        let (mut other_entries, mut other_scopes) = (entries.clone(), scopes.clone());
        for (from, to) in places {
            for list in [&mut other_entries, &mut other_scopes] {
                let repeated = list[from.index(list.len())].clone();
                list.insert(to.index(list.len()), repeated);
                let last = list.len() - 1;
                list.swap(from.index(last + 1), last);
            }
        }
        let (caller, other) = (caller(&entries).unwrap(), caller(&other_entries).unwrap());
        prop_assert_eq!(&caller.scopes, &other.scopes);
        prop_assert_eq!(granted(&caller, &scopes.join(" ")), granted(&other, &other_scopes.join(" ")));
        prop_assert_eq!(caller.authorize(None), other.authorize(None));
    }

    #[test]
    fn scope_in_another_case_is_another_scope((entries, scopes) in policy_and_scopes(), upper in any::<bool>()) {
        let turned: Vec<_> =
            scopes.iter().map(|scope| if upper { scope.to_uppercase() } else { scope.to_lowercase() }).collect();
        let result = granted(&caller(&entries).unwrap(), &turned.join(" "));
        prop_assert_eq!(result.is_ok(), turned.iter().all(|scope| is_permitted(&entries, scope)));
        // If the policy has no patterns, a name in another case is never granted.
        let named = scopes.iter().filter(|scope| !scope.contains('*')).cloned().collect::<Vec<_>>();
        if let Some(by_name) = caller(&named) && turned != scopes {
            let result = granted(&by_name, &turned.join(" "));
            prop_assert_eq!(result.is_ok(), turned.iter().all(|scope| named.contains(scope)));
        }
    }

    #[test]
    fn character_outside_the_grammar_is_never_granted(
        (entries, scopes) in policy_and_scopes(),
        // Letters that fold or decompose to letters of a scope, or look like them; unusual
        // spaces; line ends and terminators.
        letter in prop_oneof![
            any::<char>(),
            select("\u{212A}\u{17F}\u{FF46}\u{435}\u{301}\u{A0}\u{200B}\u{2024}\u{FF0E}\u{FEFF}\0\t\r\n\"\\\u{7F}".chars().collect::<Vec<_>>()),
        ].prop_filter("a letter of the grammar", |letter| !matches!(letter, ' '..='~') || matches!(letter, '"' | '\\')),
        place in any::<Index>(),
    ) {
        let caller = caller(&entries).unwrap();
        let mut request = scopes.join(" ");
        // The text so far is ASCII, so any index lies between two letters.
        request.insert(place.index(request.len() + 1), letter);
        // White space only separates the scopes of a request.
        if !letter.is_ascii_whitespace() {
            prop_assert_eq!(granted(&caller, &request), Err(ScopeRefusal::Malformed));
        }
        let mut entries = entries;
        let entry = &mut entries[0];
        entry.insert(place.index(entry.len() + 1), letter);
        prop_assert!(self::caller(&entries).is_none(), "{entries:?}");
    }

    #[test]
    fn pattern_in_a_request_is_refused((entries, scopes) in policy_and_scopes(), at in any::<Index>()) {
        let caller = caller(&entries).unwrap();
        for star in ["*", "**", "flex.*", "flex.**", "*.read"] {
            let mut scopes = scopes.clone();
            scopes.insert(at.index(scopes.len() + 1), star.to_owned());
            prop_assert_eq!(granted(&caller, &scopes.join(" ")), Err(ScopeRefusal::OutsidePolicy));
        }
    }

    #[test]
    fn request_without_scope_gets_every_name_and_no_more(entries in entries()) {
        let result = caller(&entries).unwrap().authorize(None);
        if entries.iter().any(|entry| entry.contains('*')) {
            prop_assert_eq!(result, Err(ScopeRefusal::Unnamed));
        } else {
            let names: BTreeSet<_> = entries.iter().map(String::as_str).collect();
            prop_assert!(result.unwrap().tokens().eq(names));
        }
    }

    #[test]
    fn policy_with_more_entries_grants_no_less((entries, scopes) in policy_and_scopes(), more in entries()) {
        let longer = [entries.clone(), more].concat();
        if granted(&caller(&entries).unwrap(), &scopes.join(" ")).is_ok() {
            prop_assert!(granted(&caller(&longer).unwrap(), &scopes.join(" ")).is_ok());
        }
    }

    #[test]
    fn scope_text_is_refused_or_parsed_as_its_token_set(text in ".{0,40}|[a-c .*]{0,40}") {
        let tokens: BTreeSet<_> = text.split_ascii_whitespace().collect();
        let is_token = |token: &&str| token.chars().all(|letter| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\'));
        match Scopes::parse(&text) {
            Ok(scopes) => {
                prop_assert_eq!(Scopes::parse(scopes.as_str()).unwrap(), scopes.clone());
                prop_assert!(scopes.tokens().eq(tokens.iter().copied()) && tokens.iter().all(is_token));
            }
            Err(_) => prop_assert!(tokens.is_empty() || !tokens.iter().all(is_token)),
        }
    }
}
