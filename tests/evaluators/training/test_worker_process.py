"""The worker process: it may die in any way and costs only itself."""

import ctypes
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluators.data.dataset import DataError
from evaluators.fault_attribution import WorkerCrashedError, WorkerError, WorkerTimeoutError, is_host_kill
from evaluators.training import worker_process as workers
from evaluators.training.tasks import Task
from evaluators.training.worker_process import Worker
from remote.errors import HostError
from spaces.space import SpaceError

REPO = Path(__file__).parents[3]


class Odd(Exception):
    """Can be packed but not unpacked: its constructor wants two arguments."""

    kind = "unsupported"

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


class Own(Exception):
    kind = "unbuildable"


class Unsendable:
    """Is more than there is room for when it is packed."""

    def __reduce__(self):
        raise MemoryError


def fail(kind):
    if kind == "gone":
        Path("/no/such/folder/file").read_text()
    if kind == "hidden":
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")
        except OSError:
            raise RuntimeError("a library's own words") from None
    raise {
        "own": Own("cannot be cut"),
        "odd": Odd("a thing", "a reason"),
        "data": DataError("no images"),
        "memory": MemoryError(),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere"),
        "PictureError": OSError("image file is truncated: the function's own"),
        "RuntimeError": RuntimeError("the function's own"),
        "IndexError": IndexError("two lines,\nthe function's own"),
        "AttributeError": AttributeError("the function's own"),
        "TimeoutError": TimeoutError("the function's own"),
    }[kind]


def kill_me(number):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)  # whatever the tests were started by ignores
    os.kill(os.getpid(), number)
    time.sleep(0.1)
    return os.getpid()


def once(note, what, *args):
    """Kills its process, or sleeps, the first time only."""
    if not Path(note).exists():
        Path(note).touch()
        kill_me(*args) if what == "kill" else time.sleep(*args)
    return os.getpid()


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
    told: list[str] = []
    with Worker(tmp_path_factory.mktemp("worker") / "log", threads=1, preload=(), on_retry=told.append) as worker:
        worker.told = told
        yield worker


@pytest.fixture
def retries(worker):
    """Lines of the calls that were retried in this test."""
    worker.told.clear()
    return worker.told


def test_the_process_is_kept(worker):
    first = worker.call(os.getpid)
    assert first == worker.call(Task("os:getpid")) != os.getpid()


def test_threads_are_set_before_anything_is_imported(worker):
    assert worker.call(send, "OMP_NUM_THREADS") == "1"
    assert worker.call(send, "OMP_WAIT_POLICY") == "passive"


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ((ctypes.string_at, 0), "was killed by SIGSEGV"),
        ((os._exit, 3), "ended its process with exit code 3"),
        ((os.abort,), "was killed by SIGABRT"),
        ((kill_me, signal.SIGILL), "was killed by SIGILL"),
    ],
    ids=["segfault", "exit", "abort", "ill"],
)
def test_call_crashed_twice_is_one_line_and_the_next_call_works(worker, retries, work, said):
    with pytest.raises(WorkerCrashedError) as caught:
        worker.call(*work)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.kind == "crashed"
    assert len(retries) == 1 and said in retries[0]
    assert worker.call(len, "four") == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU])
def test_call_killed_from_outside_twice_is_the_hosts_fault(worker, retries, number):
    with pytest.raises(HostError, match=rf"{number.name} twice.*run the same command to resume") as caught:
        worker.call(kill_me, number)
    assert "\n" not in str(caught.value) and len(retries) == 1
    assert worker.call(len, "four") == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGTERM, signal.SIGSEGV])
def test_call_killed_once_is_tried_again_in_a_new_process(worker, retries, tmp_path, number):
    first = worker.call(os.getpid)
    assert worker.call(once, str(tmp_path / "note"), "kill", number) != first
    assert len(retries) == 1 and number.name in retries[0] and "retried" in retries[0]


def test_call_timed_out_once_is_tried_again(worker, retries, tmp_path):
    assert worker.call(once, str(tmp_path / "note"), "sleep", 30, timeout_s=2.0)
    assert "took more than 2 s" in retries[0]


@pytest.mark.parametrize("work", [(fail, "memory"), (Unsendable,)], ids=["work", "result"])
def test_call_without_memory_twice_is_the_hosts_fault(worker, retries, work):
    with pytest.raises(HostError, match="out of memory"):
        worker.call(*work)
    assert len(retries) == 1


@pytest.mark.parametrize("kind", ["full", "hidden", "gone"])
def test_call_whose_disk_fails_is_the_hosts_fault_at_once(worker, retries, kind):
    with pytest.raises(HostError, match="run the same command to resume"):
        worker.call(fail, kind)
    assert retries == []


@pytest.mark.parametrize("number", [*range(1, 16)])
def test_killed_by_the_host_reads_what_older_versions_recorded(number):
    reason = f"train {workers.death(-number)}; its output is in worker.log"
    outside = {"SIGKILL", "SIGBUS", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"}
    assert is_host_kill(reason) == (signal.Signals(number).name in outside)


def test_call_stopped_process_is_woken_up(worker, monkeypatch, tmp_path):
    """A process that somebody stopped would be waited for until its limit: twelve hours for a training."""
    monkeypatch.setattr(workers, "STOPPED_S_MAX", 1.0)
    began = time.monotonic()
    pid = worker.call(kill_me, signal.SIGSTOP)
    assert time.monotonic() - began < 10 and pid == worker.call(os.getpid)


def test_call_without_a_limit_has_one_all_the_same(worker, monkeypatch):
    monkeypatch.setattr(workers, "CALL_S_MAX", 0.5)
    with pytest.raises(WorkerTimeoutError):
        worker.call(time.sleep, 30)


def test_call_goes_on_with_a_full_log(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Worker(Path("/dev/full"), preload=()) as worker:
        assert worker.call(chat) == "spawn"
    (tmp_path / "log").mkdir()
    with Worker(tmp_path / "log", preload=()) as worker:
        worker.call(chat)


def test_a_process_that_dies_while_idle_is_replaced(worker):
    first = worker.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not alive(first))
    time.sleep(0.5)  # so that its pool sees it
    assert worker.call(os.getpid) != first


def test_what_hangs_is_ended(worker):
    first, began = worker.call(os.getpid), time.monotonic()
    with pytest.raises(WorkerTimeoutError, match=r"sleep took more than 0\.5 s"):
        worker.call(time.sleep, 30, timeout_s=0.5)
    assert time.monotonic() - began < 5
    assert not alive(first) and worker.call(len, "four") == 4


def test_call_raises_declared_exceptions_as_they_are(worker):
    with pytest.raises(Own, match="cannot be cut") as own:
        worker.call(fail, "own")
    assert own.value.kind == "unbuildable"
    with pytest.raises(DataError, match="no images"):
        worker.call(fail, "data")


@pytest.mark.parametrize("kind", ["TimeoutError", "RuntimeError", "IndexError", "AttributeError", "PictureError"])
def test_call_turns_an_unexpected_exception_into_a_worker_error(worker, retries, kind):
    with pytest.raises(WorkerError, match=f"^{kind.replace('Picture', 'OS')}: .*the function's own") as caught:
        worker.call(fail, kind)
    assert type(caught.value) is WorkerError and "\n" not in str(caught.value) and retries == []
    assert "Traceback" in worker.log.read_text() and "in fail" in worker.log.read_text()


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
        with pytest.raises(WorkerCrashedError, match="log"):
            worker.call(ctypes.string_at, 0)
    assert capfd.readouterr() == ("", "")
    assert {"on stdout", "from a child"} <= set((tmp_path / "log").read_text().splitlines())


def test_a_start_is_in_the_background(tmp_path):
    with Worker(tmp_path / "log", preload=("sqlite3",)) as worker:
        began = time.monotonic()
        worker.start()
        assert time.monotonic() - began < 0.3
        worker.ready()
        assert worker.call(Task("evaluators.training.worker_process:sys.modules.__contains__"), "sqlite3")


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
        "import sys, pathlib; from evaluators.training.worker_process import Worker\n"
        "from tests.evaluators.training import test_worker_process as t\n"
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


def test_a_users_name_that_is_none_comes_back_as_such(tmp_path):
    """A line and exit 2, not a bug of ours."""
    with Worker(tmp_path / "log") as worker, pytest.raises(SpaceError, match=r"space s: .* no variant 'resnet19'"):
        worker.call(Task("spaces.network:check_names"), "s", {"resnet": ("resnet19",)})


def test_the_log_can_be_moved_while_the_process_lives(tmp_path):
    with Worker(tmp_path / "first") as worker:
        worker.call(print, "before", timeout_s=60)
        worker.keep_log(tmp_path / "second")
        worker.call(Task("os:system"), "echo after")
    assert "after" in (tmp_path / "second").read_text() and worker.log == tmp_path / "second"
