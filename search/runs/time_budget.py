"""What the stages of a run have cost so far, and so what the rest of its time allows."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean

from evaluators.device_evaluator import CONFIRM_BLOCKS
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.time_allowance import TimeAllowance
from search.engines.serial import Limits
from search.sampling.protocol import StageCosts
from search.settings import Settings
from search.storage.ledger import Ledger, LedgerEntry

SEEING_S = 2.0  # a process that profiles a finalist's layers
REPORT_S = 5.0  # pictures and tables
FRONT = 6  # members that a front has as a rule, at most
MUST_SHARE = 0.2  # of a time limit, that the end may take where timing is slow
SHOWN_SHARE = 0.08  # of a time limit, kept for showing a front's members beside the choice
BASELINE_SHARE = 0.25  # of a time limit that training the greedy baseline may take
LOOKS_A_TRAINING = 10  # what a training is taken to cost until one has passed every gate


def limits_of(settings: Settings, ledger: Ledger, watch: Stopwatch, allowance: TimeAllowance) -> Limits:
    """Return when to stop asking, by the settings and by what was spent in this session and those before.

    Args:
        settings: The user's.
        ledger: What was measured so far.
        watch: The time of this session.
        allowance: In which trainings must end; it is made to end with the time limit.
    """

    limit = math.inf if settings.time_limit_s is None else settings.time_limit_s

    def seconds_left() -> float:
        return limit - ledger.earlier_wall_s() - watch.wall_s()

    def ending_s() -> float:
        return finishing_s(ledger, settings.rungs[-1], limit)

    allowance.take_from(lambda: seconds_left() - ending_s())
    return Limits(
        trials=settings.trials_max(),
        seconds_left=seconds_left,
        finishing_s=ending_s,
        costs=lambda: costs_of(settings, ledger, seconds_left()),
        allowance=allowance,
        time_limit_s=limit,
        baseline_s=math.inf if settings.time_limit_s is None else BASELINE_SHARE * limit,
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


def costs_of(settings: Settings, ledger: Ledger, seconds_left: float) -> StageCosts:
    """What a candidate's timing and trainings have taken so far, scoring included.

    Plain networks, which come first and are trained already, tell what a first look costs, not what a training does.
    """
    timings = [own_s(entry) for entry in ledger.entries("latency")]
    low = brief_epochs(settings)
    brief: defaultdict[str, float] = defaultdict(float)
    full: defaultdict[str, float] = defaultdict(float)
    through: set[str] = set()
    for entry in ledger.entries("accuracy"):
        key, _, epochs = entry.key.partition("@")
        full[key] += own_s(entry)
        if int(epochs) == settings.rungs[-1]:
            through.add(key)
        if low is not None and int(epochs) <= low:
            brief[key] += own_s(entry)
    look_s = mean(brief.values() or [1.0])
    if low is not None and not through:
        return StageCosts(mean(timings or [1.0]), look_s, LOOKS_A_TRAINING * look_s, seconds_left)
    training_s = mean([full[key] for key in through] or full.values() or [1.0])
    return StageCosts(mean(timings or [1.0]), look_s if low is not None else None, training_s, seconds_left)


def own_s(entry: LedgerEntry) -> float:
    """Return the seconds that were spent on a candidate alone, its parent's training left out."""
    return sum(seconds for kind, seconds in entry.spent_s.items() if kind != "parents")


def finishing_s(ledger: Ledger, epochs_max: int, limit_s: float = math.inf) -> float:
    """Return the seconds the end of a search will take, as things stand.

    Timing the choice and the baseline for long, scoring both on the test set, and writing the report must be done.
    Scoring the others of a front and looking at their layers is done as far as it goes, and time is kept for it up to a
    share of the limit.

    Args:
        ledger: What was measured so far.
        epochs_max: The last rung: a candidate that has it may be on the front.
        limit_s: The user's time limit.
    """
    looks = [(entry, entry.value) for entry in ledger.entries("latency") if entry.value["type"] == "Latency"]
    block = mean([e.spent_s.get("timing", 0.0) / (v["blocks"] + v["repeated"]) for e, v in looks] or [0.0])
    scoring = mean([entry.spent_s.get("scoring", 0.0) for entry in ledger.entries("accuracy")] or [0.0])
    through = sum(1 for entry in ledger.entries("accuracy") if entry.key.endswith(f"@{epochs_max}"))
    shown = min(through, FRONT) * (1.5 * scoring + SEEING_S)
    must = 2 * CONFIRM_BLOCKS * block + 2 * 1.5 * scoring + REPORT_S
    return min(must, MUST_SHARE * limit_s + REPORT_S) + min(shown, SHOWN_SHARE * limit_s)
