use std::ops::Range;

use http::HeaderMap;
use tower_operations::results::{
    ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
};

use super::{SimulatedResults, upload::SimulatedUpload};

impl ResultStore for SimulatedResults {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        _: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        Box::pin(async move {
            let fate = self.send_or_panic().await?;
            let number = self.bucket.state().begin(key);
            // An upload whose answer is lost is aborted.
            let upload = SimulatedUpload::new(self, number);
            self.receive(&fate).await?;
            Ok(Box::new(upload) as Box<dyn ResultUpload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        Box::pin(self.read(key, range))
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        Box::pin(async move {
            let lag = self.bucket.state().random.below(60_000);
            self.call(|bucket| keys.iter().for_each(|key| bucket.delete(key, lag)))
                .await
        })
    }

    fn list(&self) -> ResultEntries<'_> {
        Box::pin(self.pages())
    }
}
