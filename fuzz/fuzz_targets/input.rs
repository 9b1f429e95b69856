//! What the targets share that read image archives: bytes as a file with a name, the writing of an archive, and which errors may come.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use sif_convert::{Error, ErrorKind};

thread_local! {
    /// One file in memory for all inputs: making one for each would take most of the time.
    static FILE: OnceCell<File> = const { OnceCell::new() };
}

/// The name of a file that holds the bytes until the next call.
pub fn path(bytes: &[u8]) -> PathBuf {
    FILE.with(|file| {
        let file = file.get_or_init(|| memfd_create("input", MemfdFlags::CLOEXEC).expect("a file in memory").into());
        file.set_len(bytes.len() as u64).expect("its length can be set");
        file.write_all_at(bytes, 0).expect("it can be written");
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    })
}

/// An error that blames the input, and not us or the machine.
pub fn expected(error: Error) -> Error {
    let blames_input = matches!(
        error.kind(),
        ErrorKind::InvalidImage
            | ErrorKind::Unsupported
            | ErrorKind::Mismatch
            | ErrorKind::SourceUnavailable
            | ErrorKind::Usage
    );
    assert!(blames_input && !error.to_string().is_empty(), "{:?}: {error}", error.kind());
    error
}
