//! Runs work in the background: answer bodies while they are sent, and follow-ups.
//!
//! `wasip3::spawn` would cost every request one more turn of the host, because its task list
//! wakes itself whenever a task waits. Here a task is woken only by what it waits for, and
//! never by another request.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// Waiting tasks by number. A waker must be `Send`, so it holds only the number.
    static WAITING: RefCell<Vec<(u64, Work)>> = const { RefCell::new(Vec::new()) };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Starts `work` immediately, and continues it within the turns of the request that started it,
/// which the host keeps alive until then. The work may wait only for the host; if it yielded,
/// it would be polled forever.
pub(super) fn spawn(work: impl Future<Output = ()> + 'static) {
    let number = NUMBER.get();
    NUMBER.set(number + 1);
    WAITING.with_borrow_mut(|waiting| waiting.push((number, Box::pin(work))));
    Arc::new(Alarm { number, rings: AtomicBool::new(false) }).wake();
}

struct Alarm {
    number: u64,
    rings: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rings.store(true, Ordering::Relaxed);
        // Take the task out of the list, so that the list is not borrowed during the poll. If
        // it is missing, it has finished, or it is being polled right now and the loop below
        // will poll it again.
        let taken = WAITING.with_borrow_mut(|waiting| {
            let place = waiting.iter().position(|(number, _)| *number == self.number)?;
            Some(waiting.swap_remove(place))
        });
        let Some((number, mut work)) = taken else { return };
        let waker = Waker::from(Arc::clone(&self));
        while self.rings.swap(false, Ordering::Relaxed) {
            if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                return;
            }
        }
        WAITING.with_borrow_mut(|waiting| waiting.push((number, work)));
    }
}
