//! A hint to the processor; the only unsafe code of the crate.

/// Starts loading `items[index]` into the cache. Changes nothing else, whatever the index.
#[inline(always)]
pub(crate) fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let item = items.as_ptr().wrapping_add(index);
        // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the address;
        // SSE, which it belongs to, is part of every x86-64.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(item.cast());
        }
    }
    // No stable intrinsic on other architectures: there the out-of-order window has to do.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}
