//! Compares the contents of two images, on all cores.

use super::{CopyOptions, Side};
use crate::error::{Error, ErrorKind, Result};

impl CopyOptions {
    /// Compares both sides over the length of the source. The error [`ErrorKind::Differs`] has the
    /// first byte that differs as its [offset](Error::offset).
    pub fn compare(
        &self,
        source: Side<'_>,
        target: Side<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        self.each_piece(0..source.len(), 2, progress, |start, buffers| {
            let (one, other) = buffers.split_at_mut(buffers.len() / 2);
            source.read(one, start)?;
            target.read(other, start)?;
            match one.iter().zip(&*other).position(|(one, other)| one != other) {
                None => Ok(()),
                Some(at) => {
                    let at = start + at as u64;
                    let text = format!("byte {at} differs from what was written");
                    let error = Error::new(ErrorKind::Differs, text).with_offset(at);
                    Err(target.named(error))
                }
            }
        })
    }

    /// Checks that all bytes from `start` on are 0. The error [`ErrorKind::Differs`] has the first that
    /// is not as its [offset](Error::offset).
    pub fn check_zero(
        &self,
        side: Side<'_>,
        start: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        self.each_piece(start..side.len(), 1, progress, |start, buffer| {
            side.read(buffer, start)?;
            match buffer.iter().position(|byte| *byte != 0) {
                None => Ok(()),
                Some(at) => {
                    let at = start + at as u64;
                    let error = Error::new(ErrorKind::Differs, format!("byte {at} is not zero"));
                    Err(side.named(error.with_offset(at)))
                }
            }
        })
    }
}
