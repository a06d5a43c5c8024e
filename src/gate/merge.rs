//! Merges a ledger with changes that the store lacks, and forgets those that it has accepted.

use super::ledger::Ledger;

impl Ledger {
    /// Merges the calls and pauses that the store does not know yet.
    pub fn absorb(&mut self, unsaved: &Self) {
        for call in &unsaved.calls_ms {
            if !self.calls_ms.contains(call) {
                self.insert(*call);
            }
        }
        if self.pause.is_none_or(|known| unsaved.pause.is_some_and(|pause| pause.until_ms > known.until_ms)) {
            self.pause = unsaved.pause;
        }
        for (credential, pause) in &unsaved.pauses_by_credential {
            match self.pauses_by_credential.iter_mut().find(|(other, _)| other == credential) {
                Some((_, known)) if known.until_ms < pause.until_ms => *known = *pause,
                Some(_) => {}
                None => self.pauses_by_credential.push((credential.clone(), *pause)),
            }
        }
    }

    /// Removes the calls and pauses that `saved` has as well.
    pub fn forget(&mut self, saved: &Self) {
        self.calls_ms.retain(|call| !saved.calls_ms.contains(call));
        if self.pause == saved.pause {
            self.pause = None;
        }
        self.pauses_by_credential.retain(|pause| !saved.pauses_by_credential.contains(pause));
    }
}
