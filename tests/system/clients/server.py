"""Starts and stops the example server for a drive.

A drive is run as `python drive_azure.py --server PATH`, where PATH is the
program built from examples/server.
"""

import argparse
import contextlib
import os
import signal
import subprocess

# The time-out of a drive in seconds, for clients that poll for ever.
TIMEOUT = 120

# The bodies of orders. Five pages of 200 ms each take a second.
QUICK = {"title": "Q3"}
SLOW = {"title": "Q3", "pages": 5, "page_ms": 200}
ENDLESS = {"title": "Q3", "pages": 600, "page_ms": 100}
PROBLEM = {"title": "Q3", "outcome": "problem"}

# The answer of the server's inner service to PROBLEM.
CODE = "InvalidInput"
TEXT = "page 3 has no data"


@contextlib.contextmanager
def serve(dialect, *flags):
    """Yields the URL of a server with this dialect, which stops at the end of the block."""
    signal.signal(signal.SIGALRM, time_out)
    signal.alarm(TIMEOUT)
    # The server is local, so no proxy may be used.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    command = [
        program(),
        *("--listen", "127.0.0.1:0"),
        *("--dialect", dialect),
        # Operations that a drive has left running need no long drain.
        *("--drain", "1"),
        *flags,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline().strip()
            greeting = "listening on "
            if not line.startswith(greeting):
                raise SystemExit(f"{' '.join(command)} did not start: {line!r}")
            yield line.removeprefix(greeting)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                signal.alarm(0)


def time_out(*_):
    raise TimeoutError(f"the drive was not done after {TIMEOUT} seconds")


def program():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True, metavar="PATH")
    path = parser.parse_args().server
    if not os.access(path, os.X_OK):
        raise SystemExit(
            f"there is no server at {path}: cargo build -p server"
        )
    return path


def run(dialect, *checks, flags=()):
    """Runs every check with the URL of one server, and prints its description."""
    with serve(dialect, *flags) as base:
        for check in checks:
            check(base)
            print(f"{dialect}: {check.__doc__}", flush=True)
