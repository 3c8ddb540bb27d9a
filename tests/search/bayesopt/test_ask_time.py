"""Proposing costs little, and no more than proportionately more as a search grows long."""

from __future__ import annotations

import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from search.bayesopt.observations import ProposerSettings
from tests.search.bayesopt.tables import make, start


@pytest.mark.slow
@pytest.mark.alone
def test_proposals_of_a_long_search_take_a_fifth_of_a_second():
    run = start(make(axes=6, values=5), settings=ProposerSettings(), budget_ms=5.0)
    took_s = []
    with ThreadpoolController().limit(limits=1):  # as the sampler has it: a second thread only waits
        for _ in range(250):
            began = time.process_time()
            assert run.round() == 1
            took_s.append(time.process_time() - began)
    assert np.mean(took_s) < 0.2
    first, last = np.mean(took_s[25:75]), np.mean(took_s[200:250])
    assert last < 1.2 * first * 225 / 50, (first, last)
