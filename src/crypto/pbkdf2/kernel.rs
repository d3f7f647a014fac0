//! Which kernel carries on how many chains.

use std::ops::RangeInclusive;

/// Something that carries chains on, all by as many iterations.
pub(super) struct Kernel<C> {
    run: unsafe fn(&mut [C], u32),
    chains: RangeInclusive<usize>,
    nanos: u32,
}

impl<C> Kernel<C> {
    /// A kernel that takes so many `chains` at a time, and about `nanos` nanoseconds for an iteration
    /// of them all.
    ///
    /// # Safety
    ///
    /// The CPU has what `run` needs.
    #[cfg(any(target_arch = "x86_64", test))]
    #[allow(unsafe_code, reason = "whoever makes it has looked at the CPU")]
    pub(super) unsafe fn new(
        run: unsafe fn(&mut [C], u32),
        chains: RangeInclusive<usize>,
        nanos: u32,
    ) -> Self {
        Self { run, chains, nanos }
    }

    /// One that any CPU has, and that takes one chain after the other.
    pub(super) fn portable(run: fn(&mut [C], u32), nanos: u32) -> Self {
        Self { run, chains: 1..=1, nanos }
    }

    /// How many chains it takes at a time.
    pub(super) fn chains(&self) -> RangeInclusive<usize> {
        self.chains.clone()
    }

    /// Carries on as many chains as it takes.
    #[allow(unsafe_code)]
    pub(super) fn run(&self, chains: &mut [C], iterations: u32) {
        // SAFETY: the CPU has what it needs, as the one who made it promised.
        unsafe { (self.run)(chains, iterations) }
    }
}

impl<C> Clone for Kernel<C> {
    fn clone(&self) -> Self {
        Self { run: self.run, chains: self.chains.clone(), nanos: self.nanos }
    }
}

/// The fastest way to carry on any number of chains.
pub(super) struct Tiling<C> {
    kernels: Vec<Kernel<C>>,
    /// For each number of chains, from 0: what an iteration of them takes in nanoseconds, and the
    /// kernel that takes the first of them
    best: Vec<(u32, usize)>,
}

impl<C> Tiling<C> {
    /// A tiling for all numbers of chains that fit the widest of `kernels`, of which one takes a
    /// single chain.
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

    /// The number of chains that takes the least time for each.
    pub(super) fn capacity(&self) -> usize {
        let each = |&count: &usize| u64::from(self.best[count].0) * SCALE / count as u64;
        (1..self.best.len()).min_by_key(each).unwrap_or(0)
    }

    /// What an iteration of `count` chains takes, at the speed that the kernels' times were measured at.
    pub(super) fn nanos(&self, count: usize) -> u32 {
        self.best[count].0
    }

    /// Iterations of `count` chains that take a few milliseconds on a slow machine.
    pub(super) fn slice(&self, count: usize) -> u32 {
        SLICE_NANOS / self.nanos(count).max(1)
    }

    /// Carries all `chains` on, of which there are no more than fit.
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

/// Overwrites the stack where kernels worked that were called from the same place: the compiler keeps
/// there what does not fit the registers.
#[inline(never)]
pub(super) fn scrub() {
    // Larger than the frame of any kernel. Not zeros: see `xts/frame.rs`.
    std::hint::black_box(&mut [1_u8; 8192]);
}

/// For quotients of small numbers
const SCALE: u64 = 1000;

/// What a slice takes at that speed
const SLICE_NANOS: u32 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// One, two or eight at a time, as by the SHA extensions, and up to sixteen, as by vectors.
    #[allow(unsafe_code)]
    fn tiling() -> Tiling<usize> {
        let kernel = |chains, nanos| {
            // SAFETY: it needs nothing.
            unsafe { Kernel::new(write_count, chains, nanos) }
        };
        Tiling::new(vec![
            kernel(2..=2, 90),
            kernel(8..=8, 260),
            kernel(1..=16, 370),
            Kernel::portable(write_count, 70),
        ])
    }

    /// How many chains there were is what becomes of each.
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
