"""smart-fetch makes a bulk export through the `fhir` dialect."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlencode

import requests
import server

# Long lines would be wrapped, and what is looked for with them.
ENVIRONMENT = os.environ | {"COLUMNS": "1000"}


def command(base, folder, order, *flags):
    # The program keeps what is in the query of its server's URL for `$export`.
    return [
        *(sys.executable, "-m", "smart_fetch.cli.main", "bulk", str(folder)),
        *("--fhir-url", f"{base}/?{urlencode(order)}"),
        *("--type", "Patient", "--no-compression", *flags),
    ]


def export(*arguments):
    """Runs the program, and returns how it ended and what it said."""
    ended = subprocess.run(
        command(*arguments),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=server.LONGEST,
    )
    # The export is deleted at the end, or when it is canceled. The program goes
    # on without, but it says so.
    assert "Failed to clean up" not in ended.stdout, ended.stdout
    return ended.returncode, ended.stdout


def events(folder):
    """What the program has logged, by its kind."""
    lines = (folder / "log.ndjson").read_text().splitlines()
    return {event["eventId"]: event for event in map(json.loads, lines)}


def gone(url):
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 404, (answer.status_code, answer.text)


def exported(base, order):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        code, said = export(base, folder, order)
        assert code == 0, said
        # It would go on without the time, and log it.
        assert "Could not parse transactionTime" not in said, said
        files = list(folder.glob("Patient.*.ndjson"))
        assert files, said
        patients = [json.loads(line) for file in files for line in file.open()]
        assert patients, said
        assert all(patient["resourceType"] == "Patient" for patient in patients), patients
        # The program deletes the export once it has all of it.
        gone(events(folder)["kickoff"]["exportId"])


def success(base):
    """an export that is done at once is downloaded"""
    exported(base, server.QUICK)


def untitled(base):
    """an export of which nothing is said but how long it takes is downloaded"""
    exported(base, {"pages": 1, "page_ms": 10})


def slow(base):
    """a slow export is polled until it is done, and downloaded"""
    # Without a Retry-After, the program would sleep for a minute.
    begun = time.monotonic()
    exported(base, server.SLOW)
    assert 1 <= time.monotonic() - begun < 30


def failure(base):
    """a failed export is an error with the service's text"""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        code, said = export(base, folder, server.PROBLEM)
        assert code == 1, said
        # All the code that the program ever shows is that of HTTP.
        assert f"[422] {server.TEXT}" in said, said
        logged = events(folder)["status_error"]["eventDetail"]
        assert logged["code"] == 422, logged
        assert logged["body"]["resourceType"] == "OperationOutcome", logged


def cancel(base):
    """an export that was canceled is not found"""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # The program is stopped, as by Ctrl-C, and told to cancel what it began.
        begun = subprocess.Popen(
            command(base, folder, server.ENDLESS), env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
        try:
            metadata = folder / ".metadata"
            while not (metadata.exists() and "bulk-status" in metadata.read_text()):
                assert begun.poll() is None, "the export ended by itself"
                time.sleep(0.05)
        finally:
            begun.terminate()
            begun.wait(10)
        status = json.loads(metadata.read_text())["bulk-status"]
        running = requests.get(status, timeout=10)
        assert running.status_code == 202, (running.status_code, running.text)
        # It is what the program shows while it waits.
        assert running.headers["x-progress"], running.headers
        code, said = export(base, folder, server.ENDLESS, "--cancel")
        assert code == 0, said
        gone(status)


if __name__ == "__main__":
    server.run("fhir", success, untitled, slow, failure, cancel)
