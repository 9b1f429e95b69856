use super::EntryPath;

/// What a runtime binds a place of the host to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

impl BindKind {
    /// The word for it in configurations.
    pub fn word(self) -> &'static str {
        match self {
            BindKind::Directory => "directory",
            BindKind::File => "file",
        }
    }
}

/// A place inside an image that something will be bound to, and that must therefore be there: a runtime without overlay
/// and underlay cannot make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTarget {
    /// Where it is.
    pub path: EntryPath,
    /// What must be there.
    pub kind: BindKind,
    /// Who asks for it, for messages: `line 12, tasks.infer.input_volumes.data_path`.
    pub origin: String,
}
