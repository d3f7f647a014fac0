//! Lanes: jobs that one thread runs together.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::Job;
use super::chain::Prf;
use super::kernel::{Kernel, Tiling, scrub};
use super::portable::Portable;
use super::sha::{Sha1, Sha256, Sha384, Sha512};
use crate::crypto::HashAlg;
use crate::crypto::hash::with_digest;

/// Jobs of one hash that one thread runs together. `Id` identifies a job for the caller.
///
/// The state of a job is wiped when it finishes or the lanes are dropped.
pub struct Lanes<Id> {
    hash: HashAlg,
    /// Ids of the jobs in `chains`, in the same order
    ids: Vec<Id>,
    chains: Box<dyn Chains + Send>,
}

impl<Id> Lanes<Id> {
    /// Creates empty lanes with the fastest kernels on this CPU.
    pub fn new(hash: HashAlg) -> Self {
        match hash {
            HashAlg::Sha1 => Self::with_kernels::<Sha1>(hash, Sha1::kernels()),
            HashAlg::Sha256 => Self::with_kernels::<Sha256>(hash, Sha256::kernels()),
            HashAlg::Sha384 => Self::with_kernels::<Sha384>(hash, Sha384::kernels()),
            HashAlg::Sha512 => Self::with_kernels::<Sha512>(hash, Sha512::kernels()),
            other => with_digest!(other, D => {
                Self::with_kernels::<Portable<D>>(hash, Portable::kernels())
            }),
        }
    }

    pub(super) fn with_kernels<P: Prf>(hash: HashAlg, kernels: Vec<Kernel<P::Chain>>) -> Self {
        let tiling = Tiling::new(kernels);
        let chains = Vec::with_capacity(tiling.capacity());
        let chains = Box::new(Active::<P> { tiling, chains, left: Vec::new() });
        Self { hash, ids: Vec::new(), chains }
    }

    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of jobs at which each takes the least time of this thread. Between 1 and 16.
    pub fn capacity(&self) -> usize {
        self.chains.capacity()
    }

    /// Time of an iteration of `jobs` jobs, in a unit that allows comparisons. Jobs beyond the
    /// capacity run after the others.
    pub(in crate::crypto) fn relative_time(&self, jobs: usize) -> u128 {
        let (full, rest) = (jobs / self.capacity(), jobs % self.capacity());
        let nanos = |jobs| u128::from(self.chains.nanos(jobs));
        nanos(self.capacity()) * full as u128 + nanos(rest)
    }

    /// Whether another job fits.
    pub fn has_room(&self) -> bool {
        self.len() < self.capacity()
    }

    /// Adds a job; `id` comes back with its result. The job's borrows end here.
    ///
    /// # Panics
    ///
    /// Panics if there is [no room](Self::has_room).
    pub fn push(&mut self, job: Job<'_>, id: Id) {
        assert!(self.has_room(), "no room for more than {} jobs", self.len());
        self.chains.push(&job);
        self.ids.push(id);
    }

    /// Runs all jobs until one finishes, but for a few milliseconds at most. Passes finished jobs
    /// to `done`, with their ids and output blocks, and removes them.
    pub fn step(&mut self, mut done: impl FnMut(Id, &[u8])) {
        self.chains.step();
        // Backwards, because the last job takes the place of a removed one.
        for index in (0..self.ids.len()).rev() {
            if let Some(output) = self.chains.take_finished(index) {
                done(self.ids.swap_remove(index), &output);
            }
        }
    }
}

impl<Id> fmt::Debug for Lanes<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, ids, chains: _ } = self;
        f.debug_struct("Lanes").field("hash", hash).field("jobs", &ids.len()).finish()
    }
}

/// The chains of jobs, independent of the hash.
trait Chains {
    fn capacity(&self) -> usize;

    /// Nanoseconds for an iteration of `count` chains on the reference machine.
    fn nanos(&self, count: usize) -> u32;

    fn push(&mut self, job: &Job<'_>);

    /// Continues all chains until one finishes or a time slice ends.
    fn step(&mut self);

    /// Removes a chain if it is finished and returns its output. The last chain takes its place.
    fn take_finished(&mut self, index: usize) -> Option<Zeroizing<Vec<u8>>>;
}

struct Active<P: Prf> {
    tiling: Tiling<P::Chain>,
    /// Limited to the capacity, so that it never reallocates and leaves copies behind
    chains: Vec<P::Chain>,
    /// Iterations left for each chain
    left: Vec<u32>,
}

impl<P: Prf> Active<P> {
    #[inline(never)]
    fn begin(&mut self, job: &Job<'_>) {
        self.chains.push(P::begin(job));
    }
}

impl<P: Prf> Chains for Active<P> {
    fn capacity(&self) -> usize {
        self.tiling.capacity()
    }

    fn nanos(&self, count: usize) -> u32 {
        self.tiling.nanos(count)
    }

    fn push(&mut self, job: &Job<'_>) {
        self.begin(job);
        // The chain was made on the stack, in a frame below this one.
        scrub();
        self.left.push(job.iterations.saturating_sub(1));
    }

    fn step(&mut self) {
        let Some(&least) = self.left.iter().min() else { return };
        let iterations = least.min(self.tiling.slice(self.chains.len()));
        if iterations > 0 {
            self.tiling.run(&mut self.chains, iterations);
            self.left.iter_mut().for_each(|left| *left -= iterations);
        }
    }

    fn take_finished(&mut self, index: usize) -> Option<Zeroizing<Vec<u8>>> {
        if self.left[index] > 0 {
            return None;
        }
        let mut output = Zeroizing::new(vec![0; P::DIGEST_SIZE]);
        P::output(&self.chains[index], &mut output);
        self.left.swap_remove(index);
        let last = self.chains.len() - 1;
        self.chains.swap(index, last);
        // Wiped in place: a move would leave a copy.
        self.chains[last].zeroize();
        self.chains.truncate(last);
        Some(output)
    }
}
