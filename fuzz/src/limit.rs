//! An allocator that aborts if an input makes the program allocate more than 64 MB beyond the size of the input.
//!
//! The limit applies to Rust's allocations. libFuzzer's -malloc_limit_mb and -rss_limit_mb limit libtorch (see the Makefile).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::targets::Target;

const LIMIT: usize = 64 << 20;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Runs a target on one input with the memory limit.
pub fn run(target: Target, input: &[u8]) {
    MOST.store(LIVE.load(Relaxed) + LIMIT + input.len(), Relaxed);
    target(input);
    MOST.store(usize::MAX, Relaxed);
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if live > MOST.load(Relaxed) {
        MOST.store(usize::MAX, Relaxed);
        panic!("{live} bytes are allocated after another {bytes}, which is above the limit");
    }
}

// SAFETY: all calls are forwarded to the system's allocator; the counters do not affect them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.realloc(at, layout, size) }
    }
}
