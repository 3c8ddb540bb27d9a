"""Q/DQ operators where the recipe puts them, whatever the numbers are."""

from collections import Counter

import numpy as np
import pytest

from evaluators.quantization.calibration import extremes
from evaluators.quantization.qdq import QuantizationPlan, activations, initializers, layers, macs, with_weights
from spaces.network import build, count_macs
from tests.evaluators.quantization.nets import PX, RECIPES, images, plain_graph


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_graph(tmp_path_factory.mktemp("graph"), "tiny_mobile", "mb_w8")


def test_every_multiply_accumulate_belongs_to_a_layer(plain):
    import torch

    net = build("tiny_mobile", "mb_w8", 7, PX)
    assert sum(macs(plain).values()) == count_macs(net, torch.zeros(1, 3, PX, PX))
    assert list(macs(plain)) == list(layers(plain))


def test_a_layer_is_a_weighted_node_and_what_follows_it(plain):
    nodes = {node.name: node.op_type for node in plain.graph.node}
    assert len(nodes) == len(plain.graph.node), "every node has a name of its own"
    groups = layers(plain)
    assert len(groups) > 5 and all(nodes[name] in ("Conv", "Gemm", "MatMul") for name in groups)
    members = [node for group in groups.values() for node in group]
    assert len(members) == len(set(members))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_floating_layers_lose_their_int8_weights_and_no_others_do(plain, recipe):
    plan = QuantizationPlan(plain, recipe, extremes(plain, images(4)))
    first, *others = layers(plain)
    weights = {node.name: node.input[1] for node in plain.graph.node if node.name in layers(plain)}
    mixed = QuantizationPlan(plain, recipe, plan.ranges, frozenset(layers(plain)[first])).graph()
    whole, left = initializers(plan.graph()), initializers(mixed)
    assert f"{weights[first]}_quantized" in whole and f"{weights[first]}_quantized" not in left
    assert left[weights[first]].dtype == np.float32
    assert all(f"{weights[name]}_quantized" in left for name in others)


def test_other_weights_leave_the_layout_alone(plain):
    plan = QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, images(4)))
    name = next(node.input[1] for node in plain.graph.node if node.op_type == "Conv")
    changed = plan.with_weights({name: initializers(plain, [name])[name] * 3})
    kinds = [[node.op_type for node in p.graph().graph.node] for p in (plan, changed)]
    assert kinds[0] == kinds[1] and Counter(kinds[0])["QuantizeLinear"] > 5
    assert np.allclose(initializers(changed.plain)[name], 3 * initializers(plain)[name])


def test_a_plan_never_changes_the_graph_it_is_made_of(plain):
    before = plain.SerializeToString(deterministic=True)
    QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, images(2))).graph()
    with_weights(plain, {name: value * 2 for name, value in initializers(plain).items()})
    assert plain.SerializeToString(deterministic=True) == before


def test_what_is_quantized_is_float_and_computed(plain):
    names = activations(plain)
    assert names[0] == "image" and not set(names) & set(initializers(plain))
