//! The loop that all kernels share: XTS over runs of sectors, eight vectors of blocks in flight.
//!
//! IEEE 1619 has the initialisation vector of a sector encrypted once, T = E(K2, iv), and T x^j in
//! GF(2^128) added to block j before and after it is encrypted. What makes that fast is that nothing
//! waits:
//!
//! - the initialisation vectors of four sectors are encrypted together, and ahead of the sectors
//!   before them, so that their rounds run beside those of the data;
//! - no tweak is made of the one before it. The eight vectors of a sector's first group come from T
//!   by one multiplication each, and each further vector from the one eight vectors before;
//! - a group's tweaks are made during the rounds of the group before it, and lie in memory: registers
//!   are for the data;
//! - a tweak is kept with the last round key added. So it takes the place of that key in the last
//!   round, and comes off again in the first with a constant.

// SAFETY: in this file everything is `unsafe` for the same two reasons, which the comments below
// mean by "as the caller promises": the CPU has what the vector needs, and `Sectors` points
// to memory that is there.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use core::mem::swap;

use super::schedule::{Block, Keys, Schedule};
use super::sectors::{SectorIvs, Sectors};

/// Does something for each vector of a group: spelled out, for the compiler may leave it a loop.
macro_rules! each_vector {
    ($index:ident => $what:expr) => {{
        each_vector!($index 0 $what); each_vector!($index 1 $what);
        each_vector!($index 2 $what); each_vector!($index 3 $what);
        each_vector!($index 4 $what); each_vector!($index 5 $what);
        each_vector!($index 6 $what); each_vector!($index 7 $what);
    }};
    ($index:ident $value:literal $what:expr) => {{
        let $index: usize = $value;
        $what;
    }};
}

/// A vector of AES blocks: what a CPU works on at a time.
///
/// All functions need the CPU features of their kernel, and are inlined into one that enables these.
pub(super) trait Lanes: Copy {
    /// Blocks in a vector: 1, 2 or 4
    const LANES: usize;

    /// Whether a group's tweaks are better made all at once than one vector each round (measured)
    const TWEAKS_AT_ONCE: bool;

    /// Loads a vector, wherever it is aligned.
    unsafe fn load(from: *const u8) -> Self;

    /// Stores a vector, wherever it is aligned.
    unsafe fn store(self, to: *mut u8);

    /// The same block in all lanes.
    unsafe fn splat(block: &Block) -> Self;

    /// The sum of two vectors in GF(2^128).
    unsafe fn xor(self, other: Self) -> Self;

    /// Times x^n in the first lane, x^(n + 1) in the second, ...; n is below 32.
    unsafe fn times(self, n: usize) -> Self;

    /// Times x^(`DEPTH` * `LANES`): as many blocks further on.
    unsafe fn further(self) -> Self;

    /// What is added to a block before its first round.
    unsafe fn whitening(keys: &Schedule) -> Self;

    /// A round, but not the last: `round` is 1 for the first.
    unsafe fn round<const ENCRYPT: bool>(self, keys: &Schedule, round: usize) -> Self;

    /// The last round, `rounds`, with `last` in place of its key.
    unsafe fn last_round<const ENCRYPT: bool>(
        self,
        keys: &Schedule,
        rounds: usize,
        last: Self,
    ) -> Self;

    /// Keeps the compiler from working through one block after the other, as it likes to where
    /// registers are few: that would leave nothing to do while a round takes its time.
    unsafe fn together(blocks: &mut [Self; DEPTH]);
}

/// Vectors in flight: a round takes four cycles, and two can begin in each.
pub(super) const DEPTH: usize = 8;

/// Encrypts or decrypts sectors. Their size is a multiple of `DEPTH` * `LANES` blocks.
///
/// # Panics
///
/// If it is not.
///
/// # Safety
///
/// The CPU has what `V` needs.
#[inline(always)]
pub(super) unsafe fn run<V: Lanes, const ROUNDS: usize, const ENCRYPT: bool>(
    keys: &Keys,
    ivs: SectorIvs<'_>,
    sectors: &Sectors<'_>,
) {
    let size = sectors.size();
    assert!(size > 0 && size.is_multiple_of(DEPTH * V::LANES * 16), "sectors of {size} bytes");
    // SAFETY: as the caller promises.
    unsafe {
        match sectors.count() {
            0 => {}
            1 => one::<V, ROUNDS, ENCRYPT>(keys, ivs, sectors),
            _ => many::<V, ROUNDS, ENCRYPT>(keys, ivs, sectors),
        }
    }
}

/// A single sector, without what pays only for several.
#[inline(always)]
unsafe fn one<V: Lanes, const ROUNDS: usize, const ENCRYPT: bool>(
    keys: &Keys,
    mut ivs: SectorIvs<'_>,
    sectors: &Sectors<'_>,
) {
    // SAFETY: as the caller promises. The groups fill the sector.
    unsafe {
        let data = Data::<V>::new::<ROUNDS, ENCRYPT>(keys);
        let tweak = encrypted::<V, ROUNDS>(&keys.tweak, V::splat(&ivs.next()));
        let mut tweaks = [tweak; DEPTH];
        each_vector!(index => tweaks[index] = tweak.times(index * V::LANES).xor(data.last_key));
        let (mut from, mut to) = sectors.pointers();
        let mut left = sectors.size();
        loop {
            group::<V, ROUNDS, ENCRYPT>(&data, from, to, &tweaks, &Nothing);
            left -= DEPTH * V::LANES * 16;
            if left == 0 {
                return;
            }
            each_vector!(index => tweaks[index] = tweaks[index].further().xor(data.further_key));
            from = from.add(DEPTH * V::LANES * 16);
            to = to.add(DEPTH * V::LANES * 16);
        }
    }
}

#[inline(always)]
unsafe fn many<V: Lanes, const ROUNDS: usize, const ENCRYPT: bool>(
    keys: &Keys,
    mut ivs: SectorIvs<'_>,
    sectors: &Sectors<'_>,
) {
    // SAFETY: as the caller promises. The groups fill the sectors; the pointers to tweaks are into
    // `ring` and `tables`.
    unsafe {
        let data = Data::<V>::new::<ROUNDS, ENCRYPT>(keys);
        let count = sectors.count();
        let mut ring = Ring([Block::default(); 2 * BATCH]);
        let ring = ring.0.as_mut_ptr();
        encrypt_ivs::<V, ROUNDS>(&keys.tweak, &mut ivs, ring, count);
        let mut tables = [[data.last_key; DEPTH]; 2];
        let tables = tables.as_mut_ptr();
        let (mut now, mut next) = (tables, tables.add(1));
        First { tweak: ring, to: now, last_key: data.last_key }.all();
        let (mut from, mut to) = sectors.pointers();
        for index in 0..count {
            if index % BATCH == 0 && index + BATCH < count {
                let batch = ring.add((index + BATCH) % (2 * BATCH));
                encrypt_ivs::<V, ROUNDS>(&keys.tweak, &mut ivs, batch, count - index - BATCH);
            }
            let mut left = sectors.size();
            while left > DEPTH * V::LANES * 16 {
                let further = Further { from: now, to: next, key: data.further_key };
                group::<V, ROUNDS, ENCRYPT>(&data, from, to, &*now, &further);
                swap(&mut now, &mut next);
                left -= DEPTH * V::LANES * 16;
                from = from.add(DEPTH * V::LANES * 16);
                to = to.add(DEPTH * V::LANES * 16);
            }
            let tweak = ring.add((index + 1) % (2 * BATCH));
            let first = First { tweak, to: next, last_key: data.last_key };
            group::<V, ROUNDS, ENCRYPT>(&data, from, to, &*now, &first);
            swap(&mut now, &mut next);
            from = from.add(DEPTH * V::LANES * 16);
            to = to.add(DEPTH * V::LANES * 16);
        }
    }
}

/// Sectors whose initialisation vectors are encrypted together
const BATCH: usize = 4;

/// The tweaks of the sectors in work, and of those after them.
#[repr(C, align(64))]
struct Ring([Block; 2 * BATCH]);

/// Makes the tweaks of the next sectors, `left` of which there are; what is past the end means
/// nothing.
#[inline(always)]
unsafe fn encrypt_ivs<V: Lanes, const ROUNDS: usize>(
    keys: &Schedule,
    ivs: &mut SectorIvs<'_>,
    batch: *mut Block,
    left: usize,
) {
    // SAFETY: there is room for a batch, and `LANES` divides it.
    unsafe {
        batch.cast::<[Block; BATCH]>().write([ivs.next(), ivs.next(), ivs.next(), ivs.next()]);
        let mut at = 0;
        while at < BATCH && at < left {
            let blocks = batch.add(at).cast::<u8>();
            encrypted::<V, ROUNDS>(keys, V::load(blocks)).store(blocks);
            at += V::LANES;
        }
    }
}

#[inline(always)]
unsafe fn encrypted<V: Lanes, const ROUNDS: usize>(keys: &Schedule, blocks: V) -> V {
    // SAFETY: as the caller promises.
    unsafe {
        let mut blocks = blocks.xor(V::whitening(keys));
        for round in 1..ROUNDS {
            blocks = blocks.round::<true>(keys, round);
        }
        blocks.last_round::<true>(keys, ROUNDS, V::splat(&keys.0[ROUNDS]))
    }
}

/// The keys of the data, and what is made of them.
struct Data<'a, V> {
    keys: &'a Schedule,
    last_key: V,
    /// What takes the last round key off a tweak, and adds the first
    first_and_last_key: V,
    /// What makes up for the last round key's having been multiplied
    further_key: V,
}

impl<'a, V: Lanes> Data<'a, V> {
    #[inline(always)]
    unsafe fn new<const ROUNDS: usize, const ENCRYPT: bool>(keys: &'a Keys) -> Self {
        let keys = if ENCRYPT { &keys.encrypt } else { &keys.decrypt };
        // SAFETY: as the caller promises.
        unsafe {
            let last_key = V::splat(&keys.0[ROUNDS]);
            let first_and_last_key = last_key.xor(V::whitening(keys));
            let further_key = last_key.xor(last_key.further());
            Self { keys, last_key, first_and_last_key, further_key }
        }
    }
}

/// Encrypts or decrypts [`DEPTH`] vectors, and does something `aside`.
#[inline(always)]
unsafe fn group<V: Lanes, const ROUNDS: usize, const ENCRYPT: bool>(
    data: &Data<'_, V>,
    from: *const u8,
    to: *mut u8,
    tweaks: &[V; DEPTH],
    aside: &impl Aside,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut blocks = [data.first_and_last_key; DEPTH];
        each_vector!(index => {
            let block = V::load(from.add(index * V::LANES * 16));
            blocks[index] = block.xor(tweaks[index]).xor(data.first_and_last_key);
        });
        macro_rules! rounds {
            ($($round:literal)*) => {$(
                if $round < ROUNDS {
                    each_vector!(index => {
                        blocks[index] = blocks[index].round::<ENCRYPT>(data.keys, $round);
                    });
                    V::together(&mut blocks);
                    match $round {
                        1 if V::TWEAKS_AT_ONCE => aside.all(),
                        2..10 if !V::TWEAKS_AT_ONCE => aside.vector($round - 2),
                        _ => {}
                    }
                }
            )*};
        }
        // Spelled out, for the compiler leaves it a loop: AES-256 has 14, the last among them.
        rounds!(1 2 3 4 5 6 7 8 9 10 11 12 13);
        each_vector!(index => {
            let block = blocks[index].last_round::<ENCRYPT>(data.keys, ROUNDS, tweaks[index]);
            block.store(to.add(index * V::LANES * 16));
        });
    }
}

/// What is done while rounds take their time, a [`DEPTH`]th at a time.
trait Aside {
    unsafe fn vector(&self, index: usize);

    #[inline(always)]
    unsafe fn all(&self) {
        // SAFETY: as the caller promises.
        unsafe { each_vector!(index => self.vector(index)) }
    }
}

struct Nothing;

impl Aside for Nothing {
    #[inline(always)]
    unsafe fn vector(&self, _index: usize) {}
}

/// The tweaks of a sector's first group.
struct First<V> {
    tweak: *const Block,
    to: *mut [V; DEPTH],
    last_key: V,
}

impl<V: Lanes> Aside for First<V> {
    #[inline(always)]
    unsafe fn vector(&self, index: usize) {
        // SAFETY: as whoever made it promises.
        unsafe {
            let tweak = V::splat(&*self.tweak).times(index * V::LANES);
            (*self.to)[index] = tweak.xor(self.last_key);
        }
    }
}

/// The tweaks of the next group of the same sector.
struct Further<V> {
    from: *const [V; DEPTH],
    to: *mut [V; DEPTH],
    key: V,
}

impl<V: Lanes> Aside for Further<V> {
    #[inline(always)]
    unsafe fn vector(&self, index: usize) {
        // SAFETY: as whoever made it promises.
        unsafe { (*self.to)[index] = (*self.from)[index].further().xor(self.key) }
    }
}
