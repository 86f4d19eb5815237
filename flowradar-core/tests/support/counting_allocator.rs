//! An allocator that counts what each thread asks for, so that tests can run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting. Make it the `#[global_allocator]` of the test.
pub(crate) struct CountingAllocator;

/// What a piece of code allocated; what it freed again counts all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocated {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { allocations: 0, bytes: 0 }) };
}

/// Runs `run` and says what it allocated on this thread.
pub(crate) fn allocated_by<T>(run: impl FnOnce() -> T) -> (T, Allocated) {
    let before = ALLOCATED.get();
    let value = run();
    let after = ALLOCATED.get();
    let allocated = Allocated {
        allocations: after.allocations - before.allocations,
        bytes: after.bytes - before.bytes,
    };
    (value, allocated)
}

fn count(bytes: usize) {
    let Allocated {
        allocations,
        bytes: sum,
    } = ALLOCATED.get();
    ALLOCATED.set(Allocated {
        allocations: allocations + 1,
        bytes: sum + bytes as u64,
    });
}

// SAFETY: every call goes to the system's allocator unchanged. Counting neither allocates (the
// thread-local is a constant without destructor) nor panics.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}
