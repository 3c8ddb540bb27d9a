"""Measure where a network's latency steps over channel counts, before its first pruned candidate is built."""

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
ANY = 1e-6  # pruning amount of a probe point: the removed channels do not depend on it


@dataclass(frozen=True)
class ProbeBudget:
    """Limit the time of step measurements and locate those of earlier runs.

    Attributes:
        allowed_s: Function that returns the seconds that all series of the run together may take.
        folder: Folder of the device's series, which persists across runs.
    """

    allowed_s: Callable[[], float]
    folder: Path


class ChannelStepProbe:
    """Provide the latency steps of each network, precision and runtime: measured once per device, fixed for a run.

    All candidates of a network, precision and runtime in one run use the same rounding. The decision is stored in the
    ledger; runs started by older versions keep the old rounding.

    Args:
        evaluator: Evaluator without channel rounding.
        ledger: Ledger of the run.
        watch: Stopwatch of the session.
        space: Search space.
        terms: Time limit and storage of the series.
        tell: Callback that receives one progress line before each probe point.
    """

    def __init__(
        self,
        evaluator: CachedEvaluator,
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
        """Return the rounding of a pruned candidate's channel counts.

        It is in the notation of `spaces/channel_rounding.py`.
        """
        if self._ledger.get(STAGE, "") is None:
            return DECLARED
        key = " ".join([candidate.variant, candidate.precision, candidate.runtime])
        if key not in self._known:
            found = self._find(self._plain(candidate))
            self._ledger.put(STAGE, key, asdict(found), {}, self._watch.wall_s())
            self._known[key] = found
        return self._known[key].to(DECLARED)

    def describe(self) -> dict[str, str]:
        """Describe the known steps in one line for people, by network, precision and runtime."""
        return {key: _line(found) for key, found in sorted(self._known.items())}

    def _plain(self, candidate: Candidate) -> Candidate:
        """Return the uncompressed network at its middle input size and the smallest number of threads."""
        sizes = sorted(int(px) for px in self._space.values(candidate.family, "image_px"))
        threads = min(int(n) for n in self._space.axes["threads"])
        return replace(candidate.uncut(), image_px=sizes[(len(sizes) - 1) // 2], threads=threads)

    def _find(self, plain: Candidate) -> Staircase:
        """Return the series of an earlier run on this device, or measure one if the time limit permits it."""
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
            self._tell(f"latency steps of {plain.variant} {plain.precision}: network {place} of {RUNGS}")
            one = round_candidate(replace(plain, steps=((PRUNE, ANY),)), f"{RUNGS * step}-{(RUNGS - place) * step}")
            if isinstance(built := self._evaluator.structure(one), Failure):
                return Staircase((), plain.image_px, built.reason)
            latency = self._evaluator.latency(one, None)
            if isinstance(latency, Failure):
                return Staircase((), plain.image_px, latency.reason)
            rungs.append(ProbePoint(place * step, latency.rank_ms, latency.disturbed))
        return Staircase(tuple(rungs), plain.image_px)

    def _estimate_s(self) -> float:
        """Estimate the seconds of one series from the stages measured in this run."""
        stages = [[sum(e.spent_s.values()) for e in self._ledger.entries(stage)] for stage in ("structure", "latency")]
        return RUNGS * sum(mean(taken or [1.0]) for taken in stages)


def _line(found: Staircase) -> str:
    to = found.to(DECLARED)
    if found.why_not:
        return f"not measured, {found.why_not}"
    if to == DECLARED:
        unsure = next((f" ({rung.disturbed})" for rung in found.rungs if rung.disturbed), "")
        return f"no steps found over {len(found.rungs)} networks of {found.image_px} px{unsure}"
    return f"pruned to multiples of {to}" if "+" not in to else f"pruned to {to.replace('+', ', ')} and so on"
