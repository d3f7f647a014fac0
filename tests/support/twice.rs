//! An amendment that is interrupted, and another one after it that is interrupted too: every state that
//! the second can leave of every state that the first can leave.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Header, Leftover};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::ReadOnlyBytes;
use keyslot::{Error, Limits, Overrides, Passphrase, Restoration};

use super::crash;
use super::memory::{Memory, Op};
use super::opener::{Opener, secret};

/// Something that writes a header.
#[derive(Clone, Debug)]
pub enum Action {
    Add(usize, &'static str),
    Erase(usize),
    Replace(usize, &'static str),
    Repair,
    /// The header of this image
    Restore(Vec<u8>),
}

/// What the disk has, and what the page cache shows: after a failed sync they may differ.
pub struct Left {
    pub disk: Vec<u8>,
    pub cache: Vec<u8>,
}

pub struct Twice {
    pub before: Vec<u8>,
    pub secrets: Vec<Passphrase>,
    /// Bytes of the header, by which states are told apart
    pub header: usize,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub first: usize,
    pub second: usize,
    pub violations: usize,
}

impl Twice {
    pub fn new(before: Vec<u8>, names: &[&str]) -> Self {
        let header = if before[7] == 1 { 1024 } else { 2 * 16384 };
        Self { before, secrets: names.iter().map(|name| secret(name)).collect(), header }
    }

    pub fn opener(&self) -> Opener {
        Opener::new(&self.secrets.iter().collect::<Vec<_>>())
    }

    /// Runs an action on an image, with whatever secret opens it; `None` if there is nothing to do or
    /// the action is refused before anything is written.
    pub fn run(&self, image: &[u8], action: &Action, fails: Option<usize>) -> Option<Run> {
        let memory = Memory::new(image.to_vec(), fails);
        let result = self.try_run(&memory, action);
        if memory.log().is_empty() && fails.is_none() {
            return None;
        }
        Some(Run { memory, result })
    }

    fn try_run(&self, memory: &Arc<Memory>, action: &Action) -> Result<(), Error> {
        if let Action::Restore(then) = action {
            let backup = Backup::read(&ReadOnlyBytes(then.clone())).unwrap();
            return Restoration::on_storage(Arc::clone(memory), backup, Overrides::NONE)?.run();
        }
        let mut image = super::open_on(Arc::clone(memory), Limits::NONE)?;
        let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
        let number = |keyslot: usize| Some(i64::try_from(keyslot).unwrap());
        let change = match action {
            Action::Repair => return image.repair(Overrides::NONE).map(drop),
            Action::Erase(keyslot) => Change::Erase { keyslot: number(*keyslot), old_secret: None },
            Action::Add(keyslot, new) => {
                Change::Add { keyslot: number(*keyslot), new_secret: Ok(secret(new)), pbkdf }
            }
            Action::Replace(keyslot, new) => Change::Replace {
                keyslot: number(*keyslot),
                old_secret: None,
                new_secret: Ok(secret(new)),
                pbkdf,
            },
            Action::Restore(_) => unreachable!("done above"),
        };
        let unlocked = self.secrets.iter().find_map(|secret| image.unlock(secret).ok());
        let plan = image.plan(Request::one(change))?;
        image.amend(&plan, unlocked.as_ref()).map(drop)
    }

    /// Every state that a crash or a failing operation of the action leaves, once per header and page
    /// cache.
    pub fn first_states(&self, action: &Action) -> Vec<Left> {
        let whole = self.run(&self.before, action, None).expect("something to do");
        whole.result.as_ref().unwrap();
        let log = whole.memory.log();
        let mut seen = HashSet::new();
        let mut left = Vec::new();
        crash::states_up_to(SUBSETS, &self.before, &log, |state| {
            if seen.insert((state[..self.header].to_vec(), state[..self.header].to_vec())) {
                left.push(Left { disk: state.to_vec(), cache: state.to_vec() });
            }
        });
        for fails in 0..log.len() {
            let failed = self.run(&self.before, action, Some(fails)).expect("an error");
            failed.result.expect_err("a failure is reported");
            let cache = failed.memory.bytes();
            crash::last_states_up_to(SUBSETS, &self.before, &failed.memory.log(), |disk| {
                let key = (disk[..self.header].to_vec(), cache[..self.header].to_vec());
                if seen.insert(key) {
                    left.push(Left { disk: disk.to_vec(), cache: cache.clone() });
                }
            });
        }
        left
    }

    /// Counts the states of `second` after `left` in which its promise does not hold. `mutate` changes
    /// what it writes.
    pub fn judge(
        &self,
        opener: &mut Opener,
        left: &Left,
        second: &Action,
        mutate: impl Fn(Vec<Op>) -> Vec<Op>,
        counts: &mut Counts,
    ) {
        counts.first += 1;
        let Some(run) = self.run(&left.cache, second, None) else { return };
        if let Err(error) = &run.result {
            panic!("{second:?} after an interruption: {error}");
        }
        let log = mutate(run.memory.log());
        // Until the first sync has returned, what the disk has counts; after it, what was read.
        let promises = [&left.cache, &left.disk].map(|it| Promise::new(self, opener, it, second));
        counts.second += crash::states_up_to(SUBSETS, &left.disk, &log, |state| {
            let opened = opener.try_open(state);
            let holds =
                opened.as_ref().is_some_and(|it| promises.iter().any(|promise| promise.holds(it)));
            counts.violations += usize::from(!holds);
        });
    }
}

pub struct Run {
    pub memory: Arc<Memory>,
    pub result: Result<(), Error>,
}

/// What opens the image at every instant of the second action.
struct Promise {
    /// All of these
    always: BTreeSet<usize>,
    /// And one of each of these
    either: Vec<BTreeSet<usize>>,
    /// Or, of a restoration, all of these
    instead: Option<BTreeSet<usize>>,
}

impl Promise {
    fn new(twice: &Twice, opener: &mut Opener, left: &[u8], action: &Action) -> Self {
        let opened = opener.try_open(left).expect("a valid header after an interruption");
        let header = Header::read(&ReadOnlyBytes(left.to_vec())).unwrap();
        // A new secret whose replacement is taken back may go.
        let staged: Vec<_> = header
            .leftovers()
            .iter()
            .filter_map(|it| match it {
                Leftover::Staging { staging, .. } => Some(*staging),
                _ => None,
            })
            .collect();
        let of = |slots: &dyn Fn(usize) -> bool| -> BTreeSet<usize> {
            let these = opened.iter().filter(|(slot, _)| slots(*slot));
            these.flat_map(|(_, by)| by.clone()).collect()
        };
        let name = |name: &str| twice.secrets.iter().position(|it| *it == secret(name)).unwrap();
        let stays = |slot: usize| !staged.contains(&slot);
        match action {
            Action::Add(..) => Self { always: of(&|_| true), either: Vec::new(), instead: None },
            Action::Repair => Self { always: of(&stays), either: Vec::new(), instead: None },
            Action::Erase(keyslot) => {
                let always = of(&|slot| slot != *keyslot);
                Self { always, either: Vec::new(), instead: None }
            }
            Action::Replace(keyslot, new) => {
                let mut one = of(&|slot| slot == *keyslot);
                // A disk that is behind its cache may have the keyslot inactive.
                let is_there = !one.is_empty();
                one.insert(name(new));
                let either = if is_there { vec![one] } else { Vec::new() };
                let always = of(&|slot| slot != *keyslot && stays(slot));
                Self { always, either, instead: None }
            }
            Action::Restore(then) => {
                let then = opener.open(then);
                let instead = then.into_iter().flat_map(|(_, by)| by).collect();
                Self { always: of(&|_| true), either: Vec::new(), instead: Some(instead) }
            }
        }
    }

    fn holds(&self, opened: &[(usize, Vec<usize>)]) -> bool {
        if opened.iter().any(|(_, by)| by.is_empty()) {
            return false;
        }
        let open: BTreeSet<_> = opened.iter().flat_map(|(_, by)| by.clone()).collect();
        let all =
            open.is_superset(&self.always) && self.either.iter().all(|one| !open.is_disjoint(one));
        all || self.instead.as_ref().is_some_and(|it| open.is_superset(it))
    }
}

/// As many subsets of written sectors are all visited: those of a header that changes.
const SUBSETS: usize = 64;
