//! Selects the kernels for a number of chains.

use std::ops::RangeInclusive;

/// Code that continues several chains by the same number of iterations.
pub(super) struct Kernel<C> {
    run: unsafe fn(&mut [C], u32),
    chains: RangeInclusive<usize>,
    nanos: u32,
}

impl<C> Kernel<C> {
    /// Creates a kernel that takes this many `chains` at a time, and about `nanos` nanoseconds for
    /// an iteration of all of them.
    ///
    /// # Safety
    ///
    /// The CPU must support `run`.
    #[cfg(any(target_arch = "x86_64", test))]
    #[allow(unsafe_code, reason = "the creator has checked the CPU")]
    pub(super) unsafe fn new(
        run: unsafe fn(&mut [C], u32),
        chains: RangeInclusive<usize>,
        nanos: u32,
    ) -> Self {
        Self { run, chains, nanos }
    }

    /// Creates a kernel for any CPU, which takes one chain after the other.
    pub(super) fn portable(run: fn(&mut [C], u32), nanos: u32) -> Self {
        Self { run, chains: 1..=1, nanos }
    }

    /// The numbers of chains it can take at a time.
    pub(super) fn chains(&self) -> RangeInclusive<usize> {
        self.chains.clone()
    }

    /// Continues chains, as many as the kernel takes.
    #[allow(unsafe_code)]
    pub(super) fn run(&self, chains: &mut [C], iterations: u32) {
        // SAFETY: the CPU supports it, as the creator of `self` promised.
        unsafe { (self.run)(chains, iterations) }
    }
}

impl<C> Clone for Kernel<C> {
    fn clone(&self) -> Self {
        Self { run: self.run, chains: self.chains.clone(), nanos: self.nanos }
    }
}

/// The fastest combination of kernels for each number of chains.
pub(super) struct Tiling<C> {
    kernels: Vec<Kernel<C>>,
    /// For each number of chains, from 0: the nanoseconds for an iteration, and the kernel for the
    /// first of them
    best: Vec<(u32, usize)>,
}

impl<C> Tiling<C> {
    /// Computes the tiling for all numbers of chains up to the widest of `kernels`, one of which
    /// must take a single chain.
    pub(super) fn new(kernels: Vec<Kernel<C>>) -> Self {
        let most = kernels.iter().map(|kernel| *kernel.chains().end()).max().unwrap_or(0);
        let mut best = vec![(0, 0)];
        for count in 1..=most {
            let fitting = kernels.iter().enumerate().filter(|(_, k)| *k.chains.start() <= count);
            let nanos = fitting.map(|(index, kernel)| {
                let rest = count.saturating_sub(*kernel.chains.end());
                (kernel.nanos + best[rest].0, index)
            });
            best.extend(nanos.min());
        }
        Self { kernels, best }
    }

    /// The number of chains that takes the least time for each chain.
    pub(super) fn capacity(&self) -> usize {
        let each = |&count: &usize| u64::from(self.best[count].0) * SCALE / count as u64;
        (1..self.best.len()).min_by_key(each).unwrap_or(0)
    }

    /// Nanoseconds for an iteration of `count` chains, on the machine where the kernels were
    /// measured.
    pub(super) fn nanos(&self, count: usize) -> u32 {
        self.best[count].0
    }

    /// Iterations of `count` chains that take a few milliseconds on a slow machine.
    pub(super) fn slice(&self, count: usize) -> u32 {
        SLICE_NANOS / self.nanos(count).max(1)
    }

    /// Continues `chains`, which must fit the tiling.
    pub(super) fn run(&self, mut chains: &mut [C], iterations: u32) {
        while !chains.is_empty() {
            let kernel = &self.kernels[self.best[chains.len()].1];
            let (now, later) = chains.split_at_mut(chains.len().min(*kernel.chains.end()));
            kernel.run(now, iterations);
            chains = later;
        }
        scrub();
    }
}

/// Overwrites the stack of kernels that were called from the same place. The compiler spills values
/// there that do not fit the registers.
#[inline(never)]
pub(super) fn scrub() {
    // Larger than the frame of any kernel. For the nonzero value see `xts/frame.rs`.
    std::hint::black_box(&mut [1_u8; 8192]);
}

/// Precision of quotients of small numbers
const SCALE: u64 = 1000;

/// Nominal duration of a slice
const SLICE_NANOS: u32 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels for one, two or eight chains, like the SHA extensions, and for up to sixteen, like
    /// vectors.
    #[allow(unsafe_code)]
    fn tiling() -> Tiling<usize> {
        let kernel = |chains, nanos| {
            // SAFETY: it has no requirements.
            unsafe { Kernel::new(write_count, chains, nanos) }
        };
        Tiling::new(vec![
            kernel(2..=2, 90),
            kernel(8..=8, 260),
            kernel(1..=16, 370),
            Kernel::portable(write_count, 70),
        ])
    }

    /// Overwrites each chain with the number of chains in its call.
    fn write_count(chains: &mut [usize], iterations: u32) {
        assert_eq!(iterations, 5);
        let count = chains.len();
        chains.fill(count);
    }

    #[test]
    fn the_fastest_kernels_for_each_number_of_chains() {
        let tiling = tiling();
        for (kernels, nanos) in [
            (vec![], 0),
            (vec![1], 70),
            (vec![2], 90),
            (vec![2, 1], 160),
            (vec![2, 2], 180),
            (vec![2, 2, 1], 250),
            (vec![2, 2, 2], 270),
            (vec![2, 2, 2, 1], 340),
            (vec![8], 260),
            (vec![8, 1], 330),
            (vec![8, 2], 350),
            (vec![11], 370),
            (vec![16], 370),
        ] {
            let mut chains = vec![0; kernels.iter().sum()];
            assert_eq!(tiling.nanos(chains.len()), nanos, "{kernels:?}");
            tiling.run(&mut chains, 5);
            let mut counts: Vec<_> = kernels.iter().flat_map(|&count| vec![count; count]).collect();
            chains.sort_unstable();
            counts.sort_unstable();
            assert_eq!(chains, counts);
        }
    }

    #[test]
    fn capacity_is_where_a_chain_takes_the_least() {
        assert_eq!(tiling().capacity(), 16);
        assert_eq!(Tiling::new(vec![Kernel::portable(write_count, 70)]).capacity(), 1);
        let mut kernels = tiling().kernels;
        kernels.remove(2);
        assert_eq!(Tiling::new(kernels).capacity(), 8);
    }

    #[test]
    fn slices_take_milliseconds() {
        let tiling = tiling();
        for count in 1..=tiling.capacity() {
            let nanos = tiling.slice(count) * tiling.nanos(count);
            assert!((1_900_000..=2_000_000).contains(&nanos), "{count}: {nanos}");
        }
    }
}
