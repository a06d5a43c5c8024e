//! Mistakes in the variables.

use std::fmt;

/// One mistake in the variables. It names the place and what belongs there, never a value.
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

/// The mistakes of one variable, as they are found.
#[derive(Debug)]
pub struct Mistakes {
    variable: &'static str,
    found: Vec<Mistake>,
}

impl Mistakes {
    /// None yet, for `variable`.
    pub fn of(variable: &'static str) -> Self {
        Self { variable, found: Vec::new() }
    }

    /// Whether none was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes what makes every other mistake void.
    pub fn replace(&mut self, place: &str, problem: &'static str) {
        self.found.clear();
        self.add(place, problem);
    }

    /// Notes that at `place` (empty: the whole variable) something is wrong.
    pub fn add(&mut self, place: &str, problem: &'static str) {
        // A place is made of names out of the variable: shortened and escaped, it cannot flood or forge a log line.
        let place = place.chars().take(160).flat_map(char::escape_debug).collect();
        self.found.push(Mistake { variable: self.variable, place, problem });
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}
