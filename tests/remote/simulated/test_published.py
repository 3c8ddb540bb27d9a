"""The rough latencies beside what others have published of the real boards: right to a factor of about two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision

from evaluators.export.onnx_export import export
from evaluators.quantization.precision import to_precision
from remote.simulated.graph import GraphWork, work
from remote.simulated.roofline import latency_ms
from remote.simulated.spec import find_board

FACTOR = 2.0
# (board, threads, network, precision, image_px): milliseconds at batch 1
PUBLISHED = {
    # github.com/kentaroy47/benchmark-FP32-FP16-INT8-with-TensorRT
    ("nano", 1, "resnet18", "fp32", 256): 26,
    ("nano", 1, "resnet18", "fp16", 256): 18,
    ("nano", 1, "resnet50", "fp32", 256): 79,
    ("nano", 1, "resnet50", "fp16", 256): 42,
    # nvidia-ai-iot.github.io/torch2trt/v0.3.0/benchmarks/jetson_xavier.html
    ("xavier", 1, "resnet18", "fp16", 224): 1.64,
    ("xavier", 1, "resnet50", "fp16", 224): 3.37,
    # NVIDIA's tf_to_trt_image_classification, resnet_v1_50
    ("tx2", 1, "resnet50", "fp32", 224): 27.1,
    ("tx2", 1, "resnet50", "fp16", 224): 15.7,
    # ncnn's benchmark/README.md, 1.8 GHz: another runtime than the one that is simulated
    ("rpi4", 4, "resnet18", "fp32", 224): 123,
    ("rpi4", 4, "resnet50", "fp32", 224): 263,
    ("rpi4", 4, "mobilenet_v2", "fp32", 224): 62,
    ("rpi4", 1, "resnet18", "fp32", 224): 191,
    ("rpi4", 1, "resnet50", "fp32", 224): 534,
    ("rpi4", 1, "mobilenet_v2", "fp32", 224): 93,
}


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> dict[tuple[str, str, int], GraphWork]:
    folder: Path = tmp_path_factory.mktemp("nets")
    found = {}
    for name, precision, image_px in sorted({key[2:] for key in PUBLISHED}):
        fp32 = folder / f"{name}-{image_px}.onnx"
        if not fp32.exists():
            export(getattr(torchvision.models, name)(weights=None), image_px, fp32)
        out = folder / f"{name}-{image_px}-{precision}.onnx"
        to_precision(fp32, out, precision)
        found[name, precision, image_px] = work(out.read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: "-".join(map(str, case)))
def test_it_is_about_as_fast_as_the_real_one(case, works):
    name, threads, *net = case
    board = find_board(name)
    ms = latency_ms(works[tuple(net)], board.cuda or board.core, threads)
    assert 1 / FACTOR < ms / PUBLISHED[case] < FACTOR, f"{ms:.1f} ms"
