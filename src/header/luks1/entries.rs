//! Entries of the header as they are written, the damaged ones included, and their repair.
//!
//! A damaged entry is one that is not active and fails a check (`validate.rs`). Its keyslot is
//! neither opened, nor written, nor wiped: its area may be anywhere. [`Luks1Header::mend`] puts the
//! entry back where the other entries say that it belongs, inactive, as cryptsetup's repair does.

use std::ops::Range;

use zerocopy::IntoBytes;

use super::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, RawHeader, RawKeyslot, SECTOR};
use super::validate::{FIRST_MATERIAL_SECTOR, OVERLAPPING_PAYLOAD, validate};
use super::{ALIGNMENT, Keyslot, Luks1Header};
use crate::crypto::{KdfAlg, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Sealed, Step, material_len, text};
use crate::overrides::{Override, Overrides};

/// Entry of a keyslot, as it is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Index of the keyslot
    pub index: usize,
    /// Whether it holds a key
    pub active: bool,
    /// Iteration count of PBKDF2
    pub iterations: u32,
    /// Start of the key material in bytes
    pub offset: u64,
    /// Anti-forensic stripes
    pub stripes: u32,
    /// Fault of the entry; its other fields are not to be relied on then
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

    /// The header's `cipher-name`, as it is written.
    pub fn cipher_name(&self) -> String {
        text(&self.raw.cipher_name)
    }

    /// The header's `cipher-mode`, as it is written.
    pub fn cipher_mode(&self) -> String {
        text(&self.raw.cipher_mode)
    }

    /// Both of them: `aes-xts-plain64`.
    pub fn cipher_text(&self) -> String {
        format!("{}-{}", self.cipher_name(), self.cipher_mode())
    }

    /// The header's `hash-spec`, as it is written.
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

    /// Whether the payload is in another file: payload offset 0.
    pub fn is_detached(&self) -> bool {
        self.payload_offset() == 0
    }

    /// Refuses a cipher or hash that this crate does not have.
    ///
    /// [`ErrorKind::Unsupported`]
    pub fn check_supported(&self) -> Result<()> {
        self.scheme().map(|_| ())
    }

    /// Refuses what QEMU refuses in its words: any fault, whether or not it matters here.
    pub fn check_strictly(&self) -> Result<()> {
        if self.is_detached() {
            return Err(Error::new(ErrorKind::Corrupt, OVERLAPPING_PAYLOAD));
        }
        self.check_strictly_detached()
    }

    /// The same of a header whose payload is in another file, as QEMU's `header` node has it.
    pub fn check_strictly_detached(&self) -> Result<()> {
        match self.meaning.damage.iter().flatten().next() {
            Some(fault) => Err(fault.error()),
            None => self.check_supported(),
        }
    }

    /// The keyslots whose entries are damaged, and their faults.
    pub fn damaged(&self) -> impl Iterator<Item = (usize, &str)> {
        let faults = self.meaning.damage.iter().enumerate();
        faults.filter_map(|(index, fault)| Some((index, fault.as_ref()?.text.as_str())))
    }

    /// The active keyslots, if this crate cannot open them, and the reason.
    pub(in crate::header) fn unusable(&self) -> Vec<(usize, &str)> {
        let fault = self.meaning.cipher.as_ref().err().or(self.meaning.hash.as_ref().err());
        let Some(fault) = fault else { return Vec::new() };
        let active = (0..KEYSLOTS).filter(|&index| self.is_active(index));
        active.map(|index| (index, fault.text.as_str())).collect()
    }

    /// Whether the state of an entry is damaged: the keyslot may have been active.
    pub(in crate::header) fn has_unknown_state(&self) -> bool {
        self.raw.keyslots.iter().any(|slot| ![ACTIVE, INACTIVE].contains(&slot.state.get()))
    }

    pub(in crate::header) fn is_active(&self, index: usize) -> bool {
        self.raw.keyslots[index].state.get() == ACTIVE
    }

    /// Whether the keyslot's area can be relied on.
    pub(super) fn is_damaged(&self, index: usize) -> bool {
        self.meaning.damage[index].is_some()
    }

    /// Whether both headers have the same digest of the volume key, by the same hash.
    pub(in crate::header) fn has_same_digest(&self, other: &Self) -> bool {
        let digest = |raw: &RawHeader| {
            (raw.mk_digest, raw.mk_digest_salt, raw.mk_digest_iterations, raw.key_bytes)
        };
        let same_hash = self.hash_text().eq_ignore_ascii_case(&other.hash_text());
        same_hash && digest(&self.raw) == digest(&other.raw)
    }

    /// The header with its damaged entries inactive and in their places; `None`, if there are none.
    ///
    /// [`ErrorKind::Refused`] for an entry whose state is neither active nor inactive, without
    /// [`Override::LoseKey`]; [`ErrorKind::Corrupt`] if the place of one cannot be told.
    pub(super) fn mend(&self, overrides: Overrides) -> Result<Option<Self>> {
        let mut raw = self.raw.clone();
        // That an area is not in the file is no damage of the entry.
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
                    .with_hint("'keyslot repair --lose-key' makes it inactive"));
            }
        }
        let places = self.places();
        for &(index, why) in &damaged {
            let offset = places.map(|(first, step)| first + step * index as u64);
            let offset = offset.and_then(|offset| u32::try_from(offset).ok());
            let offset = offset.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("{why}: its place cannot be told"))
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

    /// First sector of keyslot 0, and sectors from one keyslot to the next, as all sound entries
    /// have them: aligned as QEMU and cryptsetup do, or one area right behind the other.
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
    /// The runs of bytes in which `to` differs, one per sector: where, and what `to` has there.
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

    /// Compares the header on the disk with this one.
    pub(super) fn expected(&self) -> Step {
        Step::Expect { offset: 0, bytes: self.as_bytes().into() }
    }

    /// Writes these bytes and reads the whole of each entry back that they touch; and the header
    /// after that.
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

    /// All keyslots but those with a damaged entry, by index; none with an unsupported cipher.
    pub fn keyslots(&self) -> impl Iterator<Item = Keyslot<'_>> {
        (0..KEYSLOTS).filter_map(|index| self.keyslot(index))
    }
}

/// A range of the header, with the whole of each keyslot's entry that it touches.
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

/// Of a scheme that has been checked.
fn iterations(sealed: &Sealed) -> u32 {
    match sealed.scheme.kdf {
        KdfAlg::Pbkdf2 { iterations, .. } => iterations,
        KdfAlg::Argon2 { .. } => 0,
    }
}
