//! The rules that the simulation switches off one by one, to see that it notices.
//!
//! Without the feature `breakable-rules`, which only the package `tests` enables, every rule holds and this compiles to
//! nothing.

/// A rule of the gate that can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A lease is won only by reading back what was written.
    ReadBack,
    /// The holder of a lease looks at the cache before it calls.
    SecondLook,
    /// No call without room in the ledger.
    Ledger,
    /// A lease ends by itself.
    LeaseDeadline,
}

#[cfg(feature = "breakable-rules")]
std::thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule on this thread, or mends it with `None`.
#[cfg(feature = "breakable-rules")]
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}

/// Whether a rule is in force.
#[cfg(feature = "breakable-rules")]
pub(crate) fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Whether a rule is in force.
#[cfg(not(feature = "breakable-rules"))]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}
