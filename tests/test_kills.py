"""kill -9 of the default sampler's real search, in every part of it, and of its worker alone: nothing is lost.

`EDGEFRONT_KILLS=40,10,10` sets how many: of the command at random moments, while it writes report and chosen/, and of
the worker. `EDGEFRONT_ENDINGS_DEVICE=local` times in earnest.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from remote.exit_codes import HOST, OK
from tests.ending_runs import check_whole, start, wait_for_text, whole_lines, words, worker_of

KILLS, AT_THE_END, OF_THE_WORKER = (int(count) for count in os.environ.get("EDGEFRONT_KILLS", "1,1,2").split(","))
LONGEST_S = 20.0


class Run:
    """One run folder, whose command is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder / "run", folder / "output"
        self.arguments, self.before = words(self.folder, folder / "cache"), b""

    def started(self):
        return start(self.arguments, self.output)

    def ended(self, process) -> int:
        """The exit code; what was in the ledger before is still there, and no trace was printed."""
        code = process.wait(600)
        said = self.output.read_text(errors="replace")
        assert "Traceback" not in said and "bug:" not in said, said
        after = whole_lines(self.folder / "ledger.jsonl")
        assert after.startswith(self.before), "what was measured is lost"
        self.before = after
        return code


def let_run(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let it go on for so long, or until it ends."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


@pytest.mark.slow
@pytest.mark.timeout(600 + 120 * (KILLS + AT_THE_END + OF_THE_WORKER))
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_search_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path):
    rng = random.Random(os.environ.get("EDGEFRONT_KILLS_SEED", "0"))
    run = Run(tmp_path)
    for _ in range(KILLS):
        process = run.started()
        let_run(process, rng.uniform(0.5, LONGEST_S))
        process.kill()
        assert run.ended(process) in (-signal.SIGKILL, OK)

    left, code = OF_THE_WORKER, HOST
    while code == HOST:  # what was killed once is tried again; where that is killed, too, the command ends
        process, had = run.started(), left
        while process.poll() is None:
            let_run(process, rng.uniform(4.0, 10.0))
            if left and (worker := worker_of(process.pid)) is not None and process.poll() is None:
                os.kill(worker, signal.SIGKILL)
                left -= 1
        code = run.ended(process)
        assert code == OK or (code == HOST and had - left >= 2), run.output.read_text()

    for _ in range(AT_THE_END):
        process = run.started()
        if wait_for_text(process, run.output, "writing the report"):
            let_run(process, rng.uniform(0.0, 3.0))
        process.kill()
        assert run.ended(process) in (-signal.SIGKILL, OK)
    assert run.ended(run.started()) == OK, run.output.read_text()
    check_whole(run.folder)
