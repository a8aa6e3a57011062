//! Requests that concern leases.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tower_operations::{
    engine::{CellReader, LapsedCell, ReclaimFilter},
    operation::OperationId,
    store::{LeaseHandle, StoreError},
};

use super::{
    desk::{Holder, Standing, VolatileState, text},
    error::RedbFault,
    expiring_map::{ExpiringEntry, until},
    file::{Access, parse_id},
    reading,
    rows::CellRow,
    tables::{CELLS, REQUESTS},
};

type LeaseReply<A> = oneshot::Sender<Result<A, StoreError>>;

/// A request to the writer that concerns leases.
pub(super) enum LeaseRequest {
    Renew(Vec<LeaseHandle>, Duration, LeaseReply<Vec<LeaseHandle>>),
    Release(Vec<LeaseHandle>, LeaseReply<()>),
    Abandoned(ReclaimFilter, usize, LeaseReply<Vec<LapsedCell>>),
    PutAside(Vec<Bytes>, Duration, LeaseReply<()>),
}

impl LeaseRequest {
    /// Answers the request; returns whether reading the file succeeded.
    pub(super) fn answer(self, memory: &mut VolatileState, access: &Access, now: Instant) -> bool {
        // The caller may have stopped waiting.
        let is_sound = match self {
            Self::Renew(held, term, waiting) => {
                memory.longest = memory.longest.max(term);
                let lost = renew(memory, access, held, until(now, term));
                let is_sound = lost.is_ok();
                let _ = waiting.send(lost);
                is_sound
            }
            Self::Release(held, waiting) => {
                for held in held {
                    set(memory, &held, now, Standing::Released);
                }
                let _ = waiting.send(Ok(()));
                true
            }
            Self::Abandoned(which, limit, waiting) => {
                let abandoned = abandoned(memory, access, which, limit, now);
                let is_sound = abandoned.is_ok();
                let _ = waiting.send(abandoned);
                is_sound
            }
            Self::PutAside(ids, term, waiting) => {
                for id in ids.iter().filter_map(|id| parse_id(id).ok()) {
                    put_aside(memory, &id, now, until(now, term));
                }
                let _ = waiting.send(Ok(()));
                true
            }
        };
        memory.keep();
        is_sound
    }
}

/// Sets the end of a lease; returns false if the token does not hold one.
fn set(memory: &mut VolatileState, held: &LeaseHandle, until: Instant, standing: Standing) -> bool {
    let is_held = memory
        .leases
        .get(&held.id)
        .is_some_and(|lease| lease.value.token == held.token);
    if is_held {
        let value = Holder {
            token: held.token,
            standing,
        };
        memory
            .leases
            .set(&held.id, Some(ExpiringEntry { until, value }));
    }
    is_held
}

/// Renews leases. Returns those of `held` that are lost.
fn renew(
    memory: &mut VolatileState,
    access: &Access,
    held: Vec<LeaseHandle>,
    until: Instant,
) -> Result<Vec<LeaseHandle>, StoreError> {
    let released = |memory: &VolatileState, held: &LeaseHandle| {
        let lease = memory.leases.get(&held.id);
        lease.is_some_and(|lease| {
            (lease.value.token, lease.value.standing) == (held.token, Standing::Released)
        })
    };
    let (mut lost, mut held): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|held| released(memory, held));
    held.retain(|held| !set(memory, held, until, Standing::There));
    if held.is_empty() {
        return Ok(lost);
    }
    // A live cell without a lease still belongs to the token in its row.
    Ok(access.read(|read| {
        let cells = read.open_table(CELLS)?;
        for held in held {
            let is_held = match cells.get(&*text(&held.id))? {
                // A damaged cell must not block the others, and no node can end it.
                Some(row) => CellRow::decode(row.value())
                    .is_ok_and(|row| row.stamp.token == held.token && row.expires_at.is_none()),
                None => false,
            };
            if !is_held {
                lost.push(held);
            }
        }
        Ok(lost)
    })?)
}

/// Gives an expired lease a new end.
fn put_aside(memory: &mut VolatileState, id: &OperationId, now: Instant, until: Instant) {
    let over = memory.leases.get(id).filter(|lease| lease.is_over(now));
    if let Some(mut lease) = over.cloned() {
        lease.until = until;
        lease.value.standing = Standing::There;
        memory.leases.set(id, Some(lease));
    }
}

fn abandoned(
    memory: &mut VolatileState,
    access: &Access,
    which: ReclaimFilter,
    limit: usize,
    now: Instant,
) -> Result<Vec<LapsedCell>, StoreError> {
    let mut lost = Vec::new();
    let found = access.read(|read| {
        let requests = read.open_table(REQUESTS)?;
        let mut abandoned = Vec::new();
        for (name, holder) in memory.leases.over(now) {
            if abandoned.len() == limit {
                break;
            }
            if which == ReclaimFilter::Released && holder.standing == Standing::There {
                continue;
            }
            let id = text(name);
            // A damaged cell must not block the others.
            let head = match reading::cell(read, &id, CellReader::Head) {
                Ok(Some(cell)) => Ok(cell.head),
                Ok(None) => {
                    lost.push(name.clone());
                    Err(RedbFault::Row("lease without a cell").into())
                }
                Err(fault @ RedbFault::Row(_)) => Err(fault.into()),
                Err(fault) => return Err(fault),
            };
            let request = requests.get(&*id)?;
            let request = request.map(|request| request.value().to_vec().into());
            abandoned.push(LapsedCell::new(id.into(), head, request));
        }
        Ok(abandoned)
    })?;
    for id in lost {
        // The operation no longer exists, so its lease is removed.
        memory.leases.set(&id, None);
    }
    Ok(found)
}
