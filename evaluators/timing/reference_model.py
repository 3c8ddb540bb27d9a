"""Build a fixed small model that is timed beside every candidate to measure the current pace of the device."""

from __future__ import annotations

import itertools

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from remote.device import Facts
from remote.errors import CandidateError

IMAGE_PX = 128
WIDTHS = (3, 16, 32, 32, 64, 64, 64)
ADVICE = {
    "out_of_memory": "free memory there (`python -m remote.doctor NAME` shows what takes it)",
    "timed_out": "see what else the device does (`python -m remote.doctor NAME`)",
}
REINSTALL = "install a build of it that is made for this processor and system, with the Python that is used there"


def reference_model() -> bytes:
    """Build the reference model, always with the same bytes: six 3x3 convolutions with ReLU, 128 px, 68 M MACs.

    It has plain operators of opset 13 only, so that every runtime and every board builds it the same way.

    Returns:
        The serialized ONNX model.
    """
    rng = numpy.random.default_rng(0)
    nodes, weights, name = [], [], "image"
    for i, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS)):
        scale = (2 / (inputs * 9)) ** 0.5
        kernel = (rng.standard_normal((outputs, inputs, 3, 3)) * scale).astype(numpy.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        stride = 2 if i in (0, 2, 4) else 1
        nodes.append(
            helper.make_node(
                "Conv",
                [name, f"w{i}"],
                [f"c{i}"],
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=[stride, stride],
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        name = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, IMAGE_PX, IMAGE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, WIDTHS[-1], 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="edgefront")
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def no_reference(device: str, runtime: str, facts: Facts, error: CandidateError) -> str:
    """Return an error line for a device that can't run the reference model, without which nothing can be timed.

    Args:
        device: Name of the device.
        runtime: Runtime in which the model failed.
        facts: Properties that the device reports.
        error: Failure of the model.
    """
    advice = ADVICE.get(error.kind, REINSTALL).replace("NAME", device)
    others = [name for name in sorted(facts.runtimes) if name != runtime]
    other = f', or enter another runtime it has, such as runtime = "{others[0]}"' if others else ""
    named = f"{runtime} {facts.runtimes.get(runtime, '')}".strip()
    return f"{device} can't run the reference model in {named}: {error}; {advice}{other}"
