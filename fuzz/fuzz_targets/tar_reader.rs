//! Any bytes, taken for a tar: every entry read with its data, and again with its data passed over. Nothing may panic, hang
//! or allocate without bound; what an entry says of itself must be true of the input, and both ways must see the same.
#![no_main]

mod checksums;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use sif_convert::tar::{Entries, Entry, Sequential};
use sif_convert::{Error, ErrorKind};

/// What was found: each entry's name and the place of its data, and which kind of error ended it.
type Found = (Vec<(Vec<u8>, u64)>, Option<ErrorKind>);

fn entries(bytes: &[u8], mut data: impl FnMut(&Entry, &mut Entries<Sequential<&[u8]>>) -> Result<(), Error>) -> Found {
    let mut entries = Entries::new(Sequential(bytes));
    let mut found = Vec::new();
    let mut next = || -> Result<bool, Error> {
        let Some(entry) = entries.next_entry()? else { return Ok(false) };
        check(&entry, bytes);
        found.push((entry.raw_path.clone(), entry.data_offset));
        data(&entry, &mut entries).map(|()| true)
    };
    let error = loop {
        match next() {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidImage | ErrorKind::Unsupported), "{error}");
                break Some(error.kind());
            }
        }
    };
    assert!(entries.position() <= bytes.len() as u64);
    (found, error)
}

fn check(entry: &Entry, bytes: &[u8]) {
    assert!(entry.data_offset <= bytes.len() as u64 && entry.data_offset % 512 == 0);
    assert!(entry.size <= i64::MAX as u64 && entry.metadata.mode.bits() <= 0o7777);
    let Some(segments) = &entry.segments else {
        assert_eq!(entry.size, entry.stored_bytes);
        return;
    };
    let mut end = 0;
    for segment in segments {
        assert!(segment.at >= end && segment.len > 0);
        end = segment.at + segment.len;
    }
    assert!(end <= entry.size);
    assert_eq!(segments.iter().map(|segment| segment.len).sum::<u64>(), entry.stored_bytes);
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    checksums::mutate_tar(data, size, max_size, seed)
});

fuzz_target!(|bytes: &[u8]| {
    let read = entries(bytes, |entry, entries| {
        let mut read = 0;
        entries.for_each_piece(|piece| {
            read += piece.len() as u64;
            Ok(())
        })?;
        assert_eq!(read, entry.stored_bytes);
        Ok(())
    });
    let passed_over = entries(bytes, |_, _| Ok(()));
    assert_eq!(read, passed_over);
});
