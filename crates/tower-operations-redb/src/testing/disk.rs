//! A disk in memory.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use ::redb::StorageBackend;

const BLOCK: usize = 4096;
/// The number of syncs that are delayed, if they are: those of a commit and more.
const DELAYED: usize = 4;

/// A disk in memory that knows what a power failure would leave.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The bytes that a read returns.
    bytes: Vec<u8>,
    /// The bytes at the last sync.
    synced: Vec<u8>,
    /// The writes since the last sync, in order.
    unsynced: Vec<Change>,
    /// The blocks that were written to; the other blocks take no room.
    blocks: BTreeSet<usize>,
    /// The changes of the last syncs, if those are delayed: a power failure undoes them.
    delayed: Option<VecDeque<Vec<Change>>>,
    /// The maximum number of blocks.
    capacity: Option<usize>,
    /// The number of calls until one fails, and the kind of the failure.
    trap: Option<(usize, Trap)>,
    /// The number of changes until the hook runs.
    hook: Option<(usize, Hook)>,
    calls: usize,
    /// The number of bytes that were read.
    read: usize,
    /// The threads that have read.
    readers: Vec<ThreadId>,
}

struct Hook(Box<dyn FnOnce() + Send>);

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// The failure of a call.
#[derive(Debug, Clone, Copy)]
pub enum Trap {
    /// The call has no effect, and returns an error.
    Error,
    /// The call takes effect, and returns an error nevertheless.
    LateError,
    /// The call panics.
    Panic,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").finish_non_exhaustive()
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Length(len) => bytes.resize(*len, 0),
        }
    }
}

impl Disk {
    fn with(bytes: Vec<u8>) -> Self {
        let synced = bytes.clone();
        Self(Arc::new(Mutex::new(State {
            blocks: (0..bytes.len().div_ceil(BLOCK)).collect(),
            bytes,
            synced,
            ..State::default()
        })))
    }

    /// Returns the disk after the end of the process. All writes are there, and a later power
    /// failure can still lose the writes that were not synced.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            bytes: state.bytes.clone(),
            synced: state.synced.clone(),
            unsynced: state.unsynced.clone(),
            delayed: state.delayed.clone(),
            blocks: state.blocks.clone(),
            ..State::default()
        })))
    }

    /// Returns the disk after a power failure. Any of the writes that were not synced may be present.
    /// `coin` decides about each sector.
    #[must_use]
    pub fn after_power_cut(&self, mut coin: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let mut bytes = state.synced.clone();
        // A sync orders the writes before and after it.
        let unsynced = match &state.delayed {
            Some(_) => &[][..],
            None => &state.unsynced,
        };
        for change in unsynced {
            let Change::Write(offset, data) = change else {
                change.apply(&mut bytes);
                continue;
            };
            // Sectors are written whole.
            for (index, sector) in data.chunks(512).enumerate() {
                if coin() {
                    Change::Write(offset + index * 512, sector.to_vec()).apply(&mut bytes);
                }
            }
        }
        Self::with(bytes)
    }

    /// Returns whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().bytes.is_empty()
    }

    /// Makes the contents of `new` those of this disk at once, as a rename does.
    pub(crate) fn put_in_place(&self, new: &Self) {
        let bytes = new.state().bytes.clone();
        let mut state = self.state();
        (state.synced, state.bytes) = (bytes.clone(), bytes);
    }

    /// Runs `hook` once, between the `changes` next writes and the one after them.
    pub fn set_hook(&self, changes: usize, hook: impl FnOnce() + Send + 'static) {
        self.state().hook = Some((changes, Hook(Box::new(hook))));
    }

    /// Delays syncs from now on: a power failure undoes the last [`DELAYED`] ones.
    pub fn delay_syncs(&self) {
        self.state().delayed.get_or_insert_default();
    }

    /// Removes the hook.
    pub fn clear_hook(&self) {
        self.state().hook = None;
    }

    /// Sets the number of further blocks that there is room for; `None` for any number.
    pub fn limit(&self, room: Option<usize>) {
        let mut state = self.state();
        state.capacity = room.map(|room| state.blocks.len() + room);
    }

    /// Makes the call after `calls` further calls fail.
    pub fn set_trap(&self, calls: usize, trap: Trap) {
        self.state().trap = Some((calls, trap));
    }

    /// Removes the fault. Returns whether it was still to come.
    pub fn take_trap(&self) -> bool {
        self.state().trap.take().is_some()
    }

    /// Returns the number of calls.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Returns the threads that have read since the last call of this method.
    pub fn readers(&self) -> Vec<ThreadId> {
        std::mem::take(&mut self.state().readers)
    }

    /// Returns the number of bytes that were read since the last call of this method.
    pub fn read(&self) -> usize {
        std::mem::take(&mut self.state().read)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A call that panics has changed nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, after the hook if its time has come.
    fn change(&self, change: Change) -> io::Result<()> {
        let hook = {
            let mut state = self.state();
            match &mut state.hook {
                Some((changes @ 1.., _)) => {
                    *changes -= 1;
                    None
                }
                hook => hook.take(),
            }
        };
        if let Some((_, Hook(hook))) = hook {
            hook();
        }
        self.call(|state| state.change(change))
    }

    fn call<A>(&self, call: impl FnOnce(&mut State) -> io::Result<A>) -> io::Result<A> {
        let mut state = self.state();
        state.calls += 1;
        let trap = match &mut state.trap {
            Some((0, trap)) => Some(*trap),
            Some((calls, _)) => {
                *calls -= 1;
                None
            }
            None => None,
        };
        if trap.is_some() {
            state.trap = None;
        }
        match trap {
            None => call(&mut state),
            Some(Trap::Error) => Err(io::Error::other("as it was told")),
            Some(Trap::LateError) => {
                call(&mut state)?;
                Err(io::Error::other("as it was told"))
            }
            Some(Trap::Panic) => {
                drop(state);
                panic!("as it was told");
            }
        }
    }
}

impl State {
    fn change(&mut self, change: Change) -> io::Result<()> {
        match &change {
            Change::Write(offset, data) => {
                for block in offset / BLOCK..(offset + data.len()).div_ceil(BLOCK) {
                    let is_full = (self.capacity).is_some_and(|most| self.blocks.len() >= most);
                    if is_full && !self.blocks.contains(&block) {
                        return Err(ErrorKind::StorageFull.into());
                    }
                    self.blocks.insert(block);
                }
            }
            Change::Length(len) => self.blocks.retain(|block| block * BLOCK < *len),
        }
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.call(|state| Ok(state.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.call(|state| {
            state.read += out.len();
            state.readers.push(thread::current().id());
            let offset = offset as usize;
            let read = state.bytes.get(offset..offset + out.len());
            out.copy_from_slice(read.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(|state| {
            let mut synced = std::mem::take(&mut state.unsynced);
            if let Some(delayed) = &mut state.delayed {
                delayed.push_back(synced);
                let is_over = delayed.len() > DELAYED;
                synced = is_over
                    .then(|| delayed.pop_front())
                    .flatten()
                    .unwrap_or_default();
            }
            for change in synced {
                change.apply(&mut state.synced);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }
}
