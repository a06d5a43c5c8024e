//! A fetch that is dropped at each of its awaits: the whole instance, as a host kills it, or one request of it alone.

use std::future::poll_fn;
use std::num::NonZero;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::world::{Cheek, World};
use crate::{Faults, Scenario, in_virtual_time};

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The instance, with all that it remembers.
    Instance,
    /// The request that leads a fetch, while others of its instance wait for it.
    LeadingRequest,
}

/// What the deaths of a fetch came to, one for each of its awaits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaths {
    /// How many there were.
    pub count: usize,
    /// After how many of them the next request got its token without being told to come back.
    pub served_at_once: usize,
    /// The longest until somebody who came back when told had a token.
    pub longest: Duration,
    /// The most calls that OfficeRnD got, over all of one of these worlds.
    pub calls: usize,
}

/// Nobody is told to come back more often than this after a death.
const MOST_TRIES: usize = 3;

/// After this a request has found that the store has no token for it.
const LEADS: Duration = Duration::from_millis(25);

/// How many requests wait for the one that is dropped.
const WAITING: usize = 3;

/// Drops `victim` at the first await of a fetch, then in another world at the second, and so on until it gets through. The
/// fetch is for a token that is `age` old: with an hour to live, 0 s is none at all.
///
/// # Errors
/// The first invariant that did not hold.
pub fn die_at_each_await(victim: Victim, age: Duration) -> Result<Deaths, String> {
    let mut deaths = Deaths::default();
    for awaits in (1..).map_while(NonZero::new) {
        let world = || Rc::new(World::new(calm(awaits.get() as u64)));
        let death = in_virtual_time(None, || world().die(victim, age, awaits))
            .map_err(|violation| format!("{victim:?} at await {awaits}: {violation}"))?;
        let Some(Deaths { served_at_once, longest, calls, .. }) = death else { break };
        deaths.count += 1;
        deaths.served_at_once += served_at_once;
        deaths.longest = deaths.longest.max(longest);
        deaths.calls = deaths.calls.max(calls);
    }
    Ok(deaths)
}

/// One instance, one set of scopes, tokens that live an hour, and nothing that goes wrong by itself.
fn calm(seed: u64) -> Scenario {
    Scenario {
        seed,
        broken: None,
        instances: 1,
        scope_sets: 1,
        token_life: Duration::from_secs(3600),
        min_remaining: Duration::from_secs(300),
        reissues: false,
        eventful: Duration::ZERO,
        pause: Duration::ZERO,
        faults: Faults::default(),
    }
}

impl World {
    /// Nothing when the fetch ends before it has waited so often.
    async fn die(
        self: Rc<Self>,
        victim: Victim,
        age: Duration,
        awaits: NonZero<usize>,
    ) -> Result<Option<Deaths>, String> {
        self.open_places();
        if !age.is_zero() {
            self.ask(0, 0, Cheek::Right).await;
            sleep(age).await;
            self.kill(0);
        }
        let begin = Instant::now();
        let doomed = spawn_local(until_await(awaits, self.clone().ask_to_the_end()));
        // By then it has looked into the store, and leads.
        sleep(LEADS).await;
        let waiting = if victim == Victim::LeadingRequest { WAITING } else { 0 };
        let waiting: Vec<_> = (0..waiting).map(|_| spawn_local(self.clone().come_back())).collect();
        let was_whole = doomed.await.map_err(|error| error.to_string())?;
        if victim == Victim::Instance {
            self.kill(0);
        }
        let mut tries = Vec::new();
        for waiting in waiting {
            tries.push(waiting.await.map_err(|error| error.to_string())?);
        }
        // One who knows nothing of all this.
        tries.push(self.clone().come_back().await);
        let calls = self.outcome()?.calls;
        let served_at_once = usize::from(tries.iter().all(|tries| *tries == 1));
        Ok(was_whole.is_none().then(|| Deaths { count: 1, served_at_once, longest: begin.elapsed(), calls }))
    }

    /// A request with what is left to do after its answer.
    async fn ask_to_the_end(self: Rc<Self>) {
        let handled = self.handle(0, 0, Cheek::Right).await;
        if let Some(followup) = handled.followup {
            followup.await;
        }
    }

    /// Asks, and asks again when told to, until there is a token: how often.
    async fn come_back(self: Rc<Self>) -> usize {
        for tries in 1..=MOST_TRIES {
            let asked = Instant::now();
            let response = self.ask(0, 0, Cheek::Right).await;
            let wait = self.check_response(0, Cheek::Right, asked, &response);
            if response.status() == 200 {
                return tries;
            }
            sleep(Duration::from_secs(wait.unwrap_or(0))).await;
        }
        self.violate(format!("no token after {MOST_TRIES} tries"));
        MOST_TRIES
    }
}

/// What `future` comes to, unless it has to wait so often: then it is dropped.
async fn until_await<T>(awaits: NonZero<usize>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = awaits.get();
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}
