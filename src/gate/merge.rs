//! Merges a ledger with changes that the store lacks, and forgets those that it has accepted.

use super::calls::Call;
use super::ledger::Ledger;
use crate::time::Timestamp;

impl Ledger {
    /// Removes a reservation, or notes that the copy which contains it must remove it.
    pub(super) fn remove(&mut self, reservation: Call) {
        match self.calls.iter().position(|call| *call == reservation) {
            Some(place) => drop(self.calls.remove(place)),
            None => self.over.push(reservation),
        }
    }

    /// Ends the pause of all credentials, or of one.
    pub(super) fn end_pause(&mut self, credential: Option<String>, now: Timestamp) {
        match &credential {
            None => self.pause = None,
            Some(name) => self.pauses_by_credential.retain(|(other, _)| other != name),
        }
        self.ended.push((credential, now));
    }

    /// Merges the calls and pauses that the store does not know yet.
    pub fn absorb(&mut self, unsaved: &Self) {
        // The store still has the reservation of a call that ended since it was written. Counted
        // as well as the call, it would use up two calls of the quota.
        unsaved.over.iter().for_each(|reservation| self.remove(*reservation));
        self.over.clear();
        // No call was made during a pause, so a pause that was in force then is a later one.
        for (credential, at) in &unsaved.ended {
            match credential {
                None => self.pause = self.pause.filter(|pause| pause.until_ms > *at),
                Some(name) => {
                    self.pauses_by_credential.retain(|(other, pause)| other != name || pause.until_ms > *at);
                }
            }
        }
        for call in &unsaved.calls {
            // Two calls of one millisecond are two calls.
            let count = |calls: &[Call]| calls.iter().filter(|other| *other == call).count();
            if count(&self.calls) < count(&unsaved.calls) {
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

    /// Takes over the lengths of the pauses that both have: only the whole ledger knows how many
    /// failures came before.
    pub fn take_pauses_of(&mut self, whole: &Self) {
        self.pause = self.pause.and(whole.pause);
        for (credential, pause) in &mut self.pauses_by_credential {
            let known = whole.pauses_by_credential.iter().find(|(other, _)| other == credential);
            *pause = known.map_or(*pause, |(_, known)| *known);
        }
    }

    /// Removes the calls and pauses that `saved` has as well.
    pub fn forget(&mut self, saved: &Self) {
        for call in &saved.calls {
            // A call that ended during the write: the store has its reservation now.
            self.remove(*call);
        }
        self.ended.retain(|ended| !saved.ended.contains(ended));
        self.over.retain(|reservation| !saved.over.contains(reservation));
        if self.pause == saved.pause {
            self.pause = None;
        }
        self.pauses_by_credential.retain(|pause| !saved.pauses_by_credential.contains(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::CallerTag;
    use super::*;
    use crate::config::Origin;
    use crate::config::application::Fingerprint;
    use crate::secret::ClientSecret;

    const TAG: CallerTag = CallerTag(1);

    #[test]
    fn two_calls_of_one_millisecond_are_merged_and_forgotten_as_two() {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        unsaved.reserve(now, TAG, 0);
        let saved = unsaved.clone();
        unsaved.reserve(now, TAG, 0);
        stored.absorb(&unsaved);
        assert_eq!(stored, unsaved);
        unsaved.forget(&saved);
        assert_eq!(unsaved, saved, "the later one is still unsaved");
    }

    #[test]
    fn call_that_ended_after_the_store_accepted_its_reservation_counts_once() {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        let identity = Origin::parse("https://identity.example").unwrap();
        let credential = Fingerprint::of(&identity, "id", &ClientSecret::new("s"));
        let reservation = stored.reserve(now, TAG, 0);
        unsaved.settle_success(reservation, now, &credential);
        stored.absorb(&unsaved);
        assert_eq!(stored.calls, [Call { at_ms: now, caller: TAG, random: 0 }]);
        let saved = unsaved.clone();
        unsaved.forget(&saved);
        assert_eq!(unsaved, Ledger::default());
    }

    #[test]
    fn calls_of_two_hosts_in_one_millisecond_count_as_two() {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        stored.reserve(now, TAG, 1);
        unsaved.reserve(now, TAG, 2);
        for _ in 0..2 {
            stored.absorb(&unsaved);
            assert_eq!(stored.calls.len(), 2);
        }
    }
}
