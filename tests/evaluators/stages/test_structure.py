"""The structure stage: what it counts, writes and refuses. Over every family: `test_contract_operations.py`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluators.export.operator_support import UnsupportedOperatorError
from evaluators.measurement import Failure
from evaluators.stages.structure import PARITY_MAX_ABS, ParityError, measure, parity, random_net, rounding, run
from remote.device import Int8Recipe
from spaces import network
from spaces.candidate import Candidate, UnbuildableError

CLASSES, PX = 7, 32
CPU = Int8Recipe("uint8", symmetric=False, weight_bits=7)
CUT = (("prune", 0.3),)


def noise(px=PX):
    return np.random.default_rng(1).standard_normal((1, 3, px, px), dtype=np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_same_seed_gives_the_same_file(tmp_path, precision):
    candidate = Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX, steps=CUT, precision=precision)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(files))  # what ran before must not matter
        files.append(
            measure(candidate, CLASSES, int8=CPU, folder=tmp_path / name, opset_max=13, seed=seed)[1].read_bytes()
        )
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("by", ["batchnorm", "taylor"])
def test_a_criterion_changes_nothing_that_is_timed(tmp_path, by):
    """Which channels go depends on trained weights: the graph of random ones is the same file, so it is timed once."""
    plain = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=PX, steps=CUT)
    files = [
        measure(replace(plain, options=options), CLASSES, int8=CPU, folder=tmp_path, opset_max=13, seed=0)[1]
        for options in ((), (("prune_by", by),), (("prune_where", "late"),))
    ]
    contents = [path.read_bytes() for path in files]
    assert len(set(files)) == 3 and contents[0] == contents[1] != contents[2]


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measure(
        Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=PX),
        CLASSES,
        int8=None,
        folder=tmp_path,
        opset_max=13,
        seed=0,
    )
    assert torch.equal(torch.rand(3), expected)


def test_multiply_accumulates_and_parameters_are_counted(tmp_path):
    """A net small enough to count by hand: res8_w4_s2 at 32 px."""
    structure, _ = measure(
        Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=32),
        10,
        int8=None,
        folder=tmp_path,
        opset_max=13,
        seed=0,
    )
    stem = 3 * 4 * 9 * 16**2
    stages = [2 * 4 * 4 * 9 * 16**2]
    for inputs, px in ((4, 8), (8, 4)):
        outputs = 2 * inputs
        stages.append((inputs * 9 + outputs * 9 + inputs) * outputs * px**2)
    assert structure.macs == stem + sum(stages) + 16 * 10
    weights = 3 * 4 * 9 + 2 * 16 * 9 + (36 + 72 + 4) * 8 + (72 + 144 + 8) * 16 + 16 * 10 + 10
    norms = 2 * (3 * 4 + 3 * 8 + 3 * 16)
    assert structure.parameters == weights + norms


def test_pruning_and_precision_show_in_size(tmp_path):
    def size(steps, precision):
        candidate = Candidate(
            family="mobilenet_v1", variant="mobilenet_v1_025", image_px=PX, steps=steps, precision=precision
        )
        return measure(candidate, CLASSES, int8=CPU, folder=tmp_path, opset_max=13, seed=0)[0].onnx_bytes

    whole = size((), "fp32")
    assert size((), "fp16") < 0.6 * whole and size((), "int8") < 0.4 * whole and size(CUT, "fp32") < 0.7 * whole


def test_random_nets_are_well_behaved():
    """Deep nets as initialised give logits of 1e6 and more, or of 0: fp16 and timing would suffer from either."""
    for family, variant in (("resnet", "resnet34"), ("mnasnet", "mnasnet0_5"), ("cifar_resnet", "cifar_resnet56")):
        net = random_net(Candidate(family=family, variant=variant, image_px=PX), CLASSES)
        assert not net.training
        with torch.no_grad():
            spread = float(net(torch.randn(8, 3, PX, PX)).std())
        assert 0.5 < spread < 2


def test_parity_is_the_largest_difference(tmp_path):
    candidate = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=PX)
    _, path = measure(candidate, CLASSES, int8=None, folder=tmp_path, opset_max=13, seed=0)
    torch.manual_seed(0)
    net = random_net(candidate, CLASSES)
    assert parity(net, path, PX) < PARITY_MAX_ABS
    net.classifier.bias.data[3] += 0.5
    assert parity(net, path, PX) == pytest.approx(0.5, abs=1e-4)


def test_a_deep_nets_rounding_is_no_loss_of_parity():
    shallow = random_net(Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=PX), CLASSES)
    deep = random_net(Candidate(family="resnet", variant="resnet101", image_px=PX), CLASSES)
    assert rounding(shallow, PX) < 1e-5 < rounding(deep, PX) < 1e-2
    assert next(deep.parameters()).dtype == torch.float32


def failure(candidate, tmp_path, int8=CPU, opset_max=13):
    with pytest.raises(UnbuildableError) as caught:
        measure(candidate, CLASSES, int8=int8, folder=tmp_path, opset_max=opset_max, seed=0)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    return Failure("structure", caught.value.kind, str(caught.value))


def test_what_cannot_be_is_the_candidates_own_failure(tmp_path):
    small = failure(Candidate(family="squeezenet", variant="squeezenet1_1", image_px=8), tmp_path)
    assert small.kind == "unbuildable" and "squeezenet1_1 8px" in small.reason
    unknown = failure(Candidate(family="resnet", variant="resnet19", image_px=PX), tmp_path)
    assert unknown.kind == "unbuildable" and "it has resnet18" in unknown.reason


def test_what_the_device_cannot_read_is_unsupported(tmp_path):
    no_int8 = failure(
        Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX, steps=(), precision="int8"), tmp_path, int8=None
    )
    assert no_int8.kind == "unsupported" and "the device has no int8" in no_int8.reason
    old = failure(
        Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX, steps=(), precision="int8"),
        tmp_path,
        opset_max=11,
    )
    assert old.kind == "unsupported" and "needs ONNX opset 13" in old.reason


def test_an_older_opset_is_used_where_the_device_asks_for_it(tmp_path):
    structure, path = measure(
        Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX),
        CLASSES,
        int8=None,
        folder=tmp_path,
        opset_max=11,
        seed=0,
    )
    assert structure.opset == 11 and np.isfinite(run(path, noise())).all()


class Otherwise(torch.nn.Module):
    """Computes something else where it is exported."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        return self.conv(x).mean((2, 3)) * (2.0 if torch.onnx.is_in_onnx_export() else 1.0)


class Attention(torch.nn.Module):
    """Needs opset 14: beyond TorchScript's exporter at 13, so dynamo writes it, at 18."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        y = self.conv(x).flatten(2).unsqueeze(1)
        return torch.nn.functional.scaled_dot_product_attention(y, y, y).mean((1, 3))


@pytest.fixture
def family_of(monkeypatch):
    """Puts one net in the place of tiny_mobile's."""
    module = network.family_module("tiny_mobile")
    return lambda net: monkeypatch.setattr(module, "build", lambda *_: net())


def test_a_graph_that_computes_something_else_is_found_out(tmp_path, family_of):
    family_of(Otherwise)
    lost = failure(Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX), tmp_path)
    assert lost.kind == ParityError.kind == "parity" and "is off by" in lost.reason


@pytest.mark.slow
def test_an_operator_beyond_the_opset_is_unsupported_there_and_exported_where_it_is_read(tmp_path, family_of):
    family_of(Attention)
    candidate = Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX)
    beyond = failure(candidate, tmp_path)
    assert (
        beyond.kind == UnsupportedOperatorError.kind == "unsupported" and "the device reads up to 13" in beyond.reason
    )
    structure, _ = measure(candidate, CLASSES, int8=None, folder=tmp_path, opset_max=18, seed=0)
    assert structure.exporter == "dynamo" and 13 < structure.opset <= 18
