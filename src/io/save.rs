use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::{CHUNK_BYTES, Monitor, no_thread};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::model::{Algorithm, Digest, Hasher};

/// How many chunks are on their way between the two threads.
const CHUNKS: usize = 8;
/// After how many bytes what has come begins its way to the disk.
const FLUSHED_BYTES: u64 = 32 << 20;

/// Writes what comes over the network to the start of `file`, and returns its SHA-256 and length in bytes. Where a `size` is
/// expected, not more than one byte beyond it: that shows that the stream is too long.
///
/// A second thread hashes: that takes as long as all else together. A third brings to the disk what has come, so that not all of
/// it is left to do at the end.
///
/// # Errors
/// [`ErrorKind::Network`] when reading fails, [`ErrorKind::Output`] or [`ErrorKind::NoSpace`] when writing does, and those of
/// [`Monitor::check`].
pub(crate) fn save(reader: impl Read, file: &File, size: Option<u64>, monitor: &Monitor) -> Result<(Digest, u64)> {
    let mut reader = reader.take(size.map_or(u64::MAX, |size| size.saturating_add(1)));
    let (to_hash, chunks) = sync_channel::<(Vec<u8>, usize)>(CHUNKS);
    let (give_back, hashed) = sync_channel(CHUNKS);
    for _ in 0..CHUNKS {
        // Nobody has closed it, and there is room.
        let _ = give_back.send(vec![0; CHUNK_BYTES]);
    }
    thread::scope(|scope| {
        let start = || thread::Builder::new();
        let hashing = start().spawn_scoped(scope, move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            for (chunk, count) in chunks {
                hasher.update(&chunk[..count]);
                // Where the reader has ended, nobody needs it.
                let _ = give_back.send(chunk);
            }
            hasher.finish()
        });
        let hashing = hashing.map_err(no_thread)?;
        let (to_flush, grown) = sync_channel::<()>(1);
        // An error that is told once is not told again: it must not get lost here.
        let flushing = start().spawn_scoped(scope, move || grown.iter().try_for_each(|()| file.sync_data()));
        let flushing = flushing.map_err(no_thread)?;
        let panicked = || Error::new(ErrorKind::Bug, "a hashing thread panicked");
        let mut position = 0;
        loop {
            let mut chunk = hashed.recv().map_err(|_| panicked())?;
            let count = fill(&mut reader, &mut chunk, monitor)?;
            file.write_all_at(&chunk[..count], position).or_kind(ErrorKind::Output)?;
            let before = position;
            position += count as u64;
            if before / FLUSHED_BYTES != position / FLUSHED_BYTES {
                // While it is at work, the next time will do.
                let _ = to_flush.try_send(());
            }
            let ended = count < chunk.len();
            to_hash.send((chunk, count)).map_err(|_| panicked())?;
            if ended {
                break;
            }
        }
        drop((to_hash, to_flush));
        flushing.join().map_err(|_| panicked())?.or_kind(ErrorKind::Output)?;
        Ok((hashing.join().map_err(|_| panicked())?, position))
    })
}

/// Reads until `chunk` is full or the stream ends.
fn fill(reader: &mut impl Read, chunk: &mut [u8], monitor: &Monitor) -> Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        monitor.check()?;
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                monitor.advance(count as u64);
            }
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(Error::io(ErrorKind::Network, error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_any_length_are_saved_and_hashed() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 9 + 5).map(|at| (at % 251) as u8).collect();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES * 2, bytes.len()] {
            let file = tempfile::tempfile().unwrap();
            let saved = save(&bytes[..length], &file, None, &Monitor::default()).unwrap();
            assert_eq!(saved, (Digest::of(&bytes[..length]), length as u64));
            let mut found = vec![0; length + 1];
            assert_eq!(file.read_at(&mut found, 0).unwrap(), length);
            assert!(found[..length] == bytes[..length]);
        }
    }

    #[test]
    fn one_byte_too_many_is_read_and_no_more() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(save(&[7; 100][..], &file, Some(9), &Monitor::default()).unwrap().1, 10);
    }

    #[test]
    fn errors_end_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(Io::ConnectionReset.into())
            }
        }
        let file = tempfile::tempfile().unwrap();
        let cut = save((&[1; 300_000][..]).chain(Broken), &file, None, &Monitor::default()).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Network);
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(save(&[1; 10][..], &full, None, &Monitor::default()).unwrap_err().kind(), ErrorKind::NoSpace);
        let stopped = Monitor::default();
        stopped.stop(ErrorKind::Terminated);
        assert_eq!(save(&[1; 10][..], &file, None, &stopped).unwrap_err().kind(), ErrorKind::Terminated);
    }
}
