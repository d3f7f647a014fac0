//! `--output json`: one shape for one image and for many, failures included, and as documented.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/pages.rs"]
mod pages;
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use command::Scene;
use pages::Schema;
use serde_json::{Deserializer, Value, json};
use support::luks2::{Luks2, roomy};

const ADD: &[&str] = &["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"];

/// The documents that a command prints, its exit status, and its standard error.
fn documents(scene: &Scene, args: &[&str]) -> (Vec<Value>, i32, String) {
    let output = scene.command(args).current_dir(scene.dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<_, _>>();
    let documents = documents.unwrap_or_else(|err| panic!("{args:?}: {err}: {text}"));
    (documents, output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn amend_with_a_percentage_prints_json_and_nothing_else() {
    let scene = Scene::new();
    let amend = ["amend", "-p", "--output", "json", "--secret", "env:OLD", "--object"];
    let change = ["secret,id=n,data=n", "-o", "state=active,new-secret=n", "--iterations=1000"];
    let (found, status, stderr) = documents(&scene, &[&amend[..], &change, &["IMG"]].concat());
    assert_eq!((found.len(), status), (1, 0), "{stderr}");
    assert_eq!(found[0]["changes"][0]["keyslot"], 1);
    assert_eq!(stderr, "    (0.00/100%)\r    (100.00/100%)\r\n");

    let raw = scene.dir.path().join("plain.raw");
    let convert = ["convert", "-p", "--output=json", "--secret", "env:OLD", "IMG"];
    let (found, status, stderr) =
        documents(&scene, &[&convert[..], &[raw.to_str().unwrap()]].concat());
    assert_eq!((found.len(), status), (1, 0), "{stderr}");
    assert!(stderr.starts_with("    (0.00/100%)\r") && stderr.ends_with("\r\n"), "{stderr:?}");
}

#[test]
fn one_image_and_many_have_one_shape() {
    let scene = Scene::new();
    let noise = scene.file("noise.img", &[7; 4096]);
    let (image, noise) = (scene.image.to_str().unwrap(), noise.to_str().unwrap());
    for (command, secret) in [
        (&["check"][..], &[][..]),
        (&["check"], &["--secret", "env:OLD"]),
        (&["check"], &["--secret", "env:WRONG"]),
        (&["info"], &[]),
        (&["info"], &["--secret", "env:WRONG"]),
    ] {
        let run = |images: &[&str]| {
            documents(&scene, &[command, secret, &["--output", "json"], images].concat())
        };
        let (one, status, _) = run(&[image]);
        let (bad, bad_status, _) = run(&[noise]);
        let (many, many_status, stderr) = run(&[image, noise, image]);
        assert_eq!((one.len(), bad.len(), many.len()), (1, 1, 3), "{command:?}");
        assert_eq!(many, [&one[0], &bad[0], &one[0]].map(Clone::clone), "{command:?}");
        assert_eq!(bad_status, 4);
        assert_eq!(many_status, if status == 0 { bad_status } else { status });
        for document in &many {
            assert!(document["filename"].is_string(), "{document}");
        }
        let error = &many[1]["error"];
        assert_eq!((&error["kind"], &error["exit-status"]), (&json!("not-luks"), &json!(4)));
        assert!(stderr.contains(&format!("keyslot: {noise}: ")), "{stderr}");
        let is_wrong = secret.contains(&"env:WRONG");
        assert_eq!(one[0].get("error").is_some(), is_wrong, "{}", one[0]);
        if is_wrong {
            assert_eq!(one[0]["error"]["kind"], "wrong-secret");
            assert_eq!((&one[0]["secret-opens"], status), (&json!([]), 2));
        }
    }
    // Lines, so that a reader of one image at a time needs no more than that.
    let text = scene.done(&["check", "--output", "json", "IMG", "IMG"]);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

#[test]
fn a_failure_is_json_with_its_kind_and_exit_status() {
    let scene = Scene::new();
    let missing = scene.dir.path().join("missing.img");
    let image = scene.image.to_str().unwrap();
    for (args, kind, status, filename) in [
        (&["info", "--frobnicate", "IMG"][..], "invalid-input", 1, None),
        (&["frobnicate", "IMG"], "invalid-input", 1, None),
        (&["add", "--secret", "env:OLD", "--keyslot", "9", "IMG"], "invalid-input", 1, Some(image)),
        (&ADD[..5], "invalid-input", 1, None),
        (&["check", missing.to_str().unwrap()], "not-found", 1, missing.to_str()),
        (
            &["replace", "--old-secret", "env:WRONG", "--new-secret", "env:NEW", "IMG"],
            "wrong-secret",
            2,
            Some(image),
        ),
        (&["erase", "--keyslot", "0", "IMG"], "refused", 1, Some(image)),
        (
            &["create", "-f", "luks", "--new-secret", "env:NEW", "IMG", "1M"],
            "exists",
            1,
            Some(image),
        ),
        (&["uuid", "/dev/null"], "invalid-input", 1, Some("/dev/null")),
    ] {
        let (found, code, stderr) = documents(&scene, &[args, &["--output", "json"]].concat());
        let [document] = &found[..] else { panic!("{args:?}: {found:?}") };
        assert_eq!(document["error"]["kind"], kind, "{args:?}: {document}");
        assert_eq!((&document["error"]["exit-status"], code), (&json!(status), status), "{args:?}");
        assert_eq!(document.get("filename").and_then(Value::as_str), filename, "{args:?}");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(stderr.starts_with("keyslot: ") && stderr.contains(message), "{stderr}{document}");
        let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: "));
        let in_json = document["error"].get("hint").and_then(Value::as_str);
        assert_eq!(in_json, hint, "{args:?}: {document}");
    }
}

/// Each fact that a program needs to judge an error is a member. A member without a value is absent.
#[test]
fn an_error_has_its_operation_offset_keyslot_and_number() {
    let scene = Scene::new();
    let missing = scene.dir.path().join("missing.img");
    for (args, expected) in [
        (&["check", missing.to_str().unwrap()][..], json!({ "operation": "open", "os-error": 2 })),
        (&["erase", "--keyslot", "0", "IMG"], json!({ "keyslot": 0 })),
        (&["erase", "--keyslot", "9", "IMG"], json!({})),
    ] {
        let (found, _, _) = documents(&scene, &[args, &["--output", "json"]].concat());
        let error = found[0]["error"].as_object().unwrap().clone();
        let general = ["kind", "message", "hint", "exit-status"];
        let rest: serde_json::Map<_, _> =
            error.into_iter().filter(|(name, _)| !general.contains(&&**name)).collect();
        assert_eq!(Value::Object(rest), expected, "{args:?}: {}", found[0]);
    }

    // Files end at byte 102400, within the area of keyslot 0.
    let add = scene.command(&[ADD, &["--keyslot", "1", "--output", "json"]].concat());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\""]).arg(add.get_program());
    limited.args(add.get_args());
    limited.envs(add.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &error["error"];
    let area = keyslot::Image::open(&scene.image).unwrap().keyslots().nth(1).unwrap().area.offset;
    assert_eq!((&error["offset"], &error["keyslot"]), (&json!(area), &json!(1)), "{error}");
    assert_eq!((&error["os-error"], &error["kind"]), (&json!(27), &json!("io")), "{error}");
    let operation = error["operation"].as_str().unwrap();
    assert!(["reserve", "write"].contains(&operation), "{error}");
}

/// What is run on each image, in the image's directory: `OPEN` is a secret that opens it.
const RUNS: &str = "
    info IMG /dev/null
    info disk
    info --estimate --secret OPEN IMG
    info --secret env:WRONG IMG
    check IMG /dev/null
    check --secret OPEN IMG
    check --secret env:WRONG IMG
    add --secret OPEN --new-secret env:NEW --iter-time 10 --dry-run IMG
    add --secret OPEN --new-secret env:NEW --pbkdf pbkdf2 --iterations 1000 --dry-run IMG
    add --secret OPEN --new-secret env:NEW --pbkdf pbkdf2 --iterations 1000 IMG
    replace --old-secret OPEN --new-secret OPEN --iterations 1000 --dry-run IMG
    replace --old-secret OPEN --new-secret OPEN --iterations 1000 IMG
    amend --secret OPEN -o state=inactive,keyslot=1 --dry-run IMG
    amend --secret OPEN -o state=inactive,keyslot=1 IMG
    erase --keyslot 3 --dry-run IMG
    erase --keyslot 3 IMG
    uuid IMG
    uuid --uuid random --dry-run IMG
    uuid --uuid random IMG
    repair --dry-run IMG
    repair IMG
    token import --json-file token.json IMG
    token list IMG
    check IMG
    config --keyslot 0 --priority prefer IMG
    config --label l --subsystem s IMG
    token remove --token 0 IMG
    header backup IMG backup.hdr
    header restore --dry-run backup.hdr IMG
    header restore --yes backup.hdr IMG
    convert --secret OPEN IMG new.raw
    convert --secret OPEN IMG -O luks --new-secret env:NEW --iterations 1000 new.luks
    convert --secret OPEN IMG -n -O luks --new-secret env:NEW new.luks
    convert --secret OPEN IMG -O luks2 --new-secret env:NEW --pbkdf pbkdf2 --iterations 1000 new2
    create --force -f luks --new-secret env:NEW --iterations 1000 new.luks 64K
    create --force -f luks2 --new-secret env:NEW --iterations 4 --pbkdf-memory 32 new2 64K
    benchmark --hash sha256
    benchmark --pbkdf argon2id
    benchmark --cipher aes-xts
    header restore --force --dry-run backup.hdr damaged
    header restore --force backup.hdr damaged
";

/// A disk with an MBR: the image is in partition 1, and the end of partition 2 is missing.
fn disk(image: &[u8]) -> Vec<u8> {
    let sectors = u32::try_from(image.len() / 512).unwrap();
    let mut disk = [&[0; 512], image].concat();
    for (entry, first, count) in [(446, 1, sectors), (462, 1 + sectors, 8)] {
        disk[entry + 4] = 0x83;
        disk[entry + 8..][..4].copy_from_slice(&u32::to_le_bytes(first));
        disk[entry + 12..][..4].copy_from_slice(&u32::to_le_bytes(count));
    }
    disk[510..512].copy_from_slice(b"\x55\xaa");
    disk
}

/// The man page of each command with `--output` lists all that its JSON has, and runs here show it.
#[test]
fn every_commands_json_is_as_its_man_page_says() {
    let pages = pages::pages();
    let failure = Schema::of(&pages["keyslot"]).unwrap();
    let mut seen = BTreeSet::new();
    let luks2 = Luks2::testdata("luks2_keyslots.img").bytes;
    for scene in [Scene::new().and("OTHER", 3), Scene::of(&roomy(4).bytes), Scene::of(&luks2)] {
        scene.file("hunter", b"hunter0");
        scene.file("token.json", br#"{"type":"a-token","keyslots":["0"]}"#);
        scene.file("disk", &disk(&scene.bytes()));
        scene.file("damaged", &[&vec![0; 1 << 15], &scene.bytes()[1 << 15..]].concat());
        let open = if scene.bytes()[7] == 1 { "env:OLD" } else { "file:hunter" };
        for run in RUNS.trim().lines() {
            let mut words: Vec<_> = run.split_whitespace().collect();
            words.iter_mut().filter(|word| **word == "OPEN").for_each(|word| *word = open);
            let longest = (1..=2).rev().map(|n| format!("keyslot-{}", words[..n].join("-")));
            let name = longest.into_iter().find(|name| pages.contains_key(name)).unwrap();
            let schema = Schema::of(&pages[&name]).unwrap_or_else(|| panic!("{name} has no JSON"));
            let (found, _, stderr) =
                documents(&scene, &[&words[..], &["--output", "json"]].concat());
            assert!(!found.is_empty(), "{run}: {stderr}");
            for document in &found {
                let is_done = document.get("error").is_none();
                let is_shown = is_done || document.get("secret-opens").is_some();
                if is_shown { &schema } else { &failure }.check(document, run);
                seen.extend(is_done.then(|| name.clone()));
            }
        }
    }

    let has_output = |page: &String| {
        pages::section(page, "OPTIONS").iter().any(|line| line.starts_with("--output "))
    };
    let with_output = pages.iter().filter(|(_, page)| has_output(page));
    let with_output: BTreeSet<_> = with_output.map(|(name, _)| name.clone()).collect();
    assert_eq!(seen, with_output, "commands that succeeded here, and commands with --output");
}

#[test]
fn create_and_convert_name_uuid_keyslot_and_kdf() {
    let scene = Scene::without_image();
    let uuid = "1a00a2da-2f86-436f-b33d-2ae3da8c0b2b";
    let create = ["create", "--new-secret", "env:OLD", "--uuid", uuid, "IMG", "64K"];
    let luks2 =
        ["-f", "luks2", "--iterations", "4", "--pbkdf-memory", "32", "--pbkdf-parallel", "1"];
    let expected = json!({
        "filename": scene.image.to_str().unwrap(), "format": "luks2", "virtual-size": 65536,
        "uuid": uuid, "keyslot": 0, "kdf": "argon2id", "time": 4, "memory-kib": 32, "cpus": 1,
    });
    assert_eq!(scene.json(&[&create[..], &luks2].concat()), expected);

    let target = scene.dir.path().join("target.img");
    let convert = ["convert", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"];
    let target = target.to_str().unwrap();
    let new = ["-O", "luks", "--uuid", uuid, "--iterations", "1000", target];
    let mut expected = json!({
        "filename": target, "format": "luks", "virtual-size": 65536,
        "uuid": uuid, "keyslot": 0, "kdf": "pbkdf2", "iterations": 1000,
    });
    assert_eq!(scene.json(&[&convert[..], &new].concat()), expected);

    // One that exists: the keyslot is the one that the secret opens.
    let add = ["add", "-q", "--secret", "env:NEW", "--new-secret", "env:OTHER", "--keyslot", "5"];
    scene.done(&[&add[..], &["--iterations", "1001", target]].concat());
    let into = ["convert", "-n", "-O", "luks", "--secret", "env:OLD", "--new-secret", "env:OTHER"];
    expected["keyslot"] = json!(5);
    expected["iterations"] = json!(1001);
    assert_eq!(scene.json(&[&into[..], &["IMG", target]].concat()), expected);
}

/// What is said of the header on standard error is in the result, too.
#[test]
fn the_warning_of_a_damaged_copy_is_in_the_result() {
    let scene = Scene::without_image();
    let kdf = ["--pbkdf", "pbkdf2", "--iterations", "1000"];
    let create = ["create", "-q", "-f", "luks2", "--new-secret", "env:OLD", "IMG", "64K"];
    scene.done(&[&create[..], &kdf].concat());
    let mut bytes = scene.bytes();
    bytes[16384 + 5000] ^= 1;
    std::fs::write(&scene.image, bytes).unwrap();
    for option in [&["--dry-run"][..], &["--quiet"]] {
        let result = scene.json(&[ADD, &kdf, option].concat());
        let [warning] = &result["warnings"].as_array().unwrap()[..] else { panic!("{result}") };
        assert!(warning.as_str().unwrap().contains("secondary copy"), "{result}");
    }
    assert_eq!(scene.json(&["erase", "--keyslot", "1", "IMG"])["warnings"], json!([]));
}
