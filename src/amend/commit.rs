//! The only code that writes keyslots: it runs the steps that a header lowered a plan to.

use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};
use crate::storage::{Storage, read};

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
    let copied = |from: u64, len: usize| {
        let what = format_args!("read {len} bytes at byte {from}");
        read(storage, from, len).map_err(|e| Error::io(what, e))
    };
    match step {
        Step::Write { offset, bytes } => storage.write_all_at(bytes, *offset).map_err(|e| {
            Error::io(format_args!("write {} bytes at byte {offset}", bytes.len()), e)
        }),
        Step::Copy { from, to, len } => {
            let bytes = copied(*from, *len)?;
            let what = format_args!("write {len} bytes at byte {to}");
            storage.write_all_at(&bytes, *to).map_err(|e| Error::io(what, e))
        }
        Step::Reserve { offset, len } => storage
            .reserve(*offset, *len)
            .map_err(|e| Error::io(format_args!("reserve {len} bytes at byte {offset}"), e)),
        Step::Expect { offset, bytes } => {
            if copied(*offset, bytes.len())? == **bytes {
                return Ok(());
            }
            let text = "another program wrote the header meanwhile";
            Err(Error::new(ErrorKind::Differs, text))
        }
        Step::VerifyCopy { from, to, len } => {
            storage.evict(*from, *len as u64);
            storage.evict(*to, *len as u64);
            if copied(*from, *len)? == copied(*to, *len)? {
                return Ok(());
            }
            let text = format!("{len} bytes at byte {from} and at byte {to} differ");
            Err(Error::new(ErrorKind::Differs, text))
        }
        Step::Sync => storage.sync_data().map_err(|e| Error::io("sync", e)),
        Step::Verify { offset, bytes } => {
            storage.evict(*offset, bytes.len() as u64);
            let found = read(storage, *offset, bytes.len()).map_err(|e| {
                Error::io(format_args!("read back {} bytes at byte {offset}", bytes.len()), e)
            })?;
            if found == **bytes {
                return Ok(());
            }
            let text = format!(
                "{} bytes at byte {offset} read back differ from those written",
                bytes.len()
            );
            Err(Error::new(ErrorKind::Differs, text))
        }
    }
}
