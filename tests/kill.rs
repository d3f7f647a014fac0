//! The command killed at every write and at every sync, and failed by the system at each of them:
//! the image opens with every secret that was left alone, and with the old or the new one of each
//! that was not; `keyslot check` says what is left, and what it says to do about it works.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::path::Path;
use std::process::{Command, Output};

use command::{KEYSLOT, SECRETS, Scene, assert_no_secret, assert_refusal};
use keyslot::Image;
use support::{peer, run};

#[test]
fn add() {
    each_call(&Operation {
        slots: &[],
        args: &[
            "add",
            "--secret",
            "env:OLD",
            "--new-secret",
            "env:NEW",
            "--iterations=1000",
            "IMG",
        ],
        untouched: &["OLD"],
        after: &[("NEW", &[1])],
        either: &[],
    });
}

/// Its entry is in two sectors.
#[test]
fn add_keyslot_6() {
    each_call(&Operation {
        slots: &[("OTHER", 7)],
        args: &[
            "add",
            "--secret=env:OLD",
            "--new-secret=env:NEW",
            "--iterations=1000",
            "--keyslot=6",
            "IMG",
        ],
        untouched: &["OLD", "OTHER"],
        after: &[("NEW", &[6])],
        either: &[],
    });
}

#[test]
fn erase_by_index() {
    each_call(&Operation {
        slots: &[("OTHER", 6)],
        args: &["erase", "--keyslot", "6", "IMG"],
        untouched: &["OLD"],
        after: &[("OTHER", &[])],
        either: &[],
    });
}

#[test]
fn erase_by_secret() {
    each_call(&Operation {
        slots: &[("OTHER", 2), ("OTHER", 6), ("NEW", 5)],
        args: &["erase", "--old-secret", "env:OTHER", "IMG"],
        untouched: &["OLD", "NEW"],
        after: &[("OTHER", &[])],
        either: &[],
    });
}

#[test]
fn replace() {
    each_call(&Operation {
        slots: &[("OTHER", 6)],
        args: &[
            "replace",
            "--old-secret=env:OTHER",
            "--new-secret=env:NEW",
            "--iterations=1000",
            "IMG",
        ],
        untouched: &["OLD"],
        after: &[("NEW", &[6]), ("OTHER", &[])],
        either: &[["OTHER", "NEW"]],
    });
}

#[test]
fn replace_the_only_one() {
    each_call(&Operation {
        slots: &[],
        args: &[
            "replace",
            "--old-secret=env:OLD",
            "--new-secret=env:NEW",
            "--iterations=1000",
            "IMG",
        ],
        untouched: &[],
        after: &[("NEW", &[0]), ("OLD", &[])],
        either: &[["OLD", "NEW"]],
    });
}

/// Two go, two come, in both sectors of the header.
#[test]
fn amend_several() {
    each_call(&Operation {
        slots: &[("OTHER", 2), ("OTHER", 6)],
        args: &[
            "amend",
            "--object=secret,id=new,data=xyzzy-one",
            "--object=secret,id=other,data=xyzzy-two",
            "--secret=env:OLD",
            "-o",
            "keys.0.state=active,keys.0.new-secret=new,keys.0.iter-time=1,keys.0.keyslot=3",
            "-o",
            "keys.1.state=inactive,keys.1.old-secret=other",
            "-o",
            "keys.2.state=active,keys.2.new-secret=new,keys.2.iter-time=1,keys.2.keyslot=7",
            "IMG",
        ],
        untouched: &["OLD"],
        after: &[("NEW", &[3, 7]), ("OTHER", &[])],
        either: &[["OTHER", "NEW"]],
    });
}

/// An amendment, and what it promises.
struct Operation {
    /// The keyslots that are there beside `OLD` in keyslot 0
    slots: &'static [(&'static str, usize)],
    args: &'static [&'static str],
    /// What opens it at every instant
    untouched: &'static [&'static str],
    /// What opens which keyslots in the end
    after: &'static [(&'static str, &'static [usize])],
    /// Of each pair, one opens it at every instant
    either: &'static [[&'static str; 2]],
}

/// Stops the operation at its first, second, third... write, and sync, by all means.
fn each_call(operation: &Operation) {
    let Some(strace) = peer("strace") else { return };
    let whole = operation.scene();
    for (what, is_kill) in [
        ("pwrite64:signal=KILL", true),
        ("fdatasync:signal=KILL", true),
        ("pwrite64:error=ENOSPC", false),
        ("fdatasync:error=EIO", false),
    ] {
        for when in 1.. {
            let scene = Scene::without_image();
            std::fs::copy(&whole.image, &scene.image).unwrap();
            let output = strace_keyslot(&strace, &scene, operation.args, what, when);
            if output.status.success() {
                operation.assert_done(&scene);
                eprintln!("{}: stopped by {what} at {} calls", operation.args[0], when - 1);
                assert!(when > 1, "there is no {what}");
                break;
            }
            let at = format!("{what} at call {when}");
            assert_no_secret(&output);
            operation.assert_promise(&scene, &at);
            if !is_kill {
                let image = scene.image.to_str().unwrap();
                let text = assert_refusal(&output, 1, &[image, "cannot ", "; "], &at);
                assert!(says_state(&text), "{at}: in which state is it? {text}");
            }
            operation.again(&scene, &at);
            operation.mend(&scene, &at);
        }
    }
}

/// keyslot, stopped at a call.
fn strace_keyslot(strace: &Path, scene: &Scene, args: &[&str], what: &str, when: u32) -> Output {
    let call = what.split(':').next().unwrap();
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={what}:when={when}")]);
    run(command.arg(KEYSLOT).args(scene.args(args)).envs(SECRETS))
}

/// The words in which an error says how far it came.
fn says_state(text: &str) -> bool {
    [
        "nothing has changed",
        "may or may not have changed, and nothing else has",
        "is unchanged",
        "half replaced: the new secret opens keyslot",
        "is replaced; a copy of a secret may still be in keyslot",
        "but old key material may be left on the medium",
        "only a mark is left to clear",
    ]
    .iter()
    .any(|words| text.contains(words))
}

impl Operation {
    fn scene(&self) -> Scene {
        self.slots.iter().fold(Scene::new(), |scene, (secret, keyslot)| scene.and(secret, *keyslot))
    }

    /// What is so at every instant.
    #[track_caller]
    fn assert_promise(&self, scene: &Scene, at: &str) {
        for secret in self.untouched {
            assert!(!scene.opened_by(secret).is_empty(), "{at}: {secret} does not open it");
        }
        for [old, new] in self.either {
            let opened = [scene.opened_by(old), scene.opened_by(new)].concat();
            assert!(!opened.is_empty(), "{at}: neither {old} nor {new} opens it");
        }
    }

    /// What is so in the end, at the planned indices, with nothing left over.
    #[track_caller]
    fn assert_done(&self, scene: &Scene) {
        self.assert_promise(scene, "in the end");
        for (secret, keyslots) in self.after {
            assert_eq!(scene.opened_by(secret), *keyslots, "{secret}");
        }
        self.assert_clean(scene, "in the end");
    }

    /// No leftovers, and no key material of keyslots that were active and are not. (Material that
    /// was on its way to be active is nothing to anybody: its salt was never written.)
    #[track_caller]
    fn assert_clean(&self, scene: &Scene, at: &str) {
        let image = Image::open(&scene.image).unwrap();
        assert_eq!(image.header().leftovers(), [], "{at}");
        let active = |keyslot: usize| image.keyslots().nth(keyslot).unwrap().active;
        let were_active = self.slots.iter().map(|(_, keyslot)| *keyslot).chain([0]);
        for keyslot in were_active.filter(|&keyslot| !active(keyslot)) {
            let is_blank = image.is_blank(keyslot).unwrap();
            assert!(is_blank, "{at}: keyslot {keyslot} was erased and is not blank");
        }
    }

    /// The same command again: it succeeds, or it says in one line why it cannot be done any more;
    /// then what it wanted is so but for what `check` reports.
    fn again(&self, scene: &Scene, at: &str) {
        let copy = Scene::without_image();
        std::fs::copy(&scene.image, &copy.image).unwrap();
        let output = copy.command(self.args).output().unwrap();
        if !output.status.success() {
            let status = output.status.code().unwrap();
            let text = assert_refusal(&output, status, &[], at);
            assert!([1, 2].contains(&status), "{at}, again: {text}");
        }
        self.assert_promise(&copy, &format!("{at}, again"));
        self.mend(&copy, &format!("{at}, again"));
    }

    /// What `check` says to do is done; then nothing is left, and the operation can be completed.
    fn mend(&self, scene: &Scene, at: &str) {
        for _ in 0..4 {
            let hints = hints(scene);
            let leftovers = scene.json(&["check", "IMG"])["leftovers"].as_array().unwrap().len();
            assert_eq!(hints.len(), leftovers, "{at}");
            let Some(hint) = hints.first() else { break };
            let mut words = hint.split(' ');
            assert_eq!(words.next(), Some("keyslot"));
            scene.done(&words.chain(["IMG"]).collect::<Vec<_>>());
            self.assert_promise(scene, &format!("{at}, after '{hint}'"));
        }
        self.assert_clean(scene, at);

        let gone = |(secret, wanted): &(&str, &[usize])| {
            wanted.is_empty() && scene.opened_by(secret).is_empty()
        };
        let come = |(secret, wanted): &(&str, &[usize])| {
            !wanted.is_empty() && !scene.opened_by(secret).is_empty()
        };
        if !self.after.iter().all(|it| gone(it) || come(it)) {
            // Of several changes some may be done; then it takes what the error's hint says.
            let output = scene.command(self.args).output().unwrap();
            if !output.status.success() {
                assert!(self.either.len() + self.after.len() > 2, "{at}: {output:?}");
                assert_refusal(
                    &output,
                    1,
                    &["active keyslot", "hint: use --overwrite-keyslot to do it anyway"],
                    at,
                );
                scene.done(&[self.args, &["--force"]].concat());
            }
            assert!(self.after.iter().all(|it| gone(it) || come(it)), "{at}: not after all");
            self.assert_clean(scene, at);
        }
    }
}

/// The commands that `check` recommends.
fn hints(scene: &Scene) -> Vec<String> {
    let text = scene.done(&["check", "IMG"]);
    let lines = text.lines().filter(|line| line.starts_with("leftover: "));
    lines.map(|line| line.split('\'').nth(1).expect("a command in quotes").to_owned()).collect()
}
