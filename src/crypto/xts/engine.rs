//! The loop shared by all kernels: XTS over runs of sectors, with eight vectors of blocks in
//! flight.
//!
//! IEEE 1619 encrypts the initialisation vector of a sector once, T = E(K2, iv), and adds T x^j in
//! GF(2^128) to block j before and after its encryption. The loop is fast because it avoids
//! dependencies:
//!
//! - the initialisation vectors of four sectors are encrypted together, ahead of those sectors, so
//!   that their rounds overlap with those of the data;
//! - no tweak depends on the one before it. The eight vectors of a sector's first group come from T
//!   by one multiplication each, and each further vector from the one eight vectors before;
//! - a group's tweaks are computed during the rounds of the group before it and stored in memory,
//!   because registers are needed for the data;
//! - a tweak is stored with the last round key added. It takes the place of that key in the last
//!   round, and a constant removes the key again in the first.

// SAFETY: everything in this file is `unsafe` for the same two reasons, abbreviated below to "as
// the caller promises": the CPU supports the vector's instructions, and `Sectors` points to valid
// memory.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use core::mem::swap;

use super::schedule::{Block, Keys, Schedule};
use super::sectors::{SectorIvs, Sectors};

/// Repeats a statement for each vector of a group. Unrolled, because the compiler may not unroll a
/// loop.
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

/// A vector of AES blocks, the unit that a CPU processes at a time.
///
/// All functions need the CPU features of their kernel, and are inlined into one that enables
/// these.
pub(super) trait Lanes: Copy {
    /// Blocks in a vector: 1, 2 or 4
    const LANES: usize;

    /// Whether computing all tweaks of a group at once is faster than one vector each round
    /// (measured)
    const TWEAKS_AT_ONCE: bool;

    /// Loads a vector from an unaligned address.
    unsafe fn load(from: *const u8) -> Self;

    /// Stores a vector to an unaligned address.
    unsafe fn store(self, to: *mut u8);

    /// Copies the block to all lanes.
    unsafe fn splat(block: &Block) -> Self;

    /// The sum of two vectors in GF(2^128).
    unsafe fn xor(self, other: Self) -> Self;

    /// Multiplies by x^n in the first lane, x^(n + 1) in the second, and so on; n is below 32.
    unsafe fn times(self, n: usize) -> Self;

    /// Multiplies by x^(`DEPTH` * `LANES`), which advances by one group of blocks.
    unsafe fn further(self) -> Self;

    /// The key added to a block before its first round.
    unsafe fn whitening(keys: &Schedule) -> Self;

    /// Performs a round other than the last; `round` is 1 for the first.
    unsafe fn round<const ENCRYPT: bool>(self, keys: &Schedule, round: usize) -> Self;

    /// Performs the last round, `rounds`, with `last` in place of its key.
    unsafe fn last_round<const ENCRYPT: bool>(
        self,
        keys: &Schedule,
        rounds: usize,
        last: Self,
    ) -> Self;

    /// Prevents the compiler from processing one block after the other to save registers, which
    /// would leave the AES unit idle while a round completes.
    unsafe fn together(blocks: &mut [Self; DEPTH]);
}

/// Vectors in flight: a round takes four cycles, and two can start in each cycle.
pub(super) const DEPTH: usize = 8;

/// Encrypts or decrypts sectors, whose size must be a multiple of `DEPTH` * `LANES` blocks.
///
/// # Panics
///
/// Panics if the size is not such a multiple.
///
/// # Safety
///
/// The CPU must support `V`.
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

/// Processes a single sector, without the optimisations that pay only for several.
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

/// Tweaks of the sectors being processed and of those after them.
#[repr(C, align(64))]
struct Ring([Block; 2 * BATCH]);

/// Computes the tweaks of the next sectors, `left` of which remain. Tweaks past the end are unused.
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

/// The data keys and constants derived from them.
struct Data<'a, V> {
    keys: &'a Schedule,
    last_key: V,
    /// Removes the last round key from a tweak and adds the first
    first_and_last_key: V,
    /// Compensates for the multiplication of the last round key
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

/// Encrypts or decrypts [`DEPTH`] vectors, running `aside` in between.
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
        // Unrolled, because the compiler would leave a loop. AES-256 has 14 rounds including the
        // last.
        rounds!(1 2 3 4 5 6 7 8 9 10 11 12 13);
        each_vector!(index => {
            let block = blocks[index].last_round::<ENCRYPT>(data.keys, ROUNDS, tweaks[index]);
            block.store(to.add(index * V::LANES * 16));
        });
    }
}

/// Work done while rounds complete, in [`DEPTH`] parts.
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

/// Computes the tweaks of a sector's first group.
struct First<V> {
    tweak: *const Block,
    to: *mut [V; DEPTH],
    last_key: V,
}

impl<V: Lanes> Aside for First<V> {
    #[inline(always)]
    unsafe fn vector(&self, index: usize) {
        // SAFETY: as the creator of `self` promised.
        unsafe {
            let tweak = V::splat(&*self.tweak).times(index * V::LANES);
            (*self.to)[index] = tweak.xor(self.last_key);
        }
    }
}

/// Computes the tweaks of the next group of the same sector.
struct Further<V> {
    from: *const [V; DEPTH],
    to: *mut [V; DEPTH],
    key: V,
}

impl<V: Lanes> Aside for Further<V> {
    #[inline(always)]
    unsafe fn vector(&self, index: usize) {
        // SAFETY: as the creator of `self` promised.
        unsafe { (*self.to)[index] = (*self.from)[index].further().xor(self.key) }
    }
}
