//! What a kernel leaves on the stack.

// SAFETY: `Lanes` are `unsafe` because they need CPU features, which the caller has.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "see engine")]

use core::hint::black_box;
use core::mem::MaybeUninit;

use super::engine::Lanes;
use super::schedule::Block;

/// Overwrites the stack where a kernel worked that was called from the same place: the compiler keeps
/// round keys there that do not fit the registers.
///
/// # Safety
///
/// The CPU has what `V` needs.
#[inline(always)]
pub(super) unsafe fn scrub<V: Lanes>() {
    // SAFETY: as the caller promises. `LANES` is 4 at most, and 64 divides the frame.
    unsafe {
        // Not zeros: those would be a call of memset, which is slow to begin.
        let nothing = V::splat(&Block([1; 2]));
        let mut frame = MaybeUninit::<[u8; FRAME]>::uninit();
        for at in (0..FRAME).step_by(16 * V::LANES) {
            nothing.store(frame.as_mut_ptr().cast::<u8>().add(at));
        }
        black_box(&mut frame);
    }
}

/// More than the frame of any kernel
const FRAME: usize = 3072;
