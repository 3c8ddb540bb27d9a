"""Check whether a graph stays within the operators, opset and IR version that a device reads, before sending it."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from evaluators.export.onnx_export import IR_VERSION
from remote.errors import FailureKind
from spaces.candidate import UnbuildableError

# Operators that TensorRT 8.2's parser reads, from docs/operators.md of onnx-tensorrt: those of opset 13, without the
# single operators that opset 14 and later introduced (HardSwish, LayerNormalization, GroupNormalization, Gelu, Mish,
# GridSample).
TENSORRT_8_2_TEXT = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip
    Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GRU HardSigmoid Identity If InstanceNormalization IsNaN
    LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean Min Mul
    Neg NonMaxSuppression Not Or Pad Pow PRelu QuantizeLinear ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RNN Round Scan
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where Xor
"""
TENSORRT_8_2 = frozenset(TENSORRT_8_2_TEXT.split())
OLD_OPSET = 13  # a TensorRT that reads no newer opset is version 8.2 or older
ON_TENSORRT = ("tensorrt", "trtexec", "onnxruntime:tensorrt")


class UnsupportedOperatorError(UnbuildableError):
    """Raised when the device's operators can't express a network."""

    kind = FailureKind.UNSUPPORTED


def ceiling(path: Path, opset_max: int, runtimes: tuple[str, ...]) -> list[str]:
    """Return one line for each property of a graph that exceeds the device's support; empty if there is none.

    Args:
        path: ONNX file.
        opset_max: Newest opset that the device reads.
        runtimes: Runtimes in which the graph must load.
    """
    model = onnx.load(path, load_external_data=False)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    breaches = []
    if opset > opset_max:
        breaches.append(f"needs ONNX opset {opset}, the device reads up to {opset_max}")
    if model.ir_version > IR_VERSION:
        breaches.append(f"IR version {model.ir_version}, {IR_VERSION} is the newest that old readers take")
    if foreign := sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"}):
        breaches.append(f"operators of {', '.join(foreign)}, which only ONNX Runtime knows")
    if set(runtimes) & set(ON_TENSORRT):
        if opset_max <= OLD_OPSET and (unknown := sorted({n.op_type for n in model.graph.node} - TENSORRT_8_2)):
            breaches.append(f"TensorRT 8.2 has no {', '.join(unknown)}")
        if offset := _offsets(model):
            breaches.append(f"TensorRT quantizes around 0 only, {offset} of the Q/DQ operators do not")
    return breaches


def check(path: Path, opset_max: int, runtimes: tuple[str, ...], what: str) -> None:
    """Reject a graph that exceeds the device's support.

    Args:
        path: ONNX file.
        opset_max: Newest opset that the device reads.
        runtimes: Runtimes in which the graph must load.
        what: Display name of the graph.

    Raises:
        UnsupportedOperatorError: The graph exceeds the support; one line.
    """
    if breaches := ceiling(path, opset_max, runtimes):
        raise UnsupportedOperatorError(f"{what}: {'; '.join(breaches)}")


def _offsets(model: onnx.ModelProto) -> int:
    zeros = {tensor.name: tensor for tensor in model.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    points = [node.input[2] for node in model.graph.node if node.op_type in kinds and len(node.input) > 2]
    return sum(1 for name in points if name in zeros and numpy_helper.to_array(zeros[name]).any())
