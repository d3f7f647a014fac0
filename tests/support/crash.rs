//! Every state that a crash can leave on the disk.
//!
//! What was synced is there. Of the sectors (512 bytes) written since, any subset may be: each
//! as it was, or as any of the writes that touched it left it. Where there are few, all subsets
//! are visited; where there are many, every prefix and every suffix of the writes, and every
//! state with a single sector missing or a single sector there.

use std::collections::BTreeMap;

use super::memory::Op;

/// Calls `visit` with each state that a crash during `log` can leave of `before`; says how many.
pub fn states(before: &[u8], log: &[Op], visit: impl FnMut(&[u8])) -> usize {
    states_up_to(ALL_SUBSETS, before, log, visit)
}

/// The same, where of more than `subsets` subsets only some are visited: a few prefixes of the writes,
/// and what follows each.
pub fn states_up_to(
    subsets: usize,
    before: &[u8],
    log: &[Op],
    mut visit: impl FnMut(&[u8]),
) -> usize {
    let mut durable = before.to_vec();
    let mut pending = Vec::new();
    let mut count = 0;
    for op in log.iter().chain([&Op::Sync]) {
        match op {
            Op::Write { offset, bytes } => pending.push((*offset, bytes.as_slice())),
            Op::Sync => {
                count += since_sync(subsets, &durable, &pending, &mut visit);
                for (offset, bytes) in pending.drain(..) {
                    durable[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
    }
    count
}

/// Of these states those that what was written after the last sync can leave.
pub fn last_states(before: &[u8], log: &[Op], visit: impl FnMut(&[u8])) -> usize {
    last_states_up_to(ALL_SUBSETS, before, log, visit)
}

/// The same of some subsets only.
pub fn last_states_up_to(
    subsets: usize,
    before: &[u8],
    log: &[Op],
    mut visit: impl FnMut(&[u8]),
) -> usize {
    let last = log.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |last| last + 1);
    let (durable, pending) = log.split_at(last);
    let mut state = before.to_vec();
    for op in durable {
        if let Op::Write { offset, bytes } = op {
            state[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
    states_up_to(subsets, &state, pending, &mut visit)
}

/// A sector as one of the writes left it.
struct Version {
    sector: usize,
    bytes: Vec<u8>,
}

fn since_sync(
    subsets: usize,
    durable: &[u8],
    writes: &[(usize, &[u8])],
    visit: &mut impl FnMut(&[u8]),
) -> usize {
    let versions = versions(durable, writes);
    let mut state = durable.to_vec();
    let mut by_sector = BTreeMap::<usize, Vec<&Version>>::new();
    for version in &versions {
        by_sector.entry(version.sector).or_default().push(version);
    }
    let product = by_sector.values().try_fold(1_usize, |product, versions| {
        product.checked_mul(versions.len() + 1).filter(|&product| product <= subsets)
    });
    if let Some(product) = product {
        for number in 0..product {
            let mut number = number;
            for (&sector, versions) in &by_sector {
                let choice = number % (versions.len() + 1);
                number /= versions.len() + 1;
                let bytes = match choice {
                    0 => &durable[range(sector, durable)],
                    n => &versions[n - 1].bytes,
                };
                state[range(sector, durable)].copy_from_slice(bytes);
            }
            visit(&state);
        }
        return product;
    }

    let mut count = 0;
    let mut show = |versions: &mut dyn Iterator<Item = &Version>| {
        state.copy_from_slice(durable);
        for version in versions {
            state[range(version.sector, durable)].copy_from_slice(&version.bytes);
        }
        visit(&state);
        count += 1;
    };
    let step = if subsets < ALL_SUBSETS { versions.len().div_ceil(PREFIXES) } else { 1 };
    for n in (0..versions.len()).step_by(step).chain([versions.len()]) {
        show(&mut versions[..n].iter());
        show(&mut versions[n..].iter());
    }
    for &sector in by_sector.keys().step_by(step) {
        show(&mut versions.iter().filter(|version| version.sector != sector));
        show(&mut versions.iter().filter(|version| version.sector == sector));
    }
    count
}

/// The sectors that the writes change, in their order, each with its content from then on.
fn versions(durable: &[u8], writes: &[(usize, &[u8])]) -> Vec<Version> {
    let mut live = durable.to_vec();
    let mut versions = Vec::new();
    for (offset, bytes) in writes {
        live[*offset..offset + bytes.len()].copy_from_slice(bytes);
        for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
            let bytes = &live[range(sector, durable)];
            // Written as it was, it is what it was.
            let is_known = versions.iter().any(|other: &Version| other.sector == sector);
            if is_known || *bytes != durable[range(sector, durable)] {
                versions.push(Version { sector, bytes: bytes.to_vec() });
            }
        }
    }
    versions
}

fn range(sector: usize, image: &[u8]) -> std::ops::Range<usize> {
    sector * SECTOR..((sector + 1) * SECTOR).min(image.len())
}

const SECTOR: usize = 512;
/// As many subsets as are all visited: 12 sectors, each there or not.
const ALL_SUBSETS: usize = 1 << 12;
/// So many prefixes where only some are visited
const PREFIXES: usize = 6;
