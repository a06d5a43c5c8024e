//! Scopes (RFC 6749 section 3.3): case-sensitive tokens, whose order and repetition do not
//! matter.

pub mod policy;

use std::fmt;

/// A scope set: at least one token, sorted and without repetition.
///
/// Two requests for the same set are equal however they are written. Everything that depends on
/// scopes therefore compares values of this type, and never the text of a request: policy,
/// cache key, and the comparison of granted with requested scopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scopes(String);

/// The text is not a list of scope tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedScope;

impl fmt::Display for MalformedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected one or more tokens of printable ASCII without quote and backslash, separated by white space",
        )
    }
}

impl std::error::Error for MalformedScope {}

/// Why a scope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeRefusal {
    /// The scope violates the grammar.
    Malformed,
    /// The caller's policy does not permit it.
    OutsidePolicy,
    /// The request names no scope, and the caller's policy has a pattern, so the broker cannot
    /// list the permitted scopes.
    Unnamed,
    /// OfficeRnD did not grant it to the application: an entry of the policy asks for too much.
    NotGranted,
}

impl ScopeRefusal {
    /// The value of the audit field `reason`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "scope_malformed",
            Self::OutsidePolicy => "scope_outside_policy",
            Self::Unnamed => "scope_unnamed",
            Self::NotGranted => "scope_not_granted",
        }
    }
}

/// Most tokens in a set. OfficeRnD has about a hundred.
const SCOPES_LIMIT: usize = 512;

impl Scopes {
    /// Parses `scope-token *( SP scope-token )`. More white space, of any kind, means nothing:
    /// clients build this text from lists and files.
    ///
    /// # Errors
    /// When `text` violates that grammar (RFC 6749 section 3.3), as the empty text does.
    pub fn parse(text: &str) -> Result<Self, MalformedScope> {
        Self::from_tokens(text.split_ascii_whitespace())
    }

    /// Creates a set of the given tokens.
    ///
    /// # Errors
    /// When the list is empty, contains an invalid token, or has more than 512 different ones.
    pub fn from_tokens<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Result<Self, MalformedScope> {
        let mut tokens = tokens.into_iter();
        let first = tokens.next().filter(|token| is_scope_token(token)).ok_or(MalformedScope)?;
        let second = tokens.next();
        if second.is_none() {
            return Ok(Self(first.to_owned()));
        }
        let mut sorted = vec![first];
        for token in second.into_iter().chain(tokens) {
            if !is_scope_token(token) {
                return Err(MalformedScope);
            }
            // Insertion in order: requests are mostly sorted already, and a sort would add more
            // code than it saves time.
            if sorted.last().is_none_or(|last| *last < token) {
                sorted.push(token);
            } else if let Err(place) = sorted.binary_search(&token) {
                sorted.insert(place, token);
            }
            if sorted.len() > SCOPES_LIMIT {
                return Err(MalformedScope);
            }
        }
        Ok(Self(sorted.join(" ")))
    }

    /// The tokens, sorted.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ')
    }

    /// The tokens, sorted and separated by one space, as OfficeRnD gets them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every token of this set is also in `other`.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.without(Some(other)).next().is_none()
    }

    /// The tokens that are not in `other`.
    fn without<'a>(&'a self, other: Option<&'a Self>) -> impl Iterator<Item = &'a str> {
        // Both are sorted, so one pass over `other` suffices.
        let mut others = other.into_iter().flat_map(Self::tokens).peekable();
        self.tokens().filter(move |token| {
            while others.next_if(|candidate| candidate < token).is_some() {}
            others.next_if_eq(token).is_none()
        })
    }
}

/// Whether a token matches `1*( %x21 / %x23-5B / %x5D-7E )`, RFC 6749 section 3.3.
fn is_scope_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_set_ignores_order_and_repetition() {
        let check =
            |text: &str, expected: &str| assert_eq!(Scopes::parse(text).unwrap().as_str(), expected, "{text:?}");
        check("a", "a");
        check("b a", "a b");
        check("b a b a", "a b");
        check("a A", "A a");
        check(" a  b ", "a b");
        check("a\tb\r\n", "a b");
        check("flex.billing.payments.allocations.create", "flex.billing.payments.allocations.create");
    }

    #[test]
    fn malformed_scope_list_is_refused() {
        for text in ["", " ", "\n", "a\u{b}b", "a\0", "\"a\"", "a\\b", "caf\u{e9}", "a\u{a0}b", "a\u{7f}"] {
            assert_eq!(Scopes::parse(text), Err(MalformedScope), "{text:?}");
        }
        let tokens = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert!(Scopes::parse(&tokens(SCOPES_LIMIT)).is_ok());
        assert_eq!(Scopes::parse(&tokens(SCOPES_LIMIT + 1)), Err(MalformedScope));
    }

    #[test]
    fn subset_contains_only_tokens_of_the_other_set() {
        let check = |left: &str, right: &str, expected: bool| {
            let (left, right) = (Scopes::parse(left).unwrap(), Scopes::parse(right).unwrap());
            assert_eq!(left.is_subset_of(&right), expected, "{left:?} in {right:?}");
        };
        check("a", "a", true);
        check("a c", "a b c", true);
        check("a b c", "a c", false);
        check("d", "a b c", false);
        check("a", "A", false);
        check("a", "aa", false);
        check("a.b", "a", false);
    }
}
