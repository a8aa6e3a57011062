"""Starts the example server for a drive, and stops it again.

A drive is run as `python drive_azure.py --server PATH`, where PATH is the
program built from examples/server.
"""

import argparse
import contextlib
import os
import signal
import subprocess

# In seconds. A client that polls for ever is a failure like any other.
LONGEST = 120

# The body of every order. Five pages of 200 ms each take a second.
QUICK = {"title": "Q3"}
SLOW = {"title": "Q3", "pages": 5, "page_ms": 200}
ENDLESS = {"title": "Q3", "pages": 600, "page_ms": 100}
PROBLEM = {"title": "Q3", "outcome": "problem"}

# What the server's inner service answers to PROBLEM.
CODE = "InvalidInput"
TEXT = "page 3 has no data"


@contextlib.contextmanager
def serving(dialect, *flags):
    """The URL of a server that speaks `dialect`, for as long as the block lasts."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    # The server is on this machine, whatever proxy the environment names.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    command = [
        program(),
        *("--listen", "127.0.0.1:0"),
        *("--dialect", dialect),
        # What a drive has left running is not worth waiting for.
        *("--drain", "1"),
        *flags,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline().strip()
            greeting = "listening on "
            if not said.startswith(greeting):
                raise SystemExit(f"{' '.join(command)} did not start: {said!r}")
            yield said.removeprefix(greeting)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                signal.alarm(0)


def too_long(*_):
    raise TimeoutError(f"the drive was not done after {LONGEST} seconds")


def program():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True, metavar="PATH")
    path = parser.parse_args().server
    if not os.access(path, os.X_OK):
        raise SystemExit(
            f"there is no server at {path}: cargo build --example server --all-features"
        )
    return path


def run(dialect, *checks, flags=()):
    """Runs every check with the URL of one server, and says which it was."""
    with serving(dialect, *flags) as base:
        for check in checks:
            check(base)
            print(f"{dialect}: {check.__doc__}", flush=True)
