use std::fmt;

/// An architecture as SIF writes it: two ASCII digits and a NUL. Codes this version does not know are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Architecture([u8; 3]);

/// Code and name in Go's spelling. 13 is known to newer readers only; older ones show it as unknown.
const CODES: [(&[u8; 3], &str); 13] = [
    (b"01\0", "386"),
    (b"02\0", "amd64"),
    (b"03\0", "arm"),
    (b"04\0", "arm64"),
    (b"05\0", "ppc64"),
    (b"06\0", "ppc64le"),
    (b"07\0", "mips"),
    (b"08\0", "mipsle"),
    (b"09\0", "mips64"),
    (b"10\0", "mips64le"),
    (b"11\0", "s390x"),
    (b"12\0", "riscv64"),
    (b"13\0", "loong64"),
];

impl Architecture {
    /// Code 00: no primary system partition, or nobody knows. Runtimes skip their check then.
    pub const UNKNOWN: Architecture = Architecture(*b"00\0");

    /// The code of an architecture in Go's spelling (`amd64`, `arm64`, …); `None` where SIF has none for it.
    pub fn from_goarch(name: &str) -> Option<Self> {
        CODES.iter().find(|(_, known)| *known == name).map(|&(code, _)| Architecture(*code))
    }

    /// The name in Go's spelling; `None` for 00 and for codes this version does not know.
    pub fn goarch(self) -> Option<&'static str> {
        CODES.iter().find(|(code, _)| **code == self.0).map(|&(_, name)| name)
    }

    /// The code as it stands in a file.
    pub fn code(self) -> [u8; 3] {
        self.0
    }

    /// The architecture that a file states.
    pub fn from_code(code: [u8; 3]) -> Self {
        Architecture(code)
    }
}

/// The Go name, or `unknown` as siftool prints it.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.goarch().unwrap_or("unknown"))
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.0.escape_ascii().to_string())
    }
}

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const BIG_ENDIAN: u8 = 2;

/// `e_machine`, `EI_CLASS` and `EI_DATA` of the ELF header, and what Go calls that machine. Apptainer lists big-endian
/// ppc64 as 32-bit by mistake and so never recognises it; here it is listed as it is.
const MACHINES: [(u16, u8, u8, &str); 14] = [
    (3, CLASS_32, LITTLE_ENDIAN, "386"),
    (6, CLASS_32, LITTLE_ENDIAN, "386"),
    (62, CLASS_64, LITTLE_ENDIAN, "amd64"),
    (40, CLASS_32, LITTLE_ENDIAN, "arm"),
    (183, CLASS_64, LITTLE_ENDIAN, "arm64"),
    (21, CLASS_64, BIG_ENDIAN, "ppc64"),
    (21, CLASS_64, LITTLE_ENDIAN, "ppc64le"),
    (8, CLASS_32, BIG_ENDIAN, "mips"),
    (8, CLASS_32, LITTLE_ENDIAN, "mipsle"),
    (8, CLASS_64, BIG_ENDIAN, "mips64"),
    (8, CLASS_64, LITTLE_ENDIAN, "mips64le"),
    (22, CLASS_64, BIG_ENDIAN, "s390x"),
    (243, CLASS_64, LITTLE_ENDIAN, "riscv64"),
    (258, CLASS_64, LITTLE_ENDIAN, "loong64"),
];

/// The architecture, in Go's spelling, of a program that begins with `header`. Its first 20 bytes are looked at; `None`
/// where it is not an ELF file, is cut short, or is for a machine that Go has no name for.
pub fn goarch_of_elf(header: &[u8]) -> Option<&'static str> {
    let &[0x7f, b'E', b'L', b'F', class, data, ..] = header else { return None };
    let machine = [*header.get(18)?, *header.get(19)?];
    let machine = if data == BIG_ENDIAN { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    MACHINES.iter().find(|entry| (entry.0, entry.1, entry.2) == (machine, class, data)).map(|entry| entry.3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for (code, name) in CODES {
            assert_eq!(Architecture::from_goarch(name).unwrap().code(), *code);
            assert_eq!(Architecture::from_code(*code).to_string(), name);
        }
        assert_eq!(Architecture::from_goarch("sparc64"), None);
        assert_eq!(Architecture::UNKNOWN.goarch(), None);
        assert_eq!(Architecture::from_code(*b"99\0").to_string(), "unknown");
    }

    #[test]
    fn elf_headers_name_their_machine() {
        let header = |class: u8, data: u8, machine: [u8; 2]| {
            let mut header = [0; 20];
            header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, data]);
            header[18..].copy_from_slice(&machine);
            header
        };
        for (class, data, machine, want) in [
            (2, 1, [62, 0], Some("amd64")),
            (1, 1, [62, 0], None), // x32
            (1, 1, [3, 0], Some("386")),
            (2, 1, [183, 0], Some("arm64")),
            (2, 2, [0, 21], Some("ppc64")),
            (2, 1, [21, 0], Some("ppc64le")),
            (2, 2, [0, 22], Some("s390x")),
            (2, 1, [2, 1], Some("loong64")),
            (2, 2, [243, 0], None),
            (2, 0, [62, 0], None),
        ] {
            let header = header(class, data, machine);
            assert_eq!(goarch_of_elf(&header), want, "{class} {data} {machine:?}");
            for cut in 0..header.len() {
                assert_eq!(goarch_of_elf(&header[..cut]), None);
            }
        }
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(goarch_of_elf(&this), Some(crate::model::Platform::host().architecture.as_str()));
    }
}
