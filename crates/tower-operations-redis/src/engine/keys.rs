//! Idempotency keys.

use std::time::{Duration, SystemTime};

use tower_operations::{
    engine::{EngineKeys, KeyCell},
    store::{FencingToken, IdempotencyKey, StoreResult},
};

use super::{RedisEngine, full};
use crate::{
    answers,
    arguments::{KeyArguments, millis, moment},
    scripts,
};

impl EngineKeys for RedisEngine {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
        now: SystemTime,
    ) -> StoreResult<Option<KeyCell>> {
        let name = key.scoped_name();
        let mut call = self.call(&scripts::RESERVE, &[&self.names.key(&name)]);
        call.arg(&*name).arg(&*key.name).arg(token.get());
        call.arg(millis(term)).arg(moment(now));
        let reserved = KeyArguments {
            class: "request",
            data: None,
            token: Some(token),
        };
        reserved.push_to(&mut call, key);
        let answer = self.connections.next().run(&scripts::RESERVE, &call).await;
        answers::reserved(answer.map_err(full)?)
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: &[u8],
        ttl: Duration,
    ) -> StoreResult<bool> {
        let mut call = self.call(&scripts::SETTLE, &[&self.names.key(&key.scoped_name())]);
        call.arg(token.get()).arg(answer).arg(millis(ttl));
        answers::flag(&self.connections.next().run(&scripts::SETTLE, &call).await?)
    }

    async fn release_reservation(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
    ) -> StoreResult<bool> {
        let mut call = self.call(
            &scripts::RELEASE_KEY,
            &[&self.names.key(&key.scoped_name())],
        );
        call.arg(token.get());
        answers::flag(
            &self
                .connections
                .next()
                .run(&scripts::RELEASE_KEY, &call)
                .await?,
        )
    }
}
