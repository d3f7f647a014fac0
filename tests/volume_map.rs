//! A volume over a map with holes, as of a disk image whose clusters are allocated when they are
//! written.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use keyslot::crypto::CipherSpec;
use keyslot::storage::{Identity, MemoryStorage, Storage};
use keyslot::volume::{Crypt, Extent, Fill, Keyring, Map, Place, VolumeStorage};
use keyslot::{Error, ErrorKind, Result, Volume, VolumeKey};
use proptest::collection::vec;
use proptest::prelude::*;

static KEY: LazyLock<VolumeKey> = LazyLock::new(|| VolumeKey::random(32).unwrap());
const CLUSTER: u64 = 4096;
const CLUSTERS: usize = 8;
const LEN: u64 = CLUSTER * CLUSTERS as u64;

/// Clusters in the order in which they were allocated.
#[derive(Debug)]
struct Clusters {
    storage: Arc<dyn Storage>,
    crypts: Vec<Crypt>,
    below: Option<Arc<dyn Storage>>,
    /// Clusters that a snapshot uses too
    shared: Mutex<Vec<u64>>,
    /// Whether writes are refused
    refuses: AtomicBool,
    /// The place of each cluster of the volume
    places: Mutex<[Option<u64>; CLUSTERS]>,
    /// Clusters that there is room for
    room: u64,
    /// Clusters whose places are durable
    durable: AtomicUsize,
}

impl Clusters {
    fn new(sector_size: usize, room: u64) -> Arc<Self> {
        let encryption = CipherSpec::parse("aes", "xts-plain64", 32).unwrap();
        let crypt = Crypt { name: "cluster".to_owned(), key: 0, encryption, sector_size };
        Self::over(vec![crypt], room, None)
    }

    fn over(crypts: Vec<Crypt>, room: u64, below: Option<Vec<u8>>) -> Arc<Self> {
        let bytes = vec![0xee; usize::try_from(2 * LEN).unwrap()];
        let below = below.map(|bytes| Arc::new(MemoryStorage::new(bytes)) as Arc<dyn Storage>);
        Arc::new(Self {
            storage: Arc::new(MemoryStorage::new(bytes)),
            crypts,
            below,
            shared: Mutex::default(),
            refuses: AtomicBool::default(),
            places: Mutex::default(),
            room,
            durable: AtomicUsize::new(0),
        })
    }

    /// Takes a snapshot: from now on every cluster must be copied before it is written.
    fn share(&self) {
        self.shared.lock().unwrap().extend(self.places.lock().unwrap().iter().flatten());
    }

    fn extent_of(&self, cluster: u64, place: Option<u64>) -> Extent {
        let start = cluster * CLUSTER;
        let place = match place {
            None if self.below.is_some() => Place::Below,
            None => Place::Hole,
            Some(number) if self.crypts.is_empty() => Place::Plain { offset: number * CLUSTER },
            Some(number) => {
                let offset = number * CLUSTER;
                // The numbers of sectors are those of the storage, as in qcow2.
                Place::Data { offset, iv_sector: offset / 512, crypt: 0 }
            }
        };
        let is_shared = match place {
            Place::Data { offset, .. } | Place::Plain { offset } => {
                self.shared.lock().unwrap().contains(&(offset / CLUSTER))
            }
            _ => false,
        };
        Extent { start, len: CLUSTER, lock: start, is_shared, place }
    }

    fn allocated(&self) -> Vec<usize> {
        let places = self.places.lock().unwrap();
        (0..CLUSTERS).filter(|&cluster| places[cluster].is_some()).collect()
    }
}

impl Map for Clusters {
    fn len(&self) -> u64 {
        LEN
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn crypts(&self) -> &[Crypt] {
        &self.crypts
    }

    fn below(&self) -> Option<&Arc<dyn Storage>> {
        self.below.as_ref()
    }

    fn may_write(&self) -> Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unsupported, "not now"));
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(self))
    }

    fn extent(&self, at: u64) -> Result<Extent> {
        let cluster = at / CLUSTER;
        let places = self.places.lock().unwrap();
        Ok(self.extent_of(cluster, places[usize::try_from(cluster).unwrap()]))
    }

    fn allocate(&self, at: u64, len: u64, fill: &mut Fill<'_>) -> Result<()> {
        let mut places = self.places.lock().unwrap();
        for cluster in at / CLUSTER..(at + len).div_ceil(CLUSTER) {
            let index = usize::try_from(cluster).unwrap();
            let next = places.iter().flatten().max().map_or(0, |last| last + 1);
            let before = self.extent_of(cluster, places[index]);
            if (places[index].is_none() || before.is_shared) && next < self.room {
                fill(&self.extent_of(cluster, Some(next)), before.place)?;
                places[index] = Some(next);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.durable.store(self.allocated().len(), Ordering::Relaxed);
        self.storage.sync_data()
    }
}

fn volume(map: &Arc<Clusters>) -> Volume {
    let map: Arc<dyn Map> = Arc::<Clusters>::clone(map);
    Volume::over(map, &Keyring::single(&KEY)).unwrap()
}

fn ranges(volume: &Volume) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    while let Some(range) = volume.next_data(ranges.last().map_or(0, |it| it.end)).unwrap() {
        ranges.push(range);
    }
    ranges
}

#[test]
fn holes_are_zeros_until_they_are_written() {
    let map = Clusters::new(512, CLUSTERS as u64);
    let volume = volume(&map);
    let mut all = vec![1; usize::try_from(LEN).unwrap()];
    volume.read_exact_at(&mut all, 0).unwrap();
    assert!(all.iter().all(|&byte| byte == 0));
    assert_eq!(ranges(&volume), []);

    volume.write_zeros_at(100, 10_000).unwrap();
    assert_eq!(map.allocated(), [0; 0], "zeros need no room");
    volume.write_all_at(b"across", 2 * CLUSTER - 3).unwrap();
    assert_eq!(map.allocated(), [1, 2]);
    volume.write_sectors(5 * CLUSTER / 512, &mut [7; 512]).unwrap();
    assert_eq!(ranges(&volume), [CLUSTER..3 * CLUSTER, 5 * CLUSTER..6 * CLUSTER]);

    let start = usize::try_from(2 * CLUSTER - 3).unwrap();
    all[start..start + 6].copy_from_slice(b"across");
    let start = usize::try_from(5 * CLUSTER).unwrap();
    all[start..start + 512].fill(7);
    let mut again = vec![1; all.len()];
    volume.read_exact_at(&mut again, 0).unwrap();
    assert!(again == all);
}

#[test]
fn a_map_without_room_is_an_error_that_writes_nothing() {
    let map = Clusters::new(512, 1);
    let volume = volume(&map);
    volume.write_all_at(&[1; 512], 0).unwrap();
    let error = volume.write_all_at(&[2; 512], CLUSTER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(map.allocated(), [0]);
    let mut buf = [9; 512];
    volume.read_exact_at(&mut buf, CLUSTER).unwrap();
    assert_eq!(buf, [0; 512]);
}

#[test]
fn a_sync_makes_allocations_durable() {
    let map = Clusters::new(512, CLUSTERS as u64);
    let volume = volume(&map);
    volume.write_all_at(&[1; 512], 0).unwrap();
    volume.sync().unwrap();
    assert_eq!(map.durable.load(Ordering::Relaxed), 1);
}

/// A hole has no sectors; the data that it becomes has.
#[test]
fn a_part_of_a_sector_is_refused_in_a_hole_too() {
    let map = Clusters::new(4096, CLUSTERS as u64);
    let volume = volume(&map);
    for (sector, len) in [(0, 512), (1, 4096), (1, 7 * 512), (7, 4096 + 512)] {
        let mut buf = vec![7; len];
        let error = volume.write_sectors(sector, &mut buf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(buf.iter().all(|&byte| byte == 7), "the buffer is encrypted");
    }
    let mut all = vec![1; usize::try_from(LEN).unwrap()];
    volume.read_exact_at(&mut all, 0).unwrap();
    assert!(all.iter().all(|&byte| byte == 0));
}

#[test]
fn a_range_without_a_place_is_as_below() {
    // The storage below ends within a cluster.
    let len = usize::try_from(2 * CLUSTER).unwrap() + 100;
    let bytes: Vec<u8> = (1..=251).cycle().take(len).collect();
    for crypts in [Clusters::new(512, 1).crypts.clone(), Vec::new()] {
        let map = Clusters::over(crypts, CLUSTERS as u64, Some(bytes.clone()));
        let volume = volume(&map);
        let mut model = bytes.clone();
        model.resize(usize::try_from(LEN).unwrap(), 0);
        let same = |model: &[u8]| {
            let mut all = vec![0xff; model.len()];
            volume.read_exact_at(&mut all, 0).unwrap();
            assert!(all == model);
        };
        same(&model);
        assert_eq!(ranges(&volume), std::slice::from_ref(&(0..2 * CLUSTER + 100)));

        volume.write_all_at(b"word", 1000).unwrap();
        model[1000..1004].copy_from_slice(b"word");
        same(&model);
        // Zeros hide what is below.
        volume.write_zeros_at(CLUSTER + 7, 10).unwrap();
        model[usize::try_from(CLUSTER).unwrap() + 7..][..10].fill(0);
        same(&model);
        volume.write_all_at(b"end", 2 * CLUSTER + 98).unwrap();
        model[len - 2..=len].copy_from_slice(b"end");
        same(&model);
        assert_eq!(map.allocated(), [0, 1, 2]);
        assert_eq!(ranges(&volume), std::slice::from_ref(&(0..3 * CLUSTER)));
    }
}

#[test]
fn a_shared_cluster_is_copied_before_it_is_written() {
    let map = Clusters::new(512, 2 * CLUSTERS as u64);
    let volume = volume(&map);
    let mut model = vec![3; usize::try_from(LEN).unwrap()];
    volume.write_all_at(&model, 0).unwrap();
    map.share();
    let snapshot = |map: &Clusters| {
        let mut bytes = vec![0; usize::try_from(LEN).unwrap()];
        map.storage.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = snapshot(&map);

    volume.write_all_at(&[4; 600], 100).unwrap();
    model[100..700].fill(4);
    volume.write_zeros_at(3 * CLUSTER + 1, 2 * CLUSTER).unwrap();
    let zeros = usize::try_from(3 * CLUSTER).unwrap() + 1;
    model[zeros..zeros + usize::try_from(2 * CLUSTER).unwrap()].fill(0);
    let mut sector = [5; 512];
    volume.write_sectors(6 * CLUSTER / 512, &mut sector).unwrap();
    model[usize::try_from(6 * CLUSTER).unwrap()..][..512].fill(5);
    let mut all = vec![0xff; model.len()];
    volume.read_exact_at(&mut all, 0).unwrap();
    assert!(all == model);
    assert!(snapshot(&map) == before, "the snapshot changed");
}

#[test]
fn a_storage_reports_data_up_to_the_end_of_its_extent() {
    let map = Clusters::over(Vec::new(), 8, None);
    let volume = volume(&map);
    volume.write_all_at(&[1; 3 * 4096], 4096).unwrap();
    assert_eq!(volume.next_data(0).unwrap(), Some(4096..4 * 4096));
    let storage = VolumeStorage::from(volume);
    assert_eq!(storage.next_data(0).unwrap(), Some(4096..2 * 4096));
    assert_eq!(storage.next_data(5000).unwrap(), Some(5000..2 * 4096));
    assert_eq!(storage.next_data(4 * 4096).unwrap(), None);
}

/// A disk whose clusters a snapshot uses too, which has no room.
#[derive(Debug)]
struct Full {
    storage: Arc<dyn Storage>,
    looked_up: AtomicUsize,
}

impl Map for Full {
    fn len(&self) -> u64 {
        1 << 40
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn crypts(&self) -> &[Crypt] {
        &[]
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(self))
    }

    fn extent(&self, at: u64) -> Result<Extent> {
        self.looked_up.fetch_add(1, Ordering::Relaxed);
        let start = at - at % CLUSTER;
        let place = Place::Plain { offset: start };
        let is_shared = (start / CLUSTER).is_multiple_of(2);
        Ok(Extent { start, len: CLUSTER, lock: start, is_shared, place })
    }

    fn allocate(&self, _: u64, _: u64, _: &mut Fill<'_>) -> Result<()> {
        Err(Error::new(ErrorKind::NoSpace, "full"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_long_range_of_zeros_is_written_in_bounded_steps() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(Vec::new()));
    let map = Arc::new(Full { storage, looked_up: AtomicUsize::new(0) });
    let volume = Volume::over(Arc::<Full>::clone(&map), &Keyring::default()).unwrap();
    let error = volume.write_zeros_at(0, 1 << 33).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let looked_up = map.looked_up.load(Ordering::Relaxed);
    assert!(looked_up <= (64 << 20) / 4096, "{looked_up}");
}

#[test]
fn a_map_may_refuse_writes() {
    let map = Clusters::new(512, CLUSTERS as u64);
    let volume = volume(&map);
    map.refuses.store(true, Ordering::Relaxed);
    let refused = |result: Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    };
    refused(volume.write_all_at(&[1; 512], 0));
    refused(volume.write_zeros_at(0, 512));
    refused(volume.write_sectors(0, &mut [1; 512]));
    assert_eq!(map.allocated(), [0; 0]);
}

proptest! {
    #[test]
    fn a_volume_over_a_map_is_as_good_as_plain_bytes(
        power in 0..5_u32,
        below in 0..2 * CLUSTERS * 4096,
        accesses in vec((0..LEN, 1..9000_u64, 0..5_u8, any::<u8>()), 1..30),
    ) {
        let crypts = Clusters::new(512 << (power % 4), 1).crypts.clone();
        let crypts = if power == 4 { Vec::new() } else { crypts };
        let below: Option<Vec<u8>> =
            (below as u64 <= LEN).then(|| (0..251).cycle().take(below).collect());
        let mut model = below.clone().unwrap_or_default();
        model.resize(usize::try_from(LEN).unwrap(), 0);
        let map = Clusters::over(crypts, 2 * CLUSTERS as u64, below);
        let volume = volume(&map);
        let mut shares = 1;
        for (offset, len, access, byte) in accesses {
            let len = len.min(LEN - offset);
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
            match access {
                0 => {
                    volume.write_zeros_at(offset, len).unwrap();
                    model[range].fill(0);
                }
                1 if shares > 0 => {
                    shares -= 1;
                    map.share();
                }
                1 | 2 => {
                    volume.write_all_at(&vec![byte; range.len()], offset).unwrap();
                    model[range].fill(byte);
                }
                _ => {
                    let mut buf = vec![byte; range.len()];
                    volume.read_exact_at(&mut buf, offset).unwrap();
                    prop_assert!(buf == model[range]);
                }
            }
        }
        let mut all = vec![1; model.len()];
        volume.read_exact_at(&mut all, 0).unwrap();
        prop_assert!(all == model);
    }
}
