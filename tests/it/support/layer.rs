//! Writes layer tars in every dialect that images are found in: v7, ustar with its prefix, PAX local and
//! global, GNU long names, GNU sparse (old and PAX 0.0, 0.1, 1.0), base-256 numbers, both spellings of xattrs.
//!
//! Written from POSIX.1-2024 `pax` and the GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"; it shares no
//! code with the program under test.
//!
//! Without a directive an entry is ustar where that can hold it and PAX where not. Directives:
//! `v7 ustar pax gnu base256 sparse-old sparse-0.0 sparse-0.1 sparse-1.0 libarchive named` and, with a value,
//! `type=C` (the type flag), `mode=OCTAL` (all of the mode field), `size=N` (what the header claims), `record=KEY:VALUE`
//! (one more PAX record).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use super::case::{Item, Layer};
use super::entry::{Content, Entry, Kind, Time, USUAL, When};
use super::tar::{BLOCK_BYTES, Header, Magic, Tar, extended_header, finish, long_text, pad, record, split};

/// The layer as an uncompressed tar.
pub fn tar(layer: &Layer) -> Vec<u8> {
    let mut out = Vec::new();
    if layer.zero_bytes {
        return out;
    }
    for item in &layer.items {
        match item {
            Item::Entry(entry) => write(&mut out, entry),
            Item::Global(records) => {
                let records: Vec<_> = records.iter().map(|(key, value)| record(key.as_bytes(), value)).collect();
                extended_header(&mut out, b'g', &records.concat());
            }
        }
    }
    if !layer.no_end {
        out.resize(out.len() + 2 * BLOCK_BYTES, 0);
    }
    out
}

/// The layer of one file.
pub fn of_file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    member(&mut tar, name, bytes);
    tar.resize(tar.len() + 2 * BLOCK_BYTES, 0);
    tar
}

/// The layer of these entries.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    tar(&Layer { items: entries.iter().cloned().map(Item::Entry).collect(), ..Layer::default() })
}

/// A member of a plain ustar archive.
pub fn member(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.extend(Tar::new().file(name, bytes).unfinished());
}

fn octal_fits(entry: &Entry, time: Time) -> bool {
    let id = 0o7_777_777;
    entry.uid <= id && entry.gid <= id && time.nanoseconds == 0 && (0..=0o77_777_777_777).contains(&time.seconds)
}

pub fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let (sign, whole, fraction) = match (seconds < 0, nanoseconds) {
        (false, fraction) => ("", seconds, fraction),
        (true, 0) => ("-", -seconds, 0),
        (true, fraction) => ("-", -(seconds + 1), 1_000_000_000 - fraction),
    };
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    format!("{sign}{whole}{}", fraction.trim_end_matches('0'))
}

fn flag_of(entry: &Entry) -> u8 {
    if let Some(flag) = entry.directive("type") {
        return if flag == "NUL" { 0 } else { flag.as_bytes()[0] };
    }
    match entry.kind {
        Kind::Dir if entry.is("v7") => 0,
        Kind::Dir => b'5',
        Kind::File(_) if entry.is("v7") => 0,
        Kind::File(_) => b'0',
        Kind::Link(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::Char(..) => b'3',
        Kind::Block(..) => b'4',
        Kind::Fifo => b'6',
    }
}

fn write(out: &mut Vec<u8>, entry: &Entry) {
    let time = match entry.time {
        When::At(time) => time,
        When::Made => USUAL,
    };
    let mut name = entry.path.clone();
    if entry.kind == Kind::Dir && !name.ends_with(b"/") {
        name.push(b'/');
    }
    let link: &[u8] = match &entry.kind {
        Kind::Link(target) | Kind::Symlink(target) => target,
        _ => b"",
    };
    let content = match &entry.kind {
        Kind::File(content) => content.clone(),
        _ => Content::default(),
    };
    let sparse = entry.dialect.iter().find_map(|each| each.strip_prefix("sparse-"));
    let (stored, map) = match sparse {
        None => (content.expand(), Vec::new()),
        Some(form) => stored_sparse(&content, form),
    };
    let base256 = entry.is("base256");
    let magic = match () {
        () if entry.is("v7") => Magic::V7,
        () if entry.is("gnu") || base256 || sparse == Some("old") => Magic::Gnu,
        () => Magic::Ustar,
    };
    let cut = if magic == Magic::Ustar { split(&name) } else { (name.len() <= 100).then_some((&b""[..], &name[..])) };

    let mut header = Header {
        size: entry.directive("size").map_or(stored.len() as u64, |size| size.parse().unwrap()),
        mode: entry.directive("mode").map_or(entry.mode, |mode| u32::from_str_radix(mode, 8).unwrap()),
        uid: entry.uid,
        gid: entry.gid,
        time: time.seconds,
        link,
        owner: if entry.is("named") { b"staff" } else { b"" },
        base256,
        device: match entry.kind {
            Kind::Char(major, minor) | Kind::Block(major, minor) => (major, minor),
            _ => (0, 0),
        },
        ..Header::blank(&name, if sparse == Some("old") { b'S' } else { flag_of(entry) }, magic)
    };

    if magic == Magic::Gnu {
        if name.len() > 100 {
            long_text(out, b'L', &name);
        }
        if link.len() > 100 {
            long_text(out, b'K', link);
        }
    } else if magic == Magic::V7 {
        assert!(name.len() <= 100 && link.len() <= 100, "v7 holds 100 bytes");
    }

    let all = entry.is("pax");
    let must = magic != Magic::Gnu && (cut.is_none() || link.len() > 100 || !octal_fits(entry, time));
    let mut records = Vec::new();
    if all || must {
        records.push(record(b"path", &name));
        if !link.is_empty() {
            records.push(record(b"linkpath", link));
        }
        records.push(record(b"uid", entry.uid.to_string().as_bytes()));
        records.push(record(b"gid", entry.gid.to_string().as_bytes()));
        records.push(record(b"mtime", decimal(time).as_bytes()));
        records.push(record(b"size", header.size.to_string().as_bytes()));
        // What the header says must lose against the records; make it say something else.
        header = Header { name: b"junk", link: b"", uid: 77, gid: 77, time: 77, ..header };
        if link.is_empty() {
            header.size = 0;
        }
        if all {
            header.link = if link.is_empty() { b"" } else { b"junk" };
        }
    } else if let Some((prefix, name)) = cut {
        header = Header { prefix, name, ..header };
    }
    if magic == Magic::Gnu && time.nanoseconds != 0 {
        records.push(record(b"mtime", decimal(time).as_bytes()));
    }
    let hidden = [b"GNUSparseFile.0/".as_slice(), name.rsplit(|&byte| byte == b'/').next().unwrap_or(b"")].concat();
    if let Some(form) = sparse.filter(|form| *form != "old") {
        sparse_records(&mut records, form, &name, &content, &map);
        if form != "0.0" && !all {
            header = Header { name: &hidden, prefix: b"", ..header };
        }
    }
    records.extend(xattr_records(entry));
    for extra in entry.dialect.iter().filter_map(|each| each.strip_prefix("record=")) {
        let (key, value) = extra.split_once(':').expect("record=KEY:VALUE");
        records.push(record(key.as_bytes(), value.as_bytes()));
    }
    if !records.is_empty() {
        extended_header(out, b'x', &records.concat());
    }
    let block = header.block();
    match sparse {
        Some("old") => old_sparse_headers(out, block, &map, content.size()),
        _ => finish(out, block),
    }
    out.extend_from_slice(&stored);
    pad(out);
}

/// SCHILY holds a value as it is; libarchive in base64 without padding, with the name percent-encoded.
fn xattr_records(entry: &Entry) -> Vec<Vec<u8>> {
    let libarchive = entry.is("libarchive");
    let one = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        if !libarchive {
            return record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let escape = |&byte: &u8| if plain(byte) { vec![byte] } else { format!("%{byte:02X}").into_bytes() };
        let name: Vec<u8> = name.iter().flat_map(escape).collect();
        record(&[b"LIBARCHIVE.xattr.", name.as_slice()].concat(), BASE64_STANDARD_NO_PAD.encode(value).as_bytes())
    };
    entry.xattrs.iter().map(one).collect()
}

/// The bytes a sparse form stores, and its map: offset and length of each extent. A file that ends in a hole gets an
/// empty extent at its end, as GNU tar writes it.
fn stored_sparse(content: &Content, form: &str) -> (Vec<u8>, Vec<(u64, u64)>) {
    let extents = content.extents();
    let mut map: Vec<(u64, u64)> = extents.iter().map(|(at, data)| (*at, data.len() as u64)).collect();
    if map.last().is_none_or(|(at, size)| at + size < content.size()) {
        map.push((content.size(), 0));
    }
    let mut stored = Vec::new();
    if form == "1.0" {
        stored.extend_from_slice(format!("{}\n", map.len()).as_bytes());
        for (at, size) in &map {
            stored.extend_from_slice(format!("{at}\n{size}\n").as_bytes());
        }
        pad(&mut stored);
    }
    for (_, data) in extents {
        stored.extend_from_slice(data);
    }
    (stored, map)
}

fn sparse_records(records: &mut Vec<Vec<u8>>, form: &str, name: &[u8], content: &Content, map: &[(u64, u64)]) {
    let mut number = |key: &str, value: u64| records.push(record(key.as_bytes(), value.to_string().as_bytes()));
    match form {
        "0.0" => {
            number("GNU.sparse.size", content.size());
            number("GNU.sparse.numblocks", map.len() as u64);
            for (at, size) in map {
                number("GNU.sparse.offset", *at);
                number("GNU.sparse.numbytes", *size);
            }
        }
        "0.1" => {
            number("GNU.sparse.size", content.size());
            number("GNU.sparse.numblocks", map.len() as u64);
            let pairs: Vec<String> = map.iter().map(|(at, size)| format!("{at},{size}")).collect();
            records.push(record(b"GNU.sparse.map", pairs.join(",").as_bytes()));
            records.push(record(b"GNU.sparse.name", name));
        }
        "1.0" => {
            number("GNU.sparse.major", 1);
            number("GNU.sparse.minor", 0);
            number("GNU.sparse.realsize", content.size());
            records.push(record(b"GNU.sparse.name", name));
        }
        other => panic!("unknown sparse form {other:?}"),
    }
}

/// Four extents in the header, 21 in every block after it.
fn old_sparse_headers(out: &mut Vec<u8>, mut block: [u8; BLOCK_BYTES], map: &[(u64, u64)], real_size: u64) {
    let octal = |field: &mut [u8], value: u64| field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    let fill = |area: &mut [u8], map: &[(u64, u64)]| {
        for (slot, (at, size)) in area.chunks_mut(24).zip(map) {
            octal(&mut slot[..12], *at);
            octal(&mut slot[12..], *size);
        }
    };
    let (here, mut rest) = map.split_at(map.len().min(4));
    fill(&mut block[386..482], here);
    block[482] = u8::from(!rest.is_empty());
    octal(&mut block[483..495], real_size);
    finish(out, block);
    while !rest.is_empty() {
        let (here, after) = rest.split_at(rest.len().min(21));
        let mut block = [0; BLOCK_BYTES];
        fill(&mut block[..504], here);
        block[504] = u8::from(!after.is_empty());
        out.extend_from_slice(&block);
        rest = after;
    }
}
