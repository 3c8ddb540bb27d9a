"""Time and score a chosen model without any code of this project: `python benchmarks/retime.py RUN [TEST_FOLDER]`.

The output compares the percentile of 500 back-to-back runs with the budget. With class folders it also has the test
accuracy.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it on import
import onnxruntime

chosen = Path(sys.argv[1]) / "chosen"
config = json.loads((chosen / "config.json").read_text())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = config["candidate"]["threads"]
session = onnxruntime.InferenceSession(chosen / "model.onnx", options, providers=["CPUExecutionProvider"])
px, mean, std = (np.float32(config["preprocessing"][k]) for k in ("image_px", "mean", "std"))
how = config["preprocessing"]["resize"]


def square(image: Image.Image, side: int) -> Image.Image:
    """Return the image at the model's size: squashed, cropped as torchvision's presets do, or padded with black."""
    if how == "pad":
        return ImageOps.pad(image, (side, side), Image.BILINEAR)
    if how != "crop":
        return image.resize((side, side), Image.BILINEAR)
    short = int(side / 0.875)
    wide, high = (int(short * length / min(image.size)) for length in image.size)
    left, top = round((wide - side) / 2), round((high - side) / 2)
    return image.resize((wide, high), Image.BILINEAR).crop((left, top, left + side, top + side))


x = np.random.default_rng(0).random((1, 3, int(px), int(px)), dtype=np.float32)
times = []
for i in range(550):
    began = time.perf_counter()
    session.run(None, {"image": x})
    times += [1000 * (time.perf_counter() - began)] if i >= 50 else []
percentile, limit = config["budget"]["percentile"], config["budget"]["latency_ms"]
took = np.percentile(times, percentile)
verdict = "kept" if took <= limit else "MISSED"
print(f"p{percentile:g} {took:.3f} ms, median {np.median(times):.3f} ms, budget {limit:g} ms: {verdict}")
if len(sys.argv) > 2:
    right = total = 0
    for label, name in enumerate(config["classes"]):
        for file in sorted((Path(sys.argv[2]) / name).iterdir()):
            image = square(ImageOps.exif_transpose(Image.open(file)).convert("RGB"), int(px))
            x = ((np.asarray(image, dtype=np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
            right += int(session.run(None, {"image": x})[0].argmax() == label)
            total += 1
    said = config["measured"]["test"]["top1"] if "measured" in config else None
    print(f"test accuracy {right}/{total} = {right / total:.6f}, the report says {said}")
