"""Steps told from noisy latencies: what is found is there, and a smooth line has none."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from itertools import accumulate

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.measurement import Interval
from search.pipeline.step_detection import RUNGS, ProbePoint, Staircase, counts, edges, from_dict, shortest
from spaces.channel_rounding import rounding

STEPS = st.sampled_from([1, 2, 4, 8])
floats = partial(st.floats, allow_subnormal=False)  # training beside these tests switches them off in the processor
OFF = st.lists(floats(-1, 1), min_size=RUNGS, max_size=RUNGS)  # of what a measurement may be off
NOISE = floats(0.001, 0.1)  # relative half width of a measurement


def ladder(law, off, noise, step=8):
    """As measured: each latency off by a part of the noise its interval allows for."""
    values = [true * (1 + noise * part) for true, part in zip(law, off, strict=True)]
    spans = [noise * true for true in law]
    return [
        ProbePoint(step * (i + 1), Interval(v, v - s, v + s))
        for i, (v, s) in enumerate(zip(values, spans, strict=True))
    ]


def stairs(ends, height, base=1.0):
    """Latency of each rung where it rises after the rungs named (from 1)."""
    return [base + height * sum(end < rung for end in ends) for rung in range(1, RUNGS + 1)]


@given(st.lists(floats(0, 0.5), min_size=RUNGS - 1, max_size=RUNGS - 1), OFF, NOISE, STEPS)
def test_what_is_found_is_a_rise_larger_than_those_beside_it(rises, off, noise, step):
    law = list(accumulate(rises, initial=1.0))
    for channels in edges(ladder(law, off, noise, step)):
        place = channels // step - 1
        assert rises[place] > max(rises[place - 1], rises[place + 1])


@given(st.sets(st.integers(2, RUNGS - 2)), OFF, floats(0.001, 0.01), STEPS)
def test_stairs_above_the_noise_are_found_to_the_last(drawn, off, noise, step):
    ends = [end for end in sorted(drawn) if not drawn & {end - 1, end - 2}]  # two counts to a step, or more
    found = edges(ladder(stairs(ends, height=0.2), off, noise, step))
    assert found == tuple(step * end for end in ends)


@given(floats(0, 0.5), floats(-0.02, 0.02), OFF, NOISE)
def test_neither_a_line_nor_a_bend_has_steps(slope, bend, off, noise):
    law = [1 + slope * i + abs(bend) * 49 + bend * i * i for i in range(RUNGS)]
    found = Staircase(tuple(ladder(law, off, noise)), 96)
    assert edges(found.rungs) == () and found.to("declared") == "declared"


def test_noise_that_goes_beyond_its_intervals_now_and_then_makes_few_steps():
    """Intervals of 95 %, which one of twenty latencies lies outside of."""
    random, made, found = numpy.random.default_rng(0), 0, 0
    line, steps = [1 + 0.05 * i for i in range(RUNGS)], stairs((2, 4, 6), 0.1)
    for _ in range(1000):
        off = random.normal(0, 1 / 1.96, RUNGS)
        made += bool(edges(ladder(line, off, 0.01)))
        found += edges(ladder(steps, off, 0.01)) == (16, 32, 48)
    assert made <= 2 and found >= 950


@given(st.lists(floats(0, 0.5), min_size=RUNGS - 1, max_size=RUNGS - 1), OFF, NOISE)
def test_no_count_is_rounded_up_at_more_than_channels_cost_on_the_average(rises, off, noise):
    law = list(accumulate(rises, initial=1.0))
    rungs = ladder(law, off, noise)
    ends = counts(rungs)
    price = (rungs[-1].rank_ms.value - rungs[0].rank_ms.value) / (RUNGS - 1)
    for rung in range(RUNGS if ends else 0):
        up = next(end for end in ends if end >= 8 * (rung + 1)) // 8 - 1
        assert up == rung or law[up] - law[rung] < price * (up - rung) + 1e-9


@pytest.mark.parametrize(
    "law, word",
    [
        (stairs((2, 4, 6), 0.1), "16"),
        (stairs((4,), 0.1), "32"),
        (stairs((3, 6), 0.1), "24+48+64"),
        ([3.0, 1.0, 3.1, 1.1, 3.2, 1.2, 3.3, 1.3], "16"),  # odd counts take a slow way
        ([1.0, 1.0, 1.1, 1.1, 1.2, 1.3, 1.4, 1.5], "16+32+40+48+56+64"),  # stairs that end in a slope
        ([1.0] * RUNGS, "declared"),
    ],
)
def test_steps_as_pruning_is_told_them(law, word):
    assert Staircase(tuple(ladder(law, [0.0] * RUNGS, 0.001)), 96).to("declared") == word


@given(st.sets(st.integers(1, 64)))
def test_the_shortest_word_says_the_same(found):
    at = sorted({*found, 64})
    said = rounding(shortest(at, 64))
    assert [n for n in range(1, 65) if (n - 1) % said.period + 1 in said.at] == at


def test_it_is_kept_as_plain_values():
    kept = Staircase(tuple(ladder(stairs((4,), 0.1), [0.0] * RUNGS, 0.01)), 96, "", 12.5)
    assert from_dict(json.loads(json.dumps(asdict(kept)))) == kept
