//! The only code that writes keyslots: it runs the steps that a header lowered a plan to.

use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};
use crate::storage::Storage;

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
        Step::Write { offset, bytes } => storage.write_all_at(bytes, *offset).map_err(|e| {
            Error::io(format_args!("write {} bytes at byte {offset}", bytes.len()), e)
        }),
        Step::Sync => storage.sync_data().map_err(|e| Error::io("sync", e)),
        Step::Verify { offset, bytes } => {
            storage.evict(*offset, bytes.len() as u64);
            let mut found = vec![0; bytes.len()];
            storage.read_exact_at(&mut found, *offset).map_err(|e| {
                Error::io(format_args!("read back {} bytes at byte {offset}", bytes.len()), e)
            })?;
            if found == **bytes {
                return Ok(());
            }
            let text = format!(
                "{} bytes at byte {offset} read back differ from those written",
                bytes.len()
            );
            Err(Error::new(ErrorKind::Io, text))
        }
    }
}
