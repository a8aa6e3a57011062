//! A disk in memory.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use ::redb::StorageBackend;

const BLOCK: usize = 4096;

/// A disk in memory that knows what a power failure would leave.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

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
    /// The maximum number of blocks.
    capacity: Option<usize>,
    /// The number of calls until one fails, and the kind of the failure.
    trap: Option<(usize, Trap)>,
    calls: usize,
    /// The number of bytes that were read.
    read: usize,
    /// The threads that have read.
    readers: Vec<ThreadId>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Trap {
    Error,
    /// The call takes effect, and returns an error nevertheless.
    LateError,
    Panic,
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
    /// Returns the disk after a power failure: of what was not synced, any part may be present.
    /// `coin` decides about each sector.
    pub(super) fn after_power_cut(&self, mut coin: impl FnMut() -> bool) -> Self {
        let state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        for change in &state.unsynced {
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
        let synced = bytes.clone();
        Self(Arc::new(Mutex::new(State {
            bytes,
            synced,
            ..State::default()
        })))
    }

    /// Sets the number of further blocks that there is room for; `None` for any number.
    pub(super) fn limit(&self, room: Option<usize>) {
        let mut state = self.0.lock().unwrap();
        state.capacity = room.map(|room| state.blocks.len() + room);
    }

    /// Makes the call after `calls` further calls fail.
    pub(super) fn set_trap(&self, calls: usize, trap: Trap) {
        self.0.lock().unwrap().trap = Some((calls, trap));
    }

    /// Returns whether the fault is still to come.
    pub(super) fn take_trap(&self) -> bool {
        self.0.lock().unwrap().trap.take().is_some()
    }

    /// Returns the number of calls.
    pub(super) fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// Returns the threads that have read since the last call of this method.
    pub(super) fn readers(&self) -> Vec<ThreadId> {
        std::mem::take(&mut self.0.lock().unwrap().readers)
    }

    /// Returns the number of bytes that were read since the last call of this method.
    pub(super) fn read(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().read)
    }

    fn call<A>(&self, call: impl FnOnce(&mut State) -> io::Result<A>) -> io::Result<A> {
        let mut state = self.0.lock().unwrap();
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
        self.call(|state| state.change(Change::Length(len as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(|state| {
            for change in std::mem::take(&mut state.unsynced) {
                change.apply(&mut state.synced);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(|state| state.change(Change::Write(offset as usize, data.to_vec())))
    }
}
