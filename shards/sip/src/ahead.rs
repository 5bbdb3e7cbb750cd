//! Has the processor fetch what will be needed soon: waits for memory overlap with work, and with each other.

/// Bytes of a cache line.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LINE: usize = 64;

/// Has `what` fetched, itself and not what it points to. Takes a few instructions a cache line, and does nothing but that.
#[inline]
pub fn fetch<T>(what: &T) {
    lines(std::ptr::from_ref(what).cast(), size_of::<T>());
}

/// Has the first of these bytes fetched, at most so many.
#[inline]
pub fn fetch_bytes(bytes: &[u8], most: usize) {
    lines(bytes.as_ptr(), bytes.len().min(most));
}

#[inline]
fn lines(start: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..len).step_by(LINE).chain(len.checked_sub(1)) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
    }
    _ = (start, len);
}
