//! Who has a file open, and with which locks, from `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The ranges that a process has OFD locks on in a file, in order, from `/proc`.
pub fn ofd_locks(pid: u32, path: &Path) -> Vec<String> {
    let mut locks = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let fd = format!("/proc/{pid}/fd/{}", entry.file_name().display());
        if fs::read_link(fd).is_ok_and(|target| target == path) {
            let fdinfo = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines = fdinfo.lines().filter(|line| line.contains("OFDLCK"));
            locks.extend(lines.map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                words[words.len() - 2..].join(" ")
            }));
        }
    }
    locks.sort();
    locks
}

/// The ranges of OFD locks on a file, in order, from `/proc/locks`.
pub fn locks(path: &Path) -> Vec<String> {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let text = fs::read_to_string("/proc/locks").unwrap();
    let lines = text.lines().filter(|line| line.contains("OFDLCK") && line.contains(&inode));
    let mut locks: Vec<_> = lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[words.len() - 2..].join(" ")
        })
        .collect();
    locks.sort();
    locks.dedup();
    locks
}

/// How often a process has a file open.
pub fn descriptors(pid: u32, path: &Path) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|it| it == path)).count()
}
