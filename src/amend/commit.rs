//! The only code that writes keyslots: it runs the steps that a header lowered a plan to.

use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};
use crate::storage::Storage;
use crate::storage::transfer::{fetch, fetch_back, put, reserve, sync};

/// Runs the steps of `stages` in their order. The first that fails ends it, with an error that
/// says in which state the image is; no error of a write, a sync or a read is ignored.
pub(crate) fn commit(storage: &dyn Storage, stages: &[Stage]) -> Result<()> {
    for stage in stages {
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
            let text = "another program wrote the header meanwhile";
            Err(differs(text, *offset))
        }
        Step::VerifyCopy { from, to, len } => {
            if fetch_back(storage, *from, *len)? == fetch_back(storage, *to, *len)? {
                return Ok(());
            }
            let text = format!("{len} bytes at byte {from} and at byte {to} differ");
            Err(differs(text, *to))
        }
        Step::Sync => sync(storage),
        Step::Verify { offset, bytes } => {
            let len = bytes.len();
            if fetch_back(storage, *offset, len)? == **bytes {
                return Ok(());
            }
            let text = format!("{len} bytes at byte {offset} read back differ from those written");
            Err(differs(text, *offset))
        }
    }
}

fn differs(text: impl Into<String>, offset: u64) -> Error {
    Error::new(ErrorKind::Differs, text).with_offset(offset)
}
