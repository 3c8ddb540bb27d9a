"""Whose fault an exception is: a lack of memory or room is this machine's, whatever library says so and however."""

import errno
import os
import threading

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from evaluators.data.dataset import DataError
from evaluators.fault_attribution import HostMemoryError, WorkerError, as_sendable
from remote.errors import DeviceError
from remote.files import HostError
from search import run
from search.settings import SettingsError
from spaces import weights
from spaces.candidate import UnbuildableError
from spaces.space import WeightsError


def _run_a_graph():
    size = helper.make_tensor_value_info("s", TensorProto.INT64, [1])
    zeros = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["s"], ["y"])], "g", [size], [zeros])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"s": np.array([1 << 45])})


def _start_a_thread():
    threading.stack_size(1 << 46)
    try:
        threading.Thread(target=print).start()
    finally:
        threading.stack_size(0)


REAL = {
    "numpy": lambda: np.zeros(1 << 50),
    "torch": lambda: torch.empty(1 << 50),
    "onnxruntime": _run_a_graph,
    "thread": _start_a_thread,
}
SAID = {
    "python": MemoryError(),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "c++": RuntimeError("std::bad_alloc"),
}


def caused(error, by, is_hidden):
    """Return `error` as it is when another led to it."""
    try:
        try:
            raise by
        except type(by):
            raise error from (None if is_hidden else by)
    except type(error) as raised:
        return raised


@pytest.mark.parametrize("kind", REAL)
def test_told_of_more_than_any_machine_has_is_out_of_memory(kind):
    with pytest.raises(Exception) as caught:  # each library has its own
        REAL[kind]()
    assert isinstance(as_sendable(caught.value, "work"), HostMemoryError)


@pytest.mark.parametrize("is_hidden", [False, True])
@pytest.mark.parametrize("kind", [UnbuildableError, DataError, WeightsError, RuntimeError])
@pytest.mark.parametrize("by", SAID)
def test_told_of_what_memory_led_to_is_out_of_memory(by, kind, is_hidden):
    assert isinstance(as_sendable(SAID[by], "work"), HostMemoryError)
    assert isinstance(
        as_sendable(caused(kind("prune 0.5: it went wrong"), SAID[by], is_hidden), "work"), HostMemoryError
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
        RuntimeError("[enforce fail] write /somewhere: No space left on device"),
    ],
    ids=["full", "quota", "no memory", "no process", "a library's words"],
)
def test_told_of_the_machine_is_its_own(error):
    for found in (error, caused(UnbuildableError("it went wrong"), error, True)):
        answer = as_sendable(found, "work")
        assert isinstance(answer, HostError | HostMemoryError) and "\n" not in str(answer)


def test_told_of_anything_else_stays_the_works_own():
    own = UnbuildableError("no channels are left")
    assert as_sendable(own, "work") is own and type(as_sendable(ValueError("7"), "work")) is WorkerError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        caused(DataError("teacher t.onnx is not an ONNX file"), MemoryError(), True),
        RuntimeError("can't start new thread"),
    ],
    ids=["memory", "hidden", "thread"],
)
def test_main_without_memory_is_the_hosts_fault(monkeypatch, capsys, tmp_path, error):
    code = _ended_by(monkeypatch, tmp_path, error)
    said = capsys.readouterr().err
    assert code == run.HOST and said.startswith("host: out of memory") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceError("nano: the reference model can't be run there: out of memory"), run.DEVICE),
        (SettingsError("--budget-mb 1 is below what the runtime takes"), run.USER),
    ],
)
def test_main_says_whose_fault_else_it_is(monkeypatch, tmp_path, error, code):
    assert _ended_by(monkeypatch, tmp_path, error) == code


def _ended_by(monkeypatch, tmp_path, error):
    def search(*args):
        raise error

    monkeypatch.setattr(run, "search", search)
    return run.main(["--budget-ms", "1", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache")])
def test_start_without_memory_or_room_does_not_train_from_scratch(monkeypatch, error):
    """The parent would be another, and lie in the cache as if it were the right one."""

    def load_own(net, variant):
        raise error

    with pytest.raises(type(error)):
        weights._own(load_own, torch.nn.Linear(1, 1), "resnet18")
