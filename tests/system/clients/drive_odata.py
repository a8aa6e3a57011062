"""azure-core polls the `odata` dialect, of which it supports only the `Location`.

No library for OData on PyPI polls a status monitor; azure-core is the closest
client. It ignores AsyncResult.
"""

import server
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LROBasePolling
from azure.core.rest import HttpRequest


def connect(base):
    return PipelineClient(
        base,
        policies=[
            policies.RequestIdPolicy(),
            policies.ContentDecodePolicy(),
            policies.RetryPolicy(),
            policies.CustomHookPolicy(),
        ],
    )


def begin(client, order):
    """Returns a poller for the report, and the list of its polls."""
    request = HttpRequest(
        "POST",
        client.format_url("/reports"),
        json=order,
        headers={"Prefer": "respond-async"},
    )
    accepted = client.send_request(request, _return_pipeline_response=True)
    response = accepted.http_response
    assert response.status_code == 202, response.status_code
    assert response.headers["preference-applied"] == "respond-async", response.headers
    polls = []
    method = LROBasePolling(
        timeout=0.1, raw_response_hook=lambda poll: polls.append(poll.http_response)
    )
    return LROPoller(client, accepted, lambda last: last.http_response, method), polls


def success(base):
    """a report that is done at once is returned"""
    poller, _ = begin(connect(base), server.QUICK)
    assert poller.result().json() == {"title": "Q3", "pages": 1}


def slow(base):
    """a slow report is polled until it is done"""
    poller, polls = begin(connect(base), server.SLOW)
    last = poller.result()
    assert last.json() == {"title": "Q3", "pages": 5}
    assert last.headers["asyncresult"] == "200", last.headers
    assert [poll.status_code for poll in polls] == [202] * (len(polls) - 1) + [200]
    assert len(polls) >= 2, polls
    assert all(poll.headers["location"] for poll in polls[:-1])


def failure(base):
    """a failed report is returned, with the service's status, code and text"""
    poller, _ = begin(connect(base), server.PROBLEM)
    last = poller.result()
    assert last.headers["asyncresult"] == "422", last.headers
    assert last.json()["code"] == server.CODE, last.text()
    assert last.json()["detail"] == server.TEXT, last.text()


def cancel(base):
    """a report that was deleted is an error, as it is not found"""
    client = connect(base)
    poller, polls = begin(client, server.ENDLESS)
    while not polls:
        poller.wait(0.05)
    answer = client.send_request(HttpRequest("DELETE", polls[0].request.url))
    assert answer.status_code in (200, 204), answer.status_code
    try:
        raise AssertionError(poller.result())
    except HttpResponseError as error:
        assert error.status_code in (404, 410), error


if __name__ == "__main__":
    server.run("odata", success, slow, failure, cancel)
