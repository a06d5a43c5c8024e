//! Hosts and their instances: which instance handles a request, and when it ends.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use officernd_token_broker::broker::Instance;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::World;
use super::requests::Journey;
use super::seen::Seen;
use crate::scenario::Reuse;

/// Number of requests after which an instance is replaced.
const REQUESTS_AN_INSTANCE: usize = 128;

/// Most requests that an instance handles at the same time on Spin.
const MOST_AT_ONCE: usize = 16;

/// How long an instance lives on Spin after its last request and follow-up.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// Blocks with less time between them follow each other.
const BETWEEN_BLOCKS: Duration = Duration::from_millis(10);

/// A machine with a clock, and the instances on it.
#[derive(Default)]
pub(crate) struct Host {
    /// Error of its clock in milliseconds.
    pub(crate) clock_offset: Cell<i64>,
    pub(crate) clock_stepped_at: Cell<Option<Instant>>,
    instances: RefCell<Vec<Rc<Running>>>,
}

/// A running instance.
pub(crate) struct Running {
    pub(crate) number: usize,
    pub(crate) host: usize,
    pub(crate) instance: Rc<Instance>,
    /// Requests that it ever got, that it is handling now, and with their follow-ups.
    accepted: Cell<usize>,
    pub(super) unanswered: Cell<usize>,
    pub(super) unfinished: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    tasks: RefCell<Vec<AbortHandle>>,
    /// The last time in which a store operation blocked the whole instance.
    block: Cell<Option<Block>>,
    pub(super) seen: Seen,
}

/// A time in which an instance stands still.
#[derive(Clone, Copy, Debug)]
struct Block {
    from: Instant,
    until: Instant,
    /// Number of the request whose operation blocks the instance.
    by: u64,
}

impl Block {
    /// When a request can go on: the one whose operation has ended goes first.
    fn ends_for(self, journey: u64) -> Instant {
        if self.by == journey { self.until } else { self.until + Duration::from_millis(1) }
    }
}

impl Running {
    /// The true time as the instance feels it. While an operation blocks the instance, the code
    /// that called it goes on at the end of the block.
    pub(crate) fn now(&self) -> Instant {
        self.block.get().map_or(Instant::now(), |block| block.until.max(Instant::now()))
    }

    /// Whether the code that runs now goes on at the end of a block.
    pub(super) fn is_ahead(&self) -> bool {
        self.now() > Instant::now()
    }

    pub(super) fn block_until(&self, until: Instant, by: &Journey) {
        // A block right after another one leaves the instance no time to answer in between.
        let before = self.block.get().filter(|block| block.ends_for(u64::MAX) + BETWEEN_BLOCKS >= self.now());
        let from = before.map_or(self.now(), |block| block.from);
        self.block.set(Some(Block { from, until, by: by.number }));
    }

    /// Whether operations have blocked the instance from `then` or earlier until now.
    pub(super) fn has_been_blocked_since(&self, then: Instant) -> bool {
        self.block.get().is_some_and(|block| block.from <= then && block.ends_for(u64::MAX) >= Instant::now())
    }

    /// Runs a task of the instance. It stands still while another one blocks the instance, and
    /// its output leaves when it is no longer blocked.
    pub(super) async fn run<T>(&self, journey: &Journey, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        let mut thaw: Option<Pin<Box<Sleep>>> = None;
        let blocked_until = || {
            let end = self.block.get().map(|block| block.ends_for(journey.number));
            end.filter(|end| *end > Instant::now())
        };
        let output = poll_fn(|context| {
            while let Some(end) = blocked_until() {
                let thaw = thaw.get_or_insert_with(|| Box::pin(sleep_until(end)));
                thaw.as_mut().reset(end);
                if thaw.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
            task.as_mut().poll(context)
        })
        .await;
        if let Some(end) = blocked_until() {
            sleep_until(end).await;
        }
        output
    }

    /// Lets `task` end with the instance.
    pub(super) fn adopt(&self, task: AbortHandle) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    fn accepts(&self) -> bool {
        self.accepted.get() < REQUESTS_AN_INSTANCE
    }

    /// Whether the host has ended the instance by now.
    fn is_over(&self, reuse: Reuse) -> bool {
        let idle = if self.unfinished.get() == 0 { self.idle_since.get().elapsed() } else { Duration::ZERO };
        match reuse {
            _ if self.unfinished.get() > 0 => false,
            Reuse::Kept(_) => !self.accepts(),
            Reuse::AsSpin => !self.accepts() || idle >= IDLE_LIMIT,
            Reuse::Never => true,
        }
    }
}

impl World {
    /// Picks an instance of `host` for a request, or starts one.
    pub(super) fn pick_instance(&self, host: usize) -> Rc<Running> {
        let reuse = self.scenario.reuse;
        let mut instances = self.hosts[host].instances.borrow_mut();
        instances.retain(|running| !running.is_over(reuse));
        let free = |running: &&Rc<Running>| match reuse {
            Reuse::Kept(_) => running.accepts(),
            Reuse::AsSpin => running.accepts() && running.unanswered.get() < MOST_AT_ONCE,
            Reuse::Never => false,
        };
        let free: Vec<_> = instances.iter().filter(free).cloned().collect();
        let choices = match reuse {
            Reuse::Kept(most) => most,
            // On several threads, a request may come before the host knows that an instance is free.
            Reuse::AsSpin if self.chance(10) => free.len() + 1,
            Reuse::AsSpin | Reuse::Never => free.len(),
        };
        let picked = free.get(self.below(choices.max(1))).cloned();
        let running = picked.unwrap_or_else(|| {
            let fresh = self.fresh_instance(host);
            instances.push(fresh.clone());
            fresh
        });
        running.accepted.set(running.accepted.get() + 1);
        running
    }

    fn fresh_instance(&self, host: usize) -> Rc<Running> {
        let mut report = self.report.get();
        report.instances += 1;
        self.report.set(report);
        Rc::new(Running {
            number: report.instances,
            host,
            instance: Rc::new(Instance::new(self.random.borrow_mut().u64(..))),
            accepted: Cell::default(),
            unanswered: Cell::default(),
            unfinished: Cell::default(),
            idle_since: Cell::new(Instant::now()),
            tasks: RefCell::default(),
            block: Cell::default(),
            seen: Seen::default(),
        })
    }

    /// Kills an instance with all its requests and follow-ups.
    pub(crate) fn kill(&self, running: &Rc<Running>) {
        self.trace(|| format!("instance {} is killed", running.number));
        self.hosts[running.host].instances.borrow_mut().retain(|other| !Rc::ptr_eq(other, running));
        running.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
        let mut report = self.report.get();
        report.killed += 1;
        self.report.set(report);
    }

    /// Kills a random instance, or drops only one of its requests or follow-ups.
    pub(super) fn kill_something(&self) {
        let host = self.pick_host();
        let picked = {
            let instances = self.hosts[host].instances.borrow();
            if instances.is_empty() {
                return;
            }
            instances[self.below(instances.len())].clone()
        };
        if self.chance(50) {
            return self.kill(&picked);
        }
        let tasks = picked.tasks.borrow();
        if !tasks.is_empty() {
            self.trace(|| format!("instance {}: a request is dropped", picked.number));
            tasks[self.below(tasks.len())].abort();
        }
    }

    pub(crate) fn kill_all(&self) {
        for host in &self.hosts {
            let instances: Vec<_> = host.instances.borrow().clone();
            instances.iter().for_each(|running| self.kill(running));
        }
    }

    pub(crate) fn pick_host(&self) -> usize {
        self.below(self.hosts.len())
    }
}
