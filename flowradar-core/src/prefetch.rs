//! A hint to the processor; the only unsafe code of the crate.

/// Starts loading `items[index]` into the cache, if there is such an item. Changes nothing else.
#[inline(always)]
pub(crate) fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(index) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing architecturally and cannot fault; SSE, which it belongs
        // to, is part of every x86-64. The address is that of a live reference all the same.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(item).cast())
        };
    }
    // No stable intrinsic on other architectures: there the out-of-order window has to do.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}
