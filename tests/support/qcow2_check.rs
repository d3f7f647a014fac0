//! A check of the reference counts of a qcow2 image, as `qemu-img check` makes it, on bytes in memory.

use std::collections::BTreeMap;

/// Number of clusters that are counted and not used. An error says which cluster is used more often
/// than it is counted, or may wrongly be written in place.
pub fn leaks(image: &[u8]) -> Result<usize, String> {
    let image = Image { bytes: image, cluster: 1 << be(image, 20, 4) };
    let mut used = BTreeMap::<u64, u64>::new();
    let mut own = Vec::new();
    image.count(&mut used, 0, 1)?;
    let table = (be(image.bytes, 48, 8), be(image.bytes, 56, 4) * image.cluster);
    image.count(&mut used, table.0, table.1)?;
    let mut blocks = Vec::new();
    for n in 0..table.1 / 8 {
        let block = image.word(table.0 + 8 * n)?;
        blocks.push(block);
        if block != 0 {
            image.count(&mut used, block, 1)?;
        }
    }
    image.disk(&mut used, be(image.bytes, 40, 8), be(image.bytes, 36, 4), Some(&mut own))?;
    image.snapshots(&mut used)?;

    let order = if be(image.bytes, 4, 4) == 2 { 4 } else { be(image.bytes, 96, 4) };
    let count = |cluster: u64| {
        let counts = (image.cluster * 8) >> order;
        let index = usize::try_from(cluster / counts).unwrap();
        match blocks.get(index) {
            None | Some(0) => 0,
            Some(block) => image.refcount(*block, cluster % counts, order),
        }
    };
    for (&cluster, &users) in &used {
        if users > count(cluster) {
            return Err(format!("cluster {cluster}: {users} users, count {}", count(cluster)));
        }
    }
    for (cluster, is_copied) in own {
        if is_copied != (count(cluster) == 1) {
            let text = format!("cluster {cluster}: count {}, copied {is_copied}", count(cluster));
            return Err(text);
        }
    }
    let all = image.bytes.len() as u64 / image.cluster;
    Ok((0..all).filter(|it| count(*it) > used.get(it).copied().unwrap_or(0)).count())
}

struct Image<'a> {
    bytes: &'a [u8],
    cluster: u64,
}

impl Image<'_> {
    fn word(&self, at: u64) -> Result<u64, String> {
        let at = usize::try_from(at).unwrap();
        if at + 8 > self.bytes.len() {
            return Err(format!("byte {at} is beyond the end"));
        }
        Ok(be(self.bytes, at, 8))
    }

    fn count(&self, used: &mut BTreeMap<u64, u64>, at: u64, len: u64) -> Result<(), String> {
        if !at.is_multiple_of(self.cluster) || at + len > self.bytes.len() as u64 {
            return Err(format!("{len} bytes at byte {at} cannot be"));
        }
        for cluster in at / self.cluster..(at + len).div_ceil(self.cluster) {
            *used.entry(cluster).or_default() += 1;
        }
        Ok(())
    }

    /// Counts what an L1 table refers to; `own` gets the clusters, and whether they are marked as used
    /// once.
    fn disk(
        &self,
        used: &mut BTreeMap<u64, u64>,
        l1: u64,
        entries: u64,
        mut own: Option<&mut Vec<(u64, bool)>>,
    ) -> Result<(), String> {
        self.count(used, l1, entries * 8)?;
        let mut reference = |used: &mut BTreeMap<u64, u64>, word: u64| {
            let (offset, is_copied) = (word & 0x00ff_ffff_ffff_fe00, word >> 63 == 1);
            if offset == 0 {
                return Ok(None);
            }
            self.count(used, offset, 1)?;
            if let Some(own) = &mut own {
                own.push((offset / self.cluster, is_copied));
            }
            Ok::<_, String>(Some(offset))
        };
        for n in 0..entries {
            let Some(l2) = reference(used, self.word(l1 + 8 * n)?)? else { continue };
            for n in 0..self.cluster / 8 {
                reference(used, self.word(l2 + 8 * n)?)?;
            }
        }
        Ok(())
    }

    fn snapshots(&self, used: &mut BTreeMap<u64, u64>) -> Result<(), String> {
        let (count, start) = (be(self.bytes, 60, 4), be(self.bytes, 64, 8));
        let mut at = usize::try_from(start).unwrap();
        for _ in 0..count {
            let (l1, entries) = (be(self.bytes, at, 8), be(self.bytes, at + 8, 4));
            self.disk(used, l1, entries, None)?;
            let lengths = [(12, 2), (14, 2), (36, 4)].map(|(i, len)| be(self.bytes, at + i, len));
            let len = usize::try_from(lengths.iter().sum::<u64>()).unwrap();
            at = (at + 40 + len).next_multiple_of(8);
        }
        if count > 0 {
            self.count(used, start, at as u64 - start)?;
        }
        Ok(())
    }

    fn refcount(&self, block: u64, index: u64, order: u64) -> u64 {
        let (block, bit) = (usize::try_from(block).unwrap(), index << order);
        let byte = usize::try_from(bit / 8).unwrap();
        if order < 3 {
            return u64::from(self.bytes[block + byte]) >> (bit % 8) & ((1 << (1 << order)) - 1);
        }
        be(self.bytes, block + byte, 1 << (order - 3))
    }
}

fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
