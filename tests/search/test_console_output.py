"""What is written for people, on terminals and pipes of every kind."""

import contextlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from evaluators.measurement import Measurement, Outcome
from remote.link.reply_parsing import printable
from search.budget import Budget
from search.console_output import WIDE, UnfailingStream, console_of
from search.progress import ProgressView
from search.signal_handling import Interrupted
from spaces.candidate import Candidate

ROOT = Path(__file__).parents[2]
ODD = "größe 30 ± 1 × 2 – 日本 \udce9 …"
VIEW = """
import sys
from rich.console import Console
from search.budget import Budget
from search.progress import ProgressView
with ProgressView(Console(force_terminal=True, width=40), Budget(latency_ms=50.0), 5, None) as view:
    view.log(sys.argv[1] * 5)
    view.doing(sys.argv[1] * 5)
    view.device(sys.argv[1], "[/red]")
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8", "utf-16", "shift_jis"])
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_view_in_any_encoding_goes_on(encoding, term):
    env = os.environ | {"PYTHONIOENCODING": encoding, "TERM": term}
    words = [sys.executable, "-c", VIEW, "größe ± × …"]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("latin-1")


def file_in(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("ascii", "gr??e 30 +/- 1 x 2 - ?? ? ."),
        ("latin-1", "größe 30 ± 1 × 2 - ?? ? ."),
        ("utf-8", "größe 30 ± 1 × 2 – 日本 ? …"),
    ],
)
def test_stream_writes_what_the_encoding_has(encoding, said):
    file = file_in(encoding)
    UnfailingStream(file).write(ODD)
    file.flush()
    assert file.buffer.getvalue().decode(encoding) == said


def test_stream_on_a_closed_pipe_interrupts_once():
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as file:
        stream = UnfailingStream(file)
        with pytest.raises(Interrupted) as caught:
            stream.write("x")
            stream.flush()
        assert caught.value.exit_code == 141
        stream.write("more")
        stream.flush()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_stream_on_a_full_disk_is_quiet():
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as file:
        stream = UnfailingStream(file)
        stream.write("x" * 100000)
        stream.flush()


def test_stream_on_a_terminal_that_has_gone_is_quiet():
    ours, theirs = pty.openpty()
    with contextlib.suppress(OSError), os.fdopen(theirs, "w") as file:
        os.close(ours)
        stream = UnfailingStream(file)
        stream.write("x")
        stream.flush()


def test_printable_what_the_terminal_is_given_keeps_one_line_and_no_escapes():
    assert printable("a\nb\x1b[31mc\x9b\u2028") == r"a\nb\x1b[31mc\x9b\u2028"


def test_console_without_a_terminal_folds_nothing(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_of(file_in("utf-8")).width == WIDE
    monkeypatch.setenv("COLUMNS", "70")
    assert console_of(file_in("utf-8")).width == 70


def test_log_line_without_a_terminal_is_not_folded():
    file = io.StringIO()
    with ProgressView(Console(file=file, width=80), Budget(latency_ms=1.0), 5, None) as view:
        view.log("word " * 100)
    assert file.getvalue().count("\n") == 1


def test_view_of_a_run_gone_on_with_counts_all_trials():
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100, _environ={"TERM": "xterm"})
    candidate = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16)
    trials = [
        Measurement(candidate=candidate, outcome=Outcome.KEPT, trial=0),
        Measurement(candidate=candidate, outcome=Outcome.OVER_BUDGET, trial=1),
    ]
    with ProgressView(console, Budget(latency_ms=1.0), 5, None) as view:
        view.earlier(trials, None)
        view.outcome(Measurement(candidate=candidate, outcome=Outcome.KEPT, trial=2), None)
    said = console.file._file.getvalue()
    assert "3 of 5 (2 before)" in said and "2 kept, 1 over budget" in said and "2 trials were recorded before" in said
