use nix::libc;

use super::*;
use crate::storage::sharing::Conflict;

/// Linux's numbers, which are the same on all its architectures.
#[test]
fn the_systems_error_is_the_kind() {
    for (number, kind) in [
        (libc::ENOENT, ErrorKind::NotFound),
        (libc::EACCES, ErrorKind::PermissionDenied),
        (libc::EPERM, ErrorKind::PermissionDenied),
        (libc::EROFS, ErrorKind::PermissionDenied),
        (libc::ENOSPC, ErrorKind::NoSpace),
        (libc::EDQUOT, ErrorKind::NoSpace),
        (libc::EEXIST, ErrorKind::Exists),
        (libc::EBUSY, ErrorKind::InUse),
        (libc::ENOMEM, ErrorKind::OutOfMemory),
        (libc::EINTR, ErrorKind::Cancelled),
        (libc::EIO, ErrorKind::Io),
    ] {
        let error = Error::io("sync", io::Error::from_raw_os_error(number));
        assert_eq!((error.kind(), error.raw_os_error()), (kind, Some(number)), "{error}");
        assert_eq!((error.operation(), error.to_string()), (None, "cannot sync".to_owned()));
    }
    assert_eq!(Error::io("read", io::ErrorKind::NotFound.into()).raw_os_error(), None);
}

#[test]
fn an_error_carries_its_context() {
    let full = io::Error::from_raw_os_error(libc::ENOSPC);
    let error = Error::failed_at(Operation::Write, 512, 4096, full).with_keyslot(3);
    assert_eq!(error.to_string(), "cannot write 512 bytes at byte 4096");
    assert_eq!(error.operation(), Some(Operation::Write));
    assert_eq!((error.offset(), error.keyslot()), (Some(4096), Some(3)));

    // The layer nearest to the failure has the most precise context.
    let named = error.with_keyslot(4).with_offset(0).with_path("a").with_path("b");
    assert_eq!((named.offset(), named.keyslot()), (Some(4096), Some(3)));
    assert_eq!(named.to_string(), "a: cannot write 512 bytes at byte 4096");
    let printed = format!("{named:?}");
    assert!(printed.contains("Write") && printed.contains("4096"), "{printed}");
}

/// A volume over a volume reports the error of the innermost storage.
#[test]
fn the_systems_number_is_found_below_other_errors() {
    let full = Error::io("write", io::Error::from_raw_os_error(libc::ENOSPC));
    let outer = Error::io("write", io::Error::new(io::ErrorKind::StorageFull, full));
    let number = (outer.kind(), outer.raw_os_error());
    assert_eq!(number, (ErrorKind::NoSpace, Some(libc::ENOSPC)));
}

#[test]
fn a_reason_is_found_by_its_type() {
    let error = Error::new(ErrorKind::Refused, "no").with_reason(fmt::Error);
    assert_eq!(error.reason::<fmt::Error>(), Some(&fmt::Error));
    assert!(error.reason::<Conflict>().is_none() && error.source().is_none());
    let in_use = Error::new(ErrorKind::InUse, "no").with_source(Conflict::default());
    assert_eq!(in_use.reason::<Conflict>(), Some(&Conflict::default()));
}

#[test]
fn an_error_is_one_pointer() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn an_error_in_a_systems_error_keeps_its_kind_and_hint() {
    let inner = Error::new(ErrorKind::Unsupported, "is compressed").with_hint("convert it");
    let error = Error::io("read it", io::Error::other(inner));
    assert_eq!((error.kind(), error.hint()), (ErrorKind::Unsupported, Some("convert it")));
    assert_eq!(error.message(), "cannot read it");
}
