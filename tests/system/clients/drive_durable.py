"""azure-functions-durable waits for instances of the `durable` dialect."""

import asyncio
import functools
import json
import logging

import server
from azure.durable_functions import DurableOrchestrationClient, OrchestrationRuntimeStatus

LIVE = (OrchestrationRuntimeStatus.Pending, OrchestrationRuntimeStatus.Running)


def connect(base):
    # The Functions host gives an app this binding, of which only the URL of the instances
    # matters here.
    binding = {
        "taskHubName": "drive",
        "creationUrls": {},
        "managementUrls": {},
        "rpcBaseUrl": f"{base}/",
    }
    return DurableOrchestrationClient(json.dumps(binding))


async def completion(client, instance):
    """Returns the answer that an app would send to its own caller."""
    return await client.wait_for_completion_or_create_check_status_response(
        None, instance, timeout_in_milliseconds=60_000, retry_interval_in_milliseconds=100
    )


async def success(base):
    """a report that is done at once is returned"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.QUICK)
    answer = await completion(client, instance)
    assert answer.status_code == 200, answer.get_body()
    assert json.loads(answer.get_body()) == {"title": "Q3", "pages": 1}


async def slow(base):
    """a slow report is polled until it is done"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.SLOW)
    polls = []
    while not polls or polls[-1].runtime_status in LIVE:
        await asyncio.sleep(0.1)
        polls.append(await client.get_status(instance))
        # A status without a time of creation belongs to no instance.
        assert polls[-1], polls[-1].to_json()
    last = polls[-1]
    assert len(polls) >= 3, polls
    assert last.runtime_status == OrchestrationRuntimeStatus.Completed, last.to_json()
    assert last.output == {"title": "Q3", "pages": 5}, last.to_json()
    assert last.instance_id == instance, last.to_json()
    assert last.created_time.tzinfo and last.last_updated_time.tzinfo, last.to_json()
    assert last.last_updated_time >= last.created_time, last.to_json()


async def failure(base):
    """a failed report has failed, with the service's code and text"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.PROBLEM)
    answer = await completion(client, instance)
    assert answer.status_code == 500, answer.get_body()
    status = json.loads(answer.get_body())
    assert status["runtimeStatus"] == "Failed", status
    output = json.dumps(status["output"])
    assert server.CODE in output and server.TEXT in output, status


async def cancel(base):
    """a report that was terminated stays terminated"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.ENDLESS)
    # The client sends the reason in the query, escaped.
    await client.terminate(instance, "no longer needed & gone")
    answer = await completion(client, instance)
    status = json.loads(answer.get_body())
    assert status["runtimeStatus"] in ("Terminated", "Canceled"), status
    # The client accepts that an ended instance is gone.
    await client.terminate(instance, "twice")


async def purge(base):
    """a report that was purged is of no instance any more"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.QUICK)
    await completion(client, instance)
    assert (await client.purge_instance_history(instance)).instances_deleted == 1
    assert not await client.get_status(instance)
    assert (await client.purge_instance_history(instance)).instances_deleted == 0


async def list_instances(base):
    """the instances are listed"""
    client = connect(base)
    instance = await client.start_new("report", client_input=server.QUICK)
    await completion(client, instance)
    assert instance in [status.instance_id for status in await client.get_status_all()]


def in_turn(runner, check):
    """Returns `check` as a plain function, since the client's connections belong to one loop."""

    @functools.wraps(check)
    def checked(base):
        runner.run(check(base))

    return checked


if __name__ == "__main__":
    # asyncio warns about connections that the client cannot close.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with asyncio.Runner() as loop:
        checks = (success, slow, failure, cancel, purge, list_instances)
        server.run("durable", *(in_turn(loop, check) for check in checks))
