//! The checks of result stores detect planted faults.

use std::{ops::Range, time::SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http::HeaderMap;
use test_support::results::MemoryResults;
use tower_operations::results::{
    ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
};
use tower_operations_conformance::results;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    UnfinishedAreVisible,
    RangesAreOneShort,
    RangesAreIgnored,
    RangesPastTheEndAreEmpty,
    TokensAreIgnored,
    RequestsAreResults,
    DeletesAreLost,
    ListsSkipOne,
}

struct Faulty(MemoryResults, Option<Fault>);

impl Faulty {
    fn key(&self, key: &ResultKey) -> ResultKey {
        let mut key = key.clone();
        if self.1 == Some(Fault::TokensAreIgnored) {
            key.token = tower_operations::store::FencingToken::from_number(1);
        }
        if self.1 == Some(Fault::RequestsAreResults) {
            key.is_request = false;
        }
        key
    }
}

impl ResultStore for Faulty {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        fields: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        Box::pin(async move {
            let key = self.key(key);
            if self.1 == Some(Fault::UnfinishedAreVisible) {
                self.0
                    .insert(&key, Bytes::from_static(b"a"), SystemTime::now());
            }
            self.0.put(&key, fields).await
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        Box::pin(async move {
            let range = match self.1 {
                Some(Fault::RangesAreOneShort) => range.start..range.end - 1,
                Some(Fault::RangesAreIgnored) => 0..u64::MAX,
                _ => range,
            };
            let key = self.key(key);
            if self.1 == Some(Fault::RangesPastTheEndAreEmpty) {
                let last = self.0.get(&key, range.end - 1..range.end).await?;
                if let Some(mut last) = last
                    && last.next().await.is_none()
                {
                    return Ok(Some(Box::pin(stream::empty()) as ResultChunks));
                }
            }
            self.0.get(&key, range).await
        })
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        match self.1 {
            Some(Fault::DeletesAreLost) => Box::pin(future::ready(Ok(()))),
            _ => self.0.delete(keys),
        }
    }

    fn list(&self) -> ResultEntries<'_> {
        match self.1 {
            Some(Fault::ListsSkipOne) => Box::pin(self.0.list().skip(1)),
            _ => self.0.list(),
        }
    }
}

#[tokio::test]
async fn a_store_in_memory_keeps_the_promises() {
    results(&Faulty(MemoryResults::default(), None)).await;
}

#[tokio::test]
async fn planted_faults_are_detected() {
    for fault in [
        Fault::UnfinishedAreVisible,
        Fault::RangesAreOneShort,
        Fault::RangesAreIgnored,
        Fault::RangesPastTheEndAreEmpty,
        Fault::TokensAreIgnored,
        Fault::RequestsAreResults,
        Fault::DeletesAreLost,
        Fault::ListsSkipOne,
    ] {
        let checked = tokio::spawn(async move {
            results(&Faulty(MemoryResults::default(), Some(fault))).await;
        });
        let error = checked.await.expect_err("the fault was not detected");
        let panic = error.into_panic();
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        let message = message.expect("a message");
        assert!(message.starts_with("law "), "{fault:?}: {message}");
    }
}
