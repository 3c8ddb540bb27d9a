"""Evaluate one candidate after another.

This engine suits a machine that is both device and trainer, where nothing may overlap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import optuna

from evaluators.measurement import Accuracy, Failure, Latency, Measurement, Outcome, Structure
from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from search.pipeline.stages import StageLimits, before_training, evaluate, over
from search.progress import ProgressView
from search.sampling import optuna_study as studies
from search.sampling.protocol import MultiFidelitySampler, StageCosts
from search.sampling.screening import apply_budget, screen_candidates, subscribe
from search.selection.polish import PolishLimits, is_worth, longest, polish
from search.selection.ranking import rank_feasible
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate
from spaces.space import CandidateSet

PLAIN_SHARE = 0.25  # share of the time limit for timing uncompressed networks once one is feasible
EARLY_SHARE = 0.5  # share of the time limit that must be left to train the baseline besides the choice
FIRST_SHARE = 0.5  # share of the time left for the first training: if it can't end, a faster one must still fit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold the limits after which no further trial starts.

    Attributes:
        trials: Number of trials; None means as many as the time allows.
        seconds_left: Function that returns the remaining seconds of the user's time limit; infinite without one.
        finishing_s: Function that returns the seconds to reserve for the end of the search.
        costs: Function that returns the seconds that each stage takes.
        allowance: Time allowance within which trainings must end.
        time_limit_s: The user's time limit in seconds; infinite without one.
        baseline_s: Seconds that training the greedy baseline may take.
        finishing_least_s: Function that returns the part of `finishing_s` for choice and baseline, which polishing
            leaves.
        polish_s: Seconds of the time limit that are reserved for training the leaders longer at the end.
    """

    trials: int | None
    seconds_left: Callable[[], float]
    finishing_s: Callable[[], float]
    costs: Callable[[], StageCosts] = lambda: StageCosts(1.0, None, 120.0)
    allowance: TimeAllowance = field(default_factory=TimeAllowance)
    time_limit_s: float = math.inf
    baseline_s: float = math.inf
    finishing_least_s: Callable[[], float] = lambda: 0.0
    polish_s: float = 0.0

    @property
    def timed(self) -> bool:
        """Return True if the user set a time limit."""
        return math.isfinite(self.time_limit_s)


@dataclass
class LoopResult:
    """Hold the result of the search loop.

    Attributes:
        measurements: Measurements of all trials.
    """

    measurements: list[Measurement]


def run(
    study: optuna.Study,
    space: CandidateSet,
    evaluator: CachedEvaluator,
    gates: StageLimits,
    limits: Limits,
    view: ProgressView,
) -> LoopResult:
    """Evaluate trials up to the limits, starting with those of earlier sessions, which are cached.

    All uncompressed networks are timed before any training. Those within the budget become the first trials: first the
    fixed ones, which need no training, then the others from the slowest on, since the slowest is likely the most
    accurate. The likeliest greedy baseline is trained where time allows.

    Args:
        study: Study of the run.
        space: Candidates of the run.
        evaluator: Evaluator of the run.
        gates: Stage limits.
        limits: Limits of trials and time.
        view: Display of the progress.
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
        """Run the whole search except for its end."""
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
        self.follow_pace()
        self.promote()
        self.polish()
        return self.searched

    # --- whether to continue

    def may_ask(self, kept_back: int = 0) -> bool:
        """Return True if the number of trials permits another one, with `kept_back` reserved for the baseline."""
        trials, done = self.limits.trials, len(self.searched.measurements)
        return trials is None or done < max(trials - kept_back, min(trials, 1))

    def in_time(self) -> bool:
        """Return True if time is left for a timing, a first training step and the end of the search."""
        left_s = self.limits.seconds_left()
        if not math.isfinite(left_s):
            return True
        costs = self.limits.costs()
        return left_s >= self.limits.finishing_s() + self.polish_reserve_s() + costs.latency_s + (
            costs.brief_s or costs.training_s / 4
        )

    def is_early(self) -> bool:
        """Return True while time permits training the baseline besides the choice, or without a time limit."""
        return not self.limits.timed or self.limits.seconds_left() >= EARLY_SHARE * self.limits.time_limit_s

    def best(self) -> Measurement | None:
        """Return the present choice."""
        found = rank_feasible(self.searched.measurements, self.gates.budget, None)
        return found[0] if found else None

    # --- the beginning

    def replay(self) -> None:
        """Replay the trials of earlier sessions as far as they were measured."""
        for trial, candidate in studies.iter_evaluated(self.study, self.space):
            done = tuple(epochs for epochs in self.gates.rungs_of(candidate) if self.evaluator.knows(candidate, epochs))
            outcome = trial.user_attrs.get("outcome")
            if outcome == Outcome.UNFINISHED and not done:
                measurement = self.record_unfinished(candidate, trial.user_attrs.get("reason", ""))
            elif not done:
                measurement = before_training(candidate, self.evaluator, self.gates, self.view.doing)
                if measurement.outcome == Outcome.KEPT:  # the device has become faster since
                    self.queue_again(candidate)
                    continue
            else:
                gates = self.gates if outcome == Outcome.KEPT else replace(self.gates, rungs=done)
                measurement = self.evaluate(candidate, gates)
                if outcome == Outcome.OVER_BUDGET:
                    measurement = self.prove(measurement)
                if outcome == Outcome.UNFINISHED and measurement.outcome == Outcome.KEPT:
                    measurement = replace(
                        measurement, outcome=Outcome.UNFINISHED, reason=trial.user_attrs.get("reason", "")
                    )
            self.add(replace(measurement, trial=trial.number))
            self.learn(self.searched.measurements[-1])

    def record_unfinished(self, candidate: Candidate, reason: str) -> Measurement:
        """Return the measurement of a candidate that had no training finish in time."""
        structure = self.evaluator.structure(candidate)
        latency = self.evaluator.latency(candidate, self.gates.budget.latency_ms)
        return Measurement(
            candidate=candidate,
            outcome=Outcome.UNFINISHED,
            reason=reason,
            structure=structure if isinstance(structure, Structure) else None,
            latency=latency if isinstance(latency, Latency) else None,
        )

    def time_plain(self) -> None:
        """Time the uncompressed networks, and queue those within the budget as the first trials."""
        budget = self.gates.budget
        is_any_within = False
        unbuilt: list[Candidate] = []
        for number, candidate in enumerate(self.plain, start=1):
            least_s = (1 - PLAIN_SHARE) * self.limits.time_limit_s if is_any_within and self.limits.timed else 0.0
            enough = self.limits.seconds_left() < least_s or not self.in_time()
            if enough and not self.evaluator.is_timed(candidate):
                left = len(self.plain) - number + 1
                self.view.log(f"{left} uncompressed networks are not timed first: there is too little time")
                break
            self.view.doing(f"timing uncompressed networks, {number} of {len(self.plain)}: {candidate.describe()}")
            if isinstance(self.evaluator.structure(candidate), Failure):
                unbuilt.append(candidate)  # its trial records why it can't be built
                continue
            latency = self.evaluator.latency(candidate, budget.latency_ms)
            is_any_within |= isinstance(latency, Failure) or budget.may_keep(latency)
        self.follow_pace()
        self.queue_plain(unbuilt)

    def queue_plain(self, unbuilt: Sequence[Candidate] = ()) -> None:
        """Queue the timed uncompressed networks that may keep the budget, and those that failed.

        Those that surely keep it come first, and of these the slowest. With a time limit they are left to a sampler
        that requests latencies, except the fixed ones: it looks for the largest inputs within the budget first.
        """
        is_left = self.limits.timed and isinstance(self.study.sampler, MultiFidelitySampler)
        ranked: list[tuple[bool, bool, float, Candidate]] = [(True, True, 0.0, candidate) for candidate in unbuilt]
        budget = self.gates.budget
        for candidate in self.plain:
            latency = self.evaluator.pooled(candidate.key())
            if isinstance(latency, Failure):
                ranked.append((True, True, 0.0, candidate))
            elif latency is not None and budget.may_keep(latency) and (candidate.fixed or not is_left):
                ranked.append((not candidate.fixed, not budget.keeps(latency), -latency.rank_ms.value, candidate))
        for *_, candidate in sorted(ranked, key=lambda found: found[:3]):
            self.study.enqueue_trial(dict(self.space.params_of(candidate)), skip_if_exists=True)

    # --- a trial

    def next(self) -> bool:
        """Ask the study for a candidate, evaluate it and report it; return False if the space is exhausted."""
        limits, view = self.limits, self.view
        self.follow_pace()
        if not studies.has_queued(self.study):  # the uncompressed networks come first: they show what a stage costs
            measured = self.searched.measurements
            try:
                with self.cap():
                    screen_candidates(
                        self.study,
                        self.evaluator,
                        gates=self.gates,
                        costs=limits.costs,
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

    def follow_pace(self) -> None:
        """Scale the trials' latencies after a change of the device's pace, and judge them by the budget again.

        A candidate that was stopped for its latency and now keeps the budget is queued for another trial, as is an
        uncompressed network that comes within it.
        """
        if not self.evaluator.report_new_pace():
            return
        found, budget = list(self.searched.measurements), self.gates.budget
        self.searched.measurements.clear()
        for old in found:
            m = self.evaluator.at_present_pace(old)
            within = budget.keeps if m.accuracies else budget.may_keep
            if m.outcome != Outcome.OVER_BUDGET or m.latency is None or not within(m.latency):
                self.searched.measurements.append(m if m.latency is None else apply_budget(m, budget))
            elif m.accuracy is not None and m.accuracy.epochs == self.gates.rungs_of(m.candidate)[-1]:
                self.searched.measurements.append(replace(m, outcome=Outcome.KEPT, reason=""))
            else:
                self.queue_again(m.candidate)
        self.queue_plain()

    def queue_again(self, candidate: Candidate) -> None:
        """Queue another trial of a candidate, unless one waits already."""
        if not self.waits(candidate):
            self.study.enqueue_trial(dict(self.space.params_of(candidate)))

    def cap(self, candidate: Candidate | None = None) -> AbstractContextManager[None]:
        """Limit the first training, and the baseline's, to a share of the time, so that another one still fits."""
        allowance = self.limits.allowance
        if not self.limits.timed:
            return nullcontext()
        if candidate is not None and candidate == self.greedy() and self.baseline_asked:
            return allowance.at_most(self.limits.baseline_s, time.monotonic)
        if self.best() is None and not any(m.outcome == Outcome.UNFINISHED for m in self.searched.measurements):
            return allowance.at_most(FIRST_SHARE * allowance.left_s(), time.monotonic, self.has_accuracy)
        return nullcontext()

    def has_accuracy(self) -> bool:
        """Return True once a fallback exists: any accuracy of a candidate within the budget."""
        return any(self.evaluator.keys_with_accuracy())

    def evaluate(self, candidate: Candidate, gates: StageLimits) -> Measurement:
        """Return the measurement; a candidate that was trained before is not compared with less compressed ones."""
        if self.evaluator.training_s(candidate) is not None:
            gates = replace(gates, less_cut=lambda cut: ())
        return evaluate(candidate, self.evaluator, gates, self.searched.measurements, self.view.doing)

    def assure(self, measurement: Measurement) -> Measurement:
        """Remeasure a new leader before its trial is reported, since a reported trial can't be changed."""
        accuracy, best, budget = measurement.accuracy, self.best(), self.gates.budget
        if measurement.outcome not in (Outcome.KEPT, Outcome.UNFINISHED) or accuracy is None:
            return measurement
        leads = best is None or rank_feasible([measurement, best], budget, None)[0] is measurement
        once = not accuracy.relaid and self.evaluator.times_looked(measurement.candidate) == 1
        if leads and once and self.in_time():
            self.view.doing(f"timing {measurement.candidate.describe()} again: it is the best so far")
            again = self.evaluator.latency_again(measurement.candidate, budget.latency_ms)
            if not isinstance(again, Failure):
                measurement = apply_budget(replace(measurement, latency=again), budget)
        return self.prove(measurement) if leads else measurement

    def prove(self, measurement: Measurement) -> Measurement:
        """Time a leader that only may keep the budget as a finalist is: without proof, it is over the budget."""
        latency, accuracy, budget = measurement.latency, measurement.accuracy, self.gates.budget
        if accuracy is None or latency is None or budget.keeps(latency) or not budget.may_keep(latency):
            return measurement
        self.view.doing(f"timing {measurement.candidate.describe()} for longer: so far it only may keep the budget")
        proof = self.evaluator.confirm(measurement.candidate, accuracy.epochs)
        if isinstance(proof, Failure):
            return measurement
        if budget.keeps(proof):
            return replace(measurement, latency=proof)
        return replace(measurement, latency=proof, outcome=Outcome.OVER_BUDGET, reason=over(budget, proof))

    def add(self, measurement: Measurement) -> None:
        """Add a measurement; it replaces an earlier one of the same candidate."""
        key = measurement.candidate.key()
        self.searched.measurements[:] = [m for m in self.searched.measurements if m.candidate.key() != key]
        self.searched.measurements.append(measurement)

    def learn(self, measurement: Measurement) -> None:
        """Report a training time to the sampler, except an uncompressed network's, which says nothing about others."""
        sampler, candidate = self.study.sampler, measurement.candidate
        seconds = self.evaluator.training_s(candidate)
        if (
            isinstance(sampler, MultiFidelitySampler)
            and measurement.outcome == Outcome.KEPT
            and candidate not in self.plain
            and seconds
        ):
            sampler.on_training_time(candidate.key(), seconds)

    # --- the end

    def promote(self) -> None:
        """Make a trial of the best screened candidate within the budget if no trial is as accurate.

        It was scored at the low fidelity, and its training could not end in the time there was.
        """
        if not self.limits.timed or studies.has_queued(self.study):
            return
        leader, (score, best) = self.best(), self.best_screened()
        if best is None or (leader is not None and leader.accuracy is not None and score < leader.accuracy.score):
            return
        self.study.enqueue_trial(dict(self.space.params_of(best)))
        asked = studies.ask(self.study, self.space, {m.candidate.key() for m in self.searched.measurements})
        assert asked is not None and asked.candidate == best, "the only queued trial is asked for first"
        brief = replace(self.gates, rungs=self.gates.rungs[:1], less_cut=lambda cut: ())
        measurement = self.evaluate(best, brief)
        if measurement.outcome == Outcome.KEPT:
            measurement = replace(
                measurement, outcome=Outcome.UNFINISHED, reason="there was no time to train it after its first score"
            )
        measurement = replace(self.prove(measurement), trial=asked.trial.number)
        self.add(measurement)
        studies.tell(self.study, asked.trial, measurement, self.gates.budget)
        self.view.outcome(measurement, self.best())

    def best_screened(self) -> tuple[float, Candidate | None]:
        """Return the highest low-fidelity score of the candidates within the budget that are no trials, and its own."""
        low, budget = self.gates.brief_epochs, self.gates.budget
        tried = {m.candidate.key() for m in self.searched.measurements}
        scored = self.evaluator.keys_with_accuracy() - tried
        found: list[tuple[bool, float, Candidate]] = []
        for candidate in map(self.space.candidate, self.space.params() if scored and low is not None else ()):
            if candidate.key() not in scored or low is None or not self.evaluator.knows(candidate, low):
                continue
            latency, accuracy = self.evaluator.pooled(candidate.key()), self.evaluator.accuracy(candidate, low)
            if isinstance(latency, Latency) and isinstance(accuracy, Accuracy) and budget.may_keep(latency):
                found.append((budget.keeps(latency), accuracy.score, candidate))
        _, score, best = max(found, key=lambda one: one[:2], default=(False, 0.0, None))
        return score, best

    def polish(self) -> None:
        """Train the leaders for longer in the time that is left, if a part of it was reserved for that."""
        limits = self.polish_limits()
        if self.limits.polish_s:
            self.limits.allowance.take_from(limits.seconds_left)
        self.searched.measurements[:] = polish(
            self.searched.measurements, self.evaluator, limits=limits, tell=self.view.log
        )

    def polish_limits(self) -> PolishLimits:
        """Return the limits of polishing, which leaves the time that the end of the search needs at least."""

        def left_s() -> float:
            return self.limits.seconds_left() - self.limits.finishing_least_s() if self.limits.polish_s else 0.0

        return PolishLimits(
            budget=self.gates.budget,
            epochs=self.gates.epochs_max,
            seconds_left=left_s,
            allowance=self.limits.allowance,
        )

    def polish_reserve_s(self) -> float:
        """Return the seconds to keep for polishing: none before there is a leader that it may improve."""
        leader, limits = self.best(), self.polish_limits()
        if leader is None or not is_worth(leader):
            return 0.0
        is_due = longest(leader.candidate, self.evaluator, limits) < limits.epochs_max
        return self.limits.polish_s if is_due else 0.0

    # --- the greedy baseline

    def greedy(self) -> Candidate | None:
        """Return the uncompressed network with the most multiply-accumulates among those that were built."""
        sizes = {candidate: self.evaluator.macs_of(candidate) for candidate in self.plain}
        timed = [candidate for candidate in self.plain if sizes[candidate] is not None]
        return max(timed, key=lambda candidate: sizes[candidate] or 0, default=None)

    def baseline_due(self) -> bool:
        """Return True if the baseline is neither among the trials nor queued."""
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
        """Evaluate the baseline, and the trials queued before it, after the other trials."""
        if self.is_early():
            self.ask_baseline()
        while self.baseline_asked and self.may_ask() and self.in_time() and studies.has_queued(self.study):
            self.next()
        greedy = self.greedy()
        if greedy is not None and not any(m.candidate == greedy and m.accuracy for m in self.searched.measurements):
            self.view.log(f"no greedy baseline: {greedy.describe()} was not trained in the time there was")
