//! Who takes part.

use crate::{Work, evp, kernels, limit};

/// Something that encrypts or decrypts sectors, its key and direction already chosen.
pub trait Contender {
    /// Does the work once, in place where it is on data, and returns how many bytes that were.
    fn pass(&mut self, data: &mut [u8]) -> usize;
}

/// A column.
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    pub contender: Box<dyn Contender>,
}

/// What a column is compared with. Widths are those of the vectors, in bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Limit { width: u32 },
    Keyslot { width: Option<u32> },
    AwsLc,
    OpenSsl,
}

/// Everybody who can do this work on this machine.
pub fn all(work: Work) -> Vec<Entry> {
    let mut entries = limit::entries(work);
    entries.extend(kernels::entries(work));
    if let Some(context) = evp::aws_lc::Context::new(work) {
        entries.push(entry("AWS-LC", Kind::AwsLc, context));
    }
    if let Some(context) = evp::openssl::Context::new(work) {
        entries.push(entry("OpenSSL", Kind::OpenSsl, context));
    }
    entries
}

pub fn entry(name: impl Into<String>, kind: Kind, contender: impl Contender + 'static) -> Entry {
    Entry { name: name.into(), kind, contender: Box::new(contender) }
}

/// One sector, a few, and enough for every loop of a kernel and its remainder; twice, because a
/// context is used again and again.
pub fn assert_same_bytes(work: Work, entries: &mut [Entry]) {
    for sectors in [1, 2, 3, 5, 8, 13, 64, 127] {
        let input: Vec<u8> =
            (0..sectors * work.sector_size).map(|i| ((i * i) >> 3).to_le_bytes()[0]).collect();
        let mut expected: Option<(String, Vec<u8>)> = None;
        for entry in entries.iter_mut().filter(|entry| !matches!(entry.kind, Kind::Limit { .. })) {
            for _ in 0..2 {
                let mut data = input.clone();
                assert_eq!(entry.contender.pass(&mut data), input.len());
                assert_ne!(data, input, "{} did nothing", entry.name);
                match &expected {
                    None => expected = Some((entry.name.clone(), data)),
                    Some((name, bytes)) => {
                        let same = data == *bytes;
                        assert!(same, "{name} and {} differ: {work:?}, {sectors}", entry.name);
                    }
                }
            }
        }
    }
}
