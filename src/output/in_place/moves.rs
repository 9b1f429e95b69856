//! What becomes of contents that do not lie where the output wants them: moved within the spool's file, beside the decoding
//! where that can be foreseen, or away from where something else belongs.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Monitor, Reclaimer};
use crate::layers::{Contents, Flattened};
use crate::output::policy;
use crate::output::sink::{FileSink, Sink as _};
use crate::output::tarball::{Holes, for_each_member};
use crate::tar::{member_bytes, padding};
use crate::tree::{Content, FileData, InodeId, Kind, Location, Tree};

/// How much is moved before someone looks whether to stop, in bytes.
const MOVE_BYTES: u64 = 64 << 20;

/// Contents that are to be moved from one offset to another.
pub(super) struct Move {
    pub(super) from: u64,
    pub(super) bytes: u64,
    pub(super) to: u64,
}

/// From where to where contents were moved, in the spool's file.
type Moved = BTreeMap<u64, u64>;

/// Moves contents of other layers from the spool to their places, on a thread of its own: the layer that is decoded
/// meanwhile does not keep all cores busy.
pub(in crate::output) struct Mover<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    monitor: &'env Monitor,
    thread: Mutex<Option<ScopedJoinHandle<'scope, Moved>>>,
}

impl<'scope, 'env> Mover<'scope, 'env> {
    /// Has nothing to do yet.
    pub(in crate::output) fn new(scope: &'scope Scope<'scope, 'env>, monitor: &'env Monitor) -> Self {
        Mover { scope, monitor, thread: Mutex::default() }
    }

    /// Starts the thread. It ends when the sender is gone.
    pub(super) fn start(&self, file: Arc<File>) -> Sender<Move> {
        let (sender, receiver) = channel();
        let monitor = self.monitor;
        let thread = self.scope.spawn(move || move_all(&file, &receiver, monitor));
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).replace(thread);
        sender
    }

    /// Waits until all is moved, and has the tree say where it lies now.
    pub(in crate::output) fn finish(&self, flattened: &mut Flattened) -> Result<()> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let moved = thread.join().map_err(|_| Error::new(ErrorKind::Bug, "a thread panicked"))?;
        let Flattened { tree, contents, .. } = flattened;
        for inode in policy::inodes(tree) {
            if let Kind::File(FileData { content: Content::Stored(location), .. }) = &mut tree.inode_mut(inode).kind
                && contents.is_spooled(*location)
                && let Some(to) = moved.get(&location.offset)
            {
                location.offset = *to;
            }
        }
        Ok(())
    }
}

/// Moves until there is no more, or until something fails: that fails again, and is told, when the output is written.
fn move_all(file: &Arc<File>, moves: &Receiver<Move>, monitor: &Monitor) -> Moved {
    let mut moved = Moved::new();
    let mut sink = FileSink::new(Arc::clone(file));
    let mut reclaimer = Reclaimer::new(Arc::clone(file));
    for each in moves {
        if each.make(file, &mut sink, monitor).is_err() {
            break;
        }
        moved.insert(each.from, each.to);
        reclaimer.done_with(each.from, each.bytes);
    }
    moved
}

impl Move {
    /// Copies, uncounted: whatever moves is counted where it was read, or will be where it is written.
    fn make(&self, file: &Arc<File>, sink: &mut FileSink, monitor: &Monitor) -> Result<()> {
        let uncounted = Monitor::default();
        sink.seek(self.to);
        let mut done = 0;
        while done < self.bytes {
            monitor.check()?;
            let step = (self.bytes - done).min(MOVE_BYTES);
            sink.copy(file, self.from + done, step, &uncounted)?;
            done += step;
        }
        sink.finish().or_kind(ErrorKind::Output)
    }
}

/// Moves what was foreseen to lie where it does not belong to `spool_end`, behind the spool, before anything is written over
/// it. What stays is where the tar wants it: how many bytes that are.
pub(in crate::output) fn settle(
    tree: &mut Tree,
    contents: &Contents,
    spool_end: u64,
    monitor: &Monitor,
) -> Result<u64> {
    let (mut position, mut in_place) = (0, 0);
    let mut misplaced: Vec<(InodeId, Location, u64)> = Vec::new();
    for_each_member(tree, Holes::Kept, |visit, member, data| {
        let end = position + member_bytes(member);
        if let Some(FileData { size, content: Content::Stored(location), .. }) = data
            && contents.is_foreseen(*location)
        {
            if location.offset == end - size - padding(*size) {
                in_place += size;
            } else {
                misplaced.push((visit.inode, *location, *size));
            }
        }
        position = end;
        Ok(())
    })?;
    let Some(file) = contents.spool().filter(|_| !misplaced.is_empty()) else { return Ok(in_place) };
    let mut sink = FileSink::new(Arc::clone(file));
    let mut to = spool_end;
    for (inode, from, size) in misplaced {
        let each = Move { from: from.offset, bytes: size, to };
        each.make(file, &mut sink, monitor).doing(|| "moving decoded contents")?;
        let content = Content::Stored(Location { offset: to, ..from });
        tree.inode_mut(inode).kind = Kind::File(FileData { size, content, origin: None });
        to += size;
    }
    Ok(in_place)
}
