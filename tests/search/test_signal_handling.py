"""Signals: the first ends as Ctrl-C does, a second one at once, what is ignored stays ignored."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys, time
from search.signal_handling import Interrupted, interruptible
try:
    with interruptible():
        try:
            print("ready", flush=True)
            time.sleep(30)
        finally:
            print("closing", flush=True)
            time.sleep(float(sys.argv[1]))
            print("closed", flush=True)
except Interrupted as error:
    sys.exit(error.exit_code)
"""


def started(closing_s, ignored=()):
    def prepare():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    words = [sys.executable, "-c", CODE, str(closing_s)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=prepare)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_first_signal_closes_everything(number, code):
    process = started(0.5)
    process.send_signal(signal.Signals[number])
    process.send_signal(signal.Signals[number])  # as `timeout` and closing terminals do: the same one twice
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "closing\nclosed\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once(number):
    process, began = started(20.0), time.monotonic()
    process.send_signal(number)
    time.sleep(2.0)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == -number and out == "closing\n" and time.monotonic() - began < 15


def test_ignored_signal_stays_ignored():
    process = started(0.0, ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 143


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_command_without_standard_streams_ends_right(closed, tmp_path):
    """Without them the next files opened would get their numbers: what a library prints would go into the ledger."""
    words = f"{sys.executable} -m search.run --budget-ms 5 --data nowhere --out {tmp_path / 'r'} {closed}"
    assert subprocess.run(["sh", "-c", words], cwd=ROOT, check=False).returncode == 2


def test_help_whose_reader_goes_is_quiet():
    words = f"{sys.executable} -m search.run --help 2>&1 | head -c 1 | wc -c"
    assert subprocess.run(["sh", "-c", words], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "1"
