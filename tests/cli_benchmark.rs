//! `keyslot benchmark`: the shape of what it prints, and what it refuses. How fast anything is, is
//! not asserted: only that it is more than nothing.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use command::{KEYSLOT, assert_refusal};
use keyslot::crypto::AesKernel;
use serde_json::{Value, json};
use support::{peer, run};

#[test]
fn one_hash() {
    let text = done(&["--hash", "sha256"]);
    let [heading @ .., row] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(heading.len() == 2 && heading.iter().all(|line| line.starts_with("# ")), "{text}");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("PBKDF2-sha256", "iterations/s"), "{row}");
    assert!(words[1].parse::<u64>().unwrap() > 0, "{row}");
    assert!(row.ends_with(" 256 bits"), "{row}");
}

/// Two blocks of SHA-1, and one of SHA-256, make a key of 256 bits.
#[test]
fn one_hash_as_json() {
    for hash in ["sha1", "sha256"] {
        let result = json(&["--hash", hash]);
        let [kdf] = &result["kdfs"].as_array().unwrap()[..] else { panic!("{result}") };
        assert_eq!(members(kdf), ["kdf", "hash", "key-bits", "iterations-per-second"]);
        assert_eq!(kdf["kdf"], "pbkdf2");
        assert_eq!((&kdf["hash"], &kdf["key-bits"]), (&json!(hash), &json!(256)));
        assert!(kdf["iterations-per-second"].as_u64().unwrap() > 0, "{kdf}");
        assert_eq!(result["ciphers"], json!([]));
    }
}

#[test]
fn argon2_is_passes_over_a_kib_and_the_time_of_cryptsetups_defaults() {
    for name in ["argon2i", "argon2id"] {
        let text = done(&["-q", "--pbkdf", name]);
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!((words[0], words[2]), (name, "KiB-passes/s"), "{text}");
        let rate: f64 = words[1].parse().unwrap();
        assert!(rate > 0.0, "{text}");
        let (_, seconds) = text.trim_end().rsplit_once("; 4 passes over 1 GiB: ").unwrap();
        let seconds: f64 = seconds.strip_suffix(" s").unwrap().parse().unwrap();
        assert!((seconds * rate / f64::from(4 << 20) - 1.0).abs() < 0.05, "{text}");
    }
    let result = json(&["--pbkdf", "argon2id"]);
    let [kdf] = &result["kdfs"].as_array().unwrap()[..] else { panic!("{result}") };
    let figures = ["kib-passes-per-second", "cryptsetup-default-ms"];
    let expected = [&["kdf", "key-bits", "memory-kib", "parallelism"][..], &figures].concat();
    assert_eq!(members(kdf), expected);
    assert_eq!((&kdf["kdf"], &kdf["key-bits"]), (&json!("argon2id"), &json!(256)));
    assert!(figures.iter().all(|figure| is_positive(&kdf[figure])), "{kdf}");
    assert_eq!(result["ciphers"], json!([]));
    let all = json(&["--pbkdf", "pbkdf2"]);
    assert!(all["kdfs"].as_array().unwrap().iter().all(|kdf| kdf["kdf"] == "pbkdf2"), "{all}");
}

/// As much memory as there is, if that is less.
#[test]
fn argon2_is_measured_in_less_memory() {
    let Some(prlimit) = peer("prlimit") else { return };
    let mut command = Command::new(prlimit);
    command.args(["--as=120000000", KEYSLOT, "benchmark", "--pbkdf=argon2id", "--output=json"]);
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let memory = result["kdfs"][0]["memory-kib"].as_u64().unwrap();
    assert!((1 << 10..128 << 10).contains(&memory), "{result}");
}

#[test]
fn aes_xts_is_a_row_for_each_sector_size() {
    let text = done(&["--cipher", "aes-xts-plain64", "--key-size", "512"]);
    let lines: Vec<_> = text.lines().collect();
    let best = AesKernel::best().name();
    let [heading @ .., small, large] = &lines[..] else { panic!("{text}") };
    assert!(heading.len() == 3 && heading.iter().all(|line| line.starts_with("# ")), "{text}");
    assert!(text.contains(best), "{text}");
    for (row, sector_size) in [(small, "512"), (large, "4096")] {
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words[..3], ["aes-xts-plain64", "512b", sector_size], "{row}");
        assert!(words[3].parse::<f64>().unwrap() > 0.0 && words[4] == "MiB/s", "{row}");
        assert!(row.ends_with(best), "{row}");
    }
    assert_eq!(small.find("512b"), large.find("512b"), "{text}");
    assert_eq!(small.find(best), large.find(best), "{text}");
}

#[test]
fn every_kernel_as_json() {
    let kernels: Vec<_> = AesKernel::available().map(AesKernel::name).collect();
    let result = json(&["-c", "aes-xts", "-s", "256", "--all-kernels"]);
    assert_eq!(members(&result), ["aes-kernel", "aes-kernels", "kdfs", "ciphers"]);
    assert_eq!(result["aes-kernel"], AesKernel::best().name());
    assert_eq!(result["aes-kernels"], json!(kernels));
    assert_eq!(result["kdfs"], json!([]));

    let ciphers = result["ciphers"].as_array().unwrap();
    let expected = [512, 4096].map(|size| kernels.iter().map(move |&kernel| (size, kernel)));
    let expected: Vec<_> = expected.into_iter().flatten().collect();
    assert_eq!(ciphers.len(), expected.len(), "{result}");
    for (cipher, (sector_size, kernel)) in ciphers.iter().zip(expected) {
        let has_limit = cipher.get("limit-bytes-per-second").is_some();
        let count = if has_limit { MEMBERS.len() } else { MEMBERS.len() - OF_A_LIMIT };
        assert_eq!(members(cipher), MEMBERS[..count]);
        assert_eq!(cipher["cipher"], "aes-xts-plain64");
        assert_eq!(cipher["key-bits"], 256);
        assert_eq!(cipher["sector-size"], sector_size);
        assert_eq!(cipher["aes-kernel"], kernel);
        let mut figures = MEMBERS[3..5].iter().chain(&MEMBERS[6..count]);
        assert!(figures.all(|&name| is_positive(&cipher[name])), "{cipher}");
        assert_eq!(has_limit, kernel != AesKernel::Portable.name());
    }
}

#[test]
fn other_ciphers_know_no_kernel() {
    for (spec, bits, name, key_bits) in [
        ("aes", None, "aes-cbc-plain64", 256),
        ("aes-ecb", Some("192"), "aes-ecb", 192),
        ("cast5-cbc", Some("128"), "cast5-cbc-plain64", 128),
        ("serpent-cbc-essiv:sha256", None, "serpent-cbc-essiv:sha256", 256),
        ("twofish-xts", Some("512"), "twofish-xts-plain64", 512),
    ] {
        let mut args = vec!["-c", spec, "--all-kernels"];
        args.extend(bits.iter().flat_map(|bits| ["-s", bits]));
        let result = json(&args);
        let [cipher] = &result["ciphers"].as_array().unwrap()[..] else { panic!("{result}") };
        assert_eq!(members(cipher), MEMBERS[..5]);
        assert_eq!(cipher["cipher"], name);
        assert_eq!(cipher["key-bits"], key_bits);
        assert_eq!(cipher["sector-size"], 512);
        assert!(MEMBERS[3..5].iter().all(|name| is_positive(&cipher[name])), "{cipher}");
    }
}

#[test]
fn quiet_is_the_figures_alone() {
    let text = done(&["-q", "--hash", "md5", "--cipher", "camellia-xts"]);
    let [kdf, cipher] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(kdf.starts_with("PBKDF2-md5 "), "{text}");
    assert!(cipher.starts_with("camellia-xts-plain64 ") && cipher.ends_with(" MiB/s"), "{text}");
}

#[test]
fn what_there_is_no_figure_for() {
    for (args, status, part) in [
        (&["--hash", "foo"][..], 1, "Hash algorithm 'foo' not supported"),
        (&["--hash", "SHA256"], 1, "'SHA256'"),
        (&["--hash", ""], 1, "''"),
        (&["-c", "rot13-xts"], 1, "Algorithm 'rot13' with key size 16 bytes not supported"),
        (&["-c", ""], 1, "Algorithm '' "),
        (&["-c", "aes-lrw-benbi"], 1, "Cipher mode 'lrw' not supported"),
        (&["-c", "aes-"], 1, "Cipher mode '' not supported"),
        (&["-c", "aes-xts-tcw"], 1, "IV generator 'tcw' not supported"),
        (&["-c", "aes-cbc-essiv:foo"], 1, "'foo'"),
        (&["-c", "cast5"], 1, "Algorithm 'cast5' with key size 32 bytes"),
        (&["-c", "cast5-xts"], 1, "cipher mode xts"),
        (&["-c", "aes-xts", "-s", "512000"], 1, "key size 32000 bytes"),
        (&["-c", "aes", "-s", "0"], 1, "key size 0 bytes"),
        (&["-c", "aes-cbc-essiv"], 1, "cipher 'aes-cbc-essiv' with a key of 256 bits: Missing IV"),
        (&["-c", "aes-xts", "-s", "520"], 1, "cipher 'aes-xts' with a key of 520 bits"),
        (&["-c", "aes", "-s", "257"], 1, "key size 257"),
        (&["-c", "aes", "-s", "-8"], 1, "-8"),
        (&["-c", "aes", "-s", "big"], 1, "'big'"),
        (&["-c", "aes", "-s", "18446744073709551616"], 1, "18446744073709551616"),
        (&["--pbkdf", "scrypt"], 1, "scrypt"),
        (&["--pbkdf", "argon2id", "--hash", "sha1"], 1, "--hash"),
        (&["-s", "256"], 1, "--cipher"),
        (&["-c"], 1, "--cipher"),
        (&["--output", "xml"], 1, "xml"),
        (&["disk.img"], 1, "disk.img"),
    ] {
        assert_refusal(&benchmark(args).output().unwrap(), status, &[part], &format!("{args:?}"));
    }
}

/// What its JSON has is in its man page, which `cli_json.rs` compares with it.
#[test]
fn help_says_what_is_measured() {
    let text = done(&["--help"]);
    let options =
        ["--cipher", "--key-size", "--hash", "--pbkdf", "--all-kernels", "--output", "--quiet"];
    for part in options.iter().chain(&["128 MiB", "256 KiB", "L2"]) {
        assert!(text.contains(part), "no {part} in: {text}");
    }
}

/// Each row is there as soon as it is measured, and no more are once nobody reads them.
#[test]
fn a_reader_that_has_gone_ends_it() {
    let mut child = benchmark(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("# "), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

fn benchmark(args: &[&str]) -> Command {
    let mut command = Command::new(KEYSLOT);
    command.arg("benchmark").args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn done(args: &[&str]) -> String {
    let output = benchmark(args).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let text = done(&[args, &["--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|err| panic!("{args:?}: {err}: {text}"))
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0)
}

/// Of a cipher: the first five, `aes-kernel` of AES-XTS, and the others if the kernel has a limit.
const MEMBERS: [&str; 9] = [
    "cipher",
    "key-bits",
    "sector-size",
    "encrypt-bytes-per-second",
    "decrypt-bytes-per-second",
    "aes-kernel",
    "limit-bytes-per-second",
    "encrypt-percent-of-limit",
    "decrypt-percent-of-limit",
];
const OF_A_LIMIT: usize = 3;
