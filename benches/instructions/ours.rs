//! The benchmarks of this crate.

use std::{convert::Infallible, future::poll_fn, hint::black_box, task::Poll, time::Duration};

use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationId, Outcome, PollService,
    RecordedResponse, RequestBody, State,
    store::{Created, FencingToken, LeaseConfig, NewOperation, Repository, Store, Version, Watch},
};

use tower_operations_redb::RedbStore;

use crate::{
    OPERATIONS,
    prepared::{
        Routine, SLEEP, accept_all, accept_at_once, paused_runtime, post, posts, routine, runtime,
        settle,
    },
    report::{answer, report, work},
};

pub(crate) fn accept_routine() -> Routine {
    accept_routine_with(&MemoryStore::new(), work(Duration::ZERO))
}

/// Accepts `count` requests into a store of redb in memory, one after the other: each is answered
/// once its operation is durable, and the next one comes when the operation has ended.
pub(crate) fn accept_redb_routine(count: usize) -> Routine {
    let runtime = runtime();
    let store = RedbStore::in_memory().expect("a store in memory");
    let service = AsyncAcceptLayer::new(store.clone()).layer(work(Duration::ZERO));
    let requests = posts(count);
    routine(runtime, async move {
        for request in requests {
            let Ok(answer) = service.clone().oneshot(request).await;
            let id = answer.extensions().get().expect("the id of the operation");
            let ended = store
                .changed(id, Version::FIRST, Duration::from_secs(60))
                .await;
            let record = ended.expect("memory").expect("the request was accepted");
            assert_eq!(record.operation().state(), State::Succeeded);
        }
        std::mem::forget((service, store));
    })
}

/// All operations are live at the same time.
pub(crate) fn accept_live_routine() -> Routine {
    let runtime = paused_runtime();
    let service = AsyncAcceptLayer::new(MemoryStore::new()).layer(work(SLEEP));
    runtime.block_on(accept_at_once(&service, posts(2 * OPERATIONS)));
    let requests = posts(OPERATIONS);
    routine(runtime, async move {
        accept_at_once(&service, requests).await;
        std::mem::forget(service);
    })
}

pub(crate) fn accept_waiting_routine() -> Routine {
    let work = work::<RequestBody<BufferedBody>>(Duration::ZERO);
    let waiting = service_fn(move |request| {
        let work = work.clone();
        async move {
            let mut has_waited = false;
            poll_fn(|context| {
                if has_waited {
                    return Poll::Ready(());
                }
                has_waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            work.oneshot(request).await
        }
    });
    accept_routine_with(&MemoryStore::new(), waiting)
}

/// Each accepted operation replaces another one.
pub(crate) fn accept_full_routine() -> Routine {
    let store = MemoryStore::new().max_operations(2 * OPERATIONS);
    let store = store.min_retention(Duration::ZERO);
    accept_routine_with(&store, work(Duration::ZERO))
}

fn accept_routine_with<S>(store: &MemoryStore, work: S) -> Routine
where
    S: Service<
            Request<RequestBody<BufferedBody>>,
            Response = Response<BufferedBody>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let runtime = runtime();
    let service = AsyncAcceptLayer::new(store.clone()).layer(work);
    runtime.block_on(async {
        accept_all(&service, posts(2 * OPERATIONS)).await;
        let Ok(answer) = service.clone().oneshot(post()).await;
        settle().await;
        let location = answer.headers()["location"].to_str().expect("text");
        let (_, id) = location.rsplit_once('/').expect("a path");
        let record = store.get(&id.parse().expect("an id")).await;
        let record = record.expect("memory").expect("the request was accepted");
        // The count is complete only if operations end within the counted part.
        assert_eq!(record.operation().state(), State::Succeeded);
    });
    let requests = posts(OPERATIONS);
    routine(runtime, async move {
        accept_all(&service, requests).await;
        std::mem::forget(service);
    })
}

pub(crate) fn spawn_routine() -> Routine {
    let (runtime, requests) = (runtime(), posts(OPERATIONS));
    let service = work::<RequestBody<BufferedBody>>(Duration::ZERO);
    routine(runtime, async move {
        for request in requests {
            let (service, request) = (service.clone(), request.map(RequestBody::whole));
            tokio::spawn(async move { service.oneshot(request).await.map(drop) });
            settle().await;
        }
    })
}

/// Creates a running operation.
pub(crate) async fn start_one(store: &MemoryStore) -> (OperationId, FencingToken) {
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    store.start(&id, token).await.expect("started");
    (id, token)
}

pub(crate) fn success() -> Outcome<RecordedResponse> {
    Outcome::Succeeded(Some(RecordedResponse::new(answer(report()))))
}

pub(crate) fn finish_routine() -> Routine {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let operations: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..OPERATIONS {
            let (id, token) = start_one(&store).await;
            all.push((id, token, success()));
        }
        all
    });
    routine(runtime, async move {
        for (id, token, outcome) in operations {
            let written = store.finish(&id, token, outcome, None).await;
            black_box(written).expect("finished");
        }
        std::mem::forget(store);
    })
}

pub(crate) fn poll_routine() -> Routine {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let requests: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..OPERATIONS {
            let (id, token) = start_one(&store).await;
            let finished = store.finish(&id, token, success(), None).await;
            finished.expect("finished");
            let request = Request::get(format!("/{id}")).body(());
            all.push(request.expect("a request"));
        }
        all
    });
    let polls = PollService::new(store);
    routine(runtime, async move {
        for request in requests {
            let Ok(answer) = polls.clone().oneshot(request).await;
            black_box(answer);
        }
        std::mem::forget(polls);
    })
}
