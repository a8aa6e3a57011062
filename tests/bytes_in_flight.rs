//! The bound on the bytes of request bodies and results in memory.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use test_support::{
    hooked::{Call, Hooked, When},
    results::MemoryResults,
};
use tokio::sync::{Semaphore, mpsc};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, Idempotency, MemoryStore, Operations, RequestBody, store::Owner,
};

const IN_ALL: &str = "\"Too many bytes are in flight\"";
const OF_OWNER: &str = "\"Too many bytes are in flight for this owner\"";

/// A body of chunks that come one after the other, with a length that is announced or not.
struct Chunks {
    receiver: mpsc::UnboundedReceiver<usize>,
    announced: Option<u64>,
    is_read: Arc<AtomicBool>,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.is_read.store(true, SeqCst);
        let chunk = std::task::ready!(self.receiver.poll_recv(context));
        Poll::Ready(chunk.map(|length| Ok(Frame::data(Bytes::from(vec![b'x'; length])))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Returns a body of chunks that are sent later, and whether it was read.
fn chunks(announced: Option<u64>) -> (Chunks, mpsc::UnboundedSender<usize>, Arc<AtomicBool>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let is_read = Arc::new(AtomicBool::new(false));
    let body = Chunks {
        receiver,
        announced,
        is_read: Arc::clone(&is_read),
    };
    (body, sender, is_read)
}

/// Returns a whole body of chunks, of unknown length.
fn whole(lengths: impl IntoIterator<Item = usize>) -> Chunks {
    let (body, sender, _) = chunks(None);
    lengths.into_iter().for_each(|it| sender.send(it).unwrap());
    body
}

fn no_permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

fn post<B>(body: B) -> Request<B> {
    Request::post("/reports").body(body).unwrap()
}

/// Returns the status and the body.
async fn text<B: Body<Data = Bytes, Error: std::fmt::Debug>>(
    response: Response<B>,
) -> (StatusCode, String) {
    let status = response.status();
    let has_pause = response.headers().contains_key("retry-after");
    assert_eq!(
        has_pause,
        status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::ACCEPTED
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// A service that reads its body once it may, and answers in pieces of ten thousand bytes.
fn reader<B>(
    may_read: &Arc<Semaphore>,
    may_answer: &Arc<Semaphore>,
) -> impl Service<Request<RequestBody<B>>, Response = Response<Answer>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<B>
+ 'static
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    let (may_read, may_answer) = (Arc::clone(may_read), Arc::clone(may_answer));
    service_fn(move |request: Request<RequestBody<B>>| {
        let (may_read, may_answer) = (Arc::clone(&may_read), Arc::clone(&may_answer));
        async move {
            may_read.acquire().await.unwrap().forget();
            let _ = request.into_body().collect().await.unwrap();
            Ok(Response::new(Answer::of(&may_answer, 3)))
        }
    })
}

/// A response of pieces of ten thousand bytes, each of which needs a permit.
struct Answer(VecDeque<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Answer {
    fn of(may_answer: &Arc<Semaphore>, pieces: usize) -> Self {
        let piece = |_| {
            let may_answer = Arc::clone(may_answer);
            let piece = async move { may_answer.acquire().await.unwrap().forget() };
            Box::pin(piece) as Pin<Box<dyn Future<Output = ()> + Send>>
        };
        Self((0..pieces).map(piece).collect())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.0.front_mut() else {
            return Poll::Ready(None);
        };
        std::task::ready!(piece.as_mut().poll(context));
        self.0.pop_front();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 10_000])))))
    }
}

/// Lets all tasks run until they wait.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn bodies_and_results_are_counted_while_they_are_in_memory() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new()).max_bytes_in_flight(100_000);
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    let send = |length: usize| {
        service
            .clone()
            .oneshot(post(whole([length / 2, length / 2])))
    };
    let bytes = || {
        (
            operations.in_flight().operations,
            operations.in_flight().bytes,
        )
    };

    assert_eq!(send(70_000).await.unwrap().status(), StatusCode::ACCEPTED);
    settle().await;
    assert_eq!(
        bytes(),
        (1, 70_000),
        "the handler has not read its body yet"
    );
    let (status, body) = text(send(40_000).await.unwrap()).await;
    assert!(
        body.contains(IN_ALL) && body.contains("overloaded"),
        "{status}: {body}"
    );
    assert_eq!(
        bytes(),
        (1, 70_000),
        "a refused request has given its bytes back"
    );
    assert_eq!(send(30_000).await.unwrap().status(), StatusCode::ACCEPTED);

    may_read.add_permits(2);
    settle().await;
    assert_eq!(bytes(), (2, 0), "the handlers have their bodies");
    may_answer.add_permits(2);
    settle().await;
    assert_eq!(bytes(), (2, 20_000), "pieces of results");
    assert_eq!(send(45_000).await.unwrap().status(), StatusCode::ACCEPTED);
    let (_, body) = text(send(36_000).await.unwrap()).await;
    assert!(body.contains(IN_ALL), "{body}");
    assert_eq!(send(35_000).await.unwrap().status(), StatusCode::ACCEPTED);
    may_read.add_permits(2);
    may_answer.add_permits(10);
    settle().await;
    assert_eq!(bytes(), (0, 0), "the results are in the store");
}

/// A handler may drop its body unread, and panic.
#[tokio::test(start_paused = true)]
async fn bytes_are_free_again_when_the_handler_drops_its_body() {
    for panics in [false, true] {
        let operations = Operations::new(MemoryStore::new());
        let inner = service_fn(move |request: Request<RequestBody<Chunks>>| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!panics, "the handler panics on purpose");
            drop(request);
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        });
        let service = operations.layer().layer(inner);
        let accepted = service.oneshot(post(whole([70_000]))).await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        assert_eq!(operations.in_flight().bytes, 70_000);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let left = operations.in_flight();
        assert_eq!((left.operations, left.bytes), (0, 0), "{panics}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_body_that_does_not_fit_is_refused_unread() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new()).max_bytes_in_flight(100_000);
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    let (body, sender, is_read) = chunks(Some(150_000));
    sender.send(150_000).unwrap();
    drop(sender);
    let alone = service.clone().oneshot(post(body)).await.unwrap();
    assert_eq!(
        alone.status(),
        StatusCode::ACCEPTED,
        "nothing else is in memory"
    );
    assert!(is_read.load(SeqCst));
    let (body, _sender, is_read) = chunks(Some(2_000));
    let refused = service.clone().oneshot(post(body)).await.unwrap();
    assert!(!is_read.load(SeqCst));
    assert!(text(refused).await.1.contains(IN_ALL));
    for small in [&[][..], &[1_000]] {
        let request = post(whole(small.iter().copied()));
        let accepted = service.clone().oneshot(request).await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{small:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_free_again_when_their_client_disconnects_or_their_body_is_too_large() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new()).max_bytes_in_flight(100_000);
    let layer = operations.layer().body_limit(80_000);
    let service = layer.layer(reader(&may_read, &may_answer));
    let (body, sender, _) = chunks(None);
    let answer = tokio::spawn(service.clone().oneshot(post(body)));
    sender.send(60_000).unwrap();
    settle().await;
    assert_eq!(operations.in_flight().bytes, 60_000);
    answer.abort();
    settle().await;
    assert_eq!(
        (
            operations.in_flight().operations,
            operations.in_flight().bytes
        ),
        (0, 0)
    );

    let (body, sender, _) = chunks(None);
    let answer = tokio::spawn(service.clone().oneshot(post(body)));
    sender.send(60_000).unwrap();
    sender.send(60_000).unwrap();
    settle().await;
    assert_eq!(
        operations.in_flight().bytes,
        0,
        "the body is read, and not kept"
    );
    drop(sender);
    assert_eq!(
        answer.await.unwrap().unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn the_application_sets_the_room_of_an_owner() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new())
        .max_bytes_in_flight_per_owner(30_000)
        .owner(header_owner);
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    for (user, length, status) in [
        ("ada", 20_000, StatusCode::ACCEPTED),
        ("ada", 11_000, StatusCode::SERVICE_UNAVAILABLE),
        ("bob", 11_000, StatusCode::ACCEPTED),
        ("ada", 10_000, StatusCode::ACCEPTED),
    ] {
        let mut request = post(whole([length]));
        let headers = request.headers_mut();
        headers.insert("x-user", HeaderValue::from_static(user));
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{user} {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_leaves_room_for_others() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new())
        .max_bytes_in_flight(100_000)
        .owner(header_owner);
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    let send = |user: &str, length| {
        let mut request = post(whole([length]));
        request
            .headers_mut()
            .insert("x-user", user.parse().unwrap());
        service.clone().oneshot(request)
    };
    assert_eq!(
        send("ada", 20_000).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    assert!(
        text(send("ada", 10_000).await.unwrap())
            .await
            .1
            .contains(OF_OWNER)
    );
    assert_eq!(
        send("ada", 5_000).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(
        send("bob", 25_000).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    may_read.add_permits(3);
    settle().await;
    assert_eq!(
        send("ada", 25_000).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
}

#[tokio::test(start_paused = true)]
async fn a_result_that_waits_for_its_store_is_counted() {
    wait_for_the_store(|operations| operations, 30_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_in_a_result_store_is_not_counted_while_its_operation_waits_for_its_store() {
    let results = MemoryResults::default();
    let with_results = |operations: Operations<Hooked>| {
        let operations = operations.result_store(results.clone());
        operations.result_threshold(9_000)
    };
    wait_for_the_store(with_results, 0).await;
    assert_eq!(results.keys().len(), 1);
}

/// Ends an operation with a result of 30,000 bytes during an outage, in which so many bytes are
/// counted.
async fn wait_for_the_store(
    settings: impl FnOnce(Operations<Hooked>) -> Operations<Hooked>,
    expected: usize,
) {
    let is_out = Arc::new(AtomicBool::new(true));
    let hook = {
        let is_out = Arc::clone(&is_out);
        move |call, when| {
            let fails = (call, when) == (Call::Finish, When::Before) && is_out.load(SeqCst);
            async move {
                match fails {
                    true => Err(tower_operations::store::StoreError::unavailable("out")),
                    false => Ok(()),
                }
            }
        }
    };
    let (may_read, may_answer) = (Arc::new(Semaphore::new(9)), Arc::new(Semaphore::new(9)));
    let operations = settings(Operations::new(Hooked::new(MemoryStore::new(), hook)));
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    let accepted = service.oneshot(post(whole([10]))).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        (
            operations.in_flight().operations,
            operations.in_flight().bytes
        ),
        (1, expected)
    );
    is_out.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (
            operations.in_flight().operations,
            operations.in_flight().bytes
        ),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_an_upload_is_counted() {
    let (may_read, may_answer) = (Arc::new(Semaphore::new(1)), no_permits());
    let results = MemoryResults::default();
    results.buffer(40_000);
    let operations = Operations::new(MemoryStore::new())
        .result_store(results.clone())
        .result_threshold(9_000)
        .max_bytes_in_flight(100_000);
    let service = operations.layer().layer(reader(&may_read, &may_answer));
    let send = |length| service.clone().oneshot(post(whole([length])));
    let bytes = || operations.in_flight().bytes;

    assert_eq!(send(10).await.unwrap().status(), StatusCode::ACCEPTED);
    settle().await;
    assert_eq!(bytes(), 0, "the handler has not answered yet");
    may_answer.add_permits(1);
    settle().await;
    assert_eq!((bytes(), results.uploads()), (40_000, 1));
    assert_eq!(send(50_000).await.unwrap().status(), StatusCode::ACCEPTED);
    let (_, body) = text(send(10_001).await.unwrap()).await;
    assert!(body.contains(IN_ALL), "{body}");
    results.fail(usize::MAX);
    may_answer.add_permits(1);
    settle().await;
    assert_eq!(bytes(), 100_000, "a chunk is being written");
    results.fail(0);
    may_answer.add_permits(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((bytes(), results.keys().len()), (50_000, 1));
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_the_upload_of_a_request_is_counted() {
    const LENGTH: usize = 2_000_000;
    let (may_read, may_answer) = (no_permits(), no_permits());
    let results = MemoryResults::default();
    results.buffer(40_000);
    // The beginning and the first of two chunks.
    results.fail_after(2);
    let operations = Operations::new(MemoryStore::new()).result_store(results.clone());
    let layer = operations.layer().rerun_if(|_| true);
    let service = layer.layer(reader(&may_read, &may_answer));
    let accepted = tokio::spawn(service.oneshot(post(whole([LENGTH]))));
    settle().await;
    assert_eq!(operations.in_flight().bytes, LENGTH + 40_000);
    results.fail(0);
    let accepted = accepted.await.unwrap().unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(operations.in_flight().bytes, LENGTH);
}

#[tokio::test(start_paused = true)]
async fn bodies_and_results_of_calls_that_become_operations_are_counted() {
    let (may_read, may_answer) = (no_permits(), no_permits());
    let operations = Operations::new(MemoryStore::new()).max_bytes_in_flight(100_000);
    let layer = operations.layer().after(Duration::from_secs(1));
    let service = layer.layer(reader(&may_read, &may_answer));
    let call = tokio::spawn(service.clone().oneshot(post(whole([70_000]))));
    settle().await;
    assert_eq!(operations.in_flight().bytes, 70_000);
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
    may_read.add_permits(1);
    settle().await;
    assert_eq!(operations.in_flight().bytes, 0);
    for collected in [10_000, 20_000] {
        may_answer.add_permits(1);
        settle().await;
        assert_eq!(operations.in_flight().bytes, collected);
    }
    may_answer.add_permits(1);
    settle().await;
    assert_eq!(
        (
            operations.in_flight().operations,
            operations.in_flight().bytes
        ),
        (0, 0)
    );
}

/// A direct answer under a key waits for the store, too.
#[tokio::test(start_paused = true)]
async fn a_direct_answer_that_waits_for_its_store_is_counted() {
    let hook = |call, when| async move {
        if (call, when) == (Call::Complete, When::Before) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    };
    let (may_read, may_answer) = (Arc::new(Semaphore::new(9)), Arc::new(Semaphore::new(9)));
    let operations = Operations::new(Hooked::new(MemoryStore::new(), hook));
    let layer = operations.layer().after(Duration::from_secs(60));
    let layer = layer.idempotency(Idempotency::optional());
    let mut request = post(whole([]));
    let key = HeaderValue::from_static("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"");
    request.headers_mut().insert("idempotency-key", key);
    let service = layer.layer(reader(&may_read, &may_answer));
    let call = tokio::spawn(service.oneshot(request));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!call.is_finished());
    assert_eq!(operations.in_flight().bytes, 30_000);
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    settle().await;
    assert_eq!(operations.in_flight().bytes, 0);
}

/// The call has its result before the store says whether the operation is still this node's.
#[tokio::test(start_paused = true)]
async fn the_result_of_a_call_that_waits_for_its_start_is_counted() {
    let hook = |call, when| async move {
        if (call, when) == (Call::Start, When::Before) {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        Ok(())
    };
    let (may_read, may_answer) = (no_permits(), Arc::new(Semaphore::new(9)));
    let operations = Operations::new(Hooked::new(MemoryStore::new(), hook));
    let layer = operations.layer().after(Duration::from_secs(1));
    let service = layer.layer(reader(&may_read, &may_answer));
    let accepted = service.oneshot(post(whole([10]))).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    may_read.add_permits(1);
    settle().await;
    assert_eq!(operations.in_flight().bytes, 30_000);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        (
            operations.in_flight().operations,
            operations.in_flight().bytes
        ),
        (0, 0)
    );
}

/// The store has the request, so the node needs no copy.
#[tokio::test(start_paused = true)]
async fn the_stored_form_of_a_request_leaves_the_memory_once_its_operation_exists() {
    for after in [None, Some(Duration::from_secs(1))] {
        let store = Hooked::new(MemoryStore::new(), async |_, _| Ok(()));
        let requests = Arc::clone(&store.requests);
        let operations = Operations::new(store);
        let layer = operations.layer().rerun_if(|_| true);
        let layer = match after {
            Some(time) => layer.after(time),
            None => layer,
        };
        let (may_read, may_answer) = (no_permits(), no_permits());
        let service = layer.layer(reader(&may_read, &may_answer));
        let accepted = service.oneshot(post(whole([70_000]))).await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        settle().await;
        assert_eq!(
            operations.in_flight().operations,
            1,
            "the handler has not ended"
        );
        let requests = requests.lock().unwrap();
        assert!(
            requests.len() == 1 && requests[0].len() > 70_000,
            "{after:?}"
        );
        assert!(requests[0].is_unique(), "{after:?}");
    }
}

/// A request that is run again counts as any other.
#[tokio::test(start_paused = true)]
async fn a_node_without_room_reclaims_nothing_that_it_would_run_again() {
    let store = MemoryStore::new();
    let (may_read, may_answer) = (no_permits(), no_permits());
    let app = |may_read: &Arc<Semaphore>, may_answer: &Arc<Semaphore>| {
        let inner = reader::<BufferedBody>(may_read, may_answer);
        inner.map_request(|request: Request<BufferedBody>| request.map(RequestBody::whole))
    };
    let first = Operations::new(store.clone());
    let _recovery = first.recovery().rerun_with(app(&may_read, &may_answer), 3);
    let layer = first.layer().rerun_if(|_| true);
    let service = layer.layer(reader(&may_read, &may_answer));
    let accepted = service.oneshot(post(whole([8_000]))).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    first.drain(Duration::ZERO).await;

    let second = Operations::new(store).max_bytes_in_flight(5_000);
    let (may_read, may_answer) = (no_permits(), Arc::new(Semaphore::new(99)));
    let service = second.layer().layer(reader(&may_read, &may_answer));
    let accepted = service.oneshot(post(whole([6_000]))).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let may_read_again = no_permits();
    let recovery = second.recovery();
    let recovery = recovery.rerun_with(app(&may_read_again, &may_answer), 3);
    let recovery = tokio::spawn(recovery.run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = second.in_flight();
    assert_eq!((left.operations, left.bytes), (1, 6_000));
    may_read.add_permits(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = second.in_flight();
    assert_eq!(
        (left.operations, left.bytes),
        (1, 8_000),
        "the request of the first node"
    );
    may_read_again.add_permits(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = second.in_flight();
    assert_eq!((left.operations, left.bytes), (0, 0));
    recovery.abort();
}

#[tokio::test]
async fn a_body_is_given_back_whole() {
    let operations = Operations::new(MemoryStore::new());
    let (sender, mut bodies) = mpsc::unbounded_channel();
    let inner = service_fn(move |request: Request<RequestBody<BufferedBody>>| {
        let sender = sender.clone();
        async move {
            let body = request.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned();
            sender.send((body.to_bytes(), trailers)).unwrap();
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }
    });
    let service = operations.layer().layer(inner);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let data = Bytes::from(vec![b'x'; 70_000]);
    for trailers in [None, Some(trailers)] {
        let request = post(BufferedBody::new(data.clone(), trailers.clone()));
        let accepted = service.clone().oneshot(request).await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        assert_eq!(bodies.recv().await.unwrap(), (data.clone(), trailers));
        assert_eq!(operations.in_flight().bytes, 0);
    }
}
