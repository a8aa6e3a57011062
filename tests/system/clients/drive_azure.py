"""azure-core polls the `azure` dialect, as a generated Azure client would."""

import server
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LROBasePolling
from azure.core.rest import HttpRequest


def connect(base, decoding=(policies.ContentDecodePolicy(),)):
    # The policies of a generated client that affect the wire. The
    # poller itself needs the request id.
    return PipelineClient(
        base,
        policies=[
            policies.RequestIdPolicy(),
            policies.HeadersPolicy(),
            policies.UserAgentPolicy("tower-operations"),
            *decoding,
            policies.RedirectPolicy(),
            policies.RetryPolicy(),
            policies.CustomHookPolicy(),
        ],
    )


def begin(client, order, read):
    """Returns a poller for the report, and the list of its polls."""
    request = HttpRequest("POST", client.format_url("/reports"), json=order)
    accepted = client.send_request(request, _return_pipeline_response=True)
    response = accepted.http_response
    assert response.status_code == 202, response.status_code
    assert response.json()["status"] == "NotStarted", response.text()
    assert "location" not in response.headers, "it would be read as the result's URL"
    polls = []
    method = LROBasePolling(
        timeout=0.1, raw_response_hook=lambda poll: polls.append(poll.http_response)
    )
    return LROPoller(client, accepted, read, method), polls


def result(last):
    return last.http_response.json()["result"]


def success(base):
    """a report that is done at once is returned"""
    poller, _ = begin(connect(base), server.QUICK, result)
    assert poller.result() == {"title": "Q3", "pages": 1}
    assert poller.status() == "Succeeded", poller.status()


def slow(base):
    """a slow report is polled until it is done"""
    poller, polls = begin(connect(base), server.SLOW, result)
    assert poller.result() == {"title": "Q3", "pages": 5}
    assert len(polls) >= 2, polls
    *earlier, last = polls
    for poll in earlier:
        assert poll.json()["status"] in ("NotStarted", "Running"), poll.text()
        # Without the header the poller would use its own interval.
        assert int(poll.headers["retry-after"]) >= 1
    assert "retry-after" not in last.headers


def failure(base):
    """a failed report is an error with the service's code and text"""
    poller, _ = begin(connect(base), server.PROBLEM, result)
    try:
        raise AssertionError(poller.result())
    except HttpResponseError as error:
        assert error.error.code == server.CODE, error
        assert error.error.message == server.TEXT, error
        assert poller.status() == "Failed", poller.status()


def cancel(base):
    """a report that was canceled is an error, and stays canceled"""
    client = connect(base)
    poller, polls = begin(client, server.ENDLESS, result)
    while not polls:
        poller.wait(0.05)
    monitor = polls[0].request.url
    answer = client.send_request(HttpRequest("POST", monitor + ":cancel"))
    assert answer.status_code == 200, answer.status_code
    assert answer.json()["status"] == "Canceled", answer.text()
    try:
        raise AssertionError(poller.result())
    except HttpResponseError:
        assert poller.status() == "Canceled", poller.status()


def binary(base):
    """a report that is no JSON is fetched from where the monitor points"""
    order = server.QUICK | {"format": "pdf", "bytes": 1000}
    # The decoding policy refuses bodies other than JSON, XML and text.
    client = connect(base, decoding=())
    poller, polls = begin(client, order, lambda last: last.http_response)
    pdf = poller.result()
    assert pdf.headers["content-type"] == "application/pdf", pdf.headers
    assert pdf.read().startswith(b"%PDF"), pdf.read()[:8]
    *_, monitor, fetched = polls
    assert fetched.request.url == monitor.json()["resourceLocation"]


def once(base):
    """an order that comes again with its Operation-Id is the same operation"""
    client = connect(base)

    def post(title):
        request = HttpRequest(
            "POST", base + "/reports", headers={"Operation-Id": "report-7"}, json={"title": title}
        )
        return client.send_request(request)

    first, repeated = post("Q3"), post("Q3")
    assert first.status_code == repeated.status_code == 202, (first, repeated)
    monitors = {answer.headers["operation-location"] for answer in (first, repeated)}
    assert monitors == {base + "/operations/report-7"}, monitors
    assert post("Q4").status_code == 400


if __name__ == "__main__":
    server.run("azure", success, slow, failure, cancel, binary, once)
