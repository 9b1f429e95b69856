use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Reads a file that people or other programs configure us with: a regular file of at most `bytes_max` bytes. A named pipe
/// or a device in its place is refused at once, because reading it may never end.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is no such file, and whatever else keeps it from being read.
pub(crate) fn read_settings_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(io::ErrorKind::NotFound.into()),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "12345").unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read_settings_file(&path("file"), 5).unwrap(), b"12345");
        assert_eq!(read_settings_file(&path("file"), 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_settings_file(&path("pipe"), 5).unwrap_err().to_string(), "not a regular file");
        assert_eq!(read_settings_file(&path("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read_settings_file(&path("file/x"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read_settings_file(directory.path(), 5).is_err());
    }
}
