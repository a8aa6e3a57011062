//! Reading uploads chunk by chunk.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::sleep;
use tower_operations::{
    results::{ResultChunks, ResultKey},
    store::{StoreError, StoreResult},
};

use super::{SimulatedResults, bucket::BucketState};

/// The length of the longest chunk, in bytes.
const CHUNK: usize = 16 * 1024;
/// The longest time that a slow chunk takes, in milliseconds.
const SLOW: u64 = 1_500;

impl SimulatedResults {
    /// Opens a part of an upload. A read that has begun does not notice a deletion.
    pub(super) async fn read(
        &self,
        key: &ResultKey,
        range: Range<u64>,
    ) -> StoreResult<Option<ResultChunks>> {
        let fate = self.send().await?;
        let content = self.bucket.state().read(key);
        self.receive(&fate).await?;
        Ok(content.map(|content| {
            let within = |place: u64| {
                usize::try_from(place).map_or(content.len(), |it| it.min(content.len()))
            };
            let part = content.slice(within(range.start)..within(range.end));
            Box::pin(self.clone().chunks(part)) as ResultChunks
        }))
    }

    fn chunks(self, part: Bytes) -> impl Stream<Item = StoreResult<Bytes>> + Send {
        stream::unfold((self, part), |(store, mut part)| async move {
            if part.is_empty() {
                return None;
            }
            Some(match store.next_chunk(&mut part).await {
                Ok(chunk) => (Ok(chunk), (store, part)),
                Err(error) => {
                    store.bucket.state().counts.broken_reads += 1;
                    (Err(error), (store, Bytes::new()))
                }
            })
        })
    }

    async fn next_chunk(&self, part: &mut Bytes) -> StoreResult<Bytes> {
        let (length, pause) = {
            let random = &mut self.bucket.state().random;
            let pause = match random.one_in(20) {
                true => random.between(0, SLOW),
                false => 0,
            };
            (1 + random.below(CHUNK), pause)
        };
        let fate = self.send().await?;
        if fate.loses_answer {
            return Err(StoreError::unavailable("the connection broke"));
        }
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
        Ok(part.split_to(length.min(part.len())))
    }
}

impl BucketState {
    fn read(&mut self, key: &ResultKey) -> Option<Bytes> {
        self.counts.reads += 1;
        let content = self.finished.get(key)?.content.clone();
        Some(self.mix_up(key, content))
    }
}
