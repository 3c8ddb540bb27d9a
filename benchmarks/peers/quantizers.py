"""Run the peers' post-training quantization in their environment: `python quantizers.py fp32.onnx images.npy FOLDER`.

Olive runs its OnnxStaticQuantization pass and NNCF runs nncf.quantize, as their documentation shows, with their
defaults and with the options that they offer for this kind of network. Files are named after the method; failures are
recorded in FOLDER/failed.json. The script imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

INPUT = "image"


def olive(fp32: Path, images: np.ndarray, folder: Path, name: str, **options: Any) -> None:
    """Write FOLDER/name.onnx by Olive's static quantization with these options of the pass."""
    import olive
    import torch
    from olive.data.registry import Registry

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> Any:
            return {INPUT: images[i]}, 0

    Registry.register_dataset("calibration_images")(lambda **_: Images())
    data = {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {"type": "calibration_images"},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
        "dataloader_config": {"type": "default_dataloader", "batch_size": 1},
    }
    work = folder / f"{name}-olive"
    olive.run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(fp32)},
            "systems": {
                "here": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                }
            },
            "data_configs": [data],
            "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "calibration", **options}},
            "target": "here",
            "host": "here",
            "cache_dir": str(work / "cache"),
            "output_dir": str(work),
            "log_severity_level": 3,
        }
    )
    made = sorted(path for path in work.rglob("*.onnx") if "cache" not in path.relative_to(work).parts)
    if len(made) != 1:
        raise RuntimeError(f"Olive left {len(made)} models in {work}")
    made[0].replace(folder / f"{name}.onnx")


def nncf_quantized(fp32: Path, images: np.ndarray, folder: Path, name: str, **options: Any) -> None:
    """Write FOLDER/name.xml by nncf.quantize on the OpenVINO model with these options."""
    import nncf
    import openvino

    model = openvino.convert_model(str(fp32))
    dataset = nncf.Dataset([image[None] for image in images])
    done = nncf.quantize(model, dataset, subset_size=len(images), **options)
    openvino.save_model(done, str(folder / f"{name}.xml"))


def ways() -> Iterator[tuple[str, Callable[[Path, np.ndarray, Path, str], None]]]:
    """Iterate over (name, function) of all compared methods."""
    import nncf

    yield "olive default", olive
    yield "olive per channel uint8", lambda *a: olive(*a, per_channel=True, activation_type="uint8")
    mixed, performance = nncf.QuantizationPreset.MIXED, nncf.QuantizationPreset.PERFORMANCE
    yield "nncf performance", lambda *a: nncf_quantized(*a, preset=performance)
    yield "nncf mixed", lambda *a: nncf_quantized(*a, preset=mixed)
    yield "nncf mixed accurate bias", lambda *a: nncf_quantized(*a, preset=mixed, fast_bias_correction=False)


def main() -> None:
    """Write one file per method."""
    fp32, images, folder = Path(sys.argv[1]), np.load(sys.argv[2]), Path(sys.argv[3])
    failed = {}
    for name, make in ways():
        try:
            make(fp32, images, folder, name.replace(" ", "_"))
        except Exception as error:  # any error of a peer's library is recorded for the table
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    (folder / "failed.json").write_text(json.dumps(failed, indent=1))


if __name__ == "__main__":
    main()
