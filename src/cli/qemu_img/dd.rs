//! `qemu-img dd`: copies a part of an image into a new raw file.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use keyslot::qemu::{number, size_argument};
use keyslot::storage::{Place, Preallocation, Storage};
use keyslot::volume::Volume;
use keyslot::{Error, ErrorKind, Operation, Sharing};
use zeroize::Zeroizing;

use super::super::output::tell;
use super::super::report::Failure;
use super::super::secrets::Secrets;
use super::super::{ObjectArgs, Persona, image_spec};
use super::image::OpeningArgs;
use super::{Exit, Images, Result, Side};

/// Copy a part of an image
#[derive(Args)]
pub struct DdArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    #[command(flatten)]
    opening: OpeningArgs,

    /// Format of the source
    #[arg(short, long)]
    format: Option<String>,

    /// Format of the target
    #[arg(short = 'O', long)]
    output_format: Option<String>,

    /// if=FILE, of=FILE, bs=SIZE, count=N, skip=N
    operands: Vec<OsString>,
}

/// The operands. Of those that are given twice, the last one counts.
struct Operands<'a> {
    input: Option<&'a OsStr>,
    output: Option<&'a OsStr>,
    block: u64,
    count: Option<u64>,
    skip: Option<u64>,
}

impl DdArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        let objects = &self.objects.objects;
        let Ok(Operands { input: Some(input), output: Some(output), .. }) = self.operands() else {
            return Images::new(objects, []);
        };
        // dd has no options for a new LUKS image, and so cannot make one.
        let format = Some(self.target()).filter(|format| *format == "raw");
        let target = Side::New { name: Some(output), format: format.unwrap_or("") };
        Images::new(objects, [self.opening.named(input, self.format.as_deref()), target])
    }

    fn target(&self) -> &str {
        self.output_format.as_deref().unwrap_or("raw")
    }

    fn operands(&self) -> Result<Operands<'_>> {
        let mut operands =
            Operands { input: None, output: None, block: BLOCK, count: None, skip: None };
        for operand in &self.operands {
            let bytes = operand.as_bytes();
            let end = bytes.iter().position(|byte| *byte == b'=');
            let (name, value) = match end {
                Some(end) => (&bytes[..end], OsStr::from_bytes(&bytes[end + 1..])),
                None => (bytes, OsStr::new("")),
            };
            let text = value.to_string_lossy();
            match (end, name) {
                (Some(_), b"if") => operands.input = Some(value),
                (Some(_), b"of") => operands.output = Some(value),
                (Some(_), b"bs") => operands.block = block(&text)?,
                (Some(_), b"count") => operands.count = Some(count("count", &text)?),
                (Some(_), b"skip") => operands.skip = Some(count("skip", &text)?),
                _ => {
                    let name = String::from_utf8_lossy(name);
                    return Err(invalid(&format!("unrecognized operand {name}")));
                }
            }
        }
        Ok(operands)
    }
}

/// Runs the command.
pub fn run(args: &DdArgs) -> Exit {
    let secrets = Secrets::new(&args.objects.objects, [])?;
    let operands = args.operands()?;
    let (Some(input), Some(output)) = (operands.input, operands.output) else {
        return Err(invalid("Must specify both input and output files").into());
    };
    let source = args.opening.open(input, args.format.as_deref(), &secrets, Sharing::ReadStable)?;
    if args.target() != "raw" {
        return Err(invalid("Unknown file format").into());
    }
    let shown = output.to_string_lossy();
    let prefix = format!("{shown}: error while creating output image");
    let creating = Failure::creating(&prefix);
    let path = image_spec::file(output, Persona::QemuImg).map_err(&creating)?;
    let named = |error: Error| creating(error.with_path(&path));
    if source.is_file(&path) {
        return Err(named(invalid("it is the source")));
    }
    let (_, volume) = source.luks()?;
    let (range, is_beyond) = operands.range(volume.len());
    let len = range.end - range.start;
    let place = Place::new(&path, true).map_err(named)?.keep_file(true);
    let target = place.create(len.next_multiple_of(512), Preallocation::Off).map_err(named)?;
    if is_beyond {
        tell(&format!("qemu-img: {}: cannot skip to specified offset", input.to_string_lossy()));
    }
    copy(&volume, range, target.storage().as_ref()).map_err(|error| error.with_path(&path))?;
    target.publish().map_err(&creating)?;
    Ok(0)
}

impl Operands<'_> {
    /// Range of a source of `len` bytes that is copied, and whether it begins beyond the end.
    ///
    /// QEMU counts `count` from the start of the source, not from where `skip` leads.
    fn range(&self, len: u64) -> (Range<u64>, bool) {
        let blocks = |count: u64| count.checked_mul(self.block);
        let end = self.count.and_then(blocks).map_or(len, |end| end.min(len));
        match blocks(self.skip.unwrap_or(0)) {
            Some(start) if start <= end => (start..end, false),
            _ => (end..end, true),
        }
    }
}

/// Copies a range of the volume to the start of the target.
fn copy(volume: &Volume, range: Range<u64>, target: &dyn Storage) -> Result<()> {
    let mut buffer = Zeroizing::new(vec![0; PIECE]);
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).map_or(PIECE, |rest| rest.min(PIECE));
        volume.read_exact_at(&mut buffer[..len], at)?;
        let to = at - range.start;
        let failed = |e| Error::failed_at(Operation::Write, len as u64, to, e);
        target.write_all_at(&buffer[..len], to).map_err(failed)?;
        at += len as u64;
    }
    Ok(())
}

/// Parses `bs`.
fn block(text: &str) -> Result<u64> {
    let range = || invalid(&format!("Invalid bs specified. Must be between 1 and {MAX_BLOCK}."));
    match size_argument("bs", text) {
        Ok(block) if (1..=MAX_BLOCK).contains(&block) => Ok(block),
        Ok(_) => Err(range()),
        Err(error) if error.message().contains("between") => Err(range()),
        Err(error) => Err(error),
    }
}

/// Parses `count` or `skip`, which have no suffix.
fn count(what: &str, text: &str) -> Result<u64> {
    let syntax = || invalid(&format!("Invalid {what} specified: '{text}'."));
    let range = format!("Invalid {what} specified. Must be between 0 and {}.", i64::MAX);
    match number(what, text) {
        Ok(count) => u64::try_from(count).map_err(|_| invalid(&range)),
        Err(error) if error.message().ends_with("expects a number") => Err(syntax()),
        Err(_) => Err(invalid(&range)),
    }
}

/// `bs` if none is given
const BLOCK: u64 = 512;
/// QEMU's limit
const MAX_BLOCK: u64 = i32::MAX as u64;
/// Bytes copied at a time
const PIECE: usize = 1 << 20;

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
