//! Disks that are soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of a few KiB, gone when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `path`, which is made; `None` where that is not allowed.
    pub fn mount(path: PathBuf, kib: u64) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
