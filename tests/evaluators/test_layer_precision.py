"""What a runtime's layers amount to, and the sentence that says why a precision pays or does not."""

from dataclasses import asdict, replace

import pytest

from evaluators.layer_precision import from_dict, sentence, summarise
from remote.device import Layer

INT8 = [
    Layer("in", "QuantizeLinear", "fp32", 0.1),
    Layer("a", "QLinearConv", "int8", 1.0),
    Layer("b", "QLinearConv", "int8", 0.5),
    Layer("c", "HardSigmoid", "fp32", 0.2),
    Layer("flat", "Flatten", "int8", 0.05),
    Layer("out", "DequantizeLinear", "int8", 0.15),
]


def test_what_computes_is_told_from_what_changes_formats():
    found = summarise("int8", INT8, "")
    assert (found.asked, found.count, found.reformats) == (2, 3, 2)
    assert found.layers == (("int8", 2), ("fp32", 1)) and found.others == (("HardSigmoid", 1),)
    assert found.reformat_share == pytest.approx(0.125) and found.other_share == pytest.approx(0.1)
    assert found.known and from_dict(asdict(found)) == found


@pytest.mark.parametrize(
    "ratio, begins",
    [
        (0.71, "int8 is faster than fp32 here, taking 0.71 of its time: 2 of 3 layers ran in int8"),
        (1.4, "int8 is slower than fp32 here, taking 1.40 times as long: 2 of 3"),
        (1.01, "int8 is as fast as fp32 here: 2 of 3"),
        (None, "2 of 3 layers ran in int8; the others, 1 HardSigmoid, took 10 % of the time; 2 nodes take 12 %"),
    ],
)
def test_the_sentence_says_whether_it_pays_and_why(ratio, begins):
    line = sentence(replace(summarise("int8", INT8, ""), fp32_ratio=ratio))
    assert line.startswith(begins) and "2 nodes take 12 % of the time for changing formats" in line


def test_a_runtime_without_times_has_no_shares():
    found = summarise("int8", [replace(layer, ms=0.0) for layer in INT8], "")
    assert found.reformat_share is None and found.asked == 2
    assert "took an unreported time" in sentence(found)


def test_what_is_not_told_is_not_guessed():
    silent = summarise("int8", [], "ncnn does not report its layers")
    assert not silent.known and sentence(silent).endswith("are unknown: ncnn does not report its layers")
    fused = summarise("int8", [Layer("TRTKernel_0", "TRTKernel", "", 1.0)], "")
    assert not fused.known and "does not report the precision" in sentence(fused)


def test_everything_in_the_precision_asked_for_needs_no_others():
    line = sentence(summarise("fp16", [Layer("a", "Conv", "fp16", 1.0)], ""))
    assert line == "1 of 1 layers ran in fp16"
