//! Deaths: a fetch that is dropped at each of its awaits, with its whole instance, as a host
//! would kill it, or as a single request.

use std::future::poll_fn;
use std::num::NonZero;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::scenario::Scenario;
use crate::seeds::in_virtual_time;
use crate::world::{Attempt, Ongoing, World};

/// What is dropped at an await.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The instance with its memory.
    Instance,
    /// The request that leads a fetch, while others of its instance wait for the fetch.
    LeadingRequest,
}

/// Result of the deaths in a fetch, one at each of its awaits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaths {
    /// Number of deaths.
    pub count: usize,
    /// Deaths after which the next request got its token without `Retry-After`.
    pub served_at_once: usize,
    /// Longest time until a request that followed `Retry-After` had a token.
    pub longest: Duration,
    /// Most calls that OfficeRnD got in one of the worlds.
    pub calls: usize,
}

/// Most tries that a request may need after a death.
const MOST_TRIES: usize = 3;

/// Time after which a request has read the store, found no token and leads a fetch.
const LEADS: Duration = Duration::from_millis(25);

/// Number of requests that wait for the dropped one.
const WAITING: usize = 3;

/// Drops `victim` at the first await of a fetch, then in a new world at the second, and so on
/// until the fetch completes. The cached token is `age` old and lives an hour; an age of 0 s
/// means no token.
///
/// # Errors
/// The first broken invariant.
pub fn die_at_each_await(victim: Victim, age: Duration) -> Result<Deaths, String> {
    let mut deaths = Deaths::default();
    for awaits in (1..).map_while(NonZero::new) {
        let world = || Rc::new(World::new(Scenario::calm(awaits.get() as u64)));
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

impl World {
    /// Returns `None` if the fetch ends before it has waited this often.
    async fn die(
        self: Rc<Self>,
        victim: Victim,
        age: Duration,
        awaits: NonZero<usize>,
    ) -> Result<Option<Deaths>, String> {
        if !age.is_zero() {
            self.ask(self.begin()).await;
            sleep(age).await;
            self.kill_all();
        }
        let begin = Instant::now();
        let doomed = spawn_local(until_await(awaits, self.clone().ask_to_the_end()));
        // By then the doomed request has read the store and leads the fetch.
        sleep(LEADS).await;
        let waiting = if victim == Victim::LeadingRequest { WAITING } else { 0 };
        let waiting: Vec<_> = (0..waiting).map(|_| spawn_local(self.clone().come_back())).collect();
        let was_whole = doomed.await.map_err(|error| error.to_string())?;
        if victim == Victim::Instance {
            self.kill_all();
        }
        let mut tries = Vec::new();
        for waiting in waiting {
            tries.push(waiting.await.map_err(|error| error.to_string())?);
        }
        // A request that arrives after the death.
        tries.push(self.clone().come_back().await);
        let calls = self.outcome()?.calls;
        let served_at_once = usize::from(tries.iter().all(|tries| *tries == 1));
        Ok(was_whole.is_none().then(|| Deaths { count: 1, served_at_once, longest: begin.elapsed(), calls }))
    }

    fn begin(self: &Rc<Self>) -> Ongoing {
        self.accept(0, 0, Attempt::Allowed)
    }

    /// Sends a request and runs its follow-up to the end.
    async fn ask_to_the_end(self: Rc<Self>) {
        let ongoing = self.begin();
        let handled = self.handle(&ongoing).await;
        if let Some(followup) = handled.followup {
            followup.await;
        }
        ongoing.complete();
    }

    /// Sends requests as told by `Retry-After` until one gets a token, and returns their
    /// number.
    async fn come_back(self: Rc<Self>) -> usize {
        for tries in 1..=MOST_TRIES {
            let answered = self.ask(self.begin()).await;
            let wait = self.check_answer(&answered);
            if answered.response.status() == 200 {
                return tries;
            }
            sleep(Duration::from_secs(wait.unwrap_or(0))).await;
        }
        self.violate(format!("no token after {MOST_TRIES} tries"));
        MOST_TRIES
    }
}

/// Polls `future` and returns its output, or drops it at its `awaits`-th wait.
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
