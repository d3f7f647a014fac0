//! Runs the steps of an amendment. All writes to keyslots of an existing image go through this module.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::crypto::random;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::{Fill, Stage, Step};
use crate::storage::transfer::{fetch, fetch_back, put, reserve, sync};
use crate::storage::{Storage, pieces, zeroed};

/// Runs the steps of `stages` in order. The first failure ends the commit with an error that describes
/// the state of the image. No write, sync or read error is ignored.
pub(crate) fn commit(
    storage: &dyn Storage,
    stages: impl IntoIterator<Item = Result<Stage>>,
) -> Result<()> {
    for stage in stages {
        let stage = stage?;
        for step in &stage.steps {
            run(storage, step).map_err(|error| error.and(&stage.on_failure))?;
        }
    }
    Ok(())
}

fn run(storage: &dyn Storage, step: &Step) -> Result<()> {
    match step {
        Step::Write { offset, bytes } => put(storage, bytes, *offset),
        Step::Copy { from, to, len } => put(storage, &fetch(storage, *from, *len)?, *to),
        Step::Reserve { offset, len } => reserve(storage, *offset, *len),
        Step::Expect { offset, bytes } => {
            if fetch(storage, *offset, bytes.len())? == **bytes {
                return Ok(());
            }
            let text = "another program changed the header during the amendment";
            Err(differs(text, *offset))
        }
        Step::VerifyCopy { from, to, len } => {
            if fetch_back(storage, *from, *len)? == fetch_back(storage, *to, *len)? {
                return Ok(());
            }
            let text = format!("{len} bytes at byte {from} and at byte {to} differ");
            Err(differs(text, *to))
        }
        Step::Wipe { offset, len, fill } => wipe(storage, *offset, *len, *fill),
        Step::Sync => sync(storage),
        Step::Verify { offset, bytes } => compare(storage, *offset, bytes),
    }
}

/// Fills an area and verifies it. An area can have 128 MiB, so it is processed in pieces, and the noise
/// is generated twice from one random seed.
fn wipe(storage: &dyn Storage, offset: u64, len: u64, fill: Fill) -> Result<()> {
    let mut seed = [0; 32];
    random::fill(&mut seed)?;
    let longest = usize::try_from(len).map_or(PIECE, |len| len.min(PIECE));
    let failed = |e| Error::failed_at(Operation::Write, len, offset, e);
    let mut bytes = zeroed(longest).map_err(failed)?;
    let mut each = |run: &dyn Fn(&[u8], u64) -> Result<()>| {
        let mut noise = StdRng::from_seed(seed);
        pieces(offset..offset.saturating_add(len), PIECE).try_for_each(|(at, len)| {
            if fill == Fill::Noise {
                noise.fill_bytes(&mut bytes[..len]);
            }
            run(&bytes[..len], at)
        })
    };
    each(&|bytes, at| put(storage, bytes, at))?;
    sync(storage)?;
    each(&|bytes, at| compare(storage, at, bytes))
}

/// Reads bytes back and compares them with those written.
fn compare(storage: &dyn Storage, offset: u64, written: &[u8]) -> Result<()> {
    let len = written.len();
    if fetch_back(storage, offset, len)? == written {
        return Ok(());
    }
    let text = format!("{len} bytes at byte {offset} read back differ from those written");
    Err(differs(text, offset))
}

fn differs(text: impl Into<String>, offset: u64) -> Error {
    Error::new(ErrorKind::Differs, text).with_offset(offset)
}

/// Bytes of a wipe held in memory at once. The key material of a 512-bit key fits.
const PIECE: usize = 256 << 10;
