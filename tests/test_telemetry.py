"""Nothing of ours lets ONNX Runtime send what it is used for: the switch is set before each import of it.

Workers and the agent set it for their processes; files that a user starts by themselves set it themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reports.model_bundle import EXAMPLE

ROOT = Path(__file__).parents[1]
IMPORT = re.compile(r"^\s*(?:import|from)\b.*\bonnxruntime\b", re.M)
STARTED = [path for folder in ("benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(
    "text",
    [pytest.param(EXAMPLE, id="predict.py")]
    + [pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(ROOT))) for path in STARTED],
)
def test_the_switch_is_set_before_the_import(text):
    first = IMPORT.search(text)
    if first:
        assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in text[: first.start()]


def test_the_controller_does_not_load_onnx_runtime():
    """It is the workers that do, and they set the switch."""
    modules = "search.runs.device_run, search.run, reports.run_report, reports.model_bundle"
    code = f"import sys, {modules}; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
