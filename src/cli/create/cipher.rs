//! Ciphers and hashes of a new image: QEMU's names in `-o`, or cryptsetup's as options.

use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen};
use keyslot::qemu::Options;
use keyslot::{Error, Result};

use super::invalid;
use super::luks::LuksArgs;

/// Cipher given by `--cipher` and `--key-size`, or in parts by `-o`.
pub fn cipher(options: &Options, luks: &LuksArgs) -> Result<CipherSpec> {
    if luks.cipher.is_none() && luks.key_size.is_none() {
        return in_parts(options);
    }
    if let Some(key) = PARTS.iter().find(|key| options.last(key).is_some()) {
        let text = format!("--cipher and --key-size cannot be used with {key} in -o");
        return Err(invalid(text));
    }
    let text = luks.cipher.as_deref().unwrap_or("aes-xts-plain64");
    let wrong = |why: &str| invalid(format!("cipher '{}': {why}", text.escape_debug()));
    let (name, mode) = text.split_once('-').ok_or_else(|| {
        wrong("must be a cipher, a mode and an IV generator, such as aes-xts-plain64")
    })?;
    let bits = luks.key_size.unwrap_or_else(|| {
        // cryptsetup's default is 256 bits, and XTS has two such keys.
        let halves = if mode.split('-').next() == Some("xts") { 2 } else { 1 };
        256 * halves
    });
    if !bits.is_multiple_of(8) {
        return Err(invalid(format!("key size {bits}: must be a multiple of 8 bits")));
    }
    CipherSpec::parse(name, mode, bits / 8).map_err(|error| wrong(error.message()))
}

/// Hash given by `--hash`, or by `hash-alg` in `-o`.
pub fn hash(options: &Options, luks: &LuksArgs) -> Result<HashAlg> {
    let Some(name) = &luks.hash else {
        return Ok(qemu_hash(options, "hash-alg")?.unwrap_or(HashAlg::Sha256));
    };
    if options.last("hash-alg").is_some() {
        return Err(invalid("--hash cannot be used with hash-alg in -o"));
    }
    HashAlg::parse(name).map_err(|error: Error| invalid(error.message()))
}

/// Cipher given by QEMU's options.
fn in_parts(options: &Options) -> Result<CipherSpec> {
    let ivgen_hash = qemu_hash(options, "ivgen-hash-alg")?;
    let mode = match options.last("cipher-mode") {
        None | Some("xts") => CipherMode::Xts,
        Some("cbc") => CipherMode::Cbc,
        Some("ctr") => CipherMode::Ctr,
        Some("ecb") => CipherMode::Ecb,
        Some(other) => return Err(not_accepted("cipher-mode", other)),
    };
    let ivgen = match options.last("ivgen-alg") {
        None | Some("plain64") => IvGen::Plain64,
        Some("plain") => IvGen::Plain,
        Some("plain64be") => IvGen::Plain64be,
        Some("essiv") => IvGen::Essiv(ivgen_hash.unwrap_or(HashAlg::Sha256)),
        Some(other) => return Err(not_accepted("ivgen-alg", other)),
    };
    let name = options.last("cipher-alg").unwrap_or("aes-256");
    let (cipher, key_size) = CIPHERS
        .iter()
        .find_map(|&cipher| {
            let bits =
                name.strip_prefix(cipher.name())?.strip_prefix('-')?.parse::<usize>().ok()?;
            cipher.key_sizes().contains(&(bits / 8)).then_some((cipher, bits / 8))
        })
        .ok_or_else(|| match name {
            "des" | "3des" | "sm4" => invalid(format!("Algorithm '{name}' not supported")),
            _ => not_accepted("cipher-alg", name),
        })?;
    let halves = if mode == CipherMode::Xts { 2 } else { 1 };
    CipherSpec::new(cipher, mode, ivgen, ivgen_hash, key_size * halves)
        .map_err(|error| invalid(error.message()))
}

fn qemu_hash(options: &Options, key: &str) -> Result<Option<HashAlg>> {
    let Some(name) = options.last(key) else { return Ok(None) };
    // Only hashes that QEMU knows. The others occur in images of cryptsetup.
    let hash = HashAlg::parse(name).ok().filter(|hash| QEMU_HASHES.contains(hash));
    hash.map(Some).ok_or_else(|| not_accepted(key, name))
}

fn not_accepted(key: &str, value: &str) -> Error {
    invalid(format!("Parameter '{key}' does not accept value '{value}'"))
}

const CIPHERS: [Cipher; 5] =
    [Cipher::Aes, Cipher::Camellia, Cipher::Cast5, Cipher::Serpent, Cipher::Twofish];

const QEMU_HASHES: [HashAlg; 8] = [
    HashAlg::Md5,
    HashAlg::Ripemd160,
    HashAlg::Sha1,
    HashAlg::Sha224,
    HashAlg::Sha256,
    HashAlg::Sha384,
    HashAlg::Sha512,
    HashAlg::Sm3,
];

/// QEMU's options that make up a cipher
const PARTS: [&str; 4] = ["cipher-alg", "cipher-mode", "ivgen-alg", "ivgen-hash-alg"];
