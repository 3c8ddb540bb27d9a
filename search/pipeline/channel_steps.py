"""Finds out where a network's latency steps on the device, the first time a pruned candidate of it is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from evaluators.measurement import Failure
from evaluators.rounding_evaluator import PRUNE, round_candidate
from evaluators.timing.stopwatch import Stopwatch
from remote.files import read_or_none, write_file
from search.pipeline.step_detection import RUNGS, ProbePoint, Staircase, from_dict
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from spaces.operation_specs import DECLARED
from spaces.space import Space

STAGE = "steps"
ANY = 1e-6  # amount of a ladder's networks: what goes does not depend on it


@dataclass(frozen=True)
class ProbeBudget:
    """What ladders may cost, and where those of earlier runs are."""

    allowed_s: Callable[[], float]  # for all ladders of the run together
    folder: Path  # of the device, kept from run to run


class ChannelStepProbe:
    """The steps of every network, precision and runtime that was asked for: measured once a device, fixed for a run.

    Once a candidate was built by them, or without, the others of its kind in this run are: so it is kept in the
    ledger, and a run that an earlier version began goes on without.
    """

    def __init__(
        self,
        evaluator: CachedEvaluator,  # of networks as they are named, rounded by nobody
        ledger: Ledger,
        watch: Stopwatch,
        space: Space,
        terms: ProbeBudget,
        tell: Callable[[str], None],
    ) -> None:
        self._evaluator, self._ledger, self._watch = evaluator, ledger, watch
        self._space, self._terms, self._tell = space, terms, tell
        self._known = {entry.key: from_dict(entry.value) for entry in ledger.entries(STAGE) if entry.key}
        if ledger.get(STAGE, "") is None and not any(ledger.entries("structure")):
            ledger.put(STAGE, "", {}, {}, 0.0)

    def rounding(self, candidate: Candidate) -> str:
        """What the channel counts of a pruned candidate are rounded to, as in `spaces/channel_rounding.py`."""
        if self._ledger.get(STAGE, "") is None:
            return DECLARED
        key = " ".join([candidate.variant, candidate.precision, candidate.runtime])
        if key not in self._known:
            found = self._find(self._plain(candidate))
            self._ledger.put(STAGE, key, asdict(found), {}, self._watch.wall_s())
            self._known[key] = found
        return self._known[key].to(DECLARED)

    def describe(self) -> dict[str, str]:
        """By network, precision and runtime: what is known, a line for people."""
        return {key: _line(found) for key, found in sorted(self._known.items())}

    def _plain(self, candidate: Candidate) -> Candidate:
        """The network itself at the middle one of its input sizes, on as few threads as there are."""
        sizes = sorted(int(px) for px in self._space.values(candidate.family, "image_px"))
        threads = min(int(n) for n in self._space.axes["threads"])
        return replace(candidate.uncut(), image_px=sizes[(len(sizes) - 1) // 2], threads=threads)

    def _find(self, plain: Candidate) -> Staircase:
        """From an earlier run on this device, or timed now if that may be paid for."""
        kept = self._terms.folder / f"{plain.key()}.json"
        known = read_or_none(kept, lambda text: from_dict(json.loads(text)))
        if isinstance(known, Staircase):
            return replace(known, seconds=0.0)
        spent_s, expected_s = sum(found.seconds for found in self._known.values()), self._estimate_s()
        if spent_s + expected_s > self._terms.allowed_s():
            return Staircase((), plain.image_px, f"timing {RUNGS} networks for it would take about {expected_s:.0f} s")
        began = self._watch.wall_s()
        found = self._measure(plain)
        found = replace(found, seconds=round(self._watch.wall_s() - began, 3))
        if not found.why_not and not any(rung.disturbed for rung in found.rungs):
            write_file(kept, json.dumps(asdict(found)))
        return found

    def _measure(self, plain: Candidate) -> Staircase:
        structure = self._evaluator.structure(plain)
        if isinstance(structure, Failure):
            return Staircase((), plain.image_px, structure.reason)
        step, rungs = structure.granularity, []
        for place in range(1, RUNGS + 1):
            self._tell(
                f"where {plain.variant} {plain.precision} gets slower as channels are added: network {place} of {RUNGS}"
            )
            one = round_candidate(replace(plain, steps=((PRUNE, ANY),)), f"{RUNGS * step}-{(RUNGS - place) * step}")
            if isinstance(built := self._evaluator.structure(one), Failure):
                return Staircase((), plain.image_px, built.reason)
            latency = self._evaluator.latency(one, None)
            if isinstance(latency, Failure):
                return Staircase((), plain.image_px, latency.reason)
            rungs.append(ProbePoint(place * step, latency.rank_ms, latency.disturbed))
        return Staircase(tuple(rungs), plain.image_px)

    def _estimate_s(self) -> float:
        """Seconds that the networks of one ladder will take, as others have in this run."""
        stages = [[sum(e.spent_s.values()) for e in self._ledger.entries(stage)] for stage in ("structure", "latency")]
        return RUNGS * sum(mean(taken or [1.0]) for taken in stages)


def _line(found: Staircase) -> str:
    to = found.to(DECLARED)
    if found.why_not:
        return f"not looked for, {found.why_not}"
    if to == DECLARED:
        unsure = next((f" ({rung.disturbed})" for rung in found.rungs if rung.disturbed), "")
        return f"no steps seen over {len(found.rungs)} networks of {found.image_px} px{unsure}"
    return f"pruned to multiples of {to}" if "+" not in to else f"pruned to {to.replace('+', ', ')} and so on"
