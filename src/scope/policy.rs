//! Scope policies: the scopes that a caller may have, by name or by a pattern over their dotted
//! parts.

use super::{MalformedScope, Scopes};

/// The scopes that a caller may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopePolicy {
    exact: Option<Scopes>,
    patterns: Vec<Pattern>,
}

/// Why a list of entries is not a valid policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedPolicy {
    /// The list is empty, contains an invalid scope token, or has more than 512 different
    /// entries.
    Scope,
    /// A `*` stands where it has no meaning.
    Pattern,
}

impl ScopePolicy {
    /// Creates a policy. An entry with a `*` is a pattern: a part `*` matches exactly one
    /// dotted part, and `.**` at the end matches any number of parts, including none.
    ///
    /// # Errors
    /// When the list is empty, or an entry is neither a scope token (RFC 6749 section 3.3) nor
    /// a pattern.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, MalformedPolicy> {
        let entries = Scopes::from_tokens(entries).map_err(|MalformedScope| MalformedPolicy::Scope)?;
        if !entries.as_str().contains('*') {
            return Ok(Self { exact: Some(entries), patterns: Vec::new() });
        }
        let (patterns, named): (Vec<_>, Vec<_>) = entries.tokens().partition(|entry| entry.contains('*'));
        let patterns =
            patterns.into_iter().map(Pattern::parse).collect::<Option<_>>().ok_or(MalformedPolicy::Pattern)?;
        // An error means an empty list: every entry is a pattern.
        Ok(Self { exact: Scopes::from_tokens(named).ok(), patterns })
    }

    /// A policy that permits nothing.
    pub(crate) fn nothing() -> Self {
        Self { exact: None, patterns: Vec::new() }
    }

    /// Whether the policy permits no scope at all.
    pub(crate) fn is_nothing(&self) -> bool {
        self.exact.is_none() && self.patterns.is_empty()
    }

    /// Whether the policy permits every scope of the set.
    pub fn permits(&self, requested: &Scopes) -> bool {
        requested.without(self.exact.as_ref()).all(|scope| self.patterns.iter().any(|pattern| pattern.matches(scope)))
    }

    /// All permitted scopes; `None` if the policy has a pattern, because the broker does not
    /// know which scopes exist.
    pub fn everything(&self) -> Option<&Scopes> {
        self.exact.as_ref().filter(|_| self.patterns.is_empty())
    }
}

/// A pattern over the dotted parts of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

/// Suffix of a pattern that matches any number of further parts.
const ANY_PARTS: &str = ".**";

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let parts = text.strip_suffix(ANY_PARTS).unwrap_or(text);
        parts.split('.').all(|part| part == "*" || !part.contains('*')).then(|| Self(text.to_owned()))
    }

    /// Whether the pattern matches a scope. Case-sensitive, as scopes are.
    fn matches(&self, scope: &str) -> bool {
        let (parts, has_open_end) = match self.0.strip_suffix(ANY_PARTS) {
            Some(parts) => (parts, true),
            None => (self.0.as_str(), false),
        };
        let mut found = scope.split('.');
        // Never grant a scope that OfficeRnD itself could read as a pattern, nor one with an
        // empty part.
        let is_part = |part: &str| !part.is_empty() && !part.contains('*');
        let begins_alike = parts.split('.').all(|part| {
            found.next().is_some_and(|found| part == "*" && is_part(found) || part != "*" && part == found)
        });
        begins_alike && if has_open_end { found.all(is_part) } else { found.next().is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> ScopePolicy {
        ScopePolicy::from_entries(entries.iter().copied()).unwrap()
    }

    #[test]
    fn pattern_star_matches_one_part_and_double_star_any_number() {
        let check = |pattern: &str, scope: &str, expected: bool| {
            let requested = Scopes::parse(scope).unwrap();
            assert_eq!(policy(&[pattern]).permits(&requested), expected, "{pattern} and {scope}");
        };
        check("flex.community.*.read", "flex.community.members.read", true);
        check("flex.community.*.read", "flex.community.members.notes.read", false);
        check("flex.community.*.read", "flex.community.read", false);
        check("flex.community.*.read", "flex.community..read", false);
        check("flex.community.*.read", "flex.community.members.write", false);
        check("flex.community.*.read", "flex.community.members.readx", false);
        check("flex.community.*.read", "flex.community.members.read.", false);
        check("flex.community.*.read", ".flex.community.members.read", false);
        check("flex.community.*.read", "xflex.community.members.read", false);
        check("flex.community.*.read", "flex.Community.members.read", false);
        check("flex.community.*.read", "flex.community.members.Read", false);
        check("flex.community.*.read", "flex.community.*.read", false);
        check("flex.community.*.read", "flex.community.m*.read", false);
        check("flex.*.*.read", "flex.community.members.read", true);
        check("flex.*.*.read", "flex.members.read", false);
        check("*.read", "officernd.read", true);
        check("*", "officernd", true);
        check("*", "officernd.read", false);
        check("flex.billing.**", "flex.billing.payments.allocations.create", true);
        check("flex.billing.**", "flex.billing.payments", true);
        check("flex.billing.**", "flex.billing", true);
        check("flex.billing.**", "flex.billingpayments", false);
        check("flex.billing.**", "flex.billing.", false);
        check("flex.billing.**", "flex.billing..payments", false);
        check("flex.billing.**", "flex.billing.*", false);
        check("flex.billing.**", "flex.billing.**", false);
        check("flex.billing.**", "flex", false);
        check("flex.billing.**", "flex.community.members.read", false);
        check("flex.*.payments.**", "flex.billing.payments.create", true);
        check("flex.*.payments.**", "flex.payments.create", false);
        check("*.**", "flex.billing", true);
        // Each scope must match one of the entries.
        check("flex.community.*.read", "flex.community.members.read flex.community.companies.read", true);
        check("flex.community.*.read", "flex.community.members.read flex.billing.payments.read", false);
    }

    #[test]
    fn policy_with_names_and_patterns_permits_both() {
        let both = policy(&["b.read", "flex.*.read", "z"]);
        let check = |scope: &str, expected: bool| {
            assert_eq!(both.permits(&Scopes::parse(scope).unwrap()), expected, "{scope}");
        };
        check("b.read", true);
        check("a.read", false);
        check("z flex.x.read b.read", true);
        check("flex.x.read y z", false);
        assert_eq!(both.everything(), None, "a pattern does not say which scopes there are");
        assert_eq!(policy(&["b", "a"]).everything().unwrap().as_str(), "a b");
    }

    #[test]
    fn policy_entry_that_is_neither_scope_nor_pattern_is_refused() {
        let check = |entry: &str, expected: MalformedPolicy| {
            assert_eq!(ScopePolicy::from_entries(["good", entry]), Err(expected), "{entry}");
        };
        for entry in ["", "a b", "caf\u{e9}", "a\n"] {
            check(entry, MalformedPolicy::Scope);
        }
        for entry in ["**", "**.read", "flex.**.read", "flex.m*", "flex.*m.read", "flex.***", "flex.*.**.**", "a**"] {
            check(entry, MalformedPolicy::Pattern);
        }
        assert_eq!(ScopePolicy::from_entries([]), Err(MalformedPolicy::Scope));
    }
}
