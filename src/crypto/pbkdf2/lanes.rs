//! Jobs that are carried on together.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::Job;
use super::chain::Prf;
use super::kernel::{Kernel, Tiling, scrub};
use super::portable::Portable;
use super::sha::{Sha1, Sha256, Sha384, Sha512};
use crate::crypto::HashAlg;
use crate::crypto::hash::with_digest;

/// Jobs of one hash that one thread carries on together. `Id` is whatever the caller knows a job by.
///
/// All that is kept of a job is wiped when it is finished, or when the lanes are dropped.
pub struct Lanes<Id> {
    hash: HashAlg,
    /// Of the jobs in `chains`, in their order
    ids: Vec<Id>,
    chains: Box<dyn Chains + Send>,
}

impl<Id> Lanes<Id> {
    /// Lanes without jobs, with the kernels that are the fastest on this CPU.
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

    /// Jobs in work.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no job in work.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Jobs that there is room for: with as many at a time, each takes the least time of this thread.
    /// Between 1 and 16.
    pub fn capacity(&self) -> usize {
        self.chains.capacity()
    }

    /// What an iteration of so many jobs takes, relative to that of another number of them. More than
    /// there is room for come one after the other.
    pub(in crate::crypto) fn relative_time(&self, jobs: usize) -> u128 {
        let (full, rest) = (jobs / self.capacity(), jobs % self.capacity());
        let nanos = |jobs| u128::from(self.chains.nanos(jobs));
        nanos(self.capacity()) * full as u128 + nanos(rest)
    }

    /// Whether another job has room.
    pub fn has_room(&self) -> bool {
        self.len() < self.capacity()
    }

    /// Takes a job in, and the caller's name for it. Nothing of what it borrows is needed any more.
    ///
    /// # Panics
    ///
    /// If there is [no room](Self::has_room).
    pub fn push(&mut self, job: Job<'_>, id: Id) {
        assert!(self.has_room(), "{} jobs are all there is room for", self.len());
        self.chains.push(&job);
        self.ids.push(id);
    }

    /// Carries all jobs on until one is finished, but no longer than a few milliseconds. Those that
    /// are finished go to `done`, by name and with their output block, and make room for others.
    pub fn step(&mut self, mut done: impl FnMut(Id, &[u8])) {
        self.chains.step();
        // Backwards: the last one takes the place of one that goes.
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

/// The chains of jobs, whatever their hash.
trait Chains {
    fn capacity(&self) -> usize;

    /// What an iteration of so many chains takes on some machine.
    fn nanos(&self, count: usize) -> u32;

    fn push(&mut self, job: &Job<'_>);

    /// Carries all on, until one is finished or a slice is over.
    fn step(&mut self);

    /// The output of a chain, if it is finished. It is gone then, and the last one in its place.
    fn take_finished(&mut self, index: usize) -> Option<Zeroizing<Vec<u8>>>;
}

struct Active<P: Prf> {
    tiling: Tiling<P::Chain>,
    /// Never more than the capacity, so that no growing leaves copies behind
    chains: Vec<P::Chain>,
    /// Iterations that each still has to go
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
        // The chain was made on the stack, in a frame that is below this one now.
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
        // Where it is: moving it would leave a copy.
        self.chains[last].zeroize();
        self.chains.truncate(last);
        Some(output)
    }
}
