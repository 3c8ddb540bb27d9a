"""The worker process: it may die in any way and costs only itself."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluators.worker import Worker, WorkerCrashed, WorkerError, WorkerTimedOut

REPO = Path(__file__).parents[2]


class Odd(Exception):
    """Can be packed but not unpacked: its constructor wants two arguments."""

    kind = "unsupported"

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


class Own(Exception):
    kind = "unbuildable"


def fail(kind):
    if kind == "own":
        raise Own("cannot be cut")
    if kind == "odd":
        raise Odd("a thing", "a reason")
    raise TimeoutError("the function's own")


def send(kind):
    return threading.Lock() if kind == "lock" else os.environ.get(kind)


def note_and_sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(60)


def chat():
    print("on stdout", flush=True)
    os.system("echo from a child >&2")
    return multiprocessing.get_start_method(allow_none=True)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def wait_for(condition, limit_s=10.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("worker") / "log", threads=1, preload=()) as worker:
        yield worker


def test_the_process_is_kept(worker):
    first = worker.call(os.getpid)
    assert first == worker.call("os:getpid") != os.getpid()


def test_threads_are_set_before_anything_is_imported(worker):
    assert worker.call(send, "OMP_NUM_THREADS") == "1"
    assert worker.call(send, "OMP_WAIT_POLICY") == "passive"


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ((ctypes.string_at, 0), "was killed by SIGSEGV"),
        ((os._exit, 3), "ended its process with exit code 3"),
        ((os.kill, 0, signal.SIGKILL), None),
        ((os.abort,), "was killed by SIGABRT"),
    ],
    ids=["segfault", "exit", "kill", "abort"],
)
def test_a_crash_is_one_line_and_the_next_call_works(worker, work, said):
    if said is None:  # what the system does when memory runs out
        work, said = (os.kill, worker.call(os.getpid), signal.SIGKILL), "SIGKILL, which the system does when"
    with pytest.raises(WorkerCrashed) as caught:
        worker.call(*work)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.kind == "crashed"
    assert worker.call(len, "four") == 4


def test_a_process_that_dies_while_idle_is_replaced(worker):
    first = worker.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not alive(first))
    time.sleep(0.5)  # so that its pool sees it
    assert worker.call(os.getpid) != first


def test_what_hangs_is_ended(worker):
    first, began = worker.call(os.getpid), time.monotonic()
    with pytest.raises(WorkerTimedOut, match=r"sleep took more than 0\.5 s"):
        worker.call(time.sleep, 30, timeout_s=0.5)
    assert time.monotonic() - began < 5
    assert not alive(first) and worker.call(len, "four") == 4


def test_an_exception_comes_back_as_itself(worker):
    with pytest.raises(Own, match="cannot be cut") as own:
        worker.call(fail, "own")
    assert own.value.kind == "unbuildable"
    with pytest.raises(TimeoutError, match="the function's own"):
        worker.call(fail, "timeout")


def test_what_cannot_be_sent_is_told_in_words(worker):
    with pytest.raises(WorkerError, match="Odd: a thing: a reason") as odd:
        worker.call(fail, "odd")
    assert odd.value.kind == "unsupported"
    with pytest.raises(WorkerError, match="lock it returned cannot be sent"):
        worker.call(send, "lock")
    assert worker.call(len, "four") == 4


def test_it_ticks_while_it_waits(worker):
    ticks = []
    worker.call(time.sleep, 1.1, tick=lambda: ticks.append(time.monotonic()))
    assert 3 <= len(ticks) <= 5


def test_stopping_ends_the_process_at_once(worker, tmp_path):
    def stop():
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.call(note_and_sleep, str(tmp_path / "pid"), tick=stop)
    assert time.monotonic() - began < 8
    assert not alive(int((tmp_path / "pid").read_text()))
    assert worker.call(len, "four") == 4


def test_nothing_reaches_the_terminal(tmp_path, capfd):
    with Worker(tmp_path / "log", preload=()) as worker:
        worker.call(chat)
        with pytest.raises(WorkerCrashed, match="log"):
            worker.call(ctypes.string_at, 0)
    assert capfd.readouterr() == ("", "")
    assert {"on stdout", "from a child"} <= set((tmp_path / "log").read_text().splitlines())


def test_a_start_is_in_the_background(tmp_path):
    with Worker(tmp_path / "log", preload=("sqlite3",)) as worker:
        began = time.monotonic()
        worker.start()
        assert time.monotonic() - began < 0.3
        worker.ready()
        assert worker.call("evaluators.worker:sys.modules.__contains__", "sqlite3")


def test_a_start_that_fails_says_why(tmp_path):
    with Worker(tmp_path / "log", preload=("no_such_module",)) as worker:
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            worker.ready()
        assert worker.call(len, "four") == 4


def heed_ctrl_c():
    """A shell that starts the tests in the background makes its children ignore SIGINT; a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its owner")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_orphan_is_left(tmp_path, ending):
    code = (
        "import sys, pathlib; from evaluators.worker import Worker; from tests.evaluators import test_worker as t\n"
        "with Worker(pathlib.Path(sys.argv[1]) / 'log', preload=()) as w:\n"
        "    w.call(t.note_and_sleep, sys.argv[1] + '/pid')"
    )
    command = [sys.executable, "-c", code, tmp_path]
    owner = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL, preexec_fn=heed_ctrl_c)
    note = tmp_path / "pid"
    wait_for(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    assert alive(pid)
    owner.send_signal(ending)
    owner.wait(5)
    wait_for(lambda: not alive(pid), 3)
