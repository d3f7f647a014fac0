//! The rows: what is asked of which image. What is expected is what qemu-img does.

/// The image that a row starts from.
#[derive(Clone, Copy, Debug)]
pub enum Base {
    /// No keyslot at all is active
    NoneActive,
    /// Keyslot 0 has secret 0
    One,
    /// Keyslots 0 and 1 have secrets 0 and 1
    Two,
    /// Keyslots 0 to 4 have secrets 0, 1, 0, 2, 1
    Twice,
    /// All keyslots are in use, each with another secret
    Full,
}

/// `-o OPTIONS`, on an image opened with secret 0.
pub struct Row {
    pub base: Base,
    pub options: &'static str,
    pub force: bool,
}

const fn plain(base: Base, options: &'static str) -> Row {
    Row { base, options, force: false }
}

const fn forced(base: Base, options: &'static str) -> Row {
    Row { base, options, force: true }
}

use Base::{Full, NoneActive, One, Twice, Two};

pub const OPTIONS: &[Row] = &[
    // The state.
    plain(One, "keyslot=1"),
    plain(One, "new-secret=sec1"),
    plain(One, "state=foo"),
    plain(One, "state=Active"),
    plain(One, "state="),
    plain(One, "state"),
    plain(One, "nostate"),
    // Adding.
    plain(One, "state=active"),
    plain(One, "state=active,keyslot=1"),
    plain(One, "state=active,old-secret=sec0"),
    plain(One, "state=active,new-secret=sec1,old-secret=sec0"),
    plain(One, "state=active,new-secret=nosuch,old-secret=sec0"),
    plain(One, "state=active,new-secret=sec1,iter-time=10"),
    plain(One, "state=active,new-secret=sec0,iter-time=10"),
    plain(Two, "state=active,new-secret=sec1,iter-time=10"),
    plain(Twice, "state=active,new-secret=sec9,iter-time=10"),
    plain(One, "state=active,new-secret=sec1,keyslot=7,iter-time=10"),
    plain(One, "state=active,new-secret=sec1,keyslot=6,iter-time=10"),
    plain(Full, "state=active,new-secret=sec9,iter-time=10"),
    forced(Full, "state=active,new-secret=sec9,iter-time=10"),
    plain(One, "state=active,new-secret=sec1,keyslot=8"),
    plain(One, "state=active,new-secret=sec1,keyslot=-1"),
    plain(One, "state=active,new-secret=sec1,keyslot=-2147483648"),
    plain(One, "state=active,new-secret=sec1,keyslot=2147483647"),
    forced(One, "state=active,new-secret=sec1,keyslot=8"),
    plain(One, "state=active,new-secret=sec1,keyslot=0"),
    plain(One, "state=active,new-secret=nosuch,keyslot=0"),
    plain(Two, "state=active,new-secret=sec2,keyslot=1"),
    forced(One, "state=active,new-secret=sec1,keyslot=0,iter-time=10"),
    forced(Two, "state=active,new-secret=sec2,keyslot=0,iter-time=10"),
    forced(One, "state=active,new-secret=sec1,keyslot=1,iter-time=10"),
    forced(Full, "state=active,new-secret=sec9,keyslot=3,iter-time=10"),
    plain(One, "state=active,new-secret=nosuch"),
    plain(One, "state=active,new-secret="),
    plain(One, "state=active,new-secret"),
    plain(Full, "state=active,new-secret=nosuch"),
    plain(NoneActive, "state=active,new-secret=sec1"),
    // The time it takes.
    plain(One, "state=active,new-secret=sec1,iter-time=0"),
    plain(One, "state=active,new-secret=sec1,iter-time=1"),
    plain(One, "state=active,new-secret=sec1,iter-time=-5"),
    plain(One, "state=active,new-secret=sec1,iter-time=9223372036854775807"),
    plain(One, "state=active,new-secret=sec1,iter-time=5000000,keyslot=3"),
    plain(One, "state=active,new-secret=sec1,iter-time=ten"),
    plain(One, "state=active,new-secret=sec1,iter-time="),
    // Erasing by keyslot.
    plain(One, "state=inactive"),
    forced(One, "state=inactive"),
    plain(One, "state=inactive,new-secret=sec1"),
    plain(One, "state=inactive,new-secret=nosuch,iter-time=5"),
    plain(One, "state=inactive,iter-time=10"),
    plain(Two, "state=inactive,keyslot=1,iter-time=10"),
    plain(Two, "state=inactive,keyslot=1,new-secret=sec1"),
    plain(One, "state=inactive,keyslot=8"),
    forced(One, "state=inactive,keyslot=8"),
    plain(One, "state=inactive,keyslot=-1"),
    forced(One, "state=inactive,keyslot=-1"),
    plain(One, "state=inactive,keyslot=0"),
    forced(One, "state=inactive,keyslot=0"),
    plain(One, "state=inactive,keyslot=1"),
    forced(One, "state=inactive,keyslot=1"),
    plain(Two, "state=inactive,keyslot=0"),
    plain(Two, "state=inactive,keyslot=1"),
    plain(Full, "state=inactive,keyslot=6"),
    forced(Two, "state=inactive,keyslot=1"),
    plain(NoneActive, "state=inactive,keyslot=0"),
    forced(NoneActive, "state=inactive,keyslot=0"),
    // Erasing by secret.
    plain(One, "state=inactive,old-secret=sec1"),
    forced(One, "state=inactive,old-secret=sec1"),
    plain(One, "state=inactive,old-secret=sec0"),
    forced(One, "state=inactive,old-secret=sec0"),
    plain(Two, "state=inactive,old-secret=sec0"),
    plain(Two, "state=inactive,old-secret=sec1"),
    plain(Twice, "state=inactive,old-secret=sec0"),
    plain(Twice, "state=inactive,old-secret=sec1"),
    plain(Full, "state=inactive,old-secret=sec7"),
    plain(One, "state=inactive,old-secret=nosuch"),
    plain(One, "state=inactive,old-secret="),
    // By both.
    plain(Two, "state=inactive,old-secret=sec1,keyslot=0"),
    forced(Two, "state=inactive,old-secret=sec1,keyslot=0"),
    plain(One, "state=inactive,old-secret=sec0,keyslot=1"),
    forced(One, "state=inactive,old-secret=sec0,keyslot=1"),
    plain(One, "state=inactive,old-secret=sec0,keyslot=0"),
    forced(One, "state=inactive,old-secret=sec0,keyslot=0"),
    plain(Two, "state=inactive,old-secret=sec1,keyslot=1"),
    plain(Twice, "state=inactive,old-secret=sec1,keyslot=4"),
    plain(Two, "state=inactive,old-secret=sec1,keyslot=8"),
    plain(Two, "state=inactive,old-secret=nosuch,keyslot=8"),
    // How numbers are read.
    plain(Two, "state=inactive,keyslot=0x1"),
    plain(Two, "state=inactive,keyslot= 1"),
    plain(Two, "state=inactive,keyslot=01"),
    plain(Two, "state=inactive,keyslot=+1"),
    plain(Two, "state=inactive,keyslot=1k"),
    plain(Two, "state=inactive,keyslot=1 "),
    plain(Two, "state=inactive,keyslot=1.5"),
    plain(Two, "state=inactive,keyslot="),
    plain(Two, "state=inactive,keyslot"),
    plain(Two, "state=inactive,nokeyslot"),
    plain(Two, "state=inactive,keyslot=0b1"),
    plain(Two, "state=inactive,keyslot=08"),
    plain(Two, "state=inactive,keyslot=9223372036854775808"),
    plain(Two, "state=inactive,keyslot=18446744073709551616"),
    plain(Two, "state=inactive,keyslot=-18446744073709551616"),
    // Which fault is named, of several.
    plain(One, "state=foo,keyslot=x,iter-time=y"),
    plain(One, "iter-time=y,keyslot=x"),
    plain(One, "keyslot=x,foo=1"),
    plain(One, "foo=1,keyslot=x"),
    plain(One, "state=inactive,new-secret=nosuch,keyslot=99,iter-time=-1"),
    plain(One, "state=active,keyslot=99,iter-time=x"),
    // How option lists are read.
    plain(Two, "keyslot=0,state=active,state=inactive,keyslot=1"),
    plain(One, "state=active,new-secret=sec1,,x"),
    plain(One, "state=active,,inactive"),
    plain(One, "state=active,"),
    plain(One, ",state=active"),
    plain(One, ""),
    plain(One, ","),
    plain(One, ",,"),
    plain(One, "foo"),
    plain(One, "foo=1"),
    plain(One, "=1"),
    plain(One, "state=inactive,=1"),
    plain(One, "nofoo"),
    plain(One, "id=x,state=foo"),
    plain(One, "State=active"),
    plain(One, "secret=sec0"),
    plain(One, "state=inactive,keyslot=0,secret=sec0"),
    plain(One, "cipher-alg=aes-256"),
    plain(One, "state=active,key-secret=sec0"),
    plain(One, "size=1M"),
    plain(One, "preallocation=off"),
    plain(One, "detached-header=on"),
    plain(One, "encrypt.state=active"),
    plain(One, "help"),
    plain(One, "state=foo,help"),
    plain(One, "?"),
    plain(One, "help=x"),
];

/// A command line that ours refuses, with this text.
pub struct Stricter {
    pub base: Base,
    pub arguments: &'static str,
    pub text: &'static str,
    pub reason: &'static str,
}

const fn stricter(
    base: Base,
    arguments: &'static str,
    text: &'static str,
    reason: &'static str,
) -> Stricter {
    Stricter { base, arguments, text, reason }
}

/// Where ours refuses what qemu-img does or refuses in other words: all of it.
///
/// Besides, an erased area holds zeros, where QEMU leaves random bytes, and a changed keyslot is
/// durable when it is reported.
pub const STRICTER: &[Stricter] = &[
    stricter(
        Two,
        "SECRETS IMAGE -o state=inactive,keyslot=4294967297",
        "Invalid keyslot 4294967297 specified, must be between 0 and 7",
        "QEMU cuts it to 32 bits and erases keyslot 1",
    ),
    stricter(
        One,
        "SECRETS IMAGE -o state=active,new-secret=sec1,keyslot=4294967297,iter-time=10",
        "Invalid keyslot 4294967297 specified, must be between 0 and 7",
        "QEMU cuts it to 32 bits and writes keyslot 1",
    ),
    stricter(
        One,
        "SECRETS IMAGE -o state=active,new-secret=sec1,keyslot=-4294967295,iter-time=10",
        "Invalid keyslot -4294967295 specified, must be between 0 and 7",
        "QEMU cuts it to 32 bits and writes keyslot 1",
    ),
    stricter(
        One,
        "SECRETS --image-opts driver=luks,file.filename=a.luks,file.locking=off,key-secret=sec0 -o state=inactive,keyslot=0 --force",
        "Could not open 'driver=luks,file.filename=a.luks,file.locking=off,key-secret=sec0': file.locking=off is refused: the image is always locked",
        "an amendment beside another writer destroys keyslots",
    ),
    stricter(
        One,
        "SECRETS --image-opts file.filename=plain,key-secret=sec0 -o state=inactive",
        "Could not open 'file.filename=plain,key-secret=sec0': Volume is not in LUKS format",
        "QEMU takes it for a raw image, and says that those have no key-secret",
    ),
    stricter(
        One,
        "SECRETS IMAGE --i -o state=inactive",
        "qemu-img amend: unrecognized option '--i'\nTry 'qemu-img amend --help' for more info",
        "--image-opts is not the only option of ours that begins so: --iter-time, --iterations",
    ),
];

/// A command line that qemu-img refuses, and ours takes, printing this.
pub struct Lenient {
    pub arguments: &'static str,
    pub text: &'static str,
    pub reason: &'static str,
}

pub const LENIENT: &[Lenient] = &[
    Lenient {
        arguments: "-o help",
        text: keyslot::qemu::AMEND_HELP,
        reason: "help for the only format there is needs no -f",
    },
    Lenient {
        arguments: "-o help nosuch",
        text: keyslot::qemu::AMEND_HELP,
        reason: "nor an image that opens",
    },
    Lenient {
        arguments: "-o help a.luks",
        text: keyslot::qemu::AMEND_HELP,
        reason: "nor its secret",
    },
];

/// What ours says under its own name, with which exit status.
pub struct Ours {
    pub base: Base,
    pub options: &'static str,
    pub status: i32,
    /// Behind `keyslot: `
    pub text: &'static str,
}

const fn ours(base: Base, options: &'static str, status: i32, text: &'static str) -> Ours {
    Ours { base, options, status, text }
}

pub const UNDER_OUR_NAME: &[Ours] = &[
    ours(One, "state=foo", 1, "a.luks: Parameter 'state' does not accept value 'foo'"),
    ours(One, "foo", 1, "a.luks: Invalid parameter 'foo'"),
    ours(NoneActive, "state=inactive", 2, "a.luks: Invalid password, cannot unlock any keyslot"),
    ours(
        One,
        "state=inactive,keyslot=0",
        1,
        "a.luks: Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - refusing operation",
    ),
    ours(
        One,
        "state=inactive,old-secret=sec1",
        2,
        "a.luks: No keyslots match given (old) password for erase operation",
    ),
    ours(
        Two,
        "state=inactive,old-secret=sec1,keyslot=0",
        2,
        "a.luks: Given keyslot 0 doesn't contain the given old password for erase operation",
    ),
    ours(
        Full,
        "state=active,new-secret=sec9",
        1,
        "a.luks: Can't add a keyslot - all keyslots are in use",
    ),
    ours(One, "state=active,new-secret=nosuch", 1, "a.luks: No secret with id 'nosuch'"),
];
