//! Locks that serialise threads using the same bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::storage::StorageId;

/// FIFO locks on byte ranges.
///
/// Readers share a range, writers do not. A request waits for every earlier conflicting one,
/// granted or queued, so readers cannot starve a writer. Without a conflict it costs one mutex.
///
/// A thread must not request a range while it holds one: it could deadlock with itself.
#[derive(Debug, Default)]
pub struct RangeLock {
    queue: Mutex<Queue>,
    /// Signalled when a claim leaves the queue.
    left: Condvar,
}

/// A locked range, unlocked on drop.
#[derive(Debug)]
#[must_use = "the range is free as soon as this is dropped"]
pub struct Guard<'a> {
    lock: &'a RangeLock,
    ticket: u64,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// Granted and queued claims, in the order of their tickets
    claims: Vec<Claim>,
    waiting: usize,
}

#[derive(Debug)]
struct Claim {
    ticket: u64,
    range: Range<u64>,
    is_exclusive: bool,
}

/// The range locks of all storages that have volumes in this process.
///
/// The table is global because two volumes over one file must be serialised even if the file was
/// opened twice. The mutex is held for a lookup and never during I/O. The crate's front page
/// documents the consequence for programs that fork.
static LOCKS: Mutex<BTreeMap<StorageId, Weak<RangeLock>>> = Mutex::new(BTreeMap::new());

impl RangeLock {
    /// The lock of a storage, one for the whole process.
    pub fn of(storage: StorageId) -> Arc<Self> {
        let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&storage).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(storage, Arc::downgrade(&lock));
        lock
    }

    /// Waits until the range has no writer.
    pub fn shared(&self, range: Range<u64>) -> Guard<'_> {
        self.lock(range, false)
    }

    /// Waits until the range has no other user.
    pub fn exclusive(&self, range: Range<u64>) -> Guard<'_> {
        self.lock(range, true)
    }

    fn lock(&self, range: Range<u64>, is_exclusive: bool) -> Guard<'_> {
        let mut queue = self.queue();
        let ticket = queue.next;
        queue.next += 1;
        queue.claims.push(Claim { ticket, range, is_exclusive });
        while queue.must_wait(ticket) {
            queue.waiting += 1;
            queue = self.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        Guard { lock: self, ticket }
    }

    /// Ignores poison: no critical section leaves the queue half updated.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn must_wait(&self, ticket: u64) -> bool {
        let Ok(index) = self.position(ticket) else { return false };
        let (before, claim) = (&self.claims[..index], &self.claims[index]);
        before.iter().any(|other| other.conflicts(claim))
    }

    fn position(&self, ticket: u64) -> Result<usize, usize> {
        self.claims.binary_search_by_key(&ticket, |claim| claim.ticket)
    }
}

impl Claim {
    fn conflicts(&self, other: &Self) -> bool {
        (self.is_exclusive || other.is_exclusive)
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut queue = self.lock.queue();
        if let Ok(index) = queue.position(self.ticket) {
            queue.claims.remove(index);
        }
        let has_waiters = queue.waiting > 0;
        drop(queue);
        if has_waiters {
            self.lock.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn readers_share_and_writers_do_not() {
        for (held, asked, waits) in [
            ((0..8, false), (4..12, false), false),
            ((0..8, false), (4..12, true), true),
            ((0..8, true), (4..12, false), true),
            ((0..8, true), (7..8, true), true),
            ((0..8, true), (8..16, true), false),
            ((8..16, true), (0..8, true), false),
        ] {
            let lock = RangeLock::default();
            let _guard = lock.lock(held.0.clone(), held.1);
            let mut queue = lock.queue();
            let (range, is_exclusive) = asked.clone();
            queue.claims.push(Claim { ticket: 1, range, is_exclusive });
            assert_eq!(queue.must_wait(1), waits, "{held:?} {asked:?}");
        }
    }

    #[test]
    fn a_reader_waits_behind_a_writer_that_waits() {
        let lock = RangeLock::default();
        let reader = lock.shared(0..8);
        thread::scope(|scope| {
            let writer = scope.spawn(|| drop(lock.exclusive(0..8)));
            while lock.queue().waiting == 0 {
                thread::yield_now();
            }
            let late = scope.spawn(|| drop(lock.shared(0..8)));
            while lock.queue().waiting < 2 {
                thread::yield_now();
            }
            drop(lock.exclusive(8..16)); // returns at once: the ranges do not overlap
            assert!(!writer.is_finished() && !late.is_finished());
            drop(reader);
        });
        assert!(lock.queue().claims.is_empty());
    }

    #[test]
    fn a_panic_gives_the_range_back() {
        let lock = RangeLock::default();
        let panicked = thread::scope(|scope| {
            let panics = || {
                let _guard = lock.exclusive(0..8);
                panic!("on purpose");
            };
            scope.spawn(panics).join().is_err()
        });
        assert!(panicked);
        drop(lock.exclusive(0..8));
    }
}
