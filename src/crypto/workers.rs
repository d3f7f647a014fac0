//! Threads that end with the computation they serve.
//!
//! The `argon2` crate computes lanes with rayon, in the pool of the calling thread. The global pool
//! would outlive the computation, with three consequences. Its threads do not exist in a child
//! after `fork`, which would wait for them for ever. They would receive signals that a prompt has
//! blocked. And where no thread can be started, rayon panics.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuilder};

/// Runs `job` in a rayon pool of its own: this thread and up to `threads - 1` others, which have
/// ended when this returns. If fewer threads can be started, those do the work.
///
/// On a thread of a caller's rayon pool, the job runs in that pool.
pub(super) fn with_workers<T, F>(threads: usize, job: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    // A thread can belong to one pool only.
    if rayon::current_thread_index().is_some() {
        return job();
    }
    let Pool { rayon, own, others } = Pool::new(threads);
    let (sender, receiver) = mpsc::channel();
    rayon.spawn(move || {
        // The receiver is waiting below.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(job)));
    });
    // The pool ends with its last job, which ends each worker's loop.
    drop(rayon);
    own.run();
    for other in others {
        let _ = other.join();
    }
    let result = receiver.recv().expect("the job has run: the pool had it to do before it ended");
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

struct Pool {
    rayon: ThreadPool,
    /// The worker for the calling thread
    own: ThreadBuilder,
    others: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Creates a pool of `threads` workers, or of as many as can be started.
    fn new(threads: usize) -> Self {
        let pool = (1..=threads.max(1)).rev().find_map(Self::of);
        pool.expect("a pool of this thread alone starts no thread")
    }

    /// Creates a pool of exactly `threads` workers.
    fn of(threads: usize) -> Option<Self> {
        let (mut own, mut others) = (None, Vec::new());
        let builder = ThreadPoolBuilder::new().num_threads(threads).spawn_handler(|worker| {
            if own.is_none() {
                own = Some(worker);
            } else {
                others.push(thread::Builder::new().spawn(|| worker.run())?);
            }
            Ok(())
        });
        let built = builder.build();
        if let (Ok(rayon), Some(own)) = (built, own) {
            return Some(Self { rayon, own, others });
        }
        // Workers that were started end by themselves.
        for other in others {
            let _ = other.join();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use rayon::iter::{IntoParallelIterator, ParallelIterator};

    use super::*;

    fn sum() -> u64 {
        (0..1000_u64).into_par_iter().sum()
    }

    #[test]
    fn every_number_of_threads_does_the_work() {
        for threads in [0, 1, 2, 7] {
            let count = move || (sum(), rayon::current_num_threads());
            assert_eq!(with_workers(threads, count), (499_500, threads.max(1)));
            assert_eq!(rayon::current_thread_index(), None, "this thread is in no pool afterwards");
        }
    }

    #[test]
    fn a_caller_in_a_pool_stays_in_it() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let threads = pool.install(|| with_workers(2, || (sum(), rayon::current_num_threads())));
        assert_eq!(threads, (499_500, 3));
    }

    #[test]
    fn a_panic_is_the_callers() {
        let panicked = catch_unwind(|| with_workers(2, || panic!("of the job")));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"of the job"));
        assert_eq!(with_workers(2, sum), 499_500);
    }
}
