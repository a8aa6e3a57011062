/// Forwards the capabilities of the inner store unchanged, but tells the adapter of a forced
/// end.
macro_rules! forward {
    ($adapter:ident) => {
        impl<R: Store> Store for $adapter<R> {
            type Output = R::Output;

            async fn get(&self, id: &OperationId) -> Found<R::Output> {
                self.inner.get(id).await
            }

            fn get_now(&self, id: &OperationId) -> Option<Found<R::Output>> {
                self.inner.get_now(id)
            }

            async fn get_for(&self, id: &OperationId, reader: Reader<'_>) -> Found<R::Output> {
                self.inner.get_for(id, reader).await
            }

            fn get_now_for(
                &self,
                id: &OperationId,
                reader: Reader<'_>,
            ) -> Option<Found<R::Output>> {
                self.inner.get_now_for(id, reader)
            }

            async fn health(&self) -> Result<Health, StoreError> {
                self.inner.health().await
            }
        }

        impl<R: Repository> Repository for $adapter<R> {
            fn create_now(&self, new: &NewOperation) -> Option<Placed> {
                self.inner.create_now(new)
            }

            fn finish_now(
                &self,
                placed: Placed,
                id: &OperationId,
                token: FencingToken,
                outcome: &Outcome<R::Output>,
            ) -> bool {
                self.inner.finish_now(placed, id, token, outcome)
            }

            async fn create(&self, new: NewOperation) -> Result<Created<R::Output>, StoreError> {
                self.inner.create(new).await
            }

            async fn start(
                &self,
                id: &OperationId,
                token: FencingToken,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.start(id, token).await
            }

            async fn report(
                &self,
                id: &OperationId,
                token: FencingToken,
                progress: Progress,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.report(id, token, progress).await
            }

            async fn finish(
                &self,
                id: &OperationId,
                token: FencingToken,
                outcome: Outcome<R::Output>,
                progress: Option<Progress>,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.finish(id, token, outcome, progress).await
            }

            async fn force_finish(
                &self,
                id: &OperationId,
                expected: Stamp,
                outcome: Outcome<R::Output>,
            ) -> Result<Written<R::Output>, StoreError> {
                let write = self.inner.force_finish(id, expected, outcome).await?;
                self.force_finished(&write);
                Ok(write)
            }

            async fn delete(
                &self,
                id: &OperationId,
                expected: Stamp,
            ) -> Result<Written<R::Output>, StoreError> {
                self.inner.delete(id, expected).await
            }
        }

        impl<R: IdempotencyKeys> IdempotencyKeys for $adapter<R> {
            async fn reserve(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
                term: Duration,
            ) -> Result<Reservation<R::Output>, StoreError> {
                self.inner.reserve(key, token, term).await
            }

            async fn complete(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
                answer: R::Output,
            ) -> Result<bool, StoreError> {
                self.inner.complete(key, token, answer).await
            }

            async fn release_reservation(
                &self,
                key: &IdempotencyKey,
                token: FencingToken,
            ) -> Result<bool, StoreError> {
                self.inner.release_reservation(key, token).await
            }
        }

        impl<R: List> List for $adapter<R> {
            async fn list(&self, query: &ListQuery) -> Result<Page<R::Output>, StoreError> {
                self.inner.list(query).await
            }
        }

        impl<R: Purge> Purge for $adapter<R> {
            async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
                self.inner.purge(limit).await
            }
        }
    };
}

pub(super) use forward;
