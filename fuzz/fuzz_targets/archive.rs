//! A tar of plain files, written without the library that is under test.

/// A tar that grows by one file after the other.
#[derive(Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file. `name` has less than 100 bytes.
    pub fn add(&mut self, name: &str, data: &[u8]) {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, field) in [
            (100, "0000644\0".to_owned()),
            (108, "0000000\0".to_owned()),
            (116, "0000000\0".to_owned()),
            (124, format!("{:011o}\0", data.len())),
            (136, "00000000000\0".to_owned()),
            (148, " ".repeat(8)),
            (156, "0".to_owned()),
            (257, "ustar\u{0}00".to_owned()),
        ] {
            header[at..at + field.len()].copy_from_slice(field.as_bytes());
        }
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// The whole tar, with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
