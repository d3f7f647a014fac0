//! Signals at a prompt, whatever was computed before it: the terminal is given back as it was, and no
//! passphrase is ever shown.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/session.rs"]
mod session;
mod support;

use std::ffi::OsString;

use command::{KEYSLOT, Scene};
use nix::libc::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use serde_json::{Value, json};
use session::Session;
use support::peer;

const OLD: &str = "xyzzy-zero\r";
const NEW: &str = "xyzzy-one\r";
const CTRL_C: &str = "\u{3}";
const CTRL_BACKSLASH: &str = "\u{1c}";
const CTRL_Z: &str = "\u{1a}";
/// What a shell shows when it waits for a command
const READY: &str = "READY> ";

const ADD: [&str; 4] = ["add", "--iterations", "1000", "IMG"];
const ADD_ARGON2: [&str; 8] =
    ["add", "--iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "2", "IMG"];

/// Two lanes: on two CPUs, an unlock has two threads.
fn argon2() -> Scene {
    let scene = Scene::without_image();
    let cost = ["--pbkdf=argon2id", "--iterations=4", "--pbkdf-memory=1024", "--pbkdf-parallel=2"];
    let create = ["create", "-f", "luks2", "--new-secret=env:OLD"];
    scene.done(&[&create[..], &cost, &["IMG", "1M"]].concat());
    scene
}

fn step(expect: &str, answer: &str) -> Value {
    json!({ "expect": expect, "type": answer })
}

/// A step whose answer is no secret, and may be echoed.
fn command_step(expect: &str, answer: &str) -> Value {
    json!({ "expect": expect, "type": answer, "echo": true })
}

/// At the second prompt, the passphrase that was typed at the first has been tried.
#[test]
fn a_signal_at_a_later_prompt_leaves_the_terminal_as_it_was() {
    for (scene, add) in [(Scene::new(), &ADD[..]), (argon2(), &ADD_ARGON2)] {
        let before = scene.bytes();
        for (mut last, signal) in [
            (step("", CTRL_C), SIGINT),
            (step("", CTRL_BACKSLASH), SIGQUIT),
            (json!({ "type": "xyz", "kill": SIGTERM }), SIGTERM),
            (json!({ "type": "xyz", "kill": SIGHUP }), SIGHUP),
            (json!({ "type": "xyz", "kill": SIGALRM }), SIGALRM),
            (json!({ "type": "xyz", "kill": SIGUSR1 }), SIGUSR1),
        ] {
            last["expect"] = "New passphrase".into();
            let steps = json!([step("assphrase", OLD), last]);
            let Some(session) = Session::run(&scene, add, &steps) else { return };
            assert_eq!(session.status, -i64::from(signal), "{session:?}");
            // Signals are blocked in one thread: there must be no other to take them.
            assert_eq!(session.threads, [1, 1], "{session:?}");
            assert!(scene.bytes() == before);
        }
    }
}

#[test]
fn a_passphrase_typed_after_ctrl_z_and_fg_is_not_shown() {
    for (scene, add) in [(Scene::new(), &ADD[..]), (argon2(), &ADD_ARGON2)] {
        in_each_shell(&scene, add, |command| {
            vec![
                command_step(READY, &format!("{command}\r")),
                step("assphrase", OLD),
                step("New passphrase", &format!("xyz{CTRL_Z}")),
                command_step(READY, "fg\r"),
                step("New passphrase", NEW),
                step("again", NEW),
            ]
        });
    }
}

/// SIGSTOP cannot be held up, and a shell gives the terminal to the job as it was before the job.
#[test]
fn a_passphrase_typed_after_sigstop_and_fg_is_not_shown() {
    for (scene, add) in [(Scene::new(), &ADD[..]), (argon2(), &ADD_ARGON2)] {
        in_each_shell(&scene, add, |command| {
            vec![
                command_step(READY, &format!("{command}\r")),
                step("assphrase", OLD),
                json!({ "expect": "New passphrase", "type": "", "stop": true }),
                command_step("Stopped", ""),
                command_step(READY, "fg\r"),
                step("New passphrase", NEW),
                step("again", NEW),
            ]
        });
    }
}

#[test]
fn a_prompt_in_the_background_waits_for_fg() {
    let scene = argon2();
    in_each_shell(&scene, &ADD_ARGON2, |command| {
        vec![
            command_step(READY, &format!("{command} &\r")),
            // A shell that does not know yet that a job has stopped does not continue it.
            json!({ "expect": READY, "type": "\r", "echo": true, "stopped": true }),
            // bash may have said it before it was asked.
            json!({ "expect": "Stopped", "type": "", "echo": true, "anywhere": true }),
            command_step(READY, "fg\r"),
            step("assphrase", OLD),
            step("New passphrase", NEW),
            step("again", NEW),
        ]
    });
}

/// Runs the command in each shell, which must add a keyslot and leave a terminal that echoes.
fn in_each_shell(scene: &Scene, args: &[&str], steps: impl Fn(&str) -> Vec<Value>) {
    for shell in [&["bash", "--norc", "--noprofile", "-i"][..], &["dash", "-i"]] {
        let Some(program) = peer(shell[0]) else { continue };
        let before = scene.bytes();
        let args = scene.args(args).into_iter().map(|arg| arg.into_string().unwrap());
        let command = format!("{KEYSLOT} {}", args.collect::<Vec<_>>().join(" "));
        let mut steps = steps(&command);
        steps.push(command_step(" added", "stty -a\r"));
        steps.push(command_step(" echo ", "exit\r"));
        let shell = [
            &["PS1=READY> ".into(), program.into()],
            &shell[1..].iter().map(OsString::from).collect::<Vec<_>>()[..],
        ];
        let mut command: Vec<OsString> = vec!["env".into(), "ENV=".into(), "HISTFILE=".into()];
        command.extend(shell.concat());
        let session = Session::of_command(&command, &steps.into()).unwrap();
        assert_eq!(session.status, 0, "{session:?}");
        assert!(scene.bytes() != before);
        std::fs::write(&scene.image, before).unwrap();
    }
}
