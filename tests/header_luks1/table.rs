//! The mutations of one header (`testdata/luks1_qemu.img`: aes-256, xts, payload at sector 4040,
//! 4168 sectors in all), and what everybody has to say about each.

use keyslot::ErrorKind::{self, Corrupt, NotLuks, Unsupported};

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub change: Change,
    /// `None` if it is a valid header to us
    pub ours: Option<(ErrorKind, &'static str)>,
    pub qemu: Qemu,
    /// cryptsetup's `isLuks` and `luksDump`
    pub cryptsetup: Cryptsetup,
    /// Why we take what one of them refuses
    pub because: &'static str,
}

#[derive(Debug)]
pub enum Change {
    /// These bytes at these offsets
    Bytes(Vec<(usize, Vec<u8>)>),
    /// Only so many bytes of the file
    Cut(usize),
    /// Something else altogether
    Instead(Vec<u8>),
}

/// What `qemu-img info` says, or `qemu-io` if that is content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Qemu {
    /// Nothing against it
    Opens,
    /// Our text
    Same,
    /// Another text
    Says(&'static str),
    /// Nothing against it in `info`, and this in `qemu-io`
    SaysReading(&'static str),
}
use Qemu::{Opens, Same, Says, SaysReading};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cryptsetup {
    Accepts,
    Refuses,
}
use Cryptsetup::{Accepts, Refuses};

fn number(offset: usize, value: u32) -> Change {
    Change::Bytes(vec![(offset, value.to_be_bytes().into())])
}

fn bytes(offset: usize, value: &[u8]) -> Change {
    Change::Bytes(vec![(offset, value.into())])
}

fn string(offset: usize, value: &str) -> Change {
    let mut field = [0; 32];
    field[..value.len()].copy_from_slice(value.as_bytes());
    bytes(offset, &field)
}

fn and(one: Change, other: Change) -> Change {
    match (one, other) {
        (Change::Bytes(one), Change::Bytes(other)) => Change::Bytes([one, other].concat()),
        _ => unreachable!(),
    }
}

/// The entry of a keyslot: its state, and behind it
fn slot(index: usize) -> usize {
    208 + 48 * index
}
const ITERATIONS: usize = 4;
const OFFSET: usize = 40;
const STRIPES: usize = 44;

const VERSION: usize = 6;
const CIPHER: usize = 8;
const MODE: usize = 40;
const HASH: usize = 72;
const PAYLOAD: usize = 104;
const KEY_BYTES: usize = 108;
const DIGEST_ITERATIONS: usize = 164;
const UUID: usize = 168;

const AS_CRYPTSETUP_AREAS: &str =
    "cryptsetup's areas are as long as their material, QEMU wants them rounded up to 4096 bytes";
const AS_CRYPTSETUP_OLD: &str = "cryptsetup 1.0 put key material right behind the header";
const AS_CRYPTSETUP_HAS: &str = "cryptsetup has it and makes it";
const HEADER_ALONE: &str = "a header backup ends before the payload";
const AS_QEMU_HAS: &str = "QEMU has it and makes it";

const TRUNCATED: &str = "Could not refresh total sector count: Input/output error";

/// What QEMU opens, or refuses in the words that we use too.
#[rustfmt::skip]
pub fn table() -> Vec<Case> {
    let row = |name, change, ours, qemu, cryptsetup, because| {
        Case { name, change, ours, qemu, cryptsetup, because }
    };
    let corrupt = |text| Some((Corrupt, text));
    let unsupported = |text| Some((Unsupported, text));
    let not_luks = Some((NotLuks, "Volume is not in LUKS format"));
    vec![
        row("untouched", bytes(0, b""), None, Opens, Accepts, ""),

        // 1. to 5.: magic, version, strings, payload, digest
        row("magic", bytes(0, b"LUKX"), not_luks, Same, Refuses, ""),
        row("version 0", bytes(VERSION, &[0, 0]), unsupported("LUKS version 0 is not supported"), Same, Refuses, ""),
        row("version 256", bytes(VERSION, &[1, 0]), unsupported("LUKS version 256 is not supported"), Same, Refuses, ""),
        row("cipher name without NUL", bytes(CIPHER, &[b'a'; 32]), corrupt("LUKS header cipher name is not NUL terminated"), Same, Accepts, ""),
        row("cipher mode without NUL", bytes(MODE, &[b'a'; 32]), corrupt("LUKS header cipher mode is not NUL terminated"), Same, Accepts, ""),
        row("hash without NUL", bytes(HASH, &[b'a'; 32]), corrupt("LUKS header hash spec is not NUL terminated"), Same, Refuses, ""),
        row("payload 0", number(PAYLOAD, 0), corrupt("LUKS payload is overlapping with the header"), Same, Accepts, ""),
        row("payload 7", number(PAYLOAD, 7), corrupt("LUKS payload is overlapping with the header"), Same, Refuses, ""),
        row("digest iterations 0", number(DIGEST_ITERATIONS, 0), corrupt("LUKS key iteration count is zero"), Same, Accepts, ""),

        // 6.: keyslots
        row("stripes 3999", number(slot(3) + STRIPES, 3999), corrupt("Keyslot 3 is corrupted (stripes 3999 != 4000)"), Same, Refuses, ""),
        row("stripes 0", number(slot(0) + STRIPES, 0), corrupt("Keyslot 0 is corrupted (stripes 0 != 4000)"), Same, Refuses, ""),
        row("state one off", number(slot(3), 0xdeae), corrupt("Keyslot 3 state (active/disable) is corrupted"), Same, Accepts, ""),
        row("state 0", number(slot(0), 0), corrupt("Keyslot 0 state (active/disable) is corrupted"), Same, Accepts, ""),
        row("iterations 0", number(slot(0) + ITERATIONS, 0), corrupt("Keyslot 0 iteration count is zero"), Same, Accepts, ""),
        row("iterations of an inactive keyslot", number(slot(3) + ITERATIONS, u32::MAX), None, Opens, Accepts, ""),
        row("material at 0", number(slot(0) + OFFSET, 0), corrupt("Keyslot 0 is overlapping with the LUKS header"), Same, Refuses, ""),
        row("material at 1", number(slot(0) + OFFSET, 1), corrupt("Keyslot 0 is overlapping with the LUKS header"), Same, Refuses, ""),
        row("payload 8", number(PAYLOAD, 8), corrupt("Keyslot 0 is overlapping with the encrypted payload"), Same, Refuses, ""),
        row("payload in the last area", number(PAYLOAD, 4035), corrupt("Keyslot 7 is overlapping with the encrypted payload"), Same, Refuses, ""),
        row("material at the payload", number(slot(3) + OFFSET, 4040), corrupt("Keyslot 3 is overlapping with the encrypted payload"), Same, Refuses, ""),
        row("material into the payload", number(slot(3) + OFFSET, 4040 - 499), corrupt("Keyslot 3 is overlapping with the encrypted payload"), Same, Refuses, ""),
        row("the same material", number(slot(3) + OFFSET, 8), corrupt("Keyslots 0 and 3 are overlapping in the header"), Same, Refuses, ""),
        row("a sector of the same material", number(slot(1) + OFFSET, 507), corrupt("Keyslots 0 and 1 are overlapping in the header"), Same, Refuses, ""),
        row("the last two overlap", number(slot(7) + OFFSET, 8 + 6 * 504 + 1), corrupt("Keyslots 6 and 7 are overlapping in the header"), Same, Refuses, ""),
        row("key of 65 bytes", number(KEY_BYTES, 65), corrupt("Keyslots 0 and 1 are overlapping in the header"), Same, Refuses, ""),
        row("key of 128 bytes", number(KEY_BYTES, 128), corrupt("Keyslots 0 and 1 are overlapping in the header"), Same, Refuses, ""),
        row("key of 2^32 - 1 bytes", number(KEY_BYTES, u32::MAX), corrupt("Keyslot 0 is overlapping with the encrypted payload"), Same, Refuses, ""),

        // 7.: what the strings say
        row("mode without a dash", string(MODE, "xts"), corrupt("Unexpected cipher mode string format 'xts'"), Same, Accepts, ""),
        row("empty mode", string(MODE, ""), corrupt("Unexpected cipher mode string format ''"), Same, Accepts, ""),
        row("empty mode with a dash", string(MODE, "-"), unsupported("Cipher mode '' not supported"), Same, Accepts, ""),
        row("unknown mode", string(MODE, "foo-plain64"), unsupported("Cipher mode 'foo' not supported"), Same, Accepts, ""),
        row("upper case mode", string(MODE, "XTS-plain64"), unsupported("Cipher mode 'XTS' not supported"), Same, Accepts, ""),
        row("lrw", string(MODE, "lrw-benbi"), unsupported("Cipher mode 'lrw' not supported"), Same, Accepts, ""),
        row("unknown hash of a mode", string(MODE, "xts-plain64:foo"), unsupported("Hash algorithm 'foo' not supported"), Same, Accepts, ""),
        row("unknown iv generator", string(MODE, "xts-foo"), unsupported("IV generator 'foo' not supported"), Same, Accepts, ""),
        row("essiv without hash", string(MODE, "xts-essiv"), corrupt("Missing IV generator hash specification"), Same, Accepts, ""),
        row("essiv with too long a hash", string(MODE, "xts-essiv:sha512"), unsupported("No AES cipher with key size 64 available"), Same, Accepts, ""),
        row("essiv with an odd hash", string(MODE, "xts-essiv:sha1"), unsupported("No AES cipher with key size 20 available"), Same, Accepts, ""),
        row("unknown cipher", string(CIPHER, "foo"), unsupported("Algorithm 'foo' with key size 32 bytes not supported"), Same, Accepts, ""),
        row("upper case cipher", string(CIPHER, "AES"), unsupported("Algorithm 'AES' with key size 32 bytes not supported"), Same, Accepts, ""),
        row("empty cipher", string(CIPHER, ""), unsupported("Algorithm '' with key size 32 bytes not supported"), Same, Accepts, ""),
        row("cast6", string(CIPHER, "cast6"), unsupported("Algorithm 'cast6' with key size 32 bytes not supported"), Same, Accepts, ""),
        row("cast5 in xts", and(string(CIPHER, "cast5"), number(KEY_BYTES, 32)), unsupported("Unsupported cipher mode xts"), SaysReading("Unsupported cipher mode xts"), Accepts, ""),
        row("unknown hash", string(HASH, "foo"), unsupported("Hash algorithm 'foo' not supported"), Same, Refuses, ""),
        row("empty hash", string(HASH, ""), unsupported("Hash algorithm '' not supported"), Same, Refuses, ""),
        row("key of 0 bytes", number(KEY_BYTES, 0), unsupported("Algorithm 'aes' with key size 0 bytes not supported"), Same, Refuses, ""),
        row("key of 31 bytes", number(KEY_BYTES, 31), unsupported("Algorithm 'aes' with key size 15 bytes not supported"), Same, Accepts, ""),
        row("key of 33 bytes", number(KEY_BYTES, 33), corrupt("XTS cipher key length should be a multiple of 2"), SaysReading("XTS cipher key length should be a multiple of 2"), Accepts, ""),
        row("key of 62 bytes", number(KEY_BYTES, 62), unsupported("Algorithm 'aes' with key size 31 bytes not supported"), Same, Accepts, ""),
        row("key of 33 bytes in cbc", and(string(MODE, "cbc-plain64"), number(KEY_BYTES, 33)), unsupported("Algorithm 'aes' with key size 33 bytes not supported"), Same, Accepts, ""),

        // What nobody understands and nobody minds
        row("garbage behind the hash", bytes(HASH + 7, &[b'A'; 25]), None, Opens, Accepts, ""),
        row("garbage for a uuid", bytes(UUID, &[0xff; 40]), None, Opens, Accepts, ""),
        row("garbage behind the header", bytes(592, &[0xff; 3504]), None, Opens, Accepts, ""),
        row("empty payload", number(PAYLOAD, 4168), None, Opens, Accepts, ""),

        // Something else
        row("empty file", Change::Cut(0), not_luks, Same, Refuses, ""),
        row("5 bytes", Change::Cut(5), not_luks, Same, Refuses, ""),
        row("qcow2", Change::Instead(qcow2()), Some((NotLuks, "Volume is not in LUKS format; the image is in qcow2 format")), Says("Volume is not in LUKS format"), Refuses, ""),
        row("noise", Change::Instead(noise()), not_luks, Same, Refuses, ""),
    ]
}

/// Where the peers are wrong, or differ from each other, or from us.
#[rustfmt::skip]
pub fn differences() -> Vec<Case> {
    let row = |name, change, ours, qemu, cryptsetup, because| {
        Case { name, change, ours, qemu, cryptsetup, because }
    };
    let corrupt = |text| Some((Corrupt, text));
    vec![
        // A LUKS2 header it is not
        row("version 2", bytes(VERSION, &[0, 2]), corrupt("LUKS2 header: hdr_offset is 244834610708480, but the copy is at byte 0"), Says("LUKS version 2 is not supported"), Refuses, ""),

        // QEMU counts in 32 bits, signed and unsigned
        row("material wraps to 0", number(slot(7) + OFFSET, 0xffff_fe08), corrupt("Keyslot 7 is overlapping with the encrypted payload"), Opens, Refuses, ""),
        row("material at the end of numbers", number(slot(7) + OFFSET, u32::MAX), corrupt("Keyslot 7 is overlapping with the encrypted payload"), Opens, Refuses, ""),
        row("stripes 2^32 - 1", number(slot(0) + STRIPES, u32::MAX), corrupt("Keyslot 0 is corrupted (stripes 4294967295 != 4000)"), Says("Keyslot 0 is corrupted (stripes -1 != 4000)"), Refuses, ""),
        row("key of 2^31 bytes", number(KEY_BYTES, 1 << 31), corrupt("Keyslot 0 is overlapping with the encrypted payload"), Says("Algorithm 'aes' with key size 1073741824 bytes not supported"), Refuses, ""),
        row("material length wraps", number(KEY_BYTES, 1_073_742), corrupt("Keyslot 0 is overlapping with the encrypted payload"), Says("Algorithm 'aes' with key size 536871 bytes not supported"), Refuses, ""),

        // The end of the file
        row("payload behind the end", number(PAYLOAD, 4169), None, Says(TRUNCATED), Accepts, HEADER_ALONE),
        row("payload at the end of numbers", number(PAYLOAD, u32::MAX), None, Says(TRUNCATED), Accepts, HEADER_ALONE),
        row("cut within the magic's sector", Change::Cut(6), corrupt("LUKS header is truncated: 6 bytes, LUKS1 has 592"), Says("LUKS version 0 is not supported"), Refuses, ""),
        row("cut within the header", Change::Cut(591), corrupt("LUKS header is truncated: 591 bytes, LUKS1 has 592"), Says("Keyslot 7 is corrupted (stripes 3840 != 4000)"), Refuses, ""),
        row("cut behind the header", Change::Cut(592), corrupt("Keyslot 0 ends at byte 260096, the image at byte 592"), Says(TRUNCATED), Refuses, ""),
        row("cut in key material", Change::Cut(4096), corrupt("Keyslot 0 ends at byte 260096, the image at byte 4096"), Says(TRUNCATED), Refuses, ""),
        row("cut before the payload", Change::Cut(4040 * 512 - 1), None, SaysReading("read failed: Input/output error"), Accepts, HEADER_ALONE),
        row("cut at the payload", Change::Cut(4040 * 512), None, Opens, Accepts, ""),

        // Terminals
        row("escape sequence for a hash", string(HASH, "sha\x1b[2J"), Some((Unsupported, "Hash algorithm 'sha\u{fffd}[2J' not supported")), Says("Hash algorithm 'sha\x1b[2J' not supported"), Refuses, ""),

        // What one of them has
        row("areas that are not padded", number(slot(1) + OFFSET, 511), None, Says("Keyslots 0 and 1 are overlapping in the header"), Accepts, AS_CRYPTSETUP_AREAS),
        row("areas that touch", number(slot(1) + OFFSET, 508), None, Says("Keyslots 0 and 1 are overlapping in the header"), Accepts, AS_CRYPTSETUP_AREAS),
        row("payload right behind the last area", number(PAYLOAD, 4036), None, Says("Keyslot 7 is overlapping with the encrypted payload"), Accepts, AS_CRYPTSETUP_AREAS),
        row("material at 2", number(slot(0) + OFFSET, 2), None, Says("Keyslot 0 is overlapping with the LUKS header"), Accepts, AS_CRYPTSETUP_OLD),
        row("material at 7", number(slot(0) + OFFSET, 7), None, Says("Keyslot 0 is overlapping with the LUKS header"), Accepts, AS_CRYPTSETUP_OLD),
        row("ecb alone", and(string(MODE, "ecb"), number(KEY_BYTES, 32)), None, Says("Unexpected cipher mode string format 'ecb'"), Accepts, AS_CRYPTSETUP_HAS),
        row("plain64be", string(MODE, "xts-plain64be"), None, Says("IV generator 'plain64be' not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("null", string(MODE, "xts-null"), None, Says("IV generator 'null' not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("camellia", string(CIPHER, "camellia"), None, Says("Algorithm 'camellia' with key size 32 bytes not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("whirlpool", string(HASH, "whirlpool"), None, Says("Hash algorithm 'whirlpool' not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("upper case hash", string(HASH, "SHA256"), None, Says("Hash algorithm 'SHA256' not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("upper case hash of a mode", and(string(MODE, "cbc-essiv:SHA256"), number(KEY_BYTES, 32)), None, Says("Hash algorithm 'SHA256' not supported"), Accepts, AS_CRYPTSETUP_HAS),
        row("md5", string(HASH, "md5"), None, Opens, Refuses, AS_QEMU_HAS),
    ]
}

/// What `qemu-img create -f qcow2` begins with.
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 65536];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    image
}

fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..65536).map(|_| next()).collect()
}
