//! Many independent cases on two threads: peers calibrate for seconds each.

use std::fmt::Debug;
use std::sync::Mutex;
use std::thread;

/// Runs `check` for every case. The first that fails is named, and fails the test.
pub fn in_parallel<T: Debug + Send>(cases: Vec<T>, check: impl Fn(&T) + Sync) {
    let queue = Mutex::new(cases.into_iter());
    let worker = || {
        while let Some(case) = next(&queue) {
            let mut named = Named { case: &case, done: false };
            check(&case);
            named.done = true;
        }
    };
    thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
}

fn next<T>(queue: &Mutex<std::vec::IntoIter<T>>) -> Option<T> {
    queue.lock().unwrap().next()
}

struct Named<'a, T: Debug> {
    case: &'a T,
    done: bool,
}

impl<T: Debug> Drop for Named<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            eprintln!("FAILED CASE: {:?}", self.case);
        }
    }
}
