//! The command killed at every write and at every sync on a LUKS2 image, and failed by the system at
//! each of them: the image opens with every secret that was left alone, and with the old or the new
//! one of each that was not, for us and for cryptsetup; what an error says of the image is so.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/desk_luks2.rs"]
mod desk;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use desk::{Desk, KEYSLOT, passphrase};
use keyslot::Image;
use support::cryptsetup::Cryptsetup;
use support::luks2_state::State;
use support::{peer, run, run_ok, stderr};

/// An amendment, and what it promises. Secrets are numbers.
struct Operation {
    desk: Desk,
    words: &'static str,
    /// What opens which keyslot, before and after
    before: Vec<(usize, usize)>,
    after: Vec<(usize, usize)>,
    /// Keyslots that may be lost on the way
    lost: &'static [usize],
}

#[test]
fn add() {
    each_call(&Operation {
        desk: Desk::roomy(),
        words: "add --secret env:S0 --new-secret env:S9 --pbkdf pbkdf2 --iterations 1000 image",
        before: vec![(0, 0), (3, 3), (5, 5), (7, 7)],
        after: vec![(0, 0), (1, 9), (3, 3), (5, 5), (7, 7)],
        lost: &[],
    });
}

#[test]
fn erase_by_index() {
    each_call(&Operation {
        desk: Desk::roomy(),
        words: "erase --keyslot 5 image",
        before: vec![(0, 0), (3, 3), (5, 5), (7, 7)],
        after: vec![(0, 0), (3, 3), (7, 7)],
        lost: &[],
    });
}

#[test]
fn erase_by_secret() {
    let desk = Desk::full();
    desk.done("replace -q --force --keyslot 3 --secret env:S0 --new-secret env:S5 --pbkdf pbkdf2 --iterations 1000 image");
    each_call(&Operation {
        desk,
        words: "erase --old-secret env:S5 image",
        before: vec![(0, 0), (3, 5), (5, 5), (7, 7)],
        after: vec![(0, 0), (7, 7)],
        lost: &[],
    });
}

#[test]
fn replace() {
    each_call(&Operation {
        desk: Desk::roomy(),
        words: "replace --old-secret env:S5 --new-secret env:S9 --iterations 1000 image",
        before: vec![(0, 0), (3, 3), (5, 5), (7, 7)],
        after: vec![(0, 0), (3, 3), (5, 9), (7, 7)],
        lost: &[],
    });
}

/// There is room for one area, so one comes after the other.
#[test]
fn replace_two_in_turn() {
    let desk = Desk::full();
    desk.done("erase -q --keyslot 3 image");
    desk.done("replace -q --old-secret env:S5 --new-secret env:S0 --iterations 1000 image");
    each_call(&Operation {
        desk,
        words: "replace --old-secret env:S0 --new-secret env:S9 --iterations 1000 image",
        before: vec![(0, 0), (5, 0), (7, 7)],
        after: vec![(0, 9), (5, 9), (7, 7)],
        lost: &[],
    });
}

/// There is room for none.
#[test]
fn replace_in_place() {
    each_call(&Operation {
        desk: Desk::full(),
        words: "replace --force -q --old-secret env:S5 --new-secret env:S9 --iterations 1000 image",
        before: vec![(0, 0), (3, 3), (5, 5), (7, 7)],
        after: vec![(0, 0), (3, 3), (5, 9), (7, 7)],
        lost: &[5],
    });
}

#[test]
fn several() {
    each_call(&Operation {
        desk: Desk::roomy(),
        words: "amend --object secret,id=s8,data=hunter8 --object secret,id=s9,data=hunter9 \
            --secret env:S0 --pbkdf pbkdf2 --iterations 1000 -o keys.0.state=inactive,\
            keys.0.keyslot=5,keys.1.state=active,keys.1.keyslot=5,keys.1.new-secret=s9,\
            keys.2.state=inactive,keys.2.keyslot=3,keys.3.state=active,keys.3.new-secret=s8 image",
        before: vec![(0, 0), (3, 3), (5, 5), (7, 7)],
        after: vec![(0, 0), (1, 8), (5, 9), (7, 7)],
        lost: &[],
    });
}

/// Stops the operation at its first, second, third... write, and sync, by all means.
fn each_call(operation: &Operation) {
    let Some(strace) = peer("strace") else { return };
    let cryptsetup = Cryptsetup::find();
    for what in [
        "pwrite64:signal=KILL",
        "fdatasync:signal=KILL",
        "pwrite64:error=ENOSPC",
        "fdatasync:error=EIO",
    ] {
        for when in 1.. {
            let desk = Desk::full();
            fs::copy(operation.desk.path(), desk.path()).unwrap();
            let output = strace_keyslot(&strace, &desk, operation.words, what, when);
            if output.status.success() {
                assert!(when > 1, "there is no {what}");
                assert_eq!(open(&desk), operation.after);
                operation.is_clean(&desk, "in the end");
                break;
            }
            let at = format!("{what} at call {when}");
            operation.keeps_its_promise(&desk, &at);
            if what.contains("error") {
                operation.says_how_it_is(&desk, &output, &at);
            }
            if let Some(cryptsetup) = &cryptsetup {
                opens_in_cryptsetup(cryptsetup, &desk, &at);
            }
            operation.goes_on(&desk, &at);
        }
    }
}

/// keyslot, stopped at a call.
fn strace_keyslot(strace: &Path, desk: &Desk, words: &str, what: &str, when: u32) -> Output {
    let call = what.split(':').next().unwrap();
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={what}:when={when}"), KEYSLOT]);
    let ours = desk.command(words);
    let variables = ours.get_envs().filter_map(|(name, value)| Some((name, value?)));
    run(command.args(ours.get_args()).envs(variables).current_dir(desk.directory.path()))
}

/// Which secret opens which keyslot.
fn open(desk: &Desk) -> Vec<(usize, usize)> {
    let image = Image::open(desk.path()).unwrap();
    let opens =
        |&(keyslot, secret): &(usize, usize)| image.opens(keyslot, &passphrase(secret)).unwrap();
    let secrets = [0, 3, 5, 7, 8, 9];
    let pairs = image.keyslots().flat_map(|it| secrets.map(|secret| (it.index, secret)));
    pairs.filter(opens).collect()
}

/// It sees the same keyslots, and opens those that hold the volume key.
#[track_caller]
fn opens_in_cryptsetup(cryptsetup: &Cryptsetup, desk: &Desk, at: &str) {
    let copy = Desk::full();
    fs::copy(desk.path(), copy.path()).unwrap();
    let found = open(desk);
    for &(keyslot, secret) in found.iter().filter(|(keyslot, _)| *keyslot != 7) {
        let secret = format!("hunter{secret}").into_bytes();
        assert!(cryptsetup.opens_keyslot(&copy.path(), &secret, keyslot), "{at}: {keyslot}");
    }
    // It has repaired what there was to repair.
    let repaired = State::of(&copy.path());
    assert!(found.iter().all(|&(keyslot, _)| repaired.has(keyslot)), "{at}");
    assert_eq!(open(&copy), found, "{at}");
    assert!(cryptsetup.finds_no_fault(&copy.path()), "{at}");
}

impl Operation {
    /// Each keyslot is as it was or as it shall be.
    #[track_caller]
    fn keeps_its_promise(&self, desk: &Desk, at: &str) {
        let found = open(desk);
        for keyslot in 0..32 {
            let of = |all: &[(usize, usize)]| all.iter().find(|it| it.0 == keyslot).copied();
            let (before, after, found) = (of(&self.before), of(&self.after), of(&found));
            let may_be_lost = found.is_none() && self.lost.contains(&keyslot);
            assert!(
                found == before || found == after || may_be_lost,
                "{at}: {found:?} is neither {before:?} nor {after:?}"
            );
        }
    }

    /// The error names the image and what became of it.
    #[track_caller]
    fn says_how_it_is(&self, desk: &Desk, output: &Output, at: &str) {
        let all = stderr(output);
        // A warning of what is about to be done comes first.
        let lines: Vec<_> = all.lines().filter(|line| !line.starts_with("warning: ")).collect();
        let text = lines.join("\n");
        assert_eq!(output.status.code(), Some(1), "{at}: {text}");
        assert!(text.starts_with("keyslot: image: cannot ") && text.lines().count() == 1, "{text}");
        let found = open(desk);
        let is_before = text.contains("; nothing has changed");
        let is_after = text.contains(" changed as asked, and the secondary copy")
            || text.contains(" changed as asked; old key material")
            || text.contains(" replaced, and the secondary copy");
        let is_unsure = text.contains(" may or may not have changed, and nothing else has")
            || text.contains("half replaced: neither secret may open it")
            || text.contains("changed as asked; nothing else has changed");
        assert_eq!(
            u8::from(is_before) + u8::from(is_after) + u8::from(is_unsure),
            1,
            "{at}: {text}"
        );
        if is_before {
            assert_eq!(found, self.before, "{at}: {text}");
        }
        // One round of several has its own end.
        if is_after && text.matches("changed as asked").count() == self.rounds() {
            assert_eq!(found, self.after, "{at}: {text}");
        }
    }

    fn rounds(&self) -> usize {
        usize::from(self.lost.is_empty()) * if self.before.len() == 3 { 2 } else { 1 }
    }

    /// The same again does it, or it is done; what is left over goes with it.
    #[track_caller]
    fn goes_on(&self, desk: &Desk, at: &str) {
        let output = desk.output(self.words);
        if !output.status.success() {
            let text = stderr(&output);
            assert!([Some(1), Some(2)].contains(&output.status.code()), "{at}: {text}");
            // Nothing to do is no reason to leave old key material.
            run_ok(&mut desk.command("erase -q --force --keyslot 31 image"));
        }
        self.keeps_its_promise_again(desk, at);
        self.is_clean(desk, at);
    }

    /// As before, but that an addition may be there twice.
    #[track_caller]
    fn keeps_its_promise_again(&self, desk: &Desk, at: &str) {
        let found = open(desk);
        for kept in self.before.iter().filter(|it| self.after.contains(it)) {
            assert!(found.contains(kept), "{at}: {kept:?}");
        }
    }

    /// Both copies are sound, nothing is left over, and no key material is where no keyslot is.
    #[track_caller]
    fn is_clean(&self, desk: &Desk, at: &str) {
        let state = State::of(&desk.path());
        let image = Image::open(desk.path()).unwrap();
        assert_eq!((image.header().leftovers(), image.header().warning()), (vec![], None), "{at}");
        let whole = State::of(&self.desk.path());
        let used: Vec<_> = (0..32).filter(|it| state.has(*it)).map(|it| state.area(it)).collect();
        for &(keyslot, _) in &self.before {
            let area = whole.area(keyslot);
            if used.iter().all(|it| it.end <= area.start || area.end <= it.start) {
                let is_wiped = state.bytes[area].iter().all(|&byte| byte == 0);
                assert!(is_wiped, "{at}: the old area of keyslot {keyslot} is not wiped");
            }
        }
    }
}
