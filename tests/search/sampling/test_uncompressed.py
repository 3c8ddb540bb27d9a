"""Which whole networks may keep a budget, by what is known of the plain ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.bayesopt.observations import Observations
from search.sampling.uncompressed import FEW, LEAST_SHARE, UncompressedCandidates
from spaces.candidate import Candidate

PLAIN = [Candidate(family="f", variant=f"net{i}", image_px=160) for i in range(6)]
WHOLE = [replace(p, image_px=px, precision=q) for p in PLAIN for px in (80, 160) for q in ("fp32", "int8")]
CUT = [replace(c, steps=(("prune", 0.5),)) for c in WHOLE]
ALL = [*WHOLE, *CUT]


def known(**latency_ms):
    made = Observations.nothing(len(ALL))
    for name, ms in latency_ms.items():
        made.latency_ms[place(Candidate(family="f", variant=name, image_px=160))] = ms
    return made


def place(candidate):
    return ALL.index(candidate)


def kept(uncut, of):
    return {ALL[i] for i in np.flatnonzero(uncut.may_keep(of))}


def test_without_anything_known_every_whole_network_may_keep_it():
    uncut = UncompressedCandidates(ALL, PLAIN, 1.0)
    assert kept(uncut, known()) == set(WHOLE) and not uncut.all
    assert UncompressedCandidates(WHOLE, PLAIN, 1.0).all


@pytest.mark.parametrize(("plain_ms", "left"), [(0.9, 4), (1.9, 3), (3.9, 2), (7.9, 1), (8.1, 0)])
def test_a_plain_network_bounds_its_own_by_area_and_precision(plain_ms, left):
    assert LEAST_SHARE == 2
    of_one = [c for c in kept(UncompressedCandidates(ALL, PLAIN, 1.0), known(net0=plain_ms)) if c.variant == "net0"]
    assert len(of_one) == left
    if left == 1:
        assert of_one == [replace(PLAIN[0], image_px=80, precision="int8")]


def test_what_is_as_large_as_one_that_was_too_slow_is_left_out():
    found, small = known(), replace(PLAIN[0], image_px=80)
    found.beyond[place(small)] = True
    assert set(WHOLE) - kept(UncompressedCandidates(ALL, PLAIN, 1.0), found) == {small, PLAIN[0]}
    found.beyond[place(small)], found.beyond[place(PLAIN[0])] = False, True
    assert set(WHOLE) - kept(UncompressedCandidates(ALL, PLAIN, 1.0), found) == {PLAIN[0]}


def test_likely_largest_is_the_slowest_form_of_each_network_that_is_expected_to_keep_the_budget():
    found = known(net0=9.0, net1=1.0, net2=2.2, net3=3.0, net4=4.5, net5=7.0)
    likely = [ALL[i] for i in UncompressedCandidates(ALL, PLAIN, 2.0).likely_largest(found)]
    assert likely == [
        replace(PLAIN[5], image_px=80),  # 1.75 ms by area
        replace(PLAIN[0], image_px=80, precision="int8"),  # 1.69 by area and as a rule
        replace(PLAIN[2], precision="int8"),  # 1.65
        replace(PLAIN[4], image_px=80),  # 1.125
    ]
    assert len(likely) == FEW


def test_likely_largest_where_none_is_expected_within_gives_the_form_that_may_be_fastest():
    likely = [
        ALL[i] for i in UncompressedCandidates(ALL, PLAIN, 1.0).likely_largest(known(**{p.variant: 7.9 for p in PLAIN}))
    ]
    assert likely[0].image_px == 80 and likely[0].precision == "int8"


def test_none_is_likely_where_none_may_keep_the_budget():
    found = known(**{p.variant: 1000.0 for p in PLAIN})
    assert len(UncompressedCandidates(ALL, PLAIN, 1.0).likely_largest(found)) == 0


def test_find_untried_is_the_slowest_waiting_one_of_each_network_without_any_accuracy():
    found = known()
    for network, sizes in ((0, {80: 0.5, 160: 0.9}), (1, {80: 0.6}), (2, {80: 0.7, 160: 0.8})):
        for px, ms in sizes.items():
            at = place(replace(PLAIN[network], image_px=px))
            found.latency_ms[at], found.looks[at] = ms, 1
    found.closed[place(PLAIN[2])] = True  # over the budget: the next slowest of the network takes its place
    uncut = UncompressedCandidates(ALL, PLAIN, 1.0)
    expected = [PLAIN[0], replace(PLAIN[2], image_px=80), replace(PLAIN[1], image_px=80)]
    assert [ALL[i] for i in uncut.find_untried(found)] == expected
    found.brief[place(replace(PLAIN[0], image_px=80))] = 0.5
    assert [ALL[i] for i in uncut.find_untried(found)] == expected[1:]


def timed(**latency_ms):
    """Observations of candidates named as net0_160_fp32, with the plain ones' latencies in ms."""
    found = known()
    for name, ms in latency_ms.items():
        network, px, precision = name.split("_")
        at = place(replace(PLAIN[int(network[3:])], image_px=int(px), precision=precision))
        found.latency_ms[at], found.looks[at], found.beyond[at] = ms, 1, ms > 1.0
    return found


def edges(of, bound=1.0):
    return [ALL[i] for i in UncompressedCandidates(ALL, PLAIN, 1.0).edges(of, bound)]


def test_edges_begin_with_the_largest_that_is_expected_to_keep_the_budget_in_each_precision():
    found = timed(net0_160_fp32=3.0, net1_160_fp32=0.9, net2_160_fp32=1.3, net3_160_fp32=9.0)
    small, plain = replace(PLAIN[0], image_px=80), PLAIN[2]
    assert edges(found)[:4] == [
        replace(plain, precision="int8"),
        small,
        replace(small, precision="int8"),
        replace(plain, image_px=80),
    ], "net1 keeps it in fp32 at its largest input, so int8 can't be more accurate; net3 never keeps it"


def test_edges_end_where_the_next_larger_input_is_over_the_budget_or_expected_to_be():
    found = timed(net0_160_fp32=3.0, net0_80_fp32=0.75, net0_80_int8=0.4, net0_160_int8=1.2)
    assert [c for c in edges(found) if c.variant == "net0"] == []
    small = replace(PLAIN[1], image_px=80, precision="int8")
    fast = timed(net1_160_fp32=3.0, net1_80_fp32=0.7, net1_80_int8=0.25)
    assert [c for c in edges(fast) if c.variant == "net1"] == [replace(small, image_px=160)], "by its own latency"
    assert [c for c in edges(fast, bound=1.2) if c.variant == "net1"] == []


def test_edges_what_only_may_keep_the_budget_makes_way_for_a_smaller_input():
    found = timed(net0_160_fp32=0.8)
    found.unsure[place(PLAIN[0])] = True
    assert replace(PLAIN[0], image_px=80) in edges(found)
