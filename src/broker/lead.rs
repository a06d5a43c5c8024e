//! Lets requests of an instance share one fetch: the first leads it, the others wait for its
//! outcome.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::fetch::Fetched;
use super::flight::{FetchOutcome, Flight, Landing};
use super::instance::{Broker, Instance};
use super::ports::Ports;
use super::wanted::Wanted;
use crate::gate::Need;

/// First and longest time between two looks at the fetch that a request waits for.
const FLIGHT_POLL_FIRST: Duration = Duration::from_millis(10);
const FLIGHT_POLL_LONGEST: Duration = Duration::from_millis(100);

/// The leading side of a flight. Dropping it removes the flight, because a host may drop a
/// request at any await.
pub(super) struct Lead {
    instance: Rc<Instance>,
    flight: Rc<Flight>,
}

impl Lead {
    pub(super) fn start(instance: Rc<Instance>, wanted: &Wanted, need: Need) -> Self {
        let (key, caller) = (wanted.key(), wanted.caller.clone());
        let flight = Rc::new(Flight { key, need, caller, landed: RefCell::new(None) });
        instance.flights.borrow_mut().push(flight.clone());
        Self { instance, flight }
    }

    pub(super) fn land(self, outcome: FetchOutcome) {
        self.flight.landed.replace(Some(Landing::Ended(outcome)));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.instance.flights.borrow_mut().retain(|flight| !Rc::ptr_eq(flight, &self.flight));
        self.flight.landed.borrow_mut().get_or_insert(Landing::Abandoned);
    }
}

impl<P: Ports> Broker<P> {
    /// Waits for the running fetch of the same key, or leads a new one; `leads` says which.
    pub(super) async fn obtain(self, wanted: Wanted, need: Need, leads: Rc<Cell<bool>>) -> Fetched {
        let mut poll = FLIGHT_POLL_FIRST;
        loop {
            let Some(flight) = self.instance.flight(wanted.key()) else {
                let lead = Lead::start(self.instance.clone(), &wanted, need);
                leads.set(true);
                let fetched = self.fetch(&wanted, need).await;
                lead.land(fetched.outcome.clone());
                return fetched;
            };
            loop {
                let landed = flight.landed.borrow().clone();
                match landed {
                    None => {
                        self.ports.sleep(poll).await;
                        poll = (poll * 2).min(FLIGHT_POLL_LONGEST);
                    }
                    // That fetch gave up for a reason that may not concern this request, which tries
                    // again: it needed the token less, or another caller led it and made no call.
                    // That caller may have used up its share.
                    Some(Landing::Ended(FetchOutcome { token: Err(_), is_called }))
                        if flight.need < need || (!is_called && flight.caller.name != wanted.caller.name) =>
                    {
                        break;
                    }
                    Some(Landing::Ended(outcome)) => return Fetched::without_call(outcome.token),
                    Some(Landing::Abandoned) => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, finish, wanted};
    use super::*;
    use crate::config::caller::Caller;
    use crate::error::{Cause, Error};

    /// What a request gets that waits for the fetch of `leader`, which fails, and whether the
    /// request then leads a fetch of its own.
    fn follow(leader: &str, need: Need, is_called: bool) -> (bool, bool) {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.answer.set(Some((200, r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#)));
        let broker = ports.broker();
        let mut caller = Caller::clone(&wanted.caller);
        caller.name = leader.into();
        let of_leader = Wanted { caller: Rc::new(caller), ..wanted.clone() };
        let lead = Lead::start(broker.instance.clone(), &of_leader, need);
        let token = Err(Error::unavailable(Cause::ShareUsedUp, Duration::from_secs(60)));
        ports.0.during_sleep.replace(Some(Box::new(move || lead.land(FetchOutcome { token, is_called }))));
        let leads = Rc::new(Cell::new(false));
        let fetched = finish(broker.obtain(wanted, Need::Now, leads.clone()));
        (fetched.outcome.token.is_ok(), leads.get())
    }

    #[test]
    fn follower_fetches_itself_if_the_failed_fetch_says_nothing_about_it() {
        let is_served = (true, true);
        assert_eq!(follow("b", Need::Now, false), is_served, "another caller's share is used up");
        assert_eq!(follow("a", Need::Early, true), is_served, "a renewal gives up earlier");
        let is_refused = (false, false);
        assert_eq!(follow("a", Need::Now, false), is_refused, "its own share");
        assert_eq!(follow("b", Need::Now, true), is_refused, "OfficeRnD has answered");
    }
}
