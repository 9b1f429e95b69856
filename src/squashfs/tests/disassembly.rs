//! An image as text: offset, field, value. It reads the bytes by itself, with nothing of the reader but decompression,
//! so that writer and reader cannot agree on a mistake unseen.

use std::fmt::Write as _;

use crate::model::Quoted;
use crate::squashfs::codec::Decompressor;
use crate::squashfs::format::BlockCodec;

struct Disassembler<'a> {
    image: &'a [u8],
    text: String,
}

/// A table's payload, read field by field.
struct Fields {
    bytes: Vec<u8>,
    at: usize,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

impl Fields {
    fn take(&mut self, size: usize) -> u64 {
        self.at += size;
        number(&self.bytes[self.at - size..self.at])
    }

    fn text(&mut self, size: usize) -> String {
        self.at += size;
        Quoted(&self.bytes[self.at - size..self.at]).to_string()
    }

    fn more(&self) -> bool {
        self.at < self.bytes.len()
    }
}

pub(super) fn disassemble(image: &[u8]) -> String {
    let mut disassembler = Disassembler { image, text: String::new() };
    disassembler.all();
    disassembler.text
}

impl Disassembler<'_> {
    fn line(&mut self, at: impl std::fmt::Display, field: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{at:>8}  {field:<22} {value}").unwrap();
    }

    fn long(&self, at: u64) -> u64 {
        number(&self.image[at as usize..at as usize + 8])
    }

    fn all(&mut self) {
        self.superblock();
        let [ids, xattrs, inodes, directories, fragments, exports] = [48, 56, 64, 72, 80, 88].map(|at| self.long(at));
        let kv_start = self.long(xattrs);
        let inode_fields = self.table("inode table", inodes, directories);
        let directory_fields = self.table("directory table", directories, self.long(fragments));
        self.inodes(inode_fields);
        self.directories(directory_fields);
        let mut fields = self.table("fragment table", self.long(fragments), fragments);
        while fields.more() {
            let (at, start, word) = (fields.at, fields.take(8), fields.take(4));
            self.line(at, "fragment", format!("start {start} word 0x{word:08x} unused {}", fields.take(4)));
        }
        let mut fields = self.table("export table", self.long(exports), exports);
        while fields.more() {
            let (at, reference) = (fields.at, fields.take(8));
            self.line(at, &format!("inode {}", at / 8 + 1), format!("{}+{}", reference >> 16, reference & 0xffff));
        }
        let mut fields = self.table("id table", self.long(ids), ids);
        while fields.more() {
            self.line(fields.at, &format!("id {}", fields.at / 4), fields.take(4));
        }
        let mut fields = self.table("extended attributes", kv_start, self.long(xattrs + 16));
        while fields.more() {
            let (at, prefix, length) = (fields.at, fields.take(2), fields.take(2));
            let (name, length) = (fields.text(length as usize), fields.take(4));
            let value = fields.text(length as usize);
            self.line(at, "attribute", format!("prefix {prefix} name {name} value {value}"));
        }
        let mut fields = self.table("attribute sets", self.long(xattrs + 16), xattrs);
        while fields.more() {
            let (at, reference, count) = (fields.at, fields.take(8), fields.take(4));
            self.line(at, "set", format!("at {reference} count {count} size {}", fields.take(4)));
        }
        let used = self.long(40) as usize;
        assert!(self.image[used..].iter().all(|&byte| byte == 0));
        self.line(used, "zeros", self.image.len() - used);
    }

    fn superblock(&mut self) {
        let fields = [
            (4, "magic"),
            (4, "inode count"),
            (4, "mkfs time"),
            (4, "block size"),
            (4, "fragment count"),
            (2, "compression"),
            (2, "block log"),
            (2, "flags"),
            (2, "id count"),
            (2, "version major"),
            (2, "version minor"),
            (8, "root inode"),
            (8, "bytes used"),
            (8, "id table"),
            (8, "xattr table"),
            (8, "inode table"),
            (8, "directory table"),
            (8, "fragment table"),
            (8, "export table"),
        ];
        let mut at = 0;
        for (size, name) in fields {
            let value = number(&self.image[at..at + size]);
            self.line(at, name, format!("{value} (0x{value:x})"));
            at += size;
        }
    }

    fn table(&mut self, name: &str, start: u64, end: u64) -> Fields {
        let (mut at, mut bytes) = (start as usize, Vec::new());
        while at < end as usize {
            let word = number(&self.image[at..at + 2]) as usize;
            let (length, stored) = (word & 0x7fff, word & 0x8000 != 0);
            self.line(at, name, format!("block of {length} bytes{}", if stored { ", stored" } else { "" }));
            let block = &self.image[at + 2..at + 2 + length];
            let mut payload = block.to_vec();
            if !stored {
                let mut decompressor = Decompressor::new(BlockCodec::Gzip).unwrap();
                decompressor.decompress(block, 8192, &mut payload).unwrap();
            }
            bytes.extend(payload);
            at += 2 + length;
        }
        assert_eq!(at, end as usize, "{name}");
        Fields { bytes, at: 0 }
    }

    fn inodes(&mut self, mut fields: Fields) {
        while fields.more() {
            let at = fields.at;
            let [kind, mode, uid, gid] = [2; 4].map(|size| fields.take(size));
            let [mtime, inode] = [4; 2].map(|size| fields.take(size));
            let head = format!("inode {inode} mode {mode:o} uid {uid} gid {gid} mtime {mtime}");
            let names: &[(usize, &str)] = match kind {
                1 => &[(4, "block"), (4, "links"), (2, "size"), (2, "offset"), (4, "parent")],
                2 => &[(4, "start"), (4, "fragment"), (4, "offset"), (4, "size")],
                3 => &[(4, "links"), (4, "length")],
                4 | 5 => &[(4, "links"), (4, "device")],
                6 | 7 => &[(4, "links")],
                8 => &[
                    (4, "links"),
                    (4, "size"),
                    (4, "block"),
                    (4, "parent"),
                    (2, "indexes"),
                    (2, "offset"),
                    (4, "xattr"),
                ],
                9 => &[
                    (8, "start"),
                    (8, "size"),
                    (8, "sparse"),
                    (4, "links"),
                    (4, "fragment"),
                    (4, "offset"),
                    (4, "xattr"),
                ],
                _ => panic!("kind {kind} at {at}"),
            };
            let values: Vec<(&str, u64)> = names.iter().map(|&(size, name)| (name, fields.take(size))).collect();
            let value = |wanted: &str| values.iter().find(|(name, _)| *name == wanted).unwrap().1;
            let mut body: String = values.iter().map(|(name, value)| format!(" {name} {value}")).collect();
            match kind {
                3 => body += &format!(" target {}", fields.text(value("length") as usize)),
                2 | 9 => {
                    let whole = value("fragment") == 0xffff_ffff;
                    let blocks = if whole { value("size").div_ceil(4096) } else { value("size") / 4096 };
                    (0..blocks).for_each(|_| body += &format!(" 0x{:x}", fields.take(4)));
                }
                _ => {}
            }
            self.line(at, &format!("kind {kind}"), format!("{head} |{body}"));
        }
    }

    fn directories(&mut self, mut fields: Fields) {
        while fields.more() {
            let (at, count) = (fields.at, fields.take(4) + 1);
            let (block, base) = (fields.take(4), fields.take(4));
            self.line(at, "header", format!("{count} entries, inode block {block}, base {base}"));
            for _ in 0..count {
                let (at, offset, delta) = (fields.at, fields.take(2), fields.take(2) as u16 as i16);
                let (kind, length) = (fields.take(2), fields.take(2) as usize + 1);
                let name = fields.text(length);
                self.line(at, "entry", format!("offset {offset} delta {delta} kind {kind} {name}"));
            }
        }
    }
}
