//! What the error of a failed amendment says of the image is true of the image: every amendment, with
//! a fault at each of its writes and syncs, and every clause of the error.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Edit, Header, Priority};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::{ReadOnlyBytes, Storage};
use keyslot::{Error, Limits, Overrides, Passphrase, Restoration};
use support::luks2::roomy;
use support::memory::{self, Memory};
use support::opener::{Opener, erase, secret, small_key};
use support::watched::{Watch, Watched};

/// What the error's other clauses say.
struct Named<'a> {
    has_before: bool,
    /// Keyslots that are unchanged
    unchanged: &'a [usize],
}

type Opened = Vec<(usize, Vec<usize>)>;

/// An image before and after an amendment, and when it failed.
struct Scene {
    before: Vec<u8>,
    after: Vec<u8>,
    opener: Opener,
}

impl Scene {
    /// Runs the amendment with each of its operations failing, and judges what each error says.
    fn check(
        before: Vec<u8>,
        secrets: &[&Passphrase],
        run: impl Fn(&Arc<Memory>) -> Result<(), Error>,
    ) {
        let whole = Memory::new(before.clone(), None);
        run(&whole).unwrap();
        let (after, opener) = (whole.bytes(), Opener::new(secrets));
        let mut scene = Self { before, after, opener };
        for fails in 0..whole.log().len() {
            let memory = Memory::new(scene.before.clone(), Some(fails));
            let error = run(&memory).unwrap_err();
            let (_, clauses) = error.message().split_once("; ").expect("the state is said");
            let unchanged: Vec<_> = clauses
                .split("; ")
                .filter(|it| it.ends_with(" unchanged"))
                .flat_map(numbers)
                .collect();
            for (at, clause) in clauses.split("; ").enumerate() {
                let named = Named { has_before: at > 0, unchanged: &unchanged };
                scene.judge(clause, &named, &memory.bytes(), error.message());
            }
        }
    }

    fn judge(&mut self, clause: &str, named: &Named<'_>, now: &[u8], text: &str) {
        let [before, after] =
            [self.before.clone(), self.after.clone()].map(|it| self.opener.open(&it));
        let opened = self.opener.open(now);
        let of = |all: &Opened, slot: usize| all.iter().find(|it| it.0 == slot).cloned();
        let is_unchanged = |but: &[usize]| {
            slots().all(|it| but.contains(&it) || of(&opened, it) == of(&before, it))
        };
        let is_done = |these: &[usize]| these.iter().all(|&it| of(&opened, it) == of(&after, it));
        let all_done = slots().all(|it| named.unchanged.contains(&it) || is_done(&[it]));
        let header = Header::read(&ReadOnlyBytes(now.to_vec())).unwrap();
        let is_true = match clause {
            "nothing has changed" => is_unchanged(&[]),
            _ if clause.starts_with("nothing has changed but marks of areas to be overwritten") => {
                is_unchanged(&[])
            }
            // The clauses before it say what has.
            "nothing else has changed" => true,
            "it may or may not have taken effect"
            | "the header may or may not be restored, and nothing else has changed" => {
                opened == before || opened == after
            }
            "it has taken effect, and the secondary copy of the header needs repair"
            | "the header is restored, and the secondary copy of the header needs repair"
            | "the header is restored"
            | "the keyslots are restored, the uuid may or may not be" => opened == after,
            "old key material may be left on the medium"
            | "old key material is overwritten, only a mark is left to clear" => all_done,
            "old key material is overwritten, and the secondary copy of the header needs repair" => {
                header.leftovers().is_empty()
            }
            _ if clause.starts_with("all secrets of the backup open the image") => {
                let open: Vec<_> = opened.iter().flat_map(|it| it.1.clone()).collect();
                after.iter().flat_map(|it| it.1.clone()).all(|secret| open.contains(&secret))
            }
            // It may, or may not.
            _ if clause.starts_with("a copy of a secret may still be in ") => true,
            _ => {
                let (subject, predicate) = split(clause);
                let these = numbers(subject);
                match predicate {
                    "may or may not have changed, and nothing else has" => {
                        // What the clauses before it say is done is as in the end.
                        slots().filter(|it| !these.contains(it)).all(|it| {
                            let is_old = of(&opened, it) == of(&before, it);
                            is_old || named.has_before && of(&opened, it) == of(&after, it)
                        })
                    }
                    "changed as asked"
                    | "changed as asked, and the secondary copy of the header needs repair"
                    | "is replaced" => is_done(&these),
                    "is unchanged" | "are unchanged" => {
                        these.iter().all(|&it| of(&opened, it) == of(&before, it))
                    }
                    "inactive, but old key material may be left on the medium"
                    | "inactive and overwritten, only a mark is left to clear" => {
                        these.iter().all(|&it| of(&opened, it).is_none())
                    }
                    _ if predicate.starts_with("is half replaced: the new secret opens ") => {
                        let staging = of(&opened, numbers(predicate)[0]);
                        staging.is_some_and(|it| it.1 == of(&after, these[0]).unwrap().1)
                    }
                    other => panic!("what does '{other}' say? {text}"),
                }
            }
        };
        assert!(is_true, "'{clause}' is not so: {text}\n{before:?}\n{opened:?}\n{after:?}");
    }
}

/// As many keyslots as there can be
fn slots() -> std::ops::Range<usize> {
    0..32
}

/// `keyslots 1, 4` and what is said of them
fn split(clause: &str) -> (&str, &str) {
    let is_subject = |it: char| it.is_ascii_digit() || it == ',' || it == ' ';
    let rest = clause.trim_start_matches("keyslots").trim_start_matches("keyslot");
    let predicate = rest.trim_start_matches(is_subject).trim_start_matches(": ");
    (&clause[..clause.len() - predicate.len()], predicate)
}

fn numbers(text: &str) -> Vec<usize> {
    text.split(|it: char| !it.is_ascii_digit()).filter_map(|it| it.parse().ok()).collect()
}

fn pbkdf() -> Pbkdf {
    Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2)
}

fn add(keyslot: i64, new: &str) -> Change {
    Change::Add { keyslot: Some(keyslot), new_secret: Ok(secret(new)), pbkdf: pbkdf() }
}

fn replace(keyslot: i64, new: &str) -> Change {
    let (keyslot, new_secret) = (Some(keyslot), Ok(secret(new)));
    Change::Replace { keyslot, old_secret: None, new_secret, pbkdf: pbkdf() }
}

fn amend(memory: &Arc<Memory>, opener: &str, changes: &[Change]) -> Result<(), Error> {
    let mut image = support::open_on(Arc::clone(memory), Limits::NONE)?;
    let unlocked = image.unlock(&secret(opener))?;
    let plan = image.plan(Request::new(changes.to_vec()))?;
    image.amend(&plan, Some(&unlocked)).map(drop)
}

fn changed(image: &[u8], opener: &str, changes: &[Change]) -> Vec<u8> {
    let memory = Memory::new(image.to_vec(), None);
    for change in changes {
        amend(&memory, opener, std::slice::from_ref(change)).unwrap();
    }
    memory.bytes()
}

fn restore(memory: &Arc<Memory>, then: &[u8]) -> Result<(), Error> {
    let backup = Backup::read(&ReadOnlyBytes(then.to_vec())).unwrap();
    Restoration::on_storage(Arc::clone(memory), backup, Overrides::NONE)?.run()
}

#[test]
fn errors_of_luks1_amendments_are_true() {
    let secrets = ["a", "b", "new", "newer"].map(secret);
    let secrets: Vec<_> = secrets.iter().collect();
    let image = memory::image(&small_key(), &[(0, secrets[0]), (6, secrets[1])]);
    for changes in [
        vec![add(3, "new")],
        vec![erase(6)],
        vec![replace(0, "new")],
        vec![replace(6, "new")],
        vec![erase(6), replace(0, "new")],
        vec![add(7, "new"), erase(0), add(1, "newer")],
        vec![replace(0, "new"), replace(6, "newer")],
    ] {
        Scene::check(image.clone(), &secrets, |memory| amend(memory, "a", &changes));
    }
    let uuid = "01234567-89ab-4def-8123-456789abcdef".parse().unwrap();
    Scene::check(image.clone(), &secrets, |memory| {
        let mut image = support::open_on(Arc::clone(memory), Limits::NONE)?;
        image.edit(&[Edit::SetUuid(uuid)])
    });
    for now in [
        changed(&image, "a", &[erase(6), add(3, "new")]),
        changed(&image, "b", &[replace(0, "new")]),
        changed(&image, "a", &[replace(6, "new"), add(5, "newer")]),
    ] {
        Scene::check(now, &secrets, |memory| restore(memory, &image));
    }
}

#[test]
fn errors_of_luks2_amendments_are_true() {
    let names = ["hunter0", "hunter3", "hunter5", "hunter7", "new", "newer"].map(secret);
    let secrets: Vec<_> = names.iter().collect();
    for (more, changes) in [
        (1, vec![add(9, "new")]),
        (1, vec![erase(3)]),
        (1, vec![replace(5, "new")]),
        (2, vec![add(9, "new"), erase(3), replace(5, "newer")]),
        (1, vec![replace(3, "new"), replace(5, "newer")]),
        (0, vec![erase(3), replace(5, "new")]),
    ] {
        let image = roomy(more).bytes;
        Scene::check(image, &secrets, |memory| amend(memory, "hunter0", &changes));
    }
    let image = roomy(2).bytes;
    let edits = [Edit::SetPriority { keyslot: 5, priority: Priority::Normal }];
    Scene::check(image.clone(), &secrets, |memory| {
        support::open_on(Arc::clone(memory), Limits::NONE)?.edit(&edits)
    });
    let now = changed(&image, "hunter0", &[erase(5), replace(3, "new"), add(9, "newer")]);
    Scene::check(now, &secrets, |memory| restore(memory, &image));
    let mut damaged = image.clone();
    damaged[6000] = 1;
    Scene::check(damaged, &secrets, |memory| {
        support::open_on(Arc::clone(memory), Limits::NONE)?.repair(Overrides::NONE).map(drop)
    });
}

/// A disk that is full from the second area on: the first keyslot is replaced by then.
#[test]
fn a_full_disk_between_two_replacements_in_place_is_told_so() {
    let full =
        Watched(Full { memory: Memory::new(roomy(0).bytes, None), reserved: AtomicUsize::new(0) });
    let mut image = support::open_on(full, Limits::NONE).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let changes = vec![replace(3, "new"), replace(5, "newer")];
    let plan = image.plan(Request::new(changes).overrides(Overrides::ALL)).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    let text = "keyslot 3 replaced; nothing else has changed";
    assert!(error.message().ends_with(text), "{error}");
    assert_eq!(image.unlock_keyslot(3, &secret("new")).unwrap().keyslot(), Some(3));
    assert_eq!(image.unlock_keyslot(5, &secret("hunter5")).unwrap().keyslot(), Some(5));
}

/// Has room for one area.
#[derive(Debug)]
struct Full {
    memory: Arc<Memory>,
    reserved: AtomicUsize,
}

impl Watch for Full {
    fn below(&self) -> &dyn Storage {
        &self.memory
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        match self.reserved.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// A plan that cannot be written is refused when it is made: a dry run finds the same.
#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let filler = "x".repeat(10_000);
    let token = format!(r#"{{ "type": "test", "keyslots": [], "filler": "{filler}" }}"#);
    let token: keyslot::json::Value = token.parse().unwrap();
    let memory = Memory::new(roomy(1).bytes, None);
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let token = token.as_object().unwrap().clone();
    image.edit(&[Edit::PutToken { number: None, token, replace: false }]).unwrap();
    let writes = memory.log().len();
    let request = Request::one(add(9, "new"));
    let error = image.plan(request).unwrap_err();
    assert!(error.message().contains("does not fit"), "{error}");
    assert_eq!(memory.log().len(), writes);
}

/// The token of an erased keyslot makes room for a new keyslot, unless it stays: the plan knows.
#[test]
fn a_plan_that_keeps_tokens_has_room_for_them() {
    let filler = "x".repeat(10_000);
    let token = format!(r#"{{ "type": "test", "keyslots": ["5"], "filler": "{filler}" }}"#);
    let token: keyslot::json::Value = token.parse().unwrap();
    let memory = Memory::new(roomy(2).bytes, None);
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let token = token.as_object().unwrap().clone();
    image.edit(&[Edit::PutToken { number: None, token, replace: false }]).unwrap();
    let request = Request::new(vec![Change::erase(5), add(9, "new"), add(10, "newer")]);

    let plan = image.plan(request.clone()).unwrap();
    let ends = |warnings: &[String], end: &str| warnings.iter().any(|it| it.ends_with(end));
    assert!(ends(plan.warnings(), "is removed"), "{:?}", plan.warnings());

    let error = image.plan(request.keep_tokens(true)).unwrap_err();
    assert!(error.message().contains("does not fit"), "{error}");

    let plan = image.plan(Request::one(Change::erase(5)).keep_tokens(true)).unwrap();
    assert!(ends(plan.warnings(), "is left without a keyslot"), "{:?}", plan.warnings());
}
