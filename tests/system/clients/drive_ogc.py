"""ogc-api-processes-client runs a process through the `ogc` dialect."""

import json
import time

import requests
import server
from ogc_api_processes_client import Configuration
from ogc_api_processes_client.api import ResultApi
from ogc_api_processes_client.api_client_wrapper import ApiClientWrapper
from ogc_api_processes_client.exceptions import NotFoundException, UnprocessableEntityException
from ogc_api_processes_client.models import StatusCode

LIVE = (StatusCode.ACCEPTED, StatusCode.RUNNING)
RELATIONS = "http://www.opengis.net/def/rel/ogc/1.0/"
TYPES = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"


def begin(base, order):
    """Returns a client, and the job that the client has started."""
    client = ApiClientWrapper(configuration=Configuration(host=base))
    # The typed call cannot send a string, because its models may treat one as bytes.
    job = client.execute_simple(
        "report", {"inputs": order}, _headers={"Prefer": "respond-async"}
    )
    return client, job.job_id


def finished(client, job):
    """Returns the job at its end, and the number of polls."""
    polls = 0
    while True:
        # The client raises an exception for a status that is not a statusInfo of OGC.
        info = client.get_status(job)
        polls += 1
        if info.status not in LIVE:
            return info, polls
        time.sleep(0.1)


def results(client, job):
    # The models are not used, because they read neither strings nor integers.
    answer = ResultApi(client.api_client).get_result_without_preload_content(job)
    assert answer.status == 200, answer.status
    return json.loads(answer.read())


def landing_page(base):
    """what a client begins with leads to the process and to the jobs"""
    links = {link["rel"]: link["href"] for link in requests.get(base, timeout=10).json()["links"]}
    found = requests.get(base + links[RELATIONS + "processes"], timeout=10).json()
    assert [process["id"] for process in found["processes"]] == ["report"], found
    process = requests.get(base + "/processes/report", timeout=10).json()
    assert "async-execute" in process["jobControlOptions"], process
    jobs = requests.get(base + links[RELATIONS + "job-list"], timeout=10).json()
    assert jobs["jobs"] == [], jobs
    classes = requests.get(base + links["conformance"], timeout=10).json()["conformsTo"]
    assert any(name.endswith("/conf/dismiss") for name in classes), classes


def success(base):
    """a report that is done at once is returned"""
    client, job = begin(base, server.QUICK)
    info, _ = finished(client, job)
    assert info.status == StatusCode.SUCCESSFUL, info
    assert results(client, job) == {"title": "Q3", "pages": 1}


def slow(base):
    """a slow report is polled until it is done, and has no result before"""
    client, job = begin(base, server.SLOW)
    try:
        raise AssertionError(client.get_result(job))
    except NotFoundException as error:
        assert error.data.type == TYPES + "result-not-ready", error
    info, polls = finished(client, job)
    assert info.status == StatusCode.SUCCESSFUL, info
    assert polls >= 3, polls
    for moment in (info.created, info.started, info.finished, info.updated):
        assert moment is None or moment.tzinfo, info
    assert info.created, info
    assert results(client, job) == {"title": "Q3", "pages": 5}


def failure(base):
    """a failed report is an error with the service's code and text"""
    client, job = begin(base, server.PROBLEM)
    info, _ = finished(client, job)
    assert info.status == StatusCode.FAILED, info
    assert info.message, info
    try:
        raise AssertionError(client.get_result(job))
    except UnprocessableEntityException as error:
        problem = json.loads(error.body)
        assert problem["code"] == server.CODE, error
        assert problem["detail"] == server.TEXT, error


def cancel(base):
    """a report that was dismissed stays dismissed"""
    client, job = begin(base, server.ENDLESS)
    assert client.dismiss(job).status == StatusCode.DISMISSED
    assert client.get_status(job).status == StatusCode.DISMISSED


def dismiss_finished(base):
    """a report that was dismissed once it was done is not found"""
    client, job = begin(base, server.QUICK)
    finished(client, job)
    assert client.dismiss(job).status == StatusCode.DISMISSED
    try:
        raise AssertionError(client.get_status(job))
    except NotFoundException as error:
        assert error.data.type == TYPES + "no-such-job", error


def list_jobs(base):
    """the jobs are listed"""
    client, job = begin(base, server.QUICK)
    finished(client, job)
    assert job in [info.job_id for info in client.get_jobs().jobs]


if __name__ == "__main__":
    checks = (landing_page, success, slow, failure, cancel, dismiss_finished, list_jobs)
    server.run("ogc", *checks, flags=["--list"])
