//! A disk with an MBR, in memory, whose partition 2 is an image.

use std::ops::Range;

/// Number of the image's partition
pub const NUMBER: u32 = 2;

/// The image between two other partitions, which are full.
pub fn around(image: &[u8]) -> Vec<u8> {
    assert_eq!(image.len() % 512, 0);
    let len = image.len() / 512;
    let mut record = vec![0; 512];
    for (number, (start, len)) in [(1, 3), (4, len), (4 + len, 8)].into_iter().enumerate() {
        let entry = &mut record[446 + 16 * number..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        entry[12..].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    }
    record[510..].copy_from_slice(b"\x55\xaa");
    [&record, &[0xa5; 3 * 512][..], image, &[0x5a; 8 * 512]].concat()
}

/// Where the image is in such a disk. `None` if this is none.
pub fn area(disk: &[u8]) -> Option<Range<usize>> {
    let is_disk = disk[..440].iter().all(|&byte| byte == 0) && disk[510..512] == *b"\x55\xaa";
    is_disk.then(|| 4 * 512..disk.len() - 8 * 512)
}
