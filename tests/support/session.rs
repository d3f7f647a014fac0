//! A command on a terminal, with answers typed as its questions appear.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::OsString;
use std::process::Command;

use serde_json::{Value, json};

use crate::command::{KEYSLOT, SECRETS, Scene};
use crate::support::{peer, run_ok};

/// A session on a terminal.
#[derive(Debug)]
pub struct Session {
    pub status: i64,
    pub text: String,
    /// Threads of the command at each step
    pub threads: Vec<u64>,
}

impl Session {
    /// Types each answer when its question is there. No answer is ever echoed.
    #[track_caller]
    pub fn of(scene: &Scene, args: &[&str], steps: &[(&str, &str)]) -> Option<Self> {
        let step = |(expect, answer): &(&str, &str)| json!({ "expect": expect, "type": answer });
        Self::run(scene, args, &steps.iter().map(step).collect())
    }

    /// The same with steps as `on_terminal.py` takes them.
    #[track_caller]
    pub fn run(scene: &Scene, args: &[&str], steps: &Value) -> Option<Self> {
        let mut command = vec![KEYSLOT.into()];
        command.extend(scene.args(args));
        Self::of_command(&command, steps)
    }

    /// The same for any command.
    #[track_caller]
    pub fn of_command(command: &[OsString], steps: &Value) -> Option<Self> {
        let python = peer("python3")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/on_terminal.py");
        let mut on_terminal = Command::new(python);
        on_terminal.args([script, &steps.to_string()]).args(command).envs(SECRETS);
        let output = run_ok(on_terminal.env("TERM", "xterm"));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = result["text"].as_str().unwrap().to_owned();
        assert!(!text.contains("xyzzy"), "a secret is echoed: {text}");
        assert_eq!(
            result["echo_while_typing"],
            json!(vec![false; steps.as_array().unwrap().len()]),
            "{result}"
        );
        assert_eq!(result["echo_after"], true, "{result}");
        let threads = serde_json::from_value(result["threads"].clone()).unwrap();
        Some(Self { status: result["status"].as_i64().unwrap(), text, threads })
    }
}
