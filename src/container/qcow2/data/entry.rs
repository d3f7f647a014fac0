//! Entries of L1 and L2 tables (QEMU `docs/interop/qcow2.txt`, "Cluster mapping").
//!
//! ```text
//!  63       62         61 .. 56   55 .. 9   8 .. 1     0
//!  +--------+------------+----------+---------+----------+------+
//!  | copied | compressed | reserved | offset  | reserved | zero |
//!  +--------+------------+----------+---------+----------+------+
//! ```
//!
//! A compressed cluster has the offset in its lowest 62 - (`cluster_bits` - 8) bits, and the number of
//! further sectors above them. An extended L2 entry has a second word: bit *n* says that subcluster
//! *n* is stored, and bit 32 + *n* that it is zeros. An L1 entry has neither the bit `compressed` nor
//! the bit `zero`.

use super::geometry::Geometry;

/// The cluster is used once, so it may be written in place.
pub(in super::super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const ZERO: u64 = 1;

/// Meaning of an L2 entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// Not in this image: the backing file's bytes, or zeros
    Unallocated,
    /// Zeros. The cluster at `host` is reserved for them.
    Zeros { host: Option<u64>, is_copied: bool },
    /// Stored at `host`
    Data { host: u64, is_copied: bool },
    /// `len` bytes at `offset`, compressed. They begin anywhere, and end with a sector.
    Compressed { offset: u64, len: u64 },
    /// Subclusters that are stored, and those that are zeros, as bits
    Subclusters { host: u64, is_copied: bool, stored: u32, zeros: u32 },
}

impl Entry {
    /// Parses the words of an entry. The error says what is wrong with it.
    pub fn parse(words: &[u64], geometry: &Geometry) -> Result<Self, &'static str> {
        let word = words[0];
        if word & COMPRESSED != 0 {
            // The offset has as many bits as the number of sectors leaves.
            let bits = 62 - (geometry.cluster_bits - 8);
            let offset = word & ((1 << bits) - 1);
            let sectors = ((word & !(COPIED | COMPRESSED)) >> bits) + 1;
            return Ok(Self::Compressed { offset, len: sectors * 512 - offset % 512 });
        }
        let (host, is_copied) = offset(word, geometry)?;
        let has_host = host != 0 || geometry.has_data_file && is_copied;
        let is_zero = word & ZERO != 0;
        if is_zero && (!geometry.has_zero_flag || geometry.is_extended) {
            return Err("has a reserved bit set");
        }
        if geometry.is_extended {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            let (stored, zeros) = (words[1] as u32, (words[1] >> 32) as u32);
            return match (stored, zeros) {
                _ if stored & zeros != 0 => Err("has a subcluster that is stored and zeros"),
                (0, 0) => Ok(Self::Unallocated),
                (1.., _) if !has_host => Err("has subclusters but no offset"),
                (u32::MAX, 0) => Ok(Self::Data { host, is_copied }),
                (0, u32::MAX) => Ok(Self::Zeros { host: has_host.then_some(host), is_copied }),
                _ => Ok(Self::Subclusters { host, is_copied, stored, zeros }),
            };
        }
        Ok(match (is_zero, has_host) {
            (true, _) => Self::Zeros { host: has_host.then_some(host), is_copied },
            (false, true) => Self::Data { host, is_copied },
            (false, false) => Self::Unallocated,
        })
    }

    /// The entry of a cluster at `host` that is used once.
    pub fn own(host: u64) -> u64 {
        host | COPIED
    }
}

/// Parses an L1 entry: the offset of an L2 table, and whether it may be written in place. `None`
/// without a table.
pub(super) fn table(word: u64, geometry: &Geometry) -> Result<Option<(u64, bool)>, &'static str> {
    if word & (COMPRESSED | ZERO) != 0 {
        return Err("has a reserved bit set");
    }
    let (offset, is_copied) = offset(word, geometry)?;
    Ok((offset != 0).then_some((offset, is_copied)))
}

fn offset(word: u64, geometry: &Geometry) -> Result<(u64, bool), &'static str> {
    if word & !(COPIED | COMPRESSED | OFFSET | ZERO) != 0 {
        return Err("has a reserved bit set");
    }
    let offset = word & OFFSET;
    if !offset.is_multiple_of(geometry.cluster()) {
        return Err("has an offset that is not a multiple of the cluster size");
    }
    Ok((offset, word & COPIED != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: Geometry = Geometry {
        cluster_bits: 16,
        len: 1 << 30,
        is_extended: false,
        has_zero_flag: true,
        has_data_file: false,
        refcount_order: 4,
    };

    #[test]
    fn an_entry_is_what_the_specification_says() {
        let host = 0x50000;
        let parse = |word| Entry::parse(&[word], &V3);
        assert_eq!(parse(0), Ok(Entry::Unallocated));
        assert_eq!(parse(1), Ok(Entry::Zeros { host: None, is_copied: false }));
        assert_eq!(
            parse(host | 1 | COPIED),
            Ok(Entry::Zeros { host: Some(host), is_copied: true })
        );
        assert_eq!(parse(host), Ok(Entry::Data { host, is_copied: false }));
        assert_eq!(parse(host | COPIED), Ok(Entry::Data { host, is_copied: true }));
        let compressed = |offset, len| Ok(Entry::Compressed { offset, len });
        assert_eq!(parse(COMPRESSED | 0x1234), compressed(0x1234, 512 - 0x34));
        assert_eq!(parse(COMPRESSED | 3 << 54 | 0x1200), compressed(0x1200, 2048));
        for word in [2, 0x100, 1 << 56, 1 << 61, host | 0x200] {
            assert!(parse(word).is_err(), "{word:#x}");
        }
        let v2 = Geometry { has_zero_flag: false, ..V3 };
        assert!(Entry::parse(&[1], &v2).is_err());
    }

    #[test]
    fn subclusters_are_bits() {
        let extended = Geometry { is_extended: true, ..V3 };
        let (host, is_copied) = (0x50000, true);
        let parse = |word: u64, bits: u64| Entry::parse(&[word, bits], &extended);
        let own = Entry::own(host);
        assert_eq!(parse(0, 0), Ok(Entry::Unallocated));
        assert_eq!(parse(0, !0 << 32), Ok(Entry::Zeros { host: None, is_copied: false }));
        assert_eq!(parse(own, 0xffff_ffff), Ok(Entry::Data { host, is_copied }));
        let some = Entry::Subclusters { host, is_copied, stored: 5, zeros: 2 };
        assert_eq!(parse(own, 5 | 2 << 32), Ok(some));
        for (word, bits) in [(own, 1 | 1 << 32), (0, 1), (own | 1, 1)] {
            assert!(parse(word, bits).is_err(), "{word:#x} {bits:#x}");
        }
    }

    #[test]
    fn an_external_file_may_begin_with_data() {
        let external = Geometry { has_data_file: true, ..V3 };
        let data = Entry::Data { host: 0, is_copied: true };
        assert_eq!(Entry::parse(&[COPIED], &external), Ok(data));
    }
}
