//! Mistakes in the variables, as the operator reads them.

use std::fmt;

use crate::signature::JwkMistake;

/// One mistake: its place, and what is expected there. It never contains a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    variable: &'static str,
    place: String,
    problem: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            write!(f, "{}: {}", self.variable, self.problem)
        } else {
            write!(f, "{}: {}: {}", self.variable, self.place, self.problem)
        }
    }
}

/// Mistakes of one variable, while they are being found.
#[derive(Debug)]
pub struct Mistakes {
    variable: &'static str,
    found: Vec<Mistake>,
    spoil_variable: bool,
}

impl Mistakes {
    /// An empty list for `variable`.
    pub fn of(variable: &'static str) -> Self {
        Self { variable, found: Vec::new(), spoil_variable: false }
    }

    /// Number of mistakes so far.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether a mistake makes the whole variable unusable, and not only one of its entries.
    pub(super) fn spoil_variable(&self) -> bool {
        self.spoil_variable
    }

    /// Replaces all other mistakes by one that makes the whole variable unusable. `place` is
    /// empty if the mistake has none.
    pub fn replace(&mut self, place: &str, problem: &'static str) {
        self.found.clear();
        self.add(place, problem);
        self.spoil_variable = true;
    }

    /// Adds a mistake of the entry that `place` names.
    pub fn add(&mut self, place: &str, problem: &'static str) {
        // A place contains names from the variable. Truncated and escaped, it cannot flood or
        // forge a log line.
        let place = escape(place);
        self.found.push(Mistake { variable: self.variable, place, problem });
    }

    /// Adds a mistake in the key at `index` of the list at `place`.
    pub(super) fn add_key(&mut self, place: &str, index: usize, mistake: JwkMistake) {
        let JwkMistake { member, problem } = mistake;
        let of_member = if member.is_empty() { "" } else { ", " };
        self.add(&format!("{place}: key {}{of_member}{member}", index + 1), problem);
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

/// The beginning of a name from a variable, safe to print: no line break or control character can
/// forge a line of the log.
pub fn escape(name: &str) -> String {
    name.chars().take(160).flat_map(char::escape_debug).collect()
}
