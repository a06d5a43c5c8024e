//! Rules of the core that the simulation breaks one by one, to check that it notices.
//!
//! Only the package `simulation` enables the feature `breakable-rules`. Without it every rule
//! is in force and this module compiles to nothing.

/// A rule that the simulation can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A lease is acquired only by reading back what was written, and read once more before the
    /// call.
    ReadBack,
    /// The holder of the lease checks the cache again before it calls.
    SecondLook,
    /// No call is made beyond the call quota or during a pause.
    Ledger,
    /// One caller leaves two calls of a minute to the others.
    Share,
    /// A lease expires automatically.
    LeaseDeadline,
    /// Nothing is written under a lease that is about to expire.
    LeaseEnd,
    /// A call counts for 5 s longer than OfficeRnD's minute, because clocks differ.
    ClockSkew,
    /// What was called for without the store is written once the store works again.
    SaveLater,
    /// No call is made without the store before it has failed for 2 s.
    Patience,
    /// A holder of the lease that could not read the store's records makes no call.
    CompleteLook,
    /// Operations fail immediately for 2 s after the store has failed.
    FailFast,
    /// An instance asks the store for a token again 2 s after it last did.
    TokenMemory,
    /// The last good configuration stays in use while the variables are unreadable or wrong.
    LastGood,
    /// One request of an instance reads the variables for all.
    OneReader,
    /// A mistake in the entry of a caller or an application disables only that entry.
    EntryMistake,
    /// The keys of an issuer are fetched at most once a minute.
    KeyPause,
    /// No key of an issuer is used after 24 hours.
    KeyAge,
    /// Keys are fetched again when they are an hour old.
    KeyRenewal,
    /// Each issuer has keys of its own.
    KeysApart,
}

#[cfg(feature = "breakable-rules")]
impl Rule {
    /// The rules about keys of issuers.
    pub const OF_KEYS: [Self; 4] = [Self::KeyPause, Self::KeyAge, Self::KeyRenewal, Self::KeysApart];

    /// Every other rule.
    pub const ALL: [Self; 15] = [
        Self::ReadBack,
        Self::SecondLook,
        Self::Ledger,
        Self::Share,
        Self::LeaseDeadline,
        Self::LeaseEnd,
        Self::ClockSkew,
        Self::SaveLater,
        Self::Patience,
        Self::CompleteLook,
        Self::FailFast,
        Self::TokenMemory,
        Self::LastGood,
        Self::OneReader,
        Self::EntryMistake,
    ];
}

#[cfg(feature = "breakable-rules")]
std::thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule on this thread; `None` restores all.
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
