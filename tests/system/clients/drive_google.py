"""google-api-core polls the `google` dialect over REST, as a generated client would."""

import requests
import server
from google.api_core import exceptions, retry
from google.api_core.future.polling import POLLING_PREDICATE
from google.api_core.operation import from_gapic
from google.api_core.operations_v1 import AbstractOperationsClient, OperationsRestTransport
from google.auth.credentials import AnonymousCredentials
from google.longrunning import operations_pb2
from google.protobuf import json_format

# The import also registers the type: the client can decode an Any only if a module has
# imported its type.
from google.protobuf.struct_pb2 import Struct

# The paths of the operations. A generated client has them for its own service; without
# them, names would need a prefix before `operations/`.
OPERATIONS = "google.longrunning.Operations."
HTTP = {
    OPERATIONS + "GetOperation": [{"method": "get", "uri": "/v1/{name=operations/**}"}],
    OPERATIONS + "DeleteOperation": [{"method": "delete", "uri": "/v1/{name=operations/**}"}],
    OPERATIONS + "ListOperations": [{"method": "get", "uri": "/v1/{name=operations}"}],
    OPERATIONS + "CancelOperation": [
        {"method": "post", "uri": "/v1/{name=operations/**}:cancel", "body": "*"}
    ],
}


def connect(base):
    # The scheme has to be in `host`, because this transport ignores its `url_scheme`.
    transport = OperationsRestTransport(
        host=base, credentials=AnonymousCredentials(), http_options=HTTP
    )
    return AbstractOperationsClient(transport=transport)


def begin(base, order):
    """Returns the future of the report, parsed as strictly as by a generated client."""
    answer = requests.post(f"{base}/reports", json=order, timeout=10)
    assert answer.status_code == 200, answer.status_code
    started = json_format.Parse(answer.text, operations_pb2.Operation())
    assert started.name.startswith("operations/"), started
    polling = retry.Retry(predicate=POLLING_PREDICATE, initial=0.1, multiplier=1, timeout=60)
    return from_gapic(started, connect(base), Struct, metadata_type=Struct, polling=polling)


def success(base):
    """a report that is done at once is returned"""
    report = begin(base, server.QUICK).result()
    assert json_format.MessageToDict(report) == {"title": "Q3", "pages": 1}, report


def slow(base):
    """a slow report is polled until it is done"""
    operation = begin(base, server.SLOW)
    assert operation.running()
    # The assertion fails without metadata, or if the metadata is not a Struct.
    assert isinstance(operation.metadata, Struct), operation.operation
    assert operation.result()["pages"] == 5
    assert operation.done() and not operation.cancelled()
    fetched = connect(base).get_operation(operation.operation.name)
    assert fetched.done and fetched.HasField("response"), fetched


def failure(base):
    """a failed report is an error with the service's code and text"""
    operation = begin(base, server.PROBLEM)
    try:
        raise AssertionError(operation.result())
    except exceptions.InvalidArgument as error:
        assert error.message == server.TEXT, error
        (status,) = error.errors
        detail = Struct()
        assert status.details[0].Unpack(detail), status
        assert detail["reason"] == server.CODE, detail
        assert detail["problem"]["code"] == server.CODE, detail


def cancel(base):
    """a report that was canceled is an error, and stays canceled"""
    operation = begin(base, server.ENDLESS)
    assert operation.cancel()
    try:
        raise AssertionError(operation.result())
    except exceptions.Cancelled:
        assert operation.cancelled()
    assert not operation.cancel(), "what is done cannot be canceled"


def list_operations(base):
    """the reports are listed, page by page"""
    begun = {begin(base, server.QUICK).operation.name for _ in range(3)}
    pages = connect(base).list_operations("operations", "", page_size=2).pages
    names = [[operation.name for operation in page.operations] for page in pages]
    assert len(names) >= 2 and all(len(page) <= 2 for page in names), names
    assert begun <= set(sum(names, [])), names


def delete(base):
    """a report that was deleted is not found"""
    operation = begin(base, server.QUICK)
    operation.result()
    client, name = connect(base), operation.operation.name
    client.delete_operation(name)
    try:
        raise AssertionError(client.get_operation(name))
    except exceptions.NotFound as error:
        # The client reads the text only from an `error`.
        assert "unknown error" not in error.message, error


if __name__ == "__main__":
    server.run(
        "google", success, slow, failure, cancel, list_operations, delete, flags=["--list"]
    )
