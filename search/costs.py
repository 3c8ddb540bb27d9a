"""What the stages of a run have cost so far, and so what the rest of its time allows."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean

from evaluators.stopwatch import Stopwatch
from search.engines.serial import Limits
from search.heeding import Costs
from search.ledger import Ledger
from search.settings import Settings

SEEING_S = 2.0  # a process that profiles a finalist's layers
LOOKS_A_TRAINING = 10  # what a training is taken to cost until one has passed every gate


def limits_of(settings: Settings, ledger: Ledger, watch: Stopwatch) -> Limits:
    """When to stop asking, by the settings and by what was spent in this session and those before."""

    def seconds_left() -> float:
        limit = settings.time_limit_s
        return math.inf if limit is None else limit - ledger.earlier_wall_s() - watch.wall_s()

    return Limits(
        settings.trials_max(),
        seconds_left,
        lambda: finishing_s(ledger),
        lambda: costs_of(settings, ledger, seconds_left()),
    )


def probing_s(settings: Settings, limits: Limits) -> float:
    """Seconds that finding a device's steps may take: a share of the time limit, or of what the trials should take."""
    if settings.time_limit_s is not None:
        return settings.probe_share * settings.time_limit_s
    costs = limits.costs()
    return settings.probe_share * (limits.trials or 0) * (costs.latency_s + costs.training_s)


def brief_epochs(settings: Settings) -> int | None:
    """The first rung, which a full training goes on from: as a rule no epoch at all.

    What a network does with its parent's weights, once BatchNorm has statistics of its own, foretells what it does
    when trained (Li et al. 2020, EagleEye).
    """
    return settings.rungs[0] if len(settings.rungs) > 1 else None


def costs_of(settings: Settings, ledger: Ledger, seconds_left: float) -> Costs:
    """What a candidate's timing and trainings have taken so far, scoring included.

    Plain networks, which come first and are trained already, tell what a first look costs, not what a training does.
    """
    timings = [sum(entry.spent_s.values()) for entry in ledger.entries("latency")]
    low = brief_epochs(settings)
    brief: defaultdict[str, float] = defaultdict(float)
    full: defaultdict[str, float] = defaultdict(float)
    through: set[str] = set()
    for entry in ledger.entries("accuracy"):
        key, _, epochs = entry.key.partition("@")
        full[key] += sum(entry.spent_s.values())
        if int(epochs) == settings.rungs[-1]:
            through.add(key)
        if low is not None and int(epochs) <= low:
            brief[key] += sum(entry.spent_s.values())
    look_s = mean(brief.values() or [1.0])
    if low is not None and not through:
        return Costs(mean(timings or [1.0]), look_s, LOOKS_A_TRAINING * look_s, seconds_left)
    training_s = mean([full[key] for key in through] or full.values() or [1.0])
    return Costs(mean(timings or [1.0]), look_s if low is not None else None, training_s, seconds_left)


def finishing_s(ledger: Ledger) -> float:
    """Seconds the end will take: timing two or three finalists long, scoring a front on the test set and on the host,
    and looking at its layers."""
    timing = [entry.spent_s.get("timing", 0.0) for entry in ledger.entries("latency")]
    scoring = [entry.spent_s.get("scoring", 0.0) for entry in ledger.entries("accuracy")]
    return 3 * 3 * mean(timing or [0.0]) + 8 * (1.5 * mean(scoring or [0.0]) + SEEING_S)
