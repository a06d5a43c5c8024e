//! The unchanged component with an allocator that logs to stderr the largest allocation since
//! its last line.

#![cfg(target_family = "wasm")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Write, stderr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

// Linked for its exports.
use officernd_token_broker as _;

#[global_allocator]
static ALLOCATOR: Telling = Telling { most: AtomicUsize::new(0) };

struct Telling {
    most: AtomicUsize,
}

impl Telling {
    fn note(&self, bytes: usize) {
        self.most.fetch_max(bytes, Relaxed);
    }

    fn tell(&self) {
        let most = self.most.swap(0, Relaxed);
        if most > 0 {
            let _ = writeln!(stderr(), "allocated {most} bytes");
        }
    }
}

// SAFETY: every operation on memory is passed to `System`.
unsafe impl GlobalAlloc for Telling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note(size);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) };
        // Log only when memory is freed. An allocation may be for values that the host passes
        // in, and then no call to the host is allowed.
        self.tell();
    }
}
