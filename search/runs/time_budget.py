"""Estimate the costs of a run's stages from its past, and derive what the remaining time allows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from statistics import mean

from evaluators.device_evaluator import CONFIRM_BLOCKS
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.time_allowance import TimeAllowance
from search.engines.serial import Limits
from search.sampling.protocol import StageCosts
from search.settings import Settings
from search.storage.ledger import Ledger, LedgerEntry
from spaces.candidate import Candidate

SEEING_S = 2.0  # seconds of a process that profiles a finalist's layers
REPORT_S = 5.0  # seconds for figures and tables
FRONT = 6  # usual maximum number of members of a front
MUST_SHARE = 0.2  # share of the time limit that the end may take where timing is slow
SHOWN_SHARE = 0.08  # share of the time limit reserved for the front's members besides the choice
BASELINE_SHARE = 0.25  # share of the time limit that training the greedy baseline may take
LOOKS_A_TRAINING = 10  # assumed cost of a training, in low-fidelity scores, until one has passed every stage limit


def limits_of(
    settings: Settings, ledger: Ledger, watch: Stopwatch, allowance: TimeAllowance, plain: Collection[Candidate]
) -> Limits:
    """Return the limits of trials and time, derived from the settings and the time spent in all sessions.

    Args:
        settings: Settings of the run.
        ledger: Everything measured so far.
        watch: Stopwatch of this session.
        allowance: Time allowance within which trainings must end; it is tied to the time limit here.
        plain: Uncompressed networks, one of which may become the greedy baseline.
    """
    uncut = frozenset(candidate.key() for candidate in plain)
    limit = math.inf if settings.time_limit_s is None else settings.time_limit_s

    def seconds_left() -> float:
        return limit - ledger.earlier_wall_s() - watch.wall_s()

    def ending_s() -> float:
        return finishing_s(ledger, settings.rungs[-1], uncut, limit)

    allowance.take_from(lambda: seconds_left() - ending_s())
    return Limits(
        trials=settings.trials_max(),
        seconds_left=seconds_left,
        finishing_s=ending_s,
        costs=lambda: costs_of(settings, ledger, seconds_left()),
        allowance=allowance,
        time_limit_s=limit,
        baseline_s=math.inf if settings.time_limit_s is None else BASELINE_SHARE * limit,
        finishing_least_s=lambda: finishing_s(ledger, settings.rungs[-1], uncut, limit, is_front_shown=False),
        polish_s=0.0 if settings.time_limit_s is None else settings.polish_share * limit,
    )


def probing_s(settings: Settings, limits: Limits) -> float:
    """Return the seconds that measuring latency steps may take.

    It is a share of the time limit, or of the time that the trials should take.

    Args:
        settings: Settings of the run.
        limits: Limits of trials and time.
    """
    if settings.time_limit_s is not None:
        return settings.probe_share * settings.time_limit_s
    costs = limits.costs()
    return settings.probe_share * (limits.trials or 0) * (costs.latency_s + costs.training_s)


def brief_epochs(settings: Settings) -> int | None:
    """Return the epochs of the low fidelity: the first rung, which a full training continues from; usually 0 epochs.

    A network's accuracy with its parent's weights, once BatchNorm has statistics of its own, predicts its accuracy
    after training (Li et al. 2020, EagleEye). None means that there is no low fidelity.
    """
    return settings.rungs[0] if len(settings.rungs) > 1 else None


def costs_of(settings: Settings, ledger: Ledger, seconds_left: float) -> StageCosts:
    """Return the mean seconds of a candidate's timing and trainings so far, scoring included.

    Uncompressed networks come first and are trained already: they show what a low-fidelity score costs, but not what a
    training costs.

    Args:
        settings: Settings of the run.
        ledger: Everything measured so far.
        seconds_left: Remaining seconds of the time limit; infinite without one.
    """
    timings = [own_s(entry) for entry in ledger.entries("latency")]
    low = brief_epochs(settings)
    brief: defaultdict[str, float] = defaultdict(float)
    full: defaultdict[str, float] = defaultdict(float)
    through: set[str] = set()
    for entry in ledger.entries("accuracy"):
        key, _, epochs = entry.key.partition("@")
        if int(epochs) > settings.rungs[-1]:
            continue  # polished, which the sampler does not plan
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
    """Return the seconds spent on a candidate alone, without its parent's training."""
    return sum(seconds for kind, seconds in entry.spent_s.items() if kind != "parents")


def finishing_s(
    ledger: Ledger,
    epochs_max: int,
    plain: Collection[str],
    limit_s: float = math.inf,
    is_front_shown: bool = True,
) -> float:
    """Estimate the seconds that the end of a search will take.

    Timing the choice for long, scoring it on the test set, and writing the report are mandatory, and the same for the
    greedy baseline once an uncompressed network was scored.
    Scoring the other members of the front and inspecting their layers is optional; time up to a share of the limit is
    reserved for it.

    Args:
        ledger: Everything measured so far.
        epochs_max: Epochs of the last rung: a candidate that reached it may be on the front.
        plain: Keys of the uncompressed networks.
        limit_s: The user's time limit in seconds; infinite without one.
        is_front_shown: Whether time is reserved for the members of the front besides the choice.
    """
    looks = [(entry, entry.value) for entry in ledger.entries("latency") if entry.value["type"] == "Latency"]
    block = mean([e.spent_s.get("timing", 0.0) / (v["blocks"] + v["repeated"]) for e, v in looks] or [0.0])
    scoring = mean([entry.spent_s.get("scoring", 0.0) for entry in ledger.entries("accuracy")] or [0.0])
    through = sum(1 for entry in ledger.entries("accuracy") if entry.key.endswith(f"@{epochs_max}"))
    shown = min(through, FRONT) * (1.5 * scoring + SEEING_S)
    scored = {entry.key.partition("@")[0] for entry in ledger.entries("accuracy")}
    finalists = 1 if scored and scored.isdisjoint(plain) else 2
    must = finalists * (CONFIRM_BLOCKS * block + 1.5 * scoring) + REPORT_S
    seconds: float = min(must, MUST_SHARE * limit_s + REPORT_S)
    return seconds + (min(shown, SHOWN_SHARE * limit_s) if is_front_shown else 0.0)
