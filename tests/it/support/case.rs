//! Text cases: layers in, a tree (or an error) out. One file is one rule; its name says which.
//!
//! ```text
//! # what the rule is, and where it stands
//! -- layer 0
//! dir  a 755 0:0
//! file a/foo 644 0:0 "hello"
//! link a/bar -> a/foo
//! -- layer 1
//! file a/.wh.foo
//! -- tree
//! dir  a
//! file a/bar "hello"
//! ```
//!
//! A line is a kind, a path, and in any order: an octal mode, `UID:GID`, `@SECONDS[.FRACTION]` or `@made`, `MAJOR,MINOR`,
//! `xattr NAME=VALUE`, content, `-> TARGET`, and `!DIRECTIVE`s, which say how `layer.rs` writes the entry. Defaults: 755
//! (dir), 644, 0:0, `@1500000000`. Inside double quotes `\n \t \\ \" \xFF` are escapes, and a quoted piece followed by
//! `*N` is repeated; pieces join (`d/"x"*255`). Content is quoted pieces and `zeros*N`, which is a hole for the sparse
//! dialects. A line `!global KEY=VALUE` is a PAX global header.
//!
//! Sections: `-- layer N`, `-- layer N = M` (the same bytes again), `-- layer N zero-bytes` (an empty file),
//! `-- layer N no-end` (no zero blocks after the last entry), `-- tree`, `-- error KIND "part of the message"…`,
//! `-- note CODE`, `-- without ORACLE "reason"`.

use super::entry::{Content, Entry, Kind, Piece, Time, When};

pub struct Case {
    pub name: String,
    pub layers: Vec<Layer>,
    pub expected: Expected,
    pub notes: Vec<String>,
    /// Oracles that are not asked, and why.
    pub without: Vec<(String, String)>,
}

#[derive(Clone, Default)]
pub struct Layer {
    pub items: Vec<Item>,
    pub zero_bytes: bool,
    pub no_end: bool,
}

#[derive(Clone)]
pub enum Item {
    Entry(Entry),
    Global(Vec<(String, Vec<u8>)>),
}

impl Layer {
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().filter_map(|item| match item {
            Item::Entry(entry) => Some(entry),
            Item::Global(_) => None,
        })
    }
}

pub enum Expected {
    Tree(Vec<Entry>),
    Error { kind: String, parts: Vec<String> },
}

impl Case {
    pub fn skips(&self, oracle: &str) -> Option<&str> {
        self.without.iter().find(|(name, _)| name == oracle).map(|(_, reason)| reason.as_str())
    }
}

/// Every case of `fixtures/cases`, by name.
pub fn all() -> Vec<Case> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/cases");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|each| each.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    assert!(!paths.is_empty(), "no cases in {directory}");
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            parse(name, &std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

pub fn parse(name: &str, text: &str) -> Case {
    let mut case = Case {
        name: name.to_string(),
        layers: Vec::new(),
        expected: Expected::Tree(Vec::new()),
        notes: Vec::new(),
        without: Vec::new(),
    };
    let mut section = "";
    let mut expected = false;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}.case, line {}", number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = Words { rest: line };
        if let Some(header) = line.strip_prefix("-- ") {
            let mut words = Words { rest: header };
            section = header.split(' ').next().unwrap_or("");
            words.next();
            expected |= matches!(section, "tree" | "error");
            case.open(section, &mut words).unwrap_or_else(|wrong| panic!("{}: {wrong}", place()));
            continue;
        }
        let wrong = match section {
            "layer" => {
                let layer = case.layers.last_mut().unwrap();
                item(&mut words).map(|item| layer.items.push(item))
            }
            "tree" => match &mut case.expected {
                Expected::Tree(entries) => entry(&mut words).map(|entry| entries.push(entry)),
                Expected::Error { .. } => Err("a case has a tree or an error".into()),
            },
            _ => Err(format!("a line in section {section:?}")),
        };
        wrong.unwrap_or_else(|wrong| panic!("{}: {wrong}", place()));
    }
    assert!(expected, "{name}.case has neither a tree nor an error");
    case
}

impl Case {
    fn open(&mut self, section: &str, words: &mut Words) -> Result<(), String> {
        let mut rest = Vec::new();
        for word in words.by_ref() {
            rest.push(String::from_utf8(word?.bytes).map_err(|_| "not UTF-8")?);
        }
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match (section, rest.as_slice()) {
            ("layer", [number, options @ ..]) => {
                if number.parse() != Ok(self.layers.len()) {
                    return Err(format!("this is layer {}", self.layers.len()));
                }
                let layer = match options {
                    ["=", again] => self.layers[again.parse::<usize>().map_err(|_| "a layer number")?].clone(),
                    options => Layer {
                        zero_bytes: options.contains(&"zero-bytes"),
                        no_end: options.contains(&"no-end"),
                        items: Vec::new(),
                    },
                };
                self.layers.push(layer);
            }
            ("tree", []) => {}
            ("error", [kind, parts @ ..]) => {
                let parts = parts.iter().map(|part| (*part).to_string()).collect();
                self.expected = Expected::Error { kind: (*kind).to_string(), parts };
            }
            ("note", [code]) => self.notes.push((*code).to_string()),
            ("without", [oracle, reason]) => self.without.push(((*oracle).to_string(), (*reason).to_string())),
            _ => return Err(format!("unknown section {section:?} {rest:?}")),
        }
        Ok(())
    }
}

/// One word: its bytes, and whether it began with a quote.
struct Word {
    bytes: Vec<u8>,
    quoted: bool,
}

struct Words<'a> {
    rest: &'a str,
}

impl Iterator for Words<'_> {
    type Item = Result<Word, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return None;
        }
        let quoted = self.rest.starts_with('"');
        let mut bytes = Vec::new();
        while let Some(first) = self.rest.chars().next() {
            match first {
                ' ' => break,
                '"' => match self.quoted_piece() {
                    Ok(piece) => bytes.extend_from_slice(&piece),
                    Err(wrong) => return Some(Err(wrong)),
                },
                _ => {
                    let end = self.rest.find([' ', '"']).unwrap_or(self.rest.len());
                    bytes.extend_from_slice(&self.rest.as_bytes()[..end]);
                    self.rest = &self.rest[end..];
                }
            }
        }
        Some(Ok(Word { bytes, quoted }))
    }
}

impl Words<'_> {
    /// `"…"`, or `"…"*N`.
    fn quoted_piece(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut characters = self.rest[1..].chars();
        loop {
            match characters.next().ok_or("a quote is not closed")? {
                '"' => break,
                '\\' => bytes.push(match characters.next() {
                    Some('n') => b'\n',
                    Some('t') => b'\t',
                    Some('x') => {
                        let digits: String = characters.by_ref().take(2).collect();
                        u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is not a byte"))?
                    }
                    Some(other @ ('\\' | '"')) => other as u8,
                    other => return Err(format!("unknown escape {other:?}")),
                }),
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.rest = characters.as_str();
        let Some(times) = self.rest.strip_prefix('*') else { return Ok(bytes) };
        let end = times.find(|c: char| !c.is_ascii_digit()).unwrap_or(times.len());
        let count: usize = times[..end].parse().map_err(|_| "a count after *")?;
        self.rest = &times[end..];
        Ok(bytes.repeat(count))
    }

    fn word(&mut self, what: &str) -> Result<Word, String> {
        self.next().unwrap_or_else(|| Err(format!("{what} is missing")))
    }
}

fn item(words: &mut Words) -> Result<Item, String> {
    let Some(rest) = words.rest.strip_prefix("!global ") else { return entry(words).map(Item::Entry) };
    let mut records = Vec::new();
    for word in (Words { rest }) {
        let (key, value) = key_value(&word?.bytes)?;
        records.push((String::from_utf8(key).map_err(|_| "a key in UTF-8")?, value));
    }
    Ok(Item::Global(records))
}

fn entry(words: &mut Words) -> Result<Entry, String> {
    let kind = words.word("a kind")?.bytes;
    let path = words.word("a path")?.bytes;
    let kind = match kind.as_slice() {
        b"dir" => Kind::Dir,
        b"file" => Kind::File(Content::default()),
        b"link" => Kind::Link(Vec::new()),
        b"symlink" => Kind::Symlink(Vec::new()),
        b"fifo" => Kind::Fifo,
        b"char" => Kind::Char(0, 0),
        b"block" => Kind::Block(0, 0),
        other => return Err(format!("unknown kind {:?}", other.escape_ascii().to_string())),
    };
    let mut entry = Entry::new(path, kind);
    while let Some(word) = words.next() {
        detail(&mut entry, word?, words)?;
    }
    Ok(entry)
}

fn detail(entry: &mut Entry, word: Word, words: &mut Words) -> Result<(), String> {
    if word.quoted {
        return piece(entry, Piece::Data(word.bytes));
    }
    let text = String::from_utf8(word.bytes).map_err(|_| "unquoted bytes")?;
    if let Some(directive) = text.strip_prefix('!') {
        entry.dialect.push(directive.to_string());
    } else if let Some(time) = text.strip_prefix('@') {
        entry.time = if time == "made" { When::Made } else { When::At(parse_time(time)?) };
    } else if let Some(size) = text.strip_prefix("zeros*") {
        return piece(entry, Piece::Hole(size.parse().map_err(|_| "a size after zeros*")?));
    } else if text == "->" {
        let target = words.word("a target")?.bytes;
        match &mut entry.kind {
            Kind::Link(place) | Kind::Symlink(place) => *place = target,
            _ => return Err("a target for something that is not a link".into()),
        }
    } else if text == "xattr" {
        let (name, value) = key_value(&words.word("NAME=VALUE")?.bytes)?;
        entry.xattrs.insert(name, value);
    } else if let Some((major, minor)) = text.split_once(',') {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a device number"));
        let (major, minor) = (number(major)?, number(minor)?);
        match &mut entry.kind {
            Kind::Char(a, b) | Kind::Block(a, b) => (*a, *b) = (major, minor),
            _ => return Err("device numbers for something that is not a device".into()),
        }
    } else if let Some((uid, gid)) = text.split_once(':') {
        entry.uid = uid.parse().map_err(|_| format!("{uid:?} is not a uid"))?;
        entry.gid = gid.parse().map_err(|_| format!("{gid:?} is not a gid"))?;
    } else {
        entry.mode = u32::from_str_radix(&text, 8).map_err(|_| format!("what is {text:?}?"))?;
    }
    Ok(())
}

fn piece(entry: &mut Entry, piece: Piece) -> Result<(), String> {
    match &mut entry.kind {
        Kind::File(content) => content.0.push(piece),
        _ => return Err("content for something that is not a file".into()),
    }
    Ok(())
}

fn key_value(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let equals = bytes.iter().position(|&byte| byte == b'=').ok_or("NAME=VALUE expected")?;
    Ok((bytes[..equals].to_vec(), bytes[equals + 1..].to_vec()))
}

/// `-0.75` is a quarter second after second -1.
pub fn parse_time(text: &str) -> Result<Time, String> {
    let wrong = || format!("{text:?} is not a time");
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = whole.parse().map_err(|_| wrong())?;
    let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().map_err(|_| wrong())?;
    Ok(match (negative, nanoseconds) {
        (false, nanoseconds) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds: 0 },
        (true, nanoseconds) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The line that [`parse`] reads as this entry.
pub fn describe(entry: &Entry) -> String {
    let quote = |bytes: &[u8]| {
        if let [first, _, _, ..] = bytes
            && bytes.iter().all(|byte| byte == first)
        {
            return format!("\"\\x{first:02x}\"*{}", bytes.len());
        }
        let mut text = String::from("\"");
        for &byte in bytes {
            match byte {
                b'"' | b'\\' => text.extend(['\\', byte as char]),
                b' '..=b'~' => text.push(byte as char),
                _ => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        text + "\""
    };
    let kind = match entry.kind {
        Kind::Dir => "dir",
        Kind::File(_) => "file",
        Kind::Link(_) => "link",
        Kind::Symlink(_) => "symlink",
        Kind::Fifo => "fifo",
        Kind::Char(..) => "char",
        Kind::Block(..) => "block",
    };
    let mut line = format!("{kind} {} {:o} {}:{}", quote(&entry.path), entry.mode, entry.uid, entry.gid);
    match entry.time {
        When::Made => line.push_str(" @made"),
        When::At(time) => line.push_str(&format!(" @{}", super::layer::decimal(time))),
    }
    match &entry.kind {
        Kind::File(content) => content.0.iter().for_each(|piece| match piece {
            Piece::Data(data) => line.push_str(&format!(" {}", quote(data))),
            Piece::Hole(size) => line.push_str(&format!(" zeros*{size}")),
        }),
        Kind::Link(target) | Kind::Symlink(target) => line.push_str(&format!(" -> {}", quote(target))),
        Kind::Char(major, minor) | Kind::Block(major, minor) => line.push_str(&format!(" {major},{minor}")),
        Kind::Dir | Kind::Fifo => {}
    }
    for (name, value) in &entry.xattrs {
        line.push_str(&format!(" xattr {}", quote(&[name.as_slice(), b"=", value.as_slice()].concat())));
    }
    entry.dialect.iter().for_each(|directive| line.push_str(&format!(" !{directive}")));
    line
}
