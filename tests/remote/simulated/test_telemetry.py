"""A simulated board's readings have no name that a real board's have not."""

from __future__ import annotations

import re

import pytest

from remote.link import reply_parsing
from remote.link.transport import texts
from remote.simulated import telemetry
from remote.simulated.boards import BOARDS

ONBOARD = "".join(texts()[name] for name in ("agent", "sensors", "survey", "monitor", "cuda"))
SUFFIX = re.compile(r"_(min|max|limit)$")  # which the device's side puts on by rule


def known(name: str) -> bool:
    """As a key in quotes, or as an argument's name of dict.update."""
    return any(re.search(rf'"{word}"|\b{word}=', ONBOARD) for word in (name, SUFFIX.sub("", name)))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_name_is_a_real_ones(board):
    readings = telemetry.state(board, 1.0, 1.0, 45.0) | telemetry.survey(board) | telemetry.list_runtimes(board)
    readings |= telemetry.during(board, 3.0, 1, 45.0, 1.0) | telemetry.facts(board, "boot")
    assert [name for name in readings if not known(name)] == ["simulated"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_what_is_seen_passes_the_controller(board):
    calm, hot = (telemetry.during(board, 3.0, 1, 45.0, slowed) for slowed in (1.0, 1.5))
    assert set(reply_parsing.parse_sensors(calm)) == set(calm) and reply_parsing.parse_sensors(
        calm
    ) != reply_parsing.parse_sensors(hot)
    assert reply_parsing.facts(telemetry.facts(board, "boot") | telemetry.list_runtimes(board)).simulated
