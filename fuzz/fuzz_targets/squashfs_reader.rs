//! Any bytes, taken for a squashfs: walked, checked, its files read. Nothing may panic, hang or allocate without bound; an
//! image that passes the check must give all its names, extended attributes and contents.
#![no_main]

use std::io;
use std::num::NonZeroUsize;

use libfuzzer_sys::fuzz_target;
use sif_convert::io::Monitor;
use sif_convert::squashfs::{Entry, Image, InodeKind};
use sif_convert::{Error, ErrorKind};

/// Files are read up to this size in bytes, together: holes can make one file of any size.
const READ_BYTES_MAX: u64 = 4 << 20;

fn read(image: &Image<Vec<u8>>, entry: &Entry, read_bytes: &mut u64) -> Result<(), Error> {
    image.xattrs(&entry.inode)?;
    let InodeKind::File(file) = &entry.inode.kind else { return Ok(()) };
    if file.size > READ_BYTES_MAX - *read_bytes {
        return Ok(());
    }
    *read_bytes += file.size;
    image.copy_file(&entry.inode, &mut io::sink())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::open(bytes.to_vec()) else { return };
    let verified = image.verify(NonZeroUsize::MIN, &Monitor::default());
    if let Err(error) = &verified {
        assert!(matches!(error.kind(), ErrorKind::InvalidImage | ErrorKind::Unsupported), "{error}");
    }
    let mut read_bytes = 0;
    for entry in image.entries() {
        let result = entry.and_then(|entry| read(&image, &entry, &mut read_bytes));
        if let Err(error) = result {
            assert!(verified.is_err(), "an image that passes the check must be readable: {error}");
            break;
        }
    }
});
