"""2:4 sparsity: the pattern that the hardware skips, kept through training, export and quantization."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from evaluators.device_space import cut_to
from evaluators.export.onnx_export import export
from evaluators.quantization.calibration import extremes
from evaluators.quantization.qat import tune
from evaluators.quantization.qdq import QuantizationPlan as Quantized
from evaluators.quantization.qdq import prepare
from evaluators.training.batches import BatchSource
from evaluators.training.jobs import LadderConfig, TrainingRecipe
from remote.device import Facts, Gpu, Int8Recipe
from spaces.candidate import Candidate, NoGainError, UnbuildableError
from spaces.network import NetworkPlan, apply_steps, build, build_from_plan, head_name, pack, unpack
from spaces.operations import sparse
from spaces.space import SpaceError, load

CLASSES, PX = 7, 32
STEPS = (("sparse", 0.5),)
ORIN = Facts(
    machine="aarch64",
    cpu="Cortex-A78AE",
    cpu_flags=("asimdhp", "asimddp"),
    cores=6,
    memory_mb=7_800,
    python="3.10.12",
    boot_id="b",
    kernel="5.15",
    runtimes={"tensorrt": "10.3.0", "onnxruntime": "1.23.0"},
    gpu=Gpu("Orin", "8.7", 7_800, unified=True),
)
SPACE = """
[variants]
tiny_mobile = ["mb_w8"]
[axes]
image_px = [32]
prune = [0.0, 0.5]
sparse = [0.0, 0.5]
precision = ["fp32", "fp16"]
"""


def in_fours(weight):
    """True if of every four inputs, at each output and pixel, two at most are not zero."""
    outputs, inputs = weight.shape[:2]
    fours = np.asarray(weight).reshape(outputs, inputs // 4, 4, -1)
    return ((fours != 0).sum(axis=2) <= 2).all()


def sparse_net(*steps):
    torch.manual_seed(0)
    return apply_steps(build("tiny_mobile", "mb_w8", CLASSES, PX), (*steps, *STEPS), PX, CLASSES)


def learned(net, steps=3):
    """With weight decay, momentum and a clip: what could move a zero."""
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.randn(4, 3, PX, PX)), torch.arange(4)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


@given(st.integers(1, 5), st.integers(1, 6), st.sampled_from([(), (1, 1), (3, 3)]), st.integers(0, 99))
def test_the_two_largest_of_every_four_stay(outputs, fours, kernel, seed):
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal((outputs, 4 * fours, *kernel)))
    kept = sparse.largest_two(weight)
    assert kept.shape == weight.shape and int(kept.sum()) * 2 == weight.numel() and in_fours(kept)
    grouped = weight.abs().unflatten(1, (fours, 4))
    least_kept = torch.where(kept.unflatten(1, (fours, 4)) > 0, grouped, torch.inf).amin(2)
    assert (torch.where(kept.unflatten(1, (fours, 4)) > 0, 0.0, grouped).amax(2) <= least_kept).all()


def test_layers_with_inputs_in_fours_are_sparse_and_the_classifier_is_not():
    net = sparse_net()
    chosen = sparse.eligible(net)
    assert chosen and all(in_fours(layer.weight.detach()) and sparse.is_sparse(layer.weight) for layer in chosen)
    rest = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and m not in chosen]
    assert net.get_submodule(head_name(net)) in rest
    assert not any(sparse.is_sparse(layer.weight) for layer in rest)
    for layer in rest:
        conv = isinstance(layer, torch.nn.Conv2d)
        assert layer is net.get_submodule(head_name(net)) or (conv and layer.groups > 1) or layer.weight.shape[1] % 4


def test_zeros_stay_where_they_are_when_the_net_learns():
    net = sparse_net()
    before = [layer.weight.detach().clone() for layer in sparse.eligible(net)]
    after = [layer.weight.detach() for layer in sparse.eligible(learned(net))]
    for was, is_ in zip(before, after, strict=True):
        assert torch.equal(was != 0, is_ != 0) and not torch.equal(was, is_)


def test_they_stay_after_loading_too():
    plan = NetworkPlan(family="tiny_mobile", variant="mb_w8", classes=CLASSES, image_px=PX, steps=STEPS)
    first = learned(build_from_plan(plan))
    again = unpack(pack(first, plan))
    wanted = [layer.weight.detach() != 0 for layer in sparse.eligible(first)]
    for zero, layer in zip(wanted, sparse.eligible(learned(again)), strict=True):
        assert torch.equal(zero, layer.weight.detach() != 0)


def test_the_graph_is_sparse_in_fp32_and_in_int8_and_after_tuning(tmp_path):
    export(learned(sparse_net(("prune", 0.5), ("lowrank", 0.5))), PX, tmp_path / "m.onnx")
    plain = prepare(tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, PX, PX, 3), dtype=np.uint8)
    pixels = random.standard_normal((16, 3, PX, PX), dtype=np.float32)
    plan = Quantized(plain, Int8Recipe("int8", symmetric=True, weight_bits=8), extremes(plain, pixels))
    feed = BatchSource(
        images, np.arange(16) % CLASSES, ((0.5,) * 3, (0.5,) * 3), TrainingRecipe(batch=8, epoch_images=16)
    )
    after = tune(plan, plain, feed, LadderConfig(qat_epochs=1, qat_lr=1e-3))
    layouts = {}
    for name, model in {"fp32": plain, "int8": plan.graph(), "tuned": after.graph()}.items():
        weights = [numpy_helper.to_array(t) for t in model.graph.initializer]
        layouts[name] = [w != 0 for w in weights if w.ndim == 4 and w.shape[1] % 4 == 0 and in_fours(w)]
    assert len(layouts["fp32"]) == len(sparse.eligible(sparse_net(("prune", 0.5), ("lowrank", 0.5)))) > 3
    assert len(layouts["int8"]) >= len(layouts["fp32"]) and len(layouts["tuned"]) >= len(layouts["fp32"])
    assert any(not np.array_equal(a, b) for a, b in zip(initial(plan), initial(after), strict=True)), "it learned"


def initial(plan):
    graph: onnx.GraphProto = plan.graph().graph
    return [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]


@pytest.mark.parametrize("amount", [0.25, 0.75])
def test_another_share_is_refused(amount):
    with pytest.raises(UnbuildableError, match=r"name 0 or 0\.5"):
        apply_steps(build("tiny_mobile", "mb_w8", CLASSES, PX), (("sparse", amount),), PX, CLASSES)


def test_a_net_without_such_a_layer_gains_nothing():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, CLASSES))
    with pytest.raises(NoGainError, match="no layer"):
        sparse.apply(net, 0.5, torch.zeros(1, 3, 3, 3), CLASSES, {})


@pytest.mark.parametrize(
    ("facts", "runtime", "why"),
    [
        (ORIN, "tensorrt", ""),
        (ORIN, "onnxruntime", "computes on a CPU"),
        (replace(ORIN, gpu=Gpu("Xavier", "7.2", 7_800, unified=True)), "tensorrt", "Xavier (sm 7.2) has no sparse"),
        (replace(ORIN, simulated=True), "tensorrt", "a simulated board computes every zero"),
    ],
)
def test_it_is_offered_where_the_device_has_it(tmp_path, facts, runtime, why):
    (tmp_path / "s.toml").write_text(SPACE)
    space, able = cut_to(load(str(tmp_path / "s.toml")), facts, runtime)
    assert why in able.no_sparsity and bool(able.no_sparsity) == bool(why)
    found = {space.candidate(point).amount("sparse") for point in space.params()}
    assert found == ({0.0} if why else {0.0, 0.5})
    assert [line for line in space.left_out if line.startswith("sparse 0.5: ")] == (
        [f"sparse 0.5: {able.no_sparsity}"] if why else []
    )


def test_it_must_be_faster_than_the_same_network_dense(tmp_path):
    (tmp_path / "s.toml").write_text(SPACE)
    both = Candidate(
        family="tiny_mobile", variant="mb_w8", image_px=32, steps=(("prune", 0.5), *STEPS), precision="fp16"
    )
    dense = replace(both, steps=(("prune", 0.5),))
    assert dense in load(str(tmp_path / "s.toml")).less_cut(both)


def test_nothing_that_would_undo_it_comes_after(tmp_path):
    lines = SPACE.splitlines()
    at = lines.index("prune = [0.0, 0.5]")
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    (tmp_path / "s.toml").write_text("\n".join(lines))
    with pytest.raises(SpaceError, match="sparse comes before prune, which would undo it: write it below"):
        load(str(tmp_path / "s.toml"))
