//! Bytes as a qcow2 image, or an image built from its parts and then damaged: refused with an error
//! that names what is wrong, or read and written within bounds. An image without damage is as good as
//! plain bytes.

use std::sync::Arc;

use arbitrary::Arbitrary;
use keyslot::container::{Gate, Reference, Referenced};
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::{ErrorKind, OpenOptions, Sharing};

#[derive(Arbitrary, Debug)]
pub enum Run {
    /// The start of an image
    Bytes(Vec<u8>),
    Image(Shape),
}

#[derive(Arbitrary, Debug)]
pub struct Shape {
    is_v2: bool,
    has_small_clusters: bool,
    refcount_order: u8,
    /// Clusters of the disk
    clusters: u8,
    /// Bytes at some of them
    entries: Vec<(u8, Kind)>,
    /// 64-bit words of the tables, and their new values
    damage: Vec<(u16, Damage)>,
    accesses: Vec<Access>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Kind {
    Zeros,
    ZerosInPlace,
    Data,
    /// Used by something else too
    Shared,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    Word(u64),
    Bit(u8),
    /// An offset of a cluster, marked as used once
    Cluster(u8),
}

#[derive(Arbitrary, Debug)]
pub enum Access {
    Read { offset: u32, len: u16 },
    Write { offset: u32, len: u16, byte: u8 },
    Zeros { offset: u32, len: u16 },
    Sync,
    Reopen,
}

#[derive(Debug)]
struct NoFiles;

impl Gate for NoFiles {
    fn open(&self, _: &Reference<'_>) -> keyslot::Result<Referenced> {
        Ok(Referenced::Zeros)
    }
}

pub fn check(run: &Run) {
    match run {
        Run::Bytes(bytes) => {
            let magic = [b"QFI\xfb", bytes.as_slice()].concat();
            if let Ok(disk) = open(Arc::new(MemoryStorage::new(magic))) {
                let _ = disk.read_exact_at(&mut [0; 512], 0);
                let _ = disk.write_all_at(&[7; 100], 5);
            }
        }
        Run::Image(shape) => check_image(shape),
    }
}

fn open(image: Arc<dyn Storage>) -> keyslot::Result<Arc<dyn Storage>> {
    let options = OpenOptions::new().sharing(Sharing::WriteAlone).gate(Arc::new(NoFiles));
    let disk = options.open_disk_storage(image).inspect_err(|error| {
        // The header may end too early, or not be there.
        let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Io, ErrorKind::NotLuks];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    })?;
    Ok(Arc::clone(disk.storage()))
}

fn check_image(shape: &Shape) {
    let (mut image, mut model) = build(shape);
    let cluster = 1 << cluster_bits(shape);
    for &(at, damage) in shape.damage.iter().take(MOST) {
        let words = image.len() / 8;
        let word = &mut image[usize::from(at) % words * 8..][..8];
        let now = u64::from_be_bytes(word.try_into().expect("8 bytes"));
        let new = match damage {
            Damage::Word(new) => new,
            Damage::Bit(bit) => now ^ 1 << (bit % 64),
            Damage::Cluster(number) => COPIED | (u64::from(number) * cluster),
        };
        word.copy_from_slice(&new.to_be_bytes());
    }
    let is_whole = shape.damage.is_empty();
    let memory = Arc::new(MemoryStorage::new(image));
    let mut disk = match open(Arc::<MemoryStorage>::clone(&memory)) {
        Ok(disk) => disk,
        Err(error) => return assert!(!is_whole, "{error:?}"),
    };
    for access in shape.accesses.iter().take(MOST) {
        let result = apply(access, &mut disk, &memory, &mut model, is_whole);
        assert!(result.is_ok() || !is_whole, "{access:?}: {result:?}");
        if result.is_err() {
            // The bytes of the range are old or new.
            return;
        }
    }
}

fn apply(
    access: &Access,
    disk: &mut Arc<dyn Storage>,
    memory: &Arc<MemoryStorage>,
    model: &mut [u8],
    is_whole: bool,
) -> std::io::Result<()> {
    let range = |offset: u32, len: u16| {
        let start = usize::try_from(offset).expect("small") % model.len();
        start..(start + usize::from(len) % 5000).min(model.len())
    };
    match *access {
        Access::Read { offset, len } => {
            let range = range(offset, len);
            let mut buf = vec![0x77; range.len()];
            disk.read_exact_at(&mut buf, range.start as u64)?;
            assert!(!is_whole || buf == model[range]);
        }
        Access::Write { offset, len, byte } => {
            let range = range(offset, len);
            disk.write_all_at(&vec![byte; range.len()], range.start as u64)?;
            model[range].fill(byte);
        }
        Access::Zeros { offset, len } => {
            let range = range(offset, len);
            disk.write_zeros_at(range.start as u64, range.len() as u64)?;
            model[range].fill(0);
        }
        Access::Sync => disk.sync_data()?,
        Access::Reopen => {
            disk.sync_data()?;
            *disk = open(Arc::<MemoryStorage>::clone(memory)).map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}

/// The image, and the contents of its disk. Its clusters are the header, the L1 table, the refcount
/// table, refcount blocks, L2 tables, data, and free ones.
fn build(shape: &Shape) -> (Vec<u8>, Vec<u8>) {
    let bits = cluster_bits(shape);
    let cluster = 1_usize << bits;
    let order = if shape.is_v2 { 4 } else { u32::from(shape.refcount_order % 7) };
    let clusters = usize::from(shape.clusters).max(1);
    let tables = clusters.div_ceil(cluster / 8);
    let all = 64 + 3 * clusters;
    let blocks = all.div_ceil((cluster * 8) >> order);
    let mut image = vec![0; all * cluster];
    let mut model = vec![0; clusters * cluster];

    let mut used = 3 + blocks + tables;
    let mut shared = Vec::new();
    for &(place, kind) in shape.entries.iter().take(MOST) {
        let place = usize::from(place) % clusters;
        let entry = (3 + blocks) * cluster + place * 8;
        if image[entry..entry + 8] != [0; 8] || used == all / 2 {
            continue;
        }
        let host = used * cluster;
        let is_shared = matches!(kind, Kind::Shared) && order > 0;
        let word = match kind {
            Kind::Zeros | Kind::ZerosInPlace if shape.is_v2 => continue,
            Kind::Zeros => 1,
            Kind::ZerosInPlace => COPIED | host as u64 | 1,
            Kind::Shared if is_shared => host as u64,
            Kind::Data | Kind::Shared => COPIED | host as u64,
        };
        if is_shared {
            shared.push(used);
        }
        if !matches!(kind, Kind::Zeros) {
            let byte = u8::try_from(1 + used % 255).expect("small");
            image[host..host + cluster].fill(byte);
            if !matches!(kind, Kind::ZerosInPlace) {
                model[place * cluster..][..cluster].fill(byte);
            }
            used += 1;
        }
        image[entry..entry + 8].copy_from_slice(&word.to_be_bytes());
    }
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0");
    put(7, &[if shape.is_v2 { 2 } else { 3 }]);
    put(20, &bits.to_be_bytes());
    put(24, &(model.len() as u64).to_be_bytes());
    put(36, &u32::try_from(tables).expect("small").to_be_bytes());
    put(40, &(cluster as u64).to_be_bytes());
    put(48, &(2 * cluster as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    if !shape.is_v2 {
        put(96, &order.to_be_bytes());
        put(100, &104_u32.to_be_bytes());
    }
    for n in 0..tables {
        let word = COPIED | ((3 + blocks + n) * cluster) as u64;
        put(cluster + 8 * n, &word.to_be_bytes());
    }
    for n in 0..blocks {
        put(2 * cluster + 8 * n, &(((3 + n) * cluster) as u64).to_be_bytes());
    }
    for n in 0..used {
        count(&mut image[3 * cluster..], n, order, 1 + u8::from(shared.contains(&n)));
    }
    (image, model)
}

fn count(blocks: &mut [u8], index: usize, order: u32, value: u8) {
    let bit = index << order;
    if order < 3 {
        blocks[bit / 8] |= value << (bit % 8);
    } else {
        blocks[bit / 8 + (1 << (order - 3)) - 1] = value;
    }
}

fn cluster_bits(shape: &Shape) -> u32 {
    if shape.has_small_clusters { 9 } else { 12 }
}

const COPIED: u64 = 1 << 63;
const MOST: usize = 64;
