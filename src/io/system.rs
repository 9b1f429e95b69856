//! What Linux can do and other systems cannot, each with what is done instead. Nothing else in the crate calls the kernel
//! in a way that macOS does not know; `tests/it/portability.rs` holds that.
//!
//! Files below /proc are read without regard to the system: where there is none, they are absent.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;

#[cfg(not(target_os = "linux"))]
use rustix::fs::{FileType, Mode, OFlags};
use rustix::path::Arg;

pub(crate) use platform::{
    begin_writing_out, copy_inside_kernel, device_numbers, file_system_kind, give_back, link, make_special,
    open_beneath, sync_file_system, unnamed,
};

#[cfg(target_os = "linux")]
mod platform {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, openat};

    use super::{Arg, AsFd, File, NonZeroU64, OwnedFd, Path, io};

    /// A file without a name in `directory`, a path from `base`, with the permission bits `mode`, that [`link`] can give one;
    /// `None` where the file system or a missing /proc does not allow that.
    pub(crate) fn unnamed(base: impl AsFd, directory: &Path, mode: u32) -> Option<File> {
        // The name is given through /proc, which a bare chroot may lack.
        if !Path::new("/proc/self/fd").exists() {
            return None;
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        openat(base, directory, flags, Mode::from_raw_mode(mode)).ok().map(File::from)
    }

    /// Gives the name `path`, from `base`, to a file without one. Never replaces.
    ///
    /// # Errors
    /// Those of linkat(2).
    pub(crate) fn link(file: &File, base: impl AsFd, path: &Path) -> io::Result<()> {
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, descriptor, base, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Opens a `name` below `base` and follows no link there. Kernels before 5.6, and sandboxes, have no openat2(2): then
    /// a link in the last part of `name` is refused by the flags alone.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub(crate) fn open_beneath(
        base: impl AsFd,
        name: impl Arg + Copy,
        flags: OFlags,
        mode: Mode,
    ) -> io::Result<OwnedFd> {
        use rustix::fs::{ResolveFlags, openat2};
        use rustix::io::Errno;

        let flags = flags | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&base, name, flags, mode, resolve) {
            Err(Errno::NOSYS | Errno::PERM) => openat(base, name, flags, mode).map_err(io::Error::from),
            opened => opened.map_err(io::Error::from),
        }
    }

    /// Gives back the room of `len` bytes at `offset`, which read as zeros from then on; `false` where that is not to be had.
    pub(crate) fn give_back(file: &File, offset: u64, len: u64) -> bool {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, hole, offset, len).is_ok()
    }

    /// Has the disk begin to write a stretch of a file, and waits for nothing but a disk that has too much to do. What is on the disk
    /// already may be dropped from memory: sync_file_range(2), which would not, is not to be had without unsafe code.
    pub(crate) fn begin_writing_out(file: &File, offset: u64, len: NonZeroU64) {
        let _ = rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::DontNeed);
    }

    /// Copies up to `len` bytes from one file and offset to another without passing them through this process, and moves
    /// both offsets; 0 at the end of `from`.
    ///
    /// # Errors
    /// Those of `copy_file_range(2)`: among them that these two file systems do not copy to each other.
    pub(crate) fn copy_inside_kernel(from: (&File, &mut u64), to: (&File, &mut u64), len: usize) -> io::Result<usize> {
        Ok(rustix::fs::copy_file_range(from.0, Some(from.1), to.0, Some(to.1), len)?)
    }

    /// Makes a named pipe or a device in a directory, with the major and minor number that a device has. Only its owner may use it.
    ///
    /// # Errors
    /// Those of mknodat(2).
    pub(crate) fn make_special(
        parent: impl AsFd,
        name: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> rustix::io::Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(parent, name, kind, mode, rustix::fs::makedev(major, minor))
    }

    /// The major and minor number of a device, from what its metadata say.
    pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
        (rustix::fs::major(device), rustix::fs::minor(device))
    }

    /// Makes all durable that the file system of `file` holds.
    pub(crate) fn sync_file_system(file: impl AsFd) {
        // What cannot be synced is as good as it gets.
        let _ = rustix::fs::syncfs(file);
    }

    /// The magic number of the file system that holds `file` (statfs(2)).
    pub(crate) fn file_system_kind(file: &File) -> Option<u64> {
        // The field is a signed word on some machines, and the numbers have 32 bits on all.
        rustix::fs::fstatfs(file).ok().map(|found| found.f_type as u64 & 0xffff_ffff)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use super::{Arg, AsFd, File, FileType, Mode, NonZeroU64, OFlags, OwnedFd, Path, io};

    /// `None`: every file has a name here.
    pub(crate) fn unnamed(_base: impl AsFd, _directory: &Path, _mode: u32) -> Option<File> {
        None
    }

    /// There is no file without a name to give one to.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn link(_file: &File, _base: impl AsFd, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a `name` below `base`; a link in its last part is refused.
    ///
    /// # Errors
    /// Those of openat(2).
    pub(crate) fn open_beneath(
        base: impl AsFd,
        name: impl Arg + Copy,
        flags: OFlags,
        mode: Mode,
    ) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(base, name, flags | OFlags::NOFOLLOW, mode)?)
    }

    /// `false`: room comes back when the file goes.
    pub(crate) fn give_back(_file: &File, _offset: u64, _len: u64) -> bool {
        false
    }

    /// The system begins when it likes.
    pub(crate) fn begin_writing_out(_file: &File, _offset: u64, _len: NonZeroU64) {}

    /// The caller copies by itself.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn copy_inside_kernel(
        _from: (&File, &mut u64),
        _to: (&File, &mut u64),
        _len: usize,
    ) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// It is not permitted, as to those who are not root elsewhere.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn make_special(
        _parent: impl AsFd,
        _name: &[u8],
        _kind: FileType,
        _device: (u32, u32),
    ) -> rustix::io::Result<()> {
        Err(rustix::io::Errno::PERM)
    }

    /// Device numbers have 32 bits here.
    pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
        let device = device as rustix::fs::Dev;
        (rustix::fs::major(device), rustix::fs::minor(device))
    }

    /// All file systems are synced, for there is no way to say which.
    pub(crate) fn sync_file_system(_file: impl AsFd) {
        rustix::fs::sync();
    }

    /// `None`: there are no such numbers.
    pub(crate) fn file_system_kind(_file: &File) -> Option<u64> {
        None
    }
}
