//! Members of the JSON that each command prints, as its man page lists them.
//!
//! `tests/cli_json.rs` reads the pages and checks every command's output against them.

mod info;

use self::info::{INFO, INFO_DISK, INFO_LUKS1, INFO_LUKS2};

/// A member: its path, its type and its meaning.
///
/// `[]` in a path is any item of a list. A type is followed by `, optional` where the member may be
/// missing, and is `any` where everything below it is copied from the image.
pub struct Member {
    pub path: &'static str,
    pub kind: &'static str,
    pub text: &'static str,
}

const fn member(path: &'static str, kind: &'static str, text: &'static str) -> Member {
    Member { path, kind, text }
}

/// The members that `command` prints, in lists; none if it prints no JSON.
pub fn members(command: &str) -> &'static [&'static [Member]] {
    match command {
        "keyslot" => &[ERROR],
        "keyslot-add" | "keyslot-amend" | "keyslot-erase" | "keyslot-replace" => {
            &[IMAGE, DRY_RUN, CHANGES]
        }
        "keyslot-benchmark" => &[BENCHMARK],
        "keyslot-check" => &[IMAGE, FAILURE, CHECK],
        "keyslot-config" => &[IMAGE, DRY_RUN, CONFIG],
        "keyslot-convert" => &[IMAGE, CREATED, CONVERTED],
        "keyslot-create" => &[IMAGE, CREATED, HEADER, OPENED],
        "keyslot-header-backup" => &[IMAGE, BACKUP],
        "keyslot-header-restore" => &[IMAGE, DRY_RUN, RESTORE],
        "keyslot-info" => &[FAILURE, INFO, INFO_LUKS1, INFO_LUKS2, INFO_DISK],
        "keyslot-repair" => &[IMAGE, DRY_RUN, REPAIR],
        "keyslot-token-import" | "keyslot-token-remove" => &[IMAGE, DRY_RUN, TOKEN],
        "keyslot-token-list" => &[IMAGE, TOKENS],
        "keyslot-uuid" => &[IMAGE, UUID],
        _ => &[],
    }
}

const ERROR: &[Member] = &[
    member("filename", "string, optional", "File that the error is about"),
    member("error", "object", "The failure"),
    member(
        "error.kind",
        "string",
        "cancelled, changed, corrupt, differs, exists, in-use, invalid-input, io, limit, \
         no-free-keyslot, no-space, not-found, not-luks, out-of-memory, permission-denied, \
         refused, unsupported or wrong-secret",
    ),
    member("error.message", "string", "The error's line, without the names of program and file"),
    member("error.hint", "string, optional", "The hint"),
    member("error.exit-status", "integer", "Exit status that the failure leads to"),
    member(
        "error.operation",
        "string, optional",
        "Operation that failed: create, derive, lock, open, read, reserve, sync or write",
    ),
    member(
        "error.offset",
        "integer, optional",
        "Start of the access that failed, in bytes from the start of the file",
    ),
    member("error.keyslot", "integer, optional", "Index of the keyslot that the error is about"),
    member("error.os-error", "integer, optional", "The system's error number (errno)"),
];

/// The failure of one of many images
const FAILURE: &[Member] = &[
    member("error", "object, optional", "The failure, as in keyslot(1)"),
    member("error.kind", "string", "See keyslot(1)"),
    member("error.message", "string", "See keyslot(1)"),
    member("error.hint", "string, optional", "See keyslot(1)"),
    member("error.exit-status", "integer", "See keyslot(1)"),
    member("error.operation", "string, optional", "See keyslot(1)"),
    member("error.offset", "integer, optional", "See keyslot(1)"),
    member("error.keyslot", "integer, optional", "See keyslot(1)"),
    member("error.os-error", "integer, optional", "See keyslot(1)"),
];

const IMAGE: &[Member] = &[member("filename", "string", "Image, as it was named")];

const DRY_RUN: &[Member] =
    &[member("dry-run", "boolean", "Whether this is a dry run, which changes nothing")];

const CHANGES: &[Member] = &[
    member("changes", "array", "The changes, in the order in which they are made"),
    member("changes[].action", "string", "add, erase or replace"),
    member("changes[].keyslot", "integer", "Index of the keyslot"),
    member("changes[].kdf", "string, optional", "pbkdf2, argon2i or argon2id; not of erase"),
    member("changes[].iterations", "integer, optional", "Iterations of PBKDF2"),
    member("changes[].time", "integer, optional", "Passes of Argon2"),
    member("changes[].memory-kib", "integer, optional", "Memory of Argon2 in KiB"),
    member("changes[].cpus", "integer, optional", "Lanes of Argon2"),
    member(
        "changes[].iter-time-ms",
        "integer, optional",
        "Target time to open it, in milliseconds; only in a dry run, which measures no cost",
    ),
    member(
        "changes[].staging",
        "integer, optional",
        "LUKS1: keyslot that holds the new secret meanwhile, in a dry run",
    ),
    member("warnings", "array", "Warnings"),
    member("warnings[]", "string", "A warning, one line"),
];

const BENCHMARK: &[Member] = &[
    member("aes-kernel", "string", "Fastest AES-XTS kernel of this CPU"),
    member("aes-kernels", "array", "Kernels that this CPU supports"),
    member("aes-kernels[]", "string", "Name of a kernel"),
    member("kdfs", "array", "Key derivation functions"),
    member("kdfs[].kdf", "string", "pbkdf2, argon2i or argon2id"),
    member("kdfs[].hash", "string, optional", "Hash of PBKDF2"),
    member("kdfs[].key-bits", "integer", "Size of the derived key in bits"),
    member("kdfs[].iterations-per-second", "integer, optional", "Speed of PBKDF2"),
    member(
        "kdfs[].memory-kib",
        "integer, optional",
        "Memory that Argon2 was measured with, in KiB",
    ),
    member("kdfs[].parallelism", "integer, optional", "Lanes of Argon2, each on a thread"),
    member(
        "kdfs[].kib-passes-per-second",
        "integer, optional",
        "Speed of Argon2: passes over a KiB",
    ),
    member(
        "kdfs[].cryptsetup-default-ms",
        "integer, optional",
        "Time of 4 passes of Argon2 over 1 GiB, in milliseconds",
    ),
    member("ciphers", "array", "Ciphers"),
    member("ciphers[].cipher", "string", "Cipher, mode and IV generator"),
    member("ciphers[].key-bits", "integer", "Size of the key in bits (XTS: both halves)"),
    member("ciphers[].sector-size", "integer", "Size of a sector in bytes"),
    member("ciphers[].encrypt-bytes-per-second", "integer", "Speed of encryption"),
    member("ciphers[].decrypt-bytes-per-second", "integer", "Speed of decryption"),
    member("ciphers[].aes-kernel", "string, optional", "Kernel that AES-XTS uses"),
    member(
        "ciphers[].limit-bytes-per-second",
        "integer, optional",
        "Speed of the CPU's AES unit alone",
    ),
    member(
        "ciphers[].encrypt-percent-of-limit",
        "number, optional",
        "Encryption speed in percent of the limit",
    ),
    member(
        "ciphers[].decrypt-percent-of-limit",
        "number, optional",
        "Decryption speed in percent of the limit",
    ),
];

const CHECK: &[Member] = &[
    member("format", "string", "luks (which is LUKS1) or luks2"),
    member("cipher", "string or null", "Cipher, mode and IV generator, if known"),
    member("key-bits", "integer or null", "Size of the volume key in bits (XTS: both halves)"),
    member("hash", "string or null", "Hash of the volume key's digest"),
    member("keyslots", "array", "Keyslots: all eight of LUKS1, the existing ones of LUKS2"),
    member("keyslots[].keyslot", "integer", "Index of the keyslot"),
    member("keyslots[].active", "boolean", "Whether it is active"),
    member("keyslots[].blank", "boolean, optional", "Inactive: whether its area is zeros"),
    member("keyslots[].kdf", "string, optional", "pbkdf2, argon2i or argon2id"),
    member("keyslots[].iterations", "integer, optional", "Iterations of PBKDF2"),
    member("keyslots[].time", "integer, optional", "Passes of Argon2"),
    member("keyslots[].memory-kib", "integer, optional", "Memory of Argon2 in KiB"),
    member("keyslots[].cpus", "integer, optional", "Lanes of Argon2"),
    member("keyslots[].priority", "string, optional", "prefer or ignore; normal is left out"),
    member("keyslots[].unbound", "boolean, optional", "True if its key is not the volume key"),
    member("keyslots[].token", "object, optional", "Token that is needed to open it"),
    member("keyslots[].token.token", "integer", "Number of the token"),
    member("keyslots[].token.type", "string", "Type of the token"),
    member("keyslots[].unusable", "string, optional", "Why it cannot be opened"),
    member("keyslots[].damage", "string, optional", "Damage of its entry, if it is inactive"),
    member("leftovers", "array", "Leftovers of an interrupted amendment"),
    member("leftovers[].kind", "string", "wipe, replace, twins, staging or area"),
    member("leftovers[].keyslot", "integer, optional", "Keyslot concerned"),
    member("leftovers[].staging", "integer, optional", "Keyslot with the same key material"),
    member("leftovers[].offset", "integer, optional", "Start of the area in bytes"),
    member("leftovers[].size", "integer, optional", "Size of the area in bytes"),
    member("warning", "string, optional", "Fault of a copy of the header"),
    member("weaknesses", "array, optional", "Weaknesses of the header, if any"),
    member("weaknesses[]", "string", "One line"),
    member("stale-tokens", "array, optional", "Tokens without keyslots, if any"),
    member("stale-tokens[].token", "integer", "Number of the token"),
    member("stale-tokens[].type", "string", "Type of the token"),
    member("payload-missing", "boolean, optional", "True if the file ends before the payload"),
    member("header-backup", "boolean, optional", "True for a header backup"),
    member(
        "keeps-keyslots",
        "array, optional",
        "Keyslots whose secrets open the image again once the backup is restored",
    ),
    member("keeps-keyslots[]", "integer", "Index of a keyslot"),
    member("secret-opens", "array, optional", "Keyslots that the secret opens, with --secret"),
    member("secret-opens[]", "integer", "Index of a keyslot"),
];

const CONFIG: &[Member] = &[
    member("keyslot", "integer, optional", "Keyslot whose priority is set"),
    member("priority", "string, optional", "prefer, normal or ignore"),
    member("label", "string, optional", "New label"),
    member("subsystem", "string, optional", "New subsystem"),
];

const CREATED: &[Member] = &[
    member("format", "string", "raw, luks (which is LUKS1) or luks2"),
    member("virtual-size", "integer", "Size of the payload in bytes"),
];

const HEADER: &[Member] =
    &[member("header", "string, optional", "File with the detached header, with --header")];

const OPENED: &[Member] = &[
    member("uuid", "string", "UUID of the image"),
    member("keyslot", "integer", "Keyslot that the secret opens"),
    member("kdf", "string", "pbkdf2, argon2i or argon2id"),
    member("iterations", "integer, optional", "Iterations of PBKDF2"),
    member("time", "integer, optional", "Passes of Argon2"),
    member("memory-kib", "integer, optional", "Memory of Argon2 in KiB"),
    member("cpus", "integer, optional", "Lanes of Argon2"),
];

/// [`OPENED`], of a target that may be raw
const CONVERTED: &[Member] = &[
    member("uuid", "string, optional", "UUID of a LUKS target"),
    member("keyslot", "integer, optional", "Keyslot that the new secret opens"),
    member("kdf", "string, optional", "pbkdf2, argon2i or argon2id"),
    member("iterations", "integer, optional", "Iterations of PBKDF2"),
    member("time", "integer, optional", "Passes of Argon2"),
    member("memory-kib", "integer, optional", "Memory of Argon2 in KiB"),
    member("cpus", "integer, optional", "Lanes of Argon2"),
];

const BACKUP: &[Member] = &[
    member("format", "string", "luks (which is LUKS1) or luks2"),
    member("uuid", "string", "UUID of the image"),
    member("seqid", "integer, optional", "LUKS2: sequence number of the header"),
    member("label", "string, optional", "LUKS2: label"),
    member("subsystem", "string, optional", "LUKS2: subsystem"),
    member("keyslots", "array", "Active keyslots"),
    member("keyslots[]", "integer", "Index of a keyslot"),
    member("backup", "string", "The new file"),
    member("size", "integer", "Its size in bytes"),
    member("warnings", "array", "Warnings"),
    member("warnings[]", "string", "A warning, one line"),
];

const RESTORE: &[Member] = &[
    member("backup", "string", "File with the backup"),
    member("present", "object or null", "Header of the image; null if it is not valid"),
    member("present.format", "string", "luks (which is LUKS1) or luks2"),
    member("present.uuid", "string", "UUID"),
    member("present.seqid", "integer, optional", "LUKS2: sequence number"),
    member("present.label", "string, optional", "LUKS2: label"),
    member("present.subsystem", "string, optional", "LUKS2: subsystem"),
    member("present.keyslots", "array", "Active keyslots"),
    member("present.keyslots[]", "integer", "Index of a keyslot"),
    member("damage", "string, optional", "Why the header in the image is not valid"),
    member("restored", "object", "Header of the backup"),
    member("restored.format", "string", "luks (which is LUKS1) or luks2"),
    member("restored.uuid", "string", "UUID"),
    member("restored.seqid", "integer, optional", "LUKS2: sequence number"),
    member("restored.label", "string, optional", "LUKS2: label"),
    member("restored.subsystem", "string, optional", "LUKS2: subsystem"),
    member("restored.keyslots", "array", "Active keyslots"),
    member("restored.keyslots[]", "integer", "Index of a keyslot"),
    member("changes", "array", "Keyslots of either header"),
    member("changes[].action", "string", "keep, add, replace or erase"),
    member("changes[].keyslot", "integer", "Index of the keyslot"),
    member("warnings", "array", "Warnings"),
    member("warnings[]", "string", "A warning, one line"),
];

const REPAIR: &[Member] = &[
    member("repaired", "boolean", "Whether anything is repaired"),
    member("warnings", "array", "Faults of the copies of the header"),
    member("warnings[]", "string", "One line"),
    member("leftovers", "array", "Leftovers that are overwritten, as in keyslot-check(1)"),
    member("leftovers[]", "any", "See keyslot-check(1)"),
    member("left", "array", "Leftovers that are kept, as in keyslot-check(1)"),
    member("left[]", "any", "See keyslot-check(1)"),
];

const TOKEN: &[Member] = &[member("token", "integer", "Number of the token")];

const TOKENS: &[Member] = &[
    member("tokens", "array", "The tokens"),
    member("tokens[].token", "integer", "Number of the token"),
    member("tokens[].type", "string", "Type of the token"),
    member("tokens[].keyslots", "array", "Keyslots that it is for"),
    member("tokens[].keyslots[]", "integer", "Index of a keyslot"),
];

const UUID: &[Member] = &[
    member("uuid", "string", "UUID of the image"),
    member("dry-run", "boolean, optional", "With --uuid: whether this is a dry run"),
];
