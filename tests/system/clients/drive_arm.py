"""azure-mgmt-core polls the `arm` dialect, as a generated management client would."""

import time

import server
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.pipeline.transport import RequestsTransport
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LocationPolling
from azure.core.rest import HttpRequest
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.polling.arm_polling import ARMPolling


class FastTransport(RequestsTransport):
    """A transport that records each requested pause, and sleeps a fiftieth of it.

    ARM demands a Retry-After of at least ten seconds. How a transport sleeps is
    left to its implementer, so the poller itself is untouched.
    """

    def __init__(self):
        super().__init__()
        self.pauses = []

    def sleep(self, duration):
        self.pauses.append(duration)
        time.sleep(duration / 50)


def connect(base):
    transport = FastTransport()
    client = ARMPipelineClient(
        base,
        transport=transport,
        policies=[
            policies.RequestIdPolicy(),
            policies.ContentDecodePolicy(),
            policies.RetryPolicy(),
            policies.CustomHookPolicy(),
        ],
    )
    return client, transport


def begin(client, order, **options):
    """Returns a poller for the report, and the list of its polls."""
    request = HttpRequest("POST", client.format_url("/reports"), json=order)
    accepted = client.send_request(request, _return_pipeline_response=True)
    response = accepted.http_response
    assert response.status_code == 202, response.status_code
    assert not response.content, response.text()
    polls = []
    method = ARMPolling(
        timeout=0.1, raw_response_hook=lambda poll: polls.append(poll.http_response), **options
    )
    return LROPoller(client, accepted, lambda last: last.http_response.json(), method), polls


def success(base):
    """a report is returned from its Location once the monitor says so"""
    client, transport = connect(base)
    poller, polls = begin(client, server.SLOW)
    assert poller.result() == {"title": "Q3", "pages": 5}
    *_, before, monitor, location = polls
    assert before.json()["status"] not in ("Succeeded", "Failed", "Canceled"), before.text()
    assert monitor.json()["status"] == "Succeeded", monitor.text()
    assert location.request.url != monitor.request.url
    assert transport.pauses and min(transport.pauses) >= 10, transport.pauses


def properties(base):
    """a report is returned in the properties of the monitor"""
    client, _ = connect(base)
    options = {"final-state-via": "azure-async-operation"}
    poller, _ = begin(client, server.QUICK, lro_options=options)
    assert poller.result()["properties"] == {"title": "Q3", "pages": 1}


def location(base):
    """a report is returned to a client that knows the Location alone"""
    client, transport = connect(base)
    poller, polls = begin(client, server.SLOW, lro_algorithms=[LocationPolling()])
    assert poller.result() == {"title": "Q3", "pages": 5}
    assert [poll.status_code for poll in polls] == [202] * (len(polls) - 1) + [200]
    assert len(polls) >= 3, polls
    assert min(transport.pauses) >= 10, transport.pauses


def failure(base):
    """a failed report is an error with the service's code and text"""
    client, _ = connect(base)
    poller, _ = begin(client, server.PROBLEM)
    try:
        raise AssertionError(poller.result())
    except HttpResponseError as error:
        assert error.error.code == server.CODE, error
        assert error.error.message == server.TEXT, error
        assert poller.status() == "Failed", poller.status()


def failed_location(base):
    """a failed report is, at its Location, an error with code and text"""
    client, _ = connect(base)
    poller, _ = begin(client, server.PROBLEM, lro_algorithms=[LocationPolling()])
    try:
        raise AssertionError(poller.result())
    except HttpResponseError as error:
        assert error.status_code == 422, error
        assert error.error.code == server.CODE, error
        assert server.TEXT in str(error), error


def cancel(base):
    """a report that was canceled is an error, and stays canceled"""
    client, _ = connect(base)
    poller, polls = begin(client, server.ENDLESS)
    while not polls:
        poller.wait(0.05)
    answer = client.send_request(HttpRequest("POST", polls[0].request.url + ":cancel"))
    assert answer.status_code == 200, answer.status_code
    try:
        raise AssertionError(poller.result())
    except HttpResponseError as error:
        assert poller.status() == "Canceled", poller.status()
        # ARM requires an error for every operation that did not succeed.
        assert error.error.code and error.error.message, error


if __name__ == "__main__":
    server.run("arm", success, properties, location, failure, failed_location, cancel)
