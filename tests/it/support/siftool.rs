//! What `apptainer sif add`, `del` and `setprim` do to a SIF file, byte by byte (github.com/apptainer/sif, pkg/sif: add.go,
//! delete.go, set.go). It shares no code with the program under test.

const SLOTS_AT: usize = 4096;
const SLOT_BYTES: usize = 585;
/// When edits are made, in seconds: after the images of the tests were.
const NOW: i64 = 1_790_000_000;

/// A SIF file in memory.
#[derive(Clone)]
pub struct Sif(pub Vec<u8>);

/// An object to be added.
#[derive(Clone, Default)]
pub struct Object<'a> {
    /// 1 definition, 4 partition, 5 signature, 6 JSON, 7 anything, 9 bill of materials.
    pub kind: u8,
    pub group: u32,
    pub link: u32,
    pub name: &'a str,
    pub extra: &'a [u8],
    pub alignment: usize,
    pub bytes: &'a [u8],
}

impl Sif {
    fn number(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn slot(id: usize) -> usize {
        SLOTS_AT + (id - 1) * SLOT_BYTES
    }

    fn is_used(&self, id: usize) -> bool {
        self.0[Sif::slot(id) + 4] != 0
    }

    /// The numbers of all objects.
    pub fn used(&self) -> impl Iterator<Item = usize> {
        (1..=48).filter(|&id| self.is_used(id))
    }

    /// The end of the last object.
    pub fn end(&self) -> usize {
        let ends = self.used().map(|id| self.number(Sif::slot(id) + 17) + self.number(Sif::slot(id) + 25));
        usize::try_from(ends.max().unwrap_or(32_176)).unwrap()
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.used().count()
    }

    /// The bytes of the objects of a kind with a name, as `sif dump` shows them.
    pub fn objects(&self, kind: u8, name: &str) -> Vec<&[u8]> {
        let of = |id: usize| {
            let slot = Sif::slot(id);
            let title = self.0[slot + 73..slot + 201].split(|&byte| byte == 0).next().unwrap();
            let start = self.number(slot + 17) as usize;
            let bytes = &self.0[start..start + self.number(slot + 25) as usize];
            (self.0[slot] == kind && title == name.as_bytes()).then_some(bytes)
        };
        self.used().filter_map(of).collect()
    }

    fn finish_edit(&mut self) {
        let free = 48 - self.count() as i64;
        self.set(72, &NOW.to_le_bytes());
        self.set(80, &free.to_le_bytes());
    }

    /// Adds an object in the first free slot; its number.
    pub fn add(&mut self, object: &Object<'_>) -> usize {
        let id = (1..=48).find(|&id| !self.is_used(id)).unwrap();
        let before = self.end();
        let start = before.next_multiple_of(object.alignment.max(1));
        let end = start + object.bytes.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.set(start, object.bytes);
        let slot = Sif::slot(id);
        self.set(slot, &[object.kind, 0x40, 0, 0, 1]);
        self.set(slot + 5, &(id as u32).to_le_bytes());
        self.set(slot + 9, &(object.group | 0xf000_0000).to_le_bytes());
        self.set(slot + 13, &object.link.to_le_bytes());
        for (at, number) in [(17, start), (25, object.bytes.len()), (33, end - before)] {
            self.set(slot + at, &(number as i64).to_le_bytes());
        }
        for at in [41, 49] {
            self.set(slot + at, &NOW.to_le_bytes());
        }
        self.set(slot + 73, object.name.as_bytes());
        self.set(slot + 201, object.extra);
        self.set(120, &((end - 32_176) as i64).to_le_bytes());
        self.finish_edit();
        id
    }

    /// Removes an object. Its bytes stay, unless they are to be zeros; `compact` cuts off what no object needs.
    pub fn del(&mut self, id: usize, zero: bool, compact: bool) {
        let slot = Sif::slot(id);
        let (start, size) = (self.number(slot + 17) as usize, self.number(slot + 25) as usize);
        if zero {
            self.0[start..start + size].fill(0);
        }
        if self.0[slot] == 4 && self.0[slot + 205] == 2 {
            self.set(45, b"00\0");
        }
        self.set(slot, &[0; SLOT_BYTES]);
        if compact {
            let end = self.end();
            self.0.truncate(end);
            self.set(120, &((end - 32_176) as i64).to_le_bytes());
        }
        self.finish_edit();
    }

    /// Makes another system partition the one that is run.
    pub fn set_primary(&mut self, id: usize) {
        for other in self.used().collect::<Vec<_>>() {
            let slot = Sif::slot(other);
            if self.0[slot] == 4 && self.0[slot + 205] == 2 {
                self.set(slot + 205, &[1]);
                self.set(slot + 49, &NOW.to_le_bytes());
            }
        }
        let slot = Sif::slot(id);
        self.set(slot + 205, &[2]);
        self.set(slot + 49, &NOW.to_le_bytes());
        let architecture: [u8; 3] = self.0[slot + 209..slot + 212].try_into().unwrap();
        self.set(45, &architecture);
        self.finish_edit();
    }
}
