//! Finds the processes that hold a lock, so that an "in use" error can name them.
//!
//! `F_OFD_GETLK` does not name the holder: it reports a pid of -1, because the lock belongs to an
//! open file description, which has no process. But every process with such a description shows its
//! locks in `/proc/PID/fdinfo/FD` (`proc_pid_fdinfo(5)`), in the line format of `/proc/locks`:
//!
//! ```text
//! lock:   1: OFDLCK ADVISORY  READ -1 fe:00:10010760 100 101
//! lock:   1: FLOCK  ADVISORY  WRITE 4711 fe:00:10010760 0 EOF
//! ```
//!
//! The result is for messages only. It is found after the fact and omits processes that we may not
//! inspect, are in other pid namespaces or on other machines, so it may be empty. Between the fork
//! and the exec of a child, it may name the child too.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process;

/// A process that holds a lock.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Process name as the kernel has it: at most 15 bytes, chosen by the process.
    pub name: String,
}

/// The lock to look for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Lock {
    /// An OFD lock, or a traditional record lock, over any of these bytes.
    Bytes(Vec<u8>),
    /// `flock(2)`.
    Flock,
    /// A lease (`fcntl(2)`, `F_SETLEASE`), or a delegation.
    Lease,
}

/// Limit on the descriptors inspected in all processes together. Each takes some microseconds.
const MAX_DESCRIPTORS: usize = 100_000;

/// Limit on the bytes read of one fdinfo. Locks come before file-specific lines.
const MAX_FDINFO: u64 = 64 * 1024;

/// The processes that hold `lock` on the file by other descriptions than `file`, by pid.
pub(super) fn holders(file: &File, lock: &Lock) -> Vec<Holder> {
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let own = (process::id(), file.as_raw_fd().unsigned_abs());
    find(&metadata, lock, Some(own))
}

/// The processes that hold `lock` on a file, by pid.
pub(super) fn holders_of(file: &Metadata, lock: &Lock) -> Vec<Holder> {
    find(file, lock, None)
}

fn find(file: &Metadata, lock: &Lock, own: Option<(u32, u32)>) -> Vec<Holder> {
    let inode = (file.dev(), file.ino());
    let mut left = MAX_DESCRIPTORS;

    let mut holders: Vec<_> = numbers(Path::new("/proc"))
        .filter(|&pid| {
            numbers(Path::new(&format!("/proc/{pid}/fdinfo")))
                .take_while(|_| {
                    left = left.saturating_sub(1);
                    left > 0
                })
                .any(|fd| Some((pid, fd)) != own && holds(pid, fd, inode, lock))
        })
        .filter_map(Holder::of)
        .collect();
    holders.sort();
    holders
}

/// Whether a descriptor other than `file` leads to the same file, in a process that may be inspected.
pub(super) fn is_open_elsewhere(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let own = (process::id(), file.as_raw_fd().unsigned_abs());
    let name = fs::read_link(format!("/proc/{}/fd/{}", own.0, own.1)).ok();
    let descriptors = numbers(Path::new("/proc"))
        .flat_map(|pid| numbers(Path::new(&format!("/proc/{pid}/fd"))).map(move |fd| (pid, fd)));
    let mut others = descriptors.take(MAX_DESCRIPTORS).filter(|it| *it != own);
    others.any(|(pid, fd)| leads_to(pid, fd, &metadata, name.as_deref()))
}

/// Whether the descriptor leads to the file. `name` is the file's, for kernels before 5.14, whose
/// fdinfo does not have the inode.
fn leads_to(pid: u32, fd: u32, file: &Metadata, name: Option<&Path>) -> bool {
    let Ok(fdinfo) = read(&format!("/proc/{pid}/fdinfo/{fd}"), MAX_FDINFO) else { return false };
    let path = format!("/proc/{pid}/fd/{fd}");
    let inode = fdinfo.lines().find_map(|line| line.strip_prefix("ino:"));
    let may_be = match inode.map(|it| it.trim().parse()) {
        Some(inode) => inode == Ok(file.ino()),
        None => name.is_some() && fs::read_link(&path).ok().as_deref() == name,
    };
    // stat last, as in `holds`.
    may_be && fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

/// Whether the descriptor has the lock and belongs to the file.
fn holds(pid: u32, fd: u32, inode: (u64, u64), lock: &Lock) -> bool {
    let Ok(fdinfo) = read(&format!("/proc/{pid}/fdinfo/{fd}"), MAX_FDINFO) else { return false };
    // stat last: it hangs if the file is on a server that is gone.
    fdinfo.lines().any(|line| lock.is_in(line))
        && fs::metadata(format!("/proc/{pid}/fd/{fd}"))
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == inode)
}

impl Lock {
    /// Whether this line of an fdinfo describes such a lock.
    fn is_in(&self, line: &str) -> bool {
        let Some(line) = line.strip_prefix("lock:") else { return false };
        let mut words = line.split_whitespace().skip(1); // its ordinal
        match (self, words.next()) {
            (Self::Flock, Some("FLOCK")) | (Self::Lease, Some("LEASE" | "DELEG")) => true,
            (Self::Bytes(bytes), Some("OFDLCK" | "POSIX")) => {
                // ADVISORY, READ or WRITE, pid, device and inode
                let mut range = words.skip(4);
                let Some(Ok(start)) = range.next().map(str::parse) else { return false };
                let end = match range.next() {
                    Some("EOF") => u64::MAX,
                    Some(end) => end.parse().unwrap_or(start),
                    None => start,
                };
                bytes.iter().any(|byte| (start..=end).contains(&u64::from(*byte)))
            }
            _ => false,
        }
    }
}

impl Holder {
    pub(super) fn of(pid: u32) -> Option<Self> {
        let name = read(&format!("/proc/{pid}/comm"), 64).ok()?;
        // The name goes into a message for a terminal, so control characters are replaced.
        let name = name.trim_end_matches('\n').replace(char::is_control, "?");
        Some(Self { pid, name })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The numeric entries of a directory. Empty if the directory cannot be read.
fn numbers(dir: &Path) -> impl Iterator<Item = u32> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn read(path: &str, max: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lock_lines() {
        let bytes = Lock::Bytes(vec![101, 203]);
        let is_lease =
            Lock::Lease.is_in("lock:\t1: LEASE  BREAKING  READ 4711 fe:00:10010760 0 EOF");
        assert!(is_lease && !Lock::Lease.is_in("lock:\t1: FLOCK  ADVISORY  WRITE 1 fe:00:1 0 EOF"));
        for (line, is_bytes, is_flock) in [
            ("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:10010760 100 101", true, false),
            ("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:10010760 100 100", false, false),
            ("lock:\t2: OFDLCK ADVISORY  WRITE -1 fe:00:10010760 203 203", true, false),
            ("lock:\t1: POSIX  ADVISORY  WRITE 4711 fe:00:10010760 0 EOF", true, false),
            ("lock:\t1: POSIX  ADVISORY  WRITE 4711 fe:00:10010760 204 EOF", false, false),
            ("lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:00:10010760 0 EOF", false, true),
            ("lock:\t1: LEASE  ACTIVE    READ 4711 fe:00:10010760 0 EOF", false, false),
            ("lock:\t1: OFDLCK ADVISORY", false, false),
            ("lock:", false, false),
            ("pos:\t101", false, false),
        ] {
            assert_eq!(bytes.is_in(line), is_bytes, "{line}");
            assert_eq!(Lock::Flock.is_in(line), is_flock, "{line}");
        }
    }

    #[test]
    fn finds_another_descriptor_of_ours_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ours = File::open(file.path()).unwrap();
        assert_eq!(holders(&ours, &Lock::Flock), []);

        let others = [File::open(file.path()).unwrap(), File::open(file.path()).unwrap()];
        for other in &others {
            other.lock_shared().unwrap();
        }
        let found = holders(&ours, &Lock::Flock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, process::id());
        assert!(!found[0].name.is_empty());
    }
    #[test]
    fn another_descriptor_of_the_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ours = file.reopen().unwrap();
        assert!(is_open_elsewhere(&ours));
        let path = file.into_temp_path();
        assert!(!is_open_elsewhere(&ours));
        let other = File::open(&path).unwrap();
        assert!(is_open_elsewhere(&ours) && is_open_elsewhere(&other));
    }
}
