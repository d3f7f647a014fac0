//! Raw entries of the header, including damaged ones, and their repair.
//!
//! A damaged entry is inactive and fails a check (`validate.rs`). Its keyslot is neither opened, nor
//! written, nor wiped, because its area may be anywhere. Like cryptsetup's repair, [`Luks1Header::mend`]
//! makes the entry inactive and infers its area from the other entries.

use std::ops::Range;

use zerocopy::IntoBytes;

use super::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, RawHeader, RawKeyslot, SECTOR};
use super::validate::{FIRST_MATERIAL_SECTOR, OVERLAPPING_PAYLOAD, validate};
use super::{ALIGNMENT, Keyslot, Luks1Header};
use crate::crypto::{KdfAlg, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Sealed, Step, material_len, text};
use crate::overrides::{Override, Overrides};

/// Entry of a keyslot as stored in the header.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Index of the keyslot
    pub index: usize,
    /// Whether the keyslot holds a key
    pub active: bool,
    /// Iteration count of PBKDF2
    pub iterations: u32,
    /// Start of the key material in bytes
    pub offset: u64,
    /// Anti-forensic stripes
    pub stripes: u32,
    /// Fault of the entry. If there is one, the other fields are unreliable
    pub damage: Option<String>,
}

impl Luks1Header {
    /// All eight entries, by index.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> {
        (0..KEYSLOTS).map(|index| {
            let slot = &self.raw.keyslots[index];
            Entry {
                index,
                active: self.is_active(index),
                iterations: slot.iterations.get(),
                offset: u64::from(slot.key_material_offset.get()) * SECTOR,
                stripes: slot.stripes.get(),
                damage: self.meaning.damage[index].as_ref().map(|fault| fault.text.clone()),
            }
        })
    }

    /// `cipher-name` as stored in the header.
    pub fn cipher_name(&self) -> String {
        text(&self.raw.cipher_name)
    }

    /// `cipher-mode` as stored in the header.
    pub fn cipher_mode(&self) -> String {
        text(&self.raw.cipher_mode)
    }

    /// Cipher name and mode together: `aes-xts-plain64`.
    pub fn cipher_text(&self) -> String {
        format!("{}-{}", self.cipher_name(), self.cipher_mode())
    }

    /// `hash-spec` as stored in the header.
    pub fn hash_text(&self) -> String {
        text(&self.raw.hash_spec)
    }

    /// Length of the volume key in bytes.
    pub fn key_size(&self) -> usize {
        usize::try_from(self.raw.key_bytes.get()).unwrap_or(usize::MAX)
    }

    /// Iteration count of the volume key's digest.
    pub fn digest_iterations(&self) -> u32 {
        self.raw.mk_digest_iterations.get()
    }

    /// Whether the payload is in another file, which a payload offset of 0 indicates.
    pub fn is_detached(&self) -> bool {
        self.payload_offset() == 0
    }

    /// Checks that this crate supports the header's cipher and hash.
    ///
    /// Fails with [`ErrorKind::Unsupported`] if not.
    pub fn check_supported(&self) -> Result<()> {
        self.scheme().map(|_| ())
    }

    /// Refuses every header that QEMU refuses, with QEMU's texts, even if this crate could use it.
    pub fn check_strictly(&self) -> Result<()> {
        if self.is_detached() {
            return Err(Error::new(ErrorKind::Corrupt, OVERLAPPING_PAYLOAD));
        }
        self.check_strictly_detached()
    }

    /// Checks like [`check_strictly`](Self::check_strictly), but accepts a detached header, as QEMU's
    /// `header` node does.
    pub fn check_strictly_detached(&self) -> Result<()> {
        match self.meaning.damage.iter().flatten().next() {
            Some(fault) => Err(fault.error()),
            None => self.check_supported(),
        }
    }

    /// Keyslots whose entries are damaged, with the faults.
    pub fn damaged(&self) -> impl Iterator<Item = (usize, &str)> {
        let faults = self.meaning.damage.iter().enumerate();
        faults.filter_map(|(index, fault)| Some((index, fault.as_ref()?.text.as_str())))
    }

    /// Active keyslots that this crate cannot open, with the reason.
    pub(in crate::header) fn unusable(&self) -> Vec<(usize, &str)> {
        let fault = self.meaning.cipher.as_ref().err().or(self.meaning.hash.as_ref().err());
        let Some(fault) = fault else { return Vec::new() };
        let active = (0..KEYSLOTS).filter(|&index| self.is_active(index));
        active.map(|index| (index, fault.text.as_str())).collect()
    }

    /// Whether the state of an entry is damaged, so that its keyslot may have been active.
    pub(in crate::header) fn has_unknown_state(&self) -> bool {
        self.raw.keyslots.iter().any(|slot| ![ACTIVE, INACTIVE].contains(&slot.state.get()))
    }

    pub(in crate::header) fn is_active(&self, index: usize) -> bool {
        self.raw.keyslots[index].state.get() == ACTIVE
    }

    /// Whether the keyslot's entry is damaged, so that its area is unreliable.
    pub(super) fn is_damaged(&self, index: usize) -> bool {
        self.meaning.damage[index].is_some()
    }

    /// Whether both headers have the same digest of the volume key, with the same hash.
    pub(in crate::header) fn has_same_digest(&self, other: &Self) -> bool {
        let digest = |raw: &RawHeader| {
            (raw.mk_digest, raw.mk_digest_salt, raw.mk_digest_iterations, raw.key_bytes)
        };
        let same_hash = self.hash_text().eq_ignore_ascii_case(&other.hash_text());
        same_hash && digest(&self.raw) == digest(&other.raw)
    }

    /// Repairs damaged entries: makes them inactive and restores their offsets. `None` if no entry is
    /// damaged.
    ///
    /// Fails with [`ErrorKind::Refused`] if the state of an entry is neither active nor inactive, unless
    /// [`Override::LoseKey`] is set, and with [`ErrorKind::Corrupt`] if an offset cannot be inferred.
    pub(super) fn mend(&self, overrides: Overrides) -> Result<Option<Self>> {
        let mut raw = self.raw.clone();
        // An area outside the file does not make its entry damaged, so no length is given.
        let damage = validate(&raw, None)?.damage;
        let damaged = damage.iter().enumerate().filter_map(|(i, it)| Some((i, &it.as_ref()?.text)));
        let damaged: Vec<_> = damaged.collect();
        if damaged.is_empty() {
            return Ok(None);
        }
        for &(index, why) in &damaged {
            let state = raw.keyslots[index].state.get();
            if state != INACTIVE && !overrides.has(Override::LoseKey) {
                let text = format!("{why}: keyslot {index} may have been active");
                return Err(Override::LoseKey
                    .refused(text)
                    .with_hint("use 'keyslot repair --lose-key' to make it inactive"));
            }
        }
        let places = self.places();
        for &(index, why) in &damaged {
            let offset = places.map(|(first, step)| first + step * index as u64);
            let offset = offset.and_then(|offset| u32::try_from(offset).ok());
            let offset = offset.ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{why}, and the offset of its area is unknown"),
                )
            })?;
            raw.keyslots[index] = RawKeyslot {
                state: INACTIVE.into(),
                iterations: 0.into(),
                salt: [0; 32],
                key_material_offset: offset.into(),
                stripes: af::STRIPES.into(),
            };
        }
        let mut meaning = validate(&raw, None)?;
        if let Some(fault) = meaning.damage.iter().flatten().next() {
            return Err(fault.error());
        }
        let is_mended = |index: usize| damaged.iter().any(|(other, _)| *other == index);
        for index in (0..KEYSLOTS).filter(|&index| !is_mended(index)) {
            meaning.damage[index].clone_from(&self.meaning.damage[index]);
        }
        Ok(Some(Self { raw, meaning }))
    }

    /// First sector of keyslot 0 and distance in sectors between keyslots, if all sound entries agree
    /// on them. The areas are either aligned, as by QEMU and cryptsetup, or contiguous.
    fn places(&self) -> Option<(u64, u64)> {
        let len = material_len(self.raw.key_bytes.get());
        let sound: Vec<_> = (0..KEYSLOTS).filter(|&index| !self.is_damaged(index)).collect();
        let offset = |index: usize| u64::from(self.raw.keyslots[index].key_material_offset.get());
        let steps = [len.next_multiple_of(ALIGNMENT) / SECTOR, len / SECTOR];
        let firsts = [ALIGNMENT / SECTOR, FIRST_MATERIAL_SECTOR];
        let mut layouts = firsts.into_iter().flat_map(|first| steps.map(|step| (first, step)));
        layouts.find(|(first, step)| {
            sound.iter().all(|&index| offset(index) == first + step * index as u64)
        })
    }
}

impl Luks1Header {
    /// Byte runs in which `to` differs, one per sector: the offset, and the bytes of `to`.
    pub(super) fn changed_sectors(&self, to: &RawHeader) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.raw.as_bytes(), to.as_bytes());
        let sector = usize::try_from(SECTOR).unwrap_or(usize::MAX);
        (0..HEADER_SIZE)
            .step_by(sector)
            .filter_map(|start| {
                let range = start..(start + sector).min(HEADER_SIZE);
                let differs = |&i: &usize| from[i] != to[i];
                let first = range.clone().find(differs)?;
                let last = range.rev().find(differs)?;
                Some((first, to[first..=last].to_vec()))
            })
            .collect()
    }

    /// Step that compares the header on disk with this one.
    pub(super) fn expected(&self) -> Step {
        Step::Expect { offset: 0, bytes: self.as_bytes().into() }
    }

    /// Steps that write these bytes and verify every entry that they touch as a whole, and the header
    /// after them.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) -> ([Step; 3], Self) {
        let mut after = self.clone();
        let range = offset..offset + bytes.len();
        after.raw.as_mut_bytes()[range.clone()].copy_from_slice(bytes);
        let whole = whole_entries(range);
        let found = after.as_bytes()[whole.clone()].into();
        let verify = Step::Verify { offset: whole.start as u64, bytes: found };
        let write = Step::Write { offset: offset as u64, bytes: bytes.into() };
        ([write, Step::Sync, verify], after)
    }

    /// Keyslots whose entries are not damaged, by index. Empty if the cipher or hash is unsupported.
    pub fn keyslots(&self) -> impl Iterator<Item = Keyslot<'_>> {
        (0..KEYSLOTS).filter_map(|index| self.keyslot(index))
    }
}

/// Extends a range of the header to whole keyslot entries.
fn whole_entries(range: Range<usize>) -> Range<usize> {
    let size = size_of::<RawKeyslot>();
    let entries = HEADER_SIZE - KEYSLOTS * size;
    if range.start < entries {
        return range;
    }
    let (start, end) = (range.start - entries, range.end - entries);
    entries + start / size * size..entries + end.next_multiple_of(size)
}

pub(super) fn activate(raw: &mut RawHeader, keyslot: usize, sealed: &Sealed) {
    let slot = &mut raw.keyslots[keyslot];
    slot.state = ACTIVE.into();
    slot.iterations = iterations(sealed).into();
    slot.salt = sealed.salt;
}

/// Iteration count of a sealed keyslot whose scheme has been checked.
fn iterations(sealed: &Sealed) -> u32 {
    match sealed.scheme.kdf {
        KdfAlg::Pbkdf2 { iterations, .. } => iterations,
        KdfAlg::Argon2 { .. } => 0,
    }
}
