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
