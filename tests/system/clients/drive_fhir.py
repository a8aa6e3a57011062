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

# A wide terminal, because the expected texts may be in long lines.
ENVIRONMENT = os.environ | {"COLUMNS": "1000"}


def command(base, folder, order, *flags):
    # The program sends the query of its server's URL with `$export`.
    return [
        *(sys.executable, "-m", "smart_fetch.cli.main", "bulk", str(folder)),
        *("--fhir-url", f"{base}/?{urlencode(order)}"),
        *("--type", "Patient", "--no-compression", *flags),
    ]


def export(*arguments):
    """Runs the program, and returns its exit code and output."""
    process = subprocess.run(
        command(*arguments),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=server.TIMEOUT,
    )
    # The program deletes the export at the end, or when it is canceled. A failed
    # delete is only logged.
    assert "Failed to clean up" not in process.stdout, process.stdout
    return process.returncode, process.stdout


def events(folder):
    """Returns the last logged event of each kind."""
    lines = (folder / "log.ndjson").read_text().splitlines()
    return {event["eventId"]: event for event in map(json.loads, lines)}


def assert_not_found(url):
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 404, (answer.status_code, answer.text)


def assert_export(base, order):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        code, output = export(base, folder, order)
        assert code == 0, output
        # The program continues without the time, and logs it.
        assert "Could not parse transactionTime" not in output, output
        files = list(folder.glob("Patient.*.ndjson"))
        assert files, output
        patients = [json.loads(line) for file in files for line in file.open()]
        assert patients, output
        assert all(patient["resourceType"] == "Patient" for patient in patients), patients
        # The program deletes the export once the export is downloaded.
        assert_not_found(events(folder)["kickoff"]["exportId"])


def success(base):
    """an export that is done at once is downloaded"""
    assert_export(base, server.QUICK)


def untitled(base):
    """an export of which nothing is said but how long it takes is downloaded"""
    assert_export(base, {"pages": 1, "page_ms": 10})


def slow(base):
    """a slow export is polled until it is done, and downloaded"""
    # Without a Retry-After, the program would sleep for a minute.
    begun = time.monotonic()
    assert_export(base, server.SLOW)
    assert 1 <= time.monotonic() - begun < 30


def failure(base):
    """a failed export is an error with the service's text"""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        code, output = export(base, folder, server.PROBLEM)
        assert code == 1, output
        # The program shows only the status code of HTTP.
        assert f"[422] {server.TEXT}" in output, output
        logged = events(folder)["status_error"]["eventDetail"]
        assert logged["code"] == 422, logged
        assert logged["body"]["resourceType"] == "OperationOutcome", logged


def cancel(base):
    """an export that was canceled is not found"""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # The program is terminated, and run again to cancel its export.
        running_export = subprocess.Popen(
            command(base, folder, server.ENDLESS), env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
        try:
            metadata = folder / ".metadata"
            while not (metadata.exists() and "bulk-status" in metadata.read_text()):
                assert running_export.poll() is None, "the export ended by itself"
                time.sleep(0.05)
        finally:
            running_export.terminate()
            running_export.wait(10)
        status = json.loads(metadata.read_text())["bulk-status"]
        running = requests.get(status, timeout=10)
        assert running.status_code == 202, (running.status_code, running.text)
        # The program shows the progress while it waits.
        assert running.headers["x-progress"], running.headers
        code, output = export(base, folder, server.ENDLESS, "--cancel")
        assert code == 0, output
        assert_not_found(status)


if __name__ == "__main__":
    server.run("fhir", success, untitled, slow, failure, cancel)
