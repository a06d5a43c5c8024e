//! Merges a ledger with changes that the store lacks, forgets those that it has accepted, and replaces
//! old calls by their numbers.

use super::calls::{Call, CallEnd, CallResult, WINDOW};
use super::counts::Counts;
use super::ledger::{Ledger, window};
use crate::time::Timestamp;

impl Ledger {
    /// Removes a reservation, or notes that the store's copy has it.
    pub(super) fn remove(&mut self, reservation: Call) {
        if self.take(&reservation).is_none() {
            self.over.push(reservation);
        }
    }

    pub(super) fn take(&mut self, call: &Call) -> Option<Call> {
        let place = self.calls.iter().position(|other| other.is_same(call))?;
        Some(self.calls.remove(place))
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
    pub fn absorb(&mut self, unsaved: &Self, now: Timestamp) {
        let has = |calls: &[Call], call: &Call| calls.iter().any(|other| other.is_same(call));
        // The store still has the reservation of a call that was not made. Once metrics may have shown it as
        // abandoned, it stays: a counter never decreases.
        let is_open = |call: &&Call| !has(&unsaved.calls, call) && call.final_end(now).is_none();
        for cancelled in unsaved.over.iter().filter(is_open) {
            self.take(cancelled);
        }
        self.counts.absorb(&unsaved.counts);
        for call in &unsaved.calls {
            let stored = self.take(call);
            // The store had its reservation, and has counted it as abandoned.
            let is_counted = stored.is_none() && has(&unsaved.over, call) && !call.counts(now, WINDOW);
            if !is_counted {
                self.insert(call.merged(stored, now));
            }
        }
        self.fold(now, unsaved);
        // No call was made during a pause, so a pause that was in force then is a later one.
        for (credential, at) in &unsaved.ended {
            match credential {
                None => self.pause = self.pause.filter(|pause| pause.until_ms > *at),
                Some(name) => {
                    self.pauses_by_credential.retain(|(other, pause)| other != name || pause.until_ms > *at);
                }
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
        self.ended.retain(|ended| !saved.ended.contains(ended));
        self.over.retain(|reservation| !saved.over.contains(reservation));
        for call in &saved.calls {
            match self.calls.iter().position(|other| other.is_same(call)) {
                Some(place) if self.calls[place] == *call => drop(self.calls.remove(place)),
                // It has ended, or was cancelled, during the write: the store has its reservation now.
                _ if call.end.is_none() => self.over.push(*call),
                _ => {}
            }
        }
        if self.pause == saved.pause {
            self.pause = None;
        }
        self.pauses_by_credential.retain(|pause| !saved.pauses_by_credential.contains(pause));
    }
}

impl Ledger {
    /// Numbers of all calls whose end is known, or can no longer become known.
    pub fn counts(&self, now: Timestamp) -> Counts {
        let mut counts = self.counts.clone();
        for call in &self.calls {
            if let Some(end) = call.final_end(now) {
                counts.add(call.application, end);
            }
        }
        counts
    }

    /// Replaces the calls that no longer count against the quota by their numbers. Those that `unsaved` has
    /// as well stay: a write of them may land although the store reports a failure, and only a call is
    /// recognized when they are merged again.
    pub fn fold(&mut self, now: Timestamp, unsaved: &Self) {
        let window = window();
        let stays =
            |call: &&Call| call.counts(now, window) || unsaved.calls.iter().any(|unsaved| unsaved.is_same(call));
        let (recent, past): (Vec<Call>, _) = self.calls.iter().partition(stays);
        self.calls = recent;
        for call in past {
            let end = call.end.unwrap_or(CallEnd { at_ms: call.latest_ms, took_ms: 0, result: CallResult::Abandoned });
            self.counts.add(call.application, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::CallerTag;
    use super::super::counts::Durations;
    use super::*;
    use crate::config::Origin;
    use crate::config::application::Fingerprint;
    use crate::error::Cause;
    use crate::secret::ClientSecret;
    use crate::upstream::Failure;

    const TAG: CallerTag = CallerTag(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    fn credential() -> Fingerprint {
        let identity = Origin::parse("https://identity.example").unwrap();
        Fingerprint::of(&identity, "id", &ClientSecret::new("s"))
    }

    #[test]
    fn two_calls_of_one_millisecond_are_merged_and_forgotten_as_two() {
        let now = at(0);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        unsaved.reserve(now, TAG, "default", 0);
        let saved = unsaved.clone();
        unsaved.reserve(now, TAG, "default", 1);
        stored.absorb(&unsaved, now);
        assert_eq!(stored, unsaved);
        unsaved.forget(&saved);
        assert_eq!(unsaved.calls.iter().map(|call| call.random).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn call_that_ended_after_the_store_accepted_its_reservation_counts_once() {
        let now = at(0);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        let credential = credential();
        let reservation = stored.reserve(now, TAG, "default", 0);
        unsaved.settle_success(reservation, now, &credential);
        stored.absorb(&unsaved, now);
        assert_eq!(stored.calls, unsaved.calls);
        assert_eq!(stored.calls.iter().map(Call::at_ms).collect::<Vec<_>>(), [now]);
        let saved = unsaved.clone();
        unsaved.forget(&saved);
        assert!(!unsaved.has_changes());
    }

    #[test]
    fn calls_of_two_hosts_in_one_millisecond_count_as_two() {
        let now = at(0);
        let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
        stored.reserve(now, TAG, "default", 1);
        unsaved.reserve(now, TAG, "default", 2);
        for _ in 0..2 {
            stored.absorb(&unsaved, now);
            assert_eq!(stored.calls.len(), 2);
        }
    }

    #[test]
    fn denied_call_uses_no_quota_and_pauses_nothing_even_if_the_store_has_its_reservation() {
        let (mut ledger, mut unsaved, mut stored) = (Ledger::default(), Ledger::default(), Ledger::default());
        let reservation = stored.reserve(at(0), TAG, "default", 0);
        ledger.absorb(&stored, at(0));
        let denied = Failure::Unavailable(Cause::OutboundDenied, None);
        for ledger in [&mut ledger, &mut unsaved] {
            let error = ledger.settle_failure(reservation, at(1), denied, &credential(), 0);
            assert_eq!(error.reason(), "outbound_denied");
        }
        assert_eq!(ledger.calls, []);
        stored.absorb(&unsaved, at(1));
        assert_eq!(stored.calls, []);
        assert_eq!((ledger.pause, stored.pause), (None, None));
    }

    #[test]
    fn cancelled_reservation_is_taken_back_until_metrics_may_have_shown_it() {
        let check = |seconds: u64, results: &[&str]| {
            let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
            let reservation = unsaved.reserve(at(0), TAG, "berlin", 0);
            // The write has landed, although the store reported a failure.
            stored.absorb(&unsaved, at(0));
            unsaved.cancel(reservation);
            stored.absorb(&unsaved, at(seconds));
            let counts = stored.counts(at(200));
            let counted = counts.applications.iter().flat_map(|counts| &counts.results);
            assert_eq!(counted.map(|(result, _)| result.as_str()).collect::<Vec<_>>(), results, "{seconds} s");
        };
        check(12, &[]);
        check(13, &["upstream_abandoned"]);
    }

    #[test]
    fn call_is_counted_once_whatever_copies_of_the_ledger_know_of_it() {
        // What the instance does before and after the store accepts its ledger, seconds until the next
        // instance reads that ledger, and the results that it counts then and a minute later.
        let check = |is_accepted: bool, ends: bool, seconds: u64, results: &[&str]| {
            let (mut unsaved, mut stored) = (Ledger::default(), Ledger::default());
            let reservation = unsaved.reserve(at(0), TAG, "berlin", 0);
            if is_accepted {
                stored.absorb(&unsaved, at(0));
                let saved = unsaved.clone();
                unsaved.forget(&saved);
            }
            if ends {
                unsaved.settle_success(reservation, at(1), &credential());
            }
            // Other calls go on meanwhile.
            stored.reserve(at(0), TAG, "rome", 1);
            stored.absorb(&Ledger::default(), at(seconds));
            let mut unanswered = stored.clone();
            unanswered.absorb(&unsaved, at(seconds));
            // A write that was given up may have landed.
            stored = unanswered;
            for now in [seconds, seconds + 100] {
                stored.absorb(&unsaved, at(now));
                unsaved.forget(&unsaved.clone());
                stored = Ledger::decode(&stored.encode()).unwrap();
                let counts = stored.counts(at(now));
                let of_berlin = counts.applications.iter().find(|counts| counts.name == "berlin");
                let counted = of_berlin.map_or(&[][..], |counts| &counts.results);
                let expected: Vec<_> = results.iter().map(|result| (*result, 1)).collect();
                let counted: Vec<_> = counted.iter().map(|(result, number)| (result.as_str(), *number)).collect();
                assert_eq!(counted, expected, "{is_accepted} {ends} at {now}");
            }
        };
        for is_accepted in [true, false] {
            check(is_accepted, true, 2, &["granted"]);
            check(is_accepted, false, 13, &["upstream_abandoned"]);
        }
        // The store comes back after the call was counted as abandoned, and after it was folded.
        check(true, true, 13, &["upstream_abandoned"]);
        check(true, true, 200, &["upstream_abandoned"]);
        check(false, true, 200, &["granted"]);
    }

    fn at_ms(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + ms)
    }

    #[test]
    fn results_and_durations_are_counted_by_application_and_bucket() {
        let credential = credential();
        let mut ledger = Ledger::default();
        let mut now = 0;
        let mut call = |application: &str, took: u64, failure: Option<Failure>| {
            let reservation = ledger.reserve(at_ms(now), CallerTag(1), application, now as u32);
            // Recording it took a second.
            let reservation = reservation.begun(at_ms(now + 1000));
            now += 1000 + took;
            match failure {
                None => ledger.settle_success(reservation, at_ms(now), &credential),
                Some(failure) => drop(ledger.settle_failure(reservation, at_ms(now), failure, &credential, 0)),
            }
        };
        for took in [0, 250, 251, 4000, 7000] {
            call("default", took, None);
        }
        call("default", 1500, Some(Failure::Unavailable(Cause::ServerError, None)));
        call("berlin", 700, Some(Failure::ScopeNotGranted));
        call("berlin", 10, Some(Failure::BadRequest));
        call("berlin", 10, Some(Failure::Unavailable(Cause::OutboundDenied, None)));
        let counts = ledger.counts(at_ms(now));
        assert_eq!(counts.since_ms, Some(at_ms(0)));
        let results = |name: &str| {
            let counts = counts.applications.iter().find(|counts| counts.name == name).unwrap();
            counts.results.iter().map(|(result, number)| (result.as_str(), *number)).collect::<Vec<_>>()
        };
        assert_eq!(results("default"), [("granted", 5), ("upstream_server_error", 1)]);
        assert_eq!(results("berlin"), [("scope_not_granted", 1), ("upstream_client_error", 1)]);
        assert_eq!(counts.durations, Durations { buckets: [3, 1, 1, 1, 1, 1], sum_ms: 13_711 });
        // The same after the calls have left the list.
        ledger.fold(at_ms(1_000_000), &Ledger::default());
        assert_eq!(ledger.recent_calls(at_ms(now)), 0);
        assert_eq!(ledger.counts(at_ms(1_000_000)).durations, counts.durations);
    }
}
