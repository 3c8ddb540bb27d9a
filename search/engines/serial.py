"""One candidate after the other: for a machine that is device and trainer in one, where nothing may overlap."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import optuna

from evaluators.measurement import KEPT, UNFINISHED, Failure, Latency, Measurement, Structure
from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from search.pipeline.stages import StageLimits, evaluate
from search.progress import ProgressView
from search.sampling import optuna_study as studies
from search.sampling.protocol import MultiFidelitySampler, StageCosts
from search.sampling.screening import apply_budget, screen_candidates, subscribe
from search.selection.ranking import rank_feasible
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate
from spaces.space import CandidateSet

PLAIN_SHARE = 0.25  # of a time limit, for timing uncompressed networks once one of them keeps the budget
EARLY_SHARE = 0.5  # of a time limit, that must be left for the greedy baseline to be trained beside the search
FIRST_SHARE = 0.5  # of the time left, for the first training: a faster network must still fit if it can't end


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop asking."""

    trials: int | None  # None: as many as the time allows
    seconds_left: Callable[[], float]  # of the user's time limit; infinite without one
    finishing_s: Callable[[], float]  # seconds to keep for the end
    costs: Callable[[], StageCosts] = lambda: StageCosts(1.0, None, 120.0)
    allowance: TimeAllowance = field(default_factory=TimeAllowance)  # in which trainings must end
    time_limit_s: float = math.inf
    baseline_s: float = math.inf  # that training the greedy baseline may take

    @property
    def timed(self) -> bool:
        """True if the user set a time limit."""
        return math.isfinite(self.time_limit_s)


@dataclass
class LoopResult:
    """What came of the loop."""

    measurements: list[Measurement]


def run(
    study: optuna.Study,
    space: CandidateSet,
    evaluator: CachedEvaluator,
    gates: StageLimits,
    limits: Limits,
    view: ProgressView,
) -> LoopResult:
    """Evaluate every trial up to the limits, those of earlier sessions first: their stages are remembered.

    All uncompressed networks are timed before anything is trained. Those within the budget are the first trials, the
    fixed first, which take no training, then the slowest, since it is likely the most accurate; the likeliest greedy
    baseline is trained where time allows.
    """
    return _Loop(study, space, evaluator=evaluator, gates=gates, limits=limits, view=view).run()


class _Loop:
    def __init__(
        self,
        study: optuna.Study,
        space: CandidateSet,
        evaluator: CachedEvaluator,
        gates: StageLimits,
        limits: Limits,
        view: ProgressView,
    ) -> None:
        self.study, self.space, self.evaluator = study, space, evaluator
        self.limits, self.view = limits, view
        self.plain = space.parents()
        self.gates = replace(gates, is_baseline=lambda candidate: candidate == self.greedy())
        self.searched = LoopResult([])
        self.baseline_asked = False

    def run(self) -> LoopResult:
        """Go through the whole search but for its end."""
        subscribe(self.study, self.evaluator, self.gates)
        self.replay()
        self.view.earlier(self.searched.measurements, self.best())
        self.time_plain()
        if self.gates.budget.max_drop is not None:
            self.ask_baseline()
        while self.may_ask(1 if self.baseline_due() else 0):
            if not self.in_time():
                self.view.log("the time limit is near: no further trial")
                break
            if not self.next():
                break
            if self.limits.timed and self.best() is not None and self.is_early():
                self.ask_baseline()
        self.finish_baseline()
        return self.searched

    # --- when to go on

    def may_ask(self, kept_back: int = 0) -> bool:
        """Return True if the number of trials allows another, `kept_back` of them spared for the baseline."""
        trials, done = self.limits.trials, len(self.searched.measurements)
        return trials is None or done < max(trials - kept_back, min(trials, 1))

    def in_time(self) -> bool:
        """Return True if there is time for a timing and a first training step, and for the end."""
        left_s = self.limits.seconds_left()
        if not math.isfinite(left_s):
            return True
        costs = self.limits.costs()
        return left_s >= self.limits.finishing_s() + costs.latency_s + (costs.brief_s or costs.training_s / 4)

    def is_early(self) -> bool:
        """Return True while there is time for a comparison beside what the choice needs, or no time limit."""
        return not self.limits.timed or self.limits.seconds_left() >= EARLY_SHARE * self.limits.time_limit_s

    def best(self) -> Measurement | None:
        """Return the choice as it stands."""
        found = rank_feasible(self.searched.measurements, self.gates.budget, None)
        return found[0] if found else None

    # --- the beginning

    def replay(self) -> None:
        """Take over the trials of earlier sessions, as far as they were measured."""
        for trial, candidate in studies.iter_evaluated(self.study, self.space):
            done = tuple(epochs for epochs in self.gates.rungs_of(candidate) if self.evaluator.knows(candidate, epochs))
            outcome = trial.user_attrs.get("outcome")
            gates = self.gates if outcome == KEPT else replace(self.gates, rungs=done or self.gates.rungs[:1])
            if not done:
                gates = replace(gates, is_baseline=lambda candidate: False)
            if outcome == UNFINISHED and not done:
                measurement = self.record_unfinished(candidate, trial.user_attrs.get("reason", ""))
            else:
                measurement = self.evaluate(candidate, gates)
                if outcome == UNFINISHED and measurement.outcome == KEPT:
                    measurement = replace(measurement, outcome=UNFINISHED, reason=trial.user_attrs.get("reason", ""))
            self.add(replace(measurement, trial=trial.number))
            self.learn(self.searched.measurements[-1])

    def record_unfinished(self, candidate: Candidate, reason: str) -> Measurement:
        """Return what is known of a candidate none of whose trainings could end."""
        structure = self.evaluator.structure(candidate)
        latency = self.evaluator.latency(candidate, self.gates.budget.latency_ms)
        return Measurement(
            candidate=candidate,
            outcome=UNFINISHED,
            reason=reason,
            structure=structure if isinstance(structure, Structure) else None,
            latency=latency if isinstance(latency, Latency) else None,
        )

    def time_plain(self) -> None:
        """Time the uncompressed networks, and queue those within the budget as the first trials."""
        budget = self.gates.budget
        within: list[tuple[float, Candidate]] = []  # latency, network
        for number, candidate in enumerate(self.plain, start=1):
            least_s = (1 - PLAIN_SHARE) * self.limits.time_limit_s if within and self.limits.timed else 0.0
            enough = self.limits.seconds_left() < least_s or not self.in_time()
            if enough and not self.evaluator.is_timed(candidate):
                left = len(self.plain) - number + 1
                self.view.log(f"{left} uncompressed networks are not timed first: there is too little time")
                break
            self.view.doing(f"timing uncompressed networks, {number} of {len(self.plain)}: {candidate.describe()}")
            if isinstance(self.evaluator.structure(candidate), Failure):
                within.append((0.0, candidate))  # a trial that tells why it can't be built
                continue
            latency = self.evaluator.latency(candidate, budget.latency_ms)
            if isinstance(latency, Failure) or budget.keeps(latency):
                within.append((latency.rank_ms.value if isinstance(latency, Latency) else 0.0, candidate))
        for _, candidate in sorted(within, key=lambda found: (not found[1].fixed, -found[0])):
            self.study.enqueue_trial(dict(self.space.params_of(candidate)), skip_if_exists=True)

    # --- a trial

    def next(self) -> bool:
        """Ask for a candidate, evaluate and tell it. Return False where the space has no more."""
        limits, view = self.limits, self.view
        if not studies.has_queued(self.study):  # the uncompressed networks come first: they tell what a stage costs
            measured = self.searched.measurements
            try:
                with self.cap():
                    screen_candidates(
                        self.study,
                        self.evaluator,
                        gates=self.gates,
                        costs=limits.costs(),
                        in_time=self.in_time,
                        measured=measured,
                        view=view,
                    )
            except OutOfTimeError as error:
                view.log(f"a first training was ended: {error}")
            if not self.in_time():
                return True
        asked = studies.ask(self.study, self.space, {m.candidate.key() for m in self.searched.measurements})
        if asked is None:
            view.log(f"every candidate of the space has been evaluated after {len(self.searched.measurements)} trials")
            return False
        with self.cap(asked.candidate):
            measurement = replace(self.evaluate(asked.candidate, self.gates), trial=asked.trial.number)
        measurement = self.assure(measurement)
        self.add(measurement)
        studies.tell(self.study, asked.trial, measurement, self.gates.budget)
        self.learn(measurement)
        view.outcome(measurement, self.best())
        return True

    def cap(self, candidate: Candidate | None = None) -> AbstractContextManager[None]:
        """Hold the first training, and the baseline's, to a share of the time, so that another one still fits."""
        allowance = self.limits.allowance
        if not self.limits.timed:
            return nullcontext()
        if candidate is not None and candidate == self.greedy() and self.baseline_asked:
            return allowance.at_most(self.limits.baseline_s, time.monotonic)
        if self.best() is None and not any(m.outcome == UNFINISHED for m in self.searched.measurements):
            return allowance.at_most(FIRST_SHARE * allowance.left_s(), time.monotonic, self.has_accuracy)
        return nullcontext()

    def has_accuracy(self) -> bool:
        """Return True once something is there to fall back on: any accuracy of what keeps the budget."""
        return any(self.evaluator.scored_keys())

    def evaluate(self, candidate: Candidate, gates: StageLimits) -> Measurement:
        """Return the measurement. What was trained before is not held back now."""
        if self.evaluator.training_s(candidate) is not None:
            gates = replace(gates, less_cut=lambda cut: ())
        return evaluate(candidate, self.evaluator, gates, self.searched.measurements, self.view.doing)

    def assure(self, measurement: Measurement) -> Measurement:
        """Time a new leader once more before its trial is told: what was told can't be changed."""
        accuracy, best, budget = measurement.accuracy, self.best(), self.gates.budget
        if measurement.outcome != KEPT or accuracy is None or accuracy.relaid:
            return measurement
        leads = best is None or rank_feasible([measurement, best], budget, None)[0] is measurement
        if not leads or self.evaluator.times_looked(measurement.candidate) != 1 or not self.in_time():
            return measurement
        self.view.doing(f"timing {measurement.candidate.describe()} again: it is the best so far")
        again = self.evaluator.latency_again(measurement.candidate, budget.latency_ms)
        return measurement if isinstance(again, Failure) else apply_budget(replace(measurement, latency=again), budget)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement; a candidate that was gone on with takes the place of what it was before."""
        key = measurement.candidate.key()
        self.searched.measurements[:] = [m for m in self.searched.measurements if m.candidate.key() != key]
        self.searched.measurements.append(measurement)

    def learn(self, measurement: Measurement) -> None:
        """Tell the sampler what a training took. An uncompressed network's says nothing of others."""
        sampler, candidate = self.study.sampler, measurement.candidate
        seconds = self.evaluator.training_s(candidate)
        if (
            isinstance(sampler, MultiFidelitySampler)
            and measurement.outcome == KEPT
            and candidate not in self.plain
            and seconds
        ):
            sampler.trained(candidate.key(), seconds)

    # --- the greedy baseline

    def greedy(self) -> Candidate | None:
        """Return the uncompressed network of most multiply-accumulates among those that were timed."""
        sizes = {candidate: self.evaluator.known_macs(candidate) for candidate in self.plain}
        timed = [candidate for candidate in self.plain if sizes[candidate] is not None]
        return max(timed, key=lambda candidate: sizes[candidate] or 0, default=None)

    def baseline_due(self) -> bool:
        """Return True if the baseline is not among the trials yet, nor waits to become one."""
        greedy = self.greedy()
        done = any(m.candidate == greedy for m in self.searched.measurements)
        return greedy is not None and not done and not self.baseline_asked and not self.waits(greedy)

    def waits(self, candidate: Candidate) -> bool:
        """Return True if a trial of the candidate is queued."""
        return candidate in studies.waiting(self.study, self.space)

    def ask_baseline(self) -> None:
        """Queue the baseline as a trial, once."""
        greedy = self.greedy()
        if greedy is None or not self.baseline_due():
            return
        self.baseline_asked = True
        self.study.enqueue_trial(dict(self.space.params_of(greedy)))

    def finish_baseline(self) -> None:
        """Evaluate the baseline, and what was queued before it, once the trials are through."""
        if self.is_early():
            self.ask_baseline()
        while self.baseline_asked and self.may_ask() and self.in_time() and studies.has_queued(self.study):
            self.next()
        greedy = self.greedy()
        if greedy is not None and not any(m.candidate == greedy and m.accuracy for m in self.searched.measurements):
            self.view.log(f"no greedy baseline: {greedy.describe()} was not trained in the time there was")
