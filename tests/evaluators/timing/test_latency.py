"""The timing protocol over a device that behaves as told: steady, loaded, drifting, slow."""

import math
from dataclasses import replace

import numpy
import pytest

from evaluators.timing.latency import RepeatHistory, TimingRules, TimingTarget, calibrate, time_model
from remote.link.session import Job

TARGET = TimingTarget(
    model_sha256="m",
    reference_sha256="r",
    job=Job(runtime="onnxruntime"),
    runtime_version="1.31.1",
    percentile=95.0,
    reference_ms=2.0,
)


class Machine:
    """Answers `time_block` like a device: a model of `ms`, a reference of 2 ms, states block by block."""

    def __init__(self, ms, states=("calm",), seed=0):
        self.ms, self.states, self.asked = ms, list(states), 0
        self.rng = numpy.random.default_rng(seed)

    def state(self):
        """One core busy with the block, and a second one in the state `busy elsewhere`."""
        state = self.states[min(max(self.asked - 1, 0), len(self.states) - 1)]
        return {"cpu_busy_s": (2.0 if state == "busy elsewhere" else 1.0) * self.asked, "at_s": float(self.asked)}

    def time_block(self, model, reference, job, pairs, seconds_max):
        state = self.states[min(self.asked, len(self.states) - 1)]
        self.asked += 1
        speed = 1.5 if state == "slow clock" else 1.0
        waits = self.rng.choice([1.0, 3.0, 3.0], pairs) if state == "loaded" else numpy.ones(pairs)
        cpu = self.ms * speed * self.rng.normal(1, 0.01, pairs)
        reference_cpu = 2.0 * speed * self.rng.normal(1, 0.01, pairs)
        if state == "unsteady":
            cpu = cpu * self.rng.choice([1.0, 1.4], pairs)
        return {
            "wall_ms": list(cpu * waits * (1 + 0.02 * self.rng.random(pairs))),
            "cpu_ms": list(cpu),
            "reference_wall_ms": list(reference_cpu * waits),
            "reference_cpu_ms": list(reference_cpu),
            "peak_mb": 80.0,
            "runtime_mb": 44.0,
            "load_ms": 12.0,
            "warmup_runs": 12,
            "load_average": 0.3,
        }


def test_a_calm_device_needs_no_repeats():
    latency = time_model(Machine(5.0), TARGET, TimingRules(), limit_ms=30.0)
    assert latency.disturbed == "" and latency.repeated == 0 and latency.samples >= 72
    assert latency.median_ms.value == pytest.approx(5.05, rel=0.02)
    assert latency.rank_ms.value == pytest.approx(5.0, rel=0.01)
    assert latency.percentile_ms.low <= latency.percentile_ms.value <= latency.percentile_ms.high < 6


def test_the_bound_is_above_the_samples_it_is_made_of():
    latency = time_model(Machine(5.0), TARGET, TimingRules(), limit_ms=5.1)
    assert math.isfinite(latency.percentile_ms.high)
    assert latency.percentile_ms.high > latency.median_ms.value


def test_far_over_the_budget_one_block_is_enough():
    machine = Machine(50.0)
    latency = time_model(machine, TARGET, TimingRules(), limit_ms=5.0)
    assert machine.asked == 1 and latency.percentile_ms.low > 5.0


def test_near_the_limit_more_samples_are_taken():
    near, far = Machine(5.0), Machine(5.0)
    rules = replace(TimingRules(), narrow=0.0)
    time_model(near, TARGET, rules, limit_ms=5.15)
    time_model(far, TARGET, rules, limit_ms=30.0)
    assert near.asked > far.asked


def test_a_disturbed_block_is_timed_again_and_counted():
    machine = Machine(5.0, ["loaded", "unsteady", "calm"])
    latency = time_model(machine, TARGET, TimingRules(), limit_ms=30.0)
    assert latency.repeated == 2 and latency.disturbed == ""
    assert latency.percentile_ms.high < 6, "no disturbed sample is part of a number"


@pytest.mark.parametrize(
    ("state", "says"),
    [("loaded", "other load"), ("slow clock", "drift"), ("unsteady", "unsteady"), ("busy elsewhere", "1.0 cores")],
)
def test_a_device_that_stays_disturbed_is_said_to_be(state, says):
    machine = Machine(5.0, [state])
    latency = time_model(machine, TARGET, TimingRules(), limit_ms=100.0)
    rules = TimingRules()
    repeats = rules.drift_repeats_max if says == "drift" else rules.repeats_max
    assert says in latency.disturbed and latency.repeated == repeats


@pytest.mark.parametrize(("state", "calm_ms"), [("slow clock", 2.0), ("calm", 3.0)])
def test_time_model_device_at_another_pace_is_scaled_to_the_calm_one(state, calm_ms):
    """The slow device's samples are scaled down, those of a device that became faster are scaled up."""
    target = replace(TARGET, reference_ms=calm_ms)
    latency = time_model(Machine(5.0, [state]), target, TimingRules(), limit_ms=100.0)
    assert latency.median_ms.value == pytest.approx(5.05 * calm_ms / 2.0, rel=0.02)
    assert latency.rank_ms.value == pytest.approx(5.0 * calm_ms / 2.0, rel=0.02)
    assert latency.percentile_ms.high < 5.3 * calm_ms / 2.0
    assert latency.disturbed.startswith("drift") == (state == "slow clock")


def test_time_model_slow_device_is_not_over_a_budget_that_it_keeps_when_calm():
    latency = time_model(Machine(5.0, ["slow clock"]), TARGET, TimingRules(), limit_ms=5.5)
    assert latency.percentile_ms.high <= 5.5 and latency.samples >= 72


def test_time_model_loaded_device_ranks_and_latencies_hold_and_are_marked():
    """CPU time is what the wall time is not: the same under load, for ratios and, of disturbed blocks, for samples."""
    calm = [time_model(Machine(ms, seed=i), TARGET, TimingRules(), None) for i, ms in enumerate((3, 4, 5, 6))]
    busy = [time_model(Machine(ms, ["loaded"], i), TARGET, TimingRules(), None) for i, ms in enumerate((3, 4, 5, 6))]
    for a, b in zip(calm, busy, strict=True):
        assert b.rank_ms.value == pytest.approx(a.rank_ms.value, rel=0.02)
        assert b.median_ms.value == pytest.approx(a.median_ms.value, rel=0.05)
        assert b.disturbed and not a.disturbed


def test_time_model_disturbed_but_surely_over_the_budget_is_not_repeated():
    machine = Machine(50.0, ["loaded"])
    latency = time_model(machine, TARGET, TimingRules(), limit_ms=5.0)
    assert machine.asked == 1 and latency.percentile_ms.low > 5.0


def test_disturbance_device_faster_than_when_calibrated_is_calm():
    target = replace(TARGET, reference_ms=2.0 * TARGET.reference_ms)
    assert time_model(Machine(5.0), target, TimingRules(), limit_ms=30.0).disturbed == ""


def test_time_model_short_of_time_does_not_repeat_disturbed_blocks():
    seconds = iter(range(0, 1000, 5))
    rules = replace(TimingRules(), seconds_max=3.0)
    latency = time_model(Machine(5.0, ["loaded"]), TARGET, rules, limit_ms=30.0, clock=lambda: next(seconds))
    assert latency.repeated == 0 and latency.disturbed


def test_time_model_short_of_time_adds_no_block_to_narrow_the_interval():
    seconds = iter(range(1000))
    machine, rules = Machine(5.0), replace(TimingRules(), narrow=0.0, seconds_max=3.0)
    latency = time_model(machine, TARGET, rules, limit_ms=None, clock=lambda: next(seconds))
    assert latency.blocks == rules.blocks_min and math.isfinite(latency.percentile_ms.high)
    seconds = iter(range(1000))
    limit_ms = latency.percentile_ms.value
    undecided = time_model(machine, TARGET, rules, limit_ms=limit_ms, clock=lambda: next(seconds))
    assert undecided.blocks > rules.blocks_min, "it takes longer, for the budget to be decided"


def test_time_model_load_that_empties_caches_is_left_out_of_the_bound():
    """A run after a wait is slow by its CPU time, too: pairs in which a run waited don't decide about the budget."""

    class Evicting(Machine):
        def time_block(self, model, reference, job, pairs, seconds_max):
            raw = super().time_block(model, reference, job, pairs, seconds_max)
            waits = self.rng.random(pairs) < 0.3
            raw["cpu_ms"] = list(numpy.where(waits, 3.0, 1.0) * raw["cpu_ms"])
            raw["wall_ms"] = list(numpy.where(waits, 9.0, 1.0) * raw["cpu_ms"])
            return raw

    latency = time_model(Evicting(5.0), TARGET, TimingRules(), limit_ms=6.0)
    assert "other load" in latency.disturbed and latency.percentile_ms.high < 6.0


def test_time_model_fast_model_takes_more_samples_in_later_blocks():
    fast, slow = (time_model(Machine(ms), TARGET, TimingRules(), limit_ms=None) for ms in (0.1, 50.0))
    rules = TimingRules()
    assert fast.samples == rules.pairs + int(1e3 * rules.pairs_s / 2.1) and slow.samples == 2 * rules.pairs


def test_time_model_load_that_lasts_repeats_are_given_up_until_a_block_is_calm():
    rules, history = TimingRules(), RepeatHistory()

    def repeats(states):
        return time_model(Machine(5.0, states), TARGET, rules, limit_ms=30.0, history=history).repeated

    loaded = [repeats(["loaded"]) for _ in range(4)]
    assert loaded == [3, 3, 0, 0], "after as many fruitless repeats as the rules permit none follows"
    assert repeats(["loaded", "calm"]) == 0 and repeats(["loaded", "calm"]) == 1, (
        "a calm block shows that the load ended"
    )


def test_calibration_takes_the_calmest_block():
    machine = Machine(2.0, ["slow clock", "slow clock", "calm", "slow clock", "slow clock"])
    reference_ms, restless = calibrate(machine, "r", Job(runtime="onnxruntime"), TimingRules())
    assert reference_ms == pytest.approx(2.0, rel=0.02) and restless == ""
    assert "other load" in calibrate(Machine(2.0, ["loaded"]), "r", Job(runtime="onnxruntime"), TimingRules())[1]
