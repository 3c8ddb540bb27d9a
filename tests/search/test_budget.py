"""A memory limit below what a runtime takes alone is told before the first trial."""

from __future__ import annotations

import pytest

from remote.exit_codes import USER
from search.budget import Budget
from search.run import main


def test_what_one_runtime_can_keep_is_not_refused():
    taken = {"onnxruntime": 58.0, "openvino": 90.0}
    assert (
        Budget(latency_ms=5.0).impossible_mb(taken) == ""
        and Budget(latency_ms=5.0, peak_mb=70.0).impossible_mb(taken) == ""
    )
    line = Budget(latency_ms=5.0, peak_mb=58.0).impossible_mb(taken)
    assert line.startswith("--budget-mb 58 can't be kept") and "onnxruntime takes 58 MB, openvino takes 90 MB" in line


@pytest.mark.slow
def test_a_search_for_the_impossible_ends_before_its_first_trial(tmp_path, capsys):
    """Proves that the runtime's own memory is taken from the calibration, on a whole start: 20 s."""
    words = ["--budget-ms", "5", "--budget-mb", "9", "--device", "sim:nano", "--space", "tiny"]
    out = tmp_path / "run"
    assert main([*words, "--trials", "3", "--out", str(out), "--cache", str(tmp_path / "cache")]) == USER
    said = capsys.readouterr()
    assert "--budget-mb 9 can't be kept: without any model tensorrt takes" in said.err and said.err.count("\n") == 1
    assert "trial 0" not in said.out
    assert not out.exists(), "another budget may be asked for in the same folder"
