//! Scrubs the stack after a kernel.

// SAFETY: `Lanes` are `unsafe` because they need CPU features, which the caller has.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "see engine")]

use core::hint::black_box;
use core::mem::MaybeUninit;

use super::engine::Lanes;
use super::schedule::Block;

/// Overwrites the stack of a kernel that was called from the same place. The compiler spills round
/// keys there that do not fit the registers.
///
/// # Safety
///
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn scrub<V: Lanes>() {
    // SAFETY: as the caller promises. `LANES` is 4 at most, and 64 divides the frame.
    unsafe {
        // Not zeros: the compiler would call memset, which is slow to start.
        let nothing = V::splat(&Block([1; 2]));
        let mut frame = MaybeUninit::<[u8; FRAME]>::uninit();
        for at in (0..FRAME).step_by(16 * V::LANES) {
            nothing.store(frame.as_mut_ptr().cast::<u8>().add(at));
        }
        black_box(&mut frame);
    }
}

/// Larger than the frame of any kernel, in bytes
const FRAME: usize = 3072;
