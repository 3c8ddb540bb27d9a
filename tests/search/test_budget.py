"""A memory limit below what a runtime takes alone is told before the first trial."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.measurement import Interval
from remote.exit_codes import USER
from search.budget import Budget
from search.run import main
from spaces.space import load
from tests.search.analytic import Analytic


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


def test_may_keep_disturbed_timing_is_over_only_if_its_lower_bound_is():
    budget, anything = Budget(latency_ms=1.0), Analytic().latency(load("tiny").parents()[0], None)
    calm = replace(anything, percentile_ms=Interval(0.9, 0.8, 1.5))
    disturbed = replace(calm, disturbed="other load: 1.0 cores were busy with something else")
    assert not budget.may_keep(calm) and not budget.keeps(disturbed) and budget.may_keep(disturbed)
    assert budget.possible_excess_ms(disturbed) == pytest.approx(-0.2)
    assert not budget.may_keep(replace(disturbed, percentile_ms=Interval(1.2, 1.1, 1.5)))
    assert not Budget(latency_ms=1.0, peak_mb=1.0).may_keep(disturbed)
