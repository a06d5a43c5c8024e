//! Work that goes on after the answer, or beside what leads to it.
//!
//! `wasip3::spawn` would do, and every request would pay: the list that it keeps wakes itself whenever something on it waits, and
//! that is one more turn of the host. Here nothing is woken but by what it waits for: never by another request.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// What waits, each with a number of its own. A waker must be `Send`, and so it has the number alone.
    static WAITING: RefCell<Vec<(u64, Work)>> = const { RefCell::new(Vec::new()) };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Begins `work` at once, and goes on with it when what it waits for is there: within the turns of the request that began it,
/// which lasts until then. It must wait for the host alone, and not yield: it would be polled again without end.
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
        // Taken out: nothing is borrowed while it is polled. What is not there has ended, or is being polled and is polled again.
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
