//! How often each work allocates, a frame: lines `NAME<tab>ALLOCATIONS`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Counts calls that ask for memory.
struct Counting;

// SAFETY: everything is the system allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    for mut one in codec_bench::all() {
        (0..3).for_each(|_| (one.work)());
        let before = CALLS.load(Ordering::Relaxed);
        (0..one.rounds).for_each(|_| (one.work)());
        let calls = CALLS.load(Ordering::Relaxed) - before;
        let line = format!("{}\t{:.4}\n", one.name, calls as f64 / (one.rounds * one.units) as f64);
        // A reader that went away needs no lines.
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
}
