//! Tokens whose keyslot is erased, or gets another secret.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use command::Scene;
use serde_json::json;
use support::stderr;

const PBKDF2: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];

/// `OLD` in keyslot 0, and `OTHER` in keyslot 1, which a TPM's token 0 and a recovery token 1 are for.
fn with_tokens() -> Scene {
    let scene = Scene::without_image();
    let create = ["create", "-q", "-f", "luks2", "--new-secret", "env:OLD"];
    scene.done(&[&create[..], &PBKDF2, &["IMG", "64K"]].concat());
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", "env:OTHER", "IMG"];
    scene.done(&[&add[..], &PBKDF2].concat());
    for kind in ["systemd-tpm2", "systemd-recovery"] {
        let token = json!({ "type": kind, "keyslots": ["1"], "tpm2-blob": "AAA=" }).to_string();
        let file = scene.file("token", token.as_bytes());
        scene.done(&["token", "import", "--json-file", file.to_str().unwrap(), "IMG"]);
    }
    scene
}

fn tokens(scene: &Scene) -> String {
    scene.done(&["token", "list", "IMG"])
}

#[test]
fn a_replaced_secret_is_no_token_s_any_more() {
    let replace = ["replace", "--old-secret", "env:OTHER", "--new-secret", "env:NEW", "IMG"];
    for keep in [false, true] {
        let scene = with_tokens();
        let option: &[&str] = if keep { &["--keep-tokens"] } else { &[] };
        let args = [&replace[..], &PBKDF2, option].concat();
        let output = scene.command(&args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = stderr(&output);
        assert!(
            text.contains("token 0 (systemd-tpm2) holds the old secret of keyslot 1"),
            "{text}"
        );
        assert!(text.contains("refers to no other keyslot and is removed") != keep, "{text}");
        assert_eq!(tokens(&scene).contains("token 0: systemd-tpm2, for no keyslot\n"), keep);
        // A recovery key is a person's, and is theirs to replace.
        assert!(tokens(&scene).contains("token 1: systemd-recovery, for keyslot 1\n"));
        let check = scene.done(&["check", "--secret", "env:NEW", "IMG"]);
        assert!(!check.contains("only token"), "{check}");
        assert_eq!(check.contains("stale: token 0 (systemd-tpm2) has no keyslot"), keep);
    }
}

#[test]
fn a_token_goes_with_its_last_keyslot() {
    for keep in [false, true] {
        let scene = with_tokens();
        let option: &[&str] = if keep { &["--keep-tokens"] } else { &[] };
        let erase = [&["erase", "--keyslot", "1", "IMG"][..], option].concat();
        let dry = scene.json(&[&erase[..], &["--dry-run"]].concat());
        let output = scene.command(&erase).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = stderr(&output);
        let said = |text: &str| {
            let end = if keep {
                "is left without a keyslot"
            } else {
                "refers to no other keyslot and is removed"
            };
            ["0 (systemd-tpm2)", "1 (systemd-recovery)"]
                .iter()
                .all(|token| text.contains(&format!("token {token} {end}")))
        };
        assert!(said(&text) && said(&dry["warnings"].to_string()), "{text}{dry}");
        let list =
            "token 0: systemd-tpm2, for no keyslot\ntoken 1: systemd-recovery, for no keyslot\n";
        assert_eq!(tokens(&scene), if keep { list } else { "" });
        if keep {
            let check = scene.json(&["check", "IMG"]);
            assert_eq!(check["stale-tokens"][1], json!({ "token": 1, "type": "systemd-recovery" }));
        }
        if let Some(cryptsetup) = support::cryptsetup::Cryptsetup::find() {
            let dump = cryptsetup.run("luksDump", &[], &scene.image);
            assert_eq!(dump.contains("systemd-tpm2"), keep, "{dump}");
        }
    }
}

/// Who lost the keyslot a while ago sees it, and a secret that opens one is not "only" a token's.
#[test]
fn check_tells_a_token_from_a_secret() {
    let scene = with_tokens();
    let text = "keyslot 1: active, pbkdf2: 1000 iterations, ";
    let check = scene.done(&["check", "IMG"]).replace("active, 1000", "active, pbkdf2: 1000");
    assert!(check.contains(&format!("{text}only token 0 (systemd-tpm2) opens it\n")), "{check}");
    let check = scene.done(&["check", "--secret", "env:OTHER", "IMG"]);
    let check = check.replace("active, 1000", "active, pbkdf2: 1000");
    assert!(check.contains(&format!("{text}also for token 0 (systemd-tpm2)\n")), "{check}");
}

#[test]
fn numbers_in_keyslots_are_named() {
    let scene = with_tokens();
    let file = scene.file("token", br#"{"type":"clevis","keyslots":[1]}"#);
    let import = ["token", "import", "--json-file", "-", "IMG"];
    let mut command = scene.command(&import);
    command.stdin(std::fs::File::open(&file).unwrap());
    let text =
        ["the token has 1 in keyslots: it must be a string", "hint: write keyslots as strings"];
    scene.command_refused(&mut command, 1, &text);
    let file = scene.file("token", br#"{"type":"clevis","keyslots":["1"]}"#);
    let mut command = scene.command(&import);
    let output = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
