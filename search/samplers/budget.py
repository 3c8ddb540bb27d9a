"""Ours: latencies first, trainings where they are expected to add most to the front within reach of the budget.

An Optuna sampler that learns of trials from the study, as others do. A search also asks it whose latency to take and
whom to train briefly before the next trial (`search.sampling.protocol.Heeds`) and lets it know what came of that. What it
proposes rests on `search/bayesopt/`; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from evaluators.measurement import UNFINISHED, Accuracy, Failure, Latency
from search.bayesopt.encoding import encode
from search.bayesopt.observations import Observations, PriorRun, ProposerSettings, settings_for
from search.bayesopt.proposer import Proposer
from search.budget import Budget
from search.sampling.protocol import StageCosts
from search.sampling.uncompressed import FEW, UncompressedCandidates
from search.sampling.whole_candidate_sampler import WholeSampler
from spaces.candidate import Candidate
from spaces.space import CandidateSet

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class BudgetSampler(WholeSampler):
    """Proposes among all candidates of a space; one that has, or is, a trial is never proposed again."""

    def __init__(self, seed: int, space: CandidateSet, budget: Budget) -> None:
        points = list(space.params())
        self._points, self._candidates = points, [space.candidate(point) for point in points]
        self._places = {candidate.key(): place for place, candidate in enumerate(self._candidates)}
        self._structures = numpy.array([candidate.structure_key() for candidate in self._candidates])
        self._plain = frozenset(space.parents())
        self._plain_places = [self._places[c.key()] for c in self._plain if c.key() in self._places]
        self._uncut = UncompressedCandidates(self._candidates, self._plain, budget.latency_ms)
        self._space, self._budget, self._random = space, budget, numpy.random.default_rng(seed)
        self._seed, self._encoding = seed, encode(_codes(points), numpy.array(space.numbers(), dtype=float))
        self._known = Observations.nothing(len(points))
        self._proposer: Proposer | None = None  # once it is known whether there is a low fidelity
        self._earlier: PriorRun | None = None
        # matrices are small: threads gain nothing, and beside another load wait for each other a hundred times longer
        self._threads = ThreadpoolController()
        self._at_first_s = 0.0  # seconds left when first asked
        self._stopped: set[int] = set()  # places that a gate or the end of a trial closed
        self._bounds: list[float] = []  # upper bounds of latencies, in ranks
        self._hurried = False  # True once a training could not end in the time there was
        self._heeded = False  # True where a search asks for latencies before trials
        self._read = 0  # trials of the study learned from, all those before this number
        self._open: dict[int, int] = {}  # number of a trial that has not ended -> its candidate's place

    # --- told by the search

    def start_from(self, earlier: PriorRun) -> None:
        """An earlier run's measurements of these candidates; before anything is asked."""
        self._earlier = earlier

    def on_latency(self, key: str, found: Latency | Failure) -> None:
        """One look at a latency; the last is the one that is believed."""
        place = self._places.get(key)
        if place is None:  # a network that something was cut from, and no candidate itself
            return
        self._known.looks[place] += 1
        if isinstance(found, Failure):
            self._known.failed[place] = True
            return
        self._known.latency_ms[place] = found.rank_ms.value
        if numpy.isfinite(found.percentile_ms.high):
            self._bounds.append(max(1.0, found.percentile_ms.high / found.rank_ms.value))
        self._known.beyond[place] = not self._budget.keeps(found)
        # what is over the budget is never trained in full, unless another timing finds it within
        self._known.closed[place] = self._known.beyond[place] or place in self._stopped

    def on_low_fidelity(self, key: str, found: Accuracy | Failure) -> None:
        """Accuracy at low fidelity."""
        if (place := self._places.get(key)) is not None:
            if isinstance(found, Failure):
                self._known.failed[place] = True
            else:
                self._known.brief[place] = found.score

    def on_training_time(self, key: str, seconds: float) -> None:
        """What the training of a candidate that passed every gate took."""
        if (place := self._places.get(key)) is not None:
            self._known.train_s[place] = seconds
            self._known.eased |= (self._structures == self._structures[place]) & numpy.isnan(self._known.train_s)

    def exclude(self, key: str) -> None:
        """A gate stops this candidate, whatever it looks like."""
        if (place := self._places.get(key)) is not None:
            self._stopped.add(place)
            self._known.closed[place] = True

    # --- asked by the search

    def request_latencies(self, study: optuna.Study, costs: StageCosts) -> list[Candidate]:
        """Whose latency should be known before the next trial, most promising first: as many as pay for themselves."""
        self._learn(study)
        known, settings = self._known, self._settings(costs)
        proposer, self._heeded = self._ready(settings), True
        due = settings.timings * (int(known.is_finished().sum()) + 1) - int(known.looks.sum())
        proposer.settings = replace(
            settings,
            timings=int(numpy.clip(due, 1, settings.timings)),  # a start that took many is made up for
            # at least a few while none is there to be trained
            start_timings=max(0 if known.waiting().any() else FEW, settings.start_timings - self._count_screened()),
            start_tries=max(0, settings.start_tries - int(numpy.isfinite(known.brief).sum())),
        )
        if not ((known.looks == 0) & ~known.closed).any():
            return []
        surest = self._surest()
        if surest is not None and len(surest) and not known.waiting().any():
            return self._candidates_at(surest)
        with self._threads.limit(limits=1):
            early = self._early(proposer)
            return self._candidates_at(proposer.start_time(known, self._first()) if early else proposer.to_time(known))

    def request_remeasurements(self) -> list[Candidate]:
        """The choice as it stands, and whose latency is too good to be believed at the first look."""
        proposer = self._ready()
        return [] if self._early(proposer) else self._candidates_at(proposer.to_confirm(self._known))

    def request_low_fidelity(self) -> list[Candidate]:
        """Who should be trained briefly before the next trial."""
        proposer = self._ready()
        if self._surest() is not None and self._known.waiting().any():
            return []
        early = self._early(proposer)
        with self._threads.limit(limits=1):
            return self._candidates_at(proposer.start_try(self._known) if early else proposer.to_try(self._known))

    # --- asked by Optuna

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Learns of the trials that have ended since, in this process or another."""
        self._learn(study)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One parameter of the candidate proposed for this trial."""
        if trial.number not in self._open:
            with self._threads.limit(limits=1):
                self._open[trial.number] = self._propose()
        return self._points[self._open[trial.number]][param_name]

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forgets the proposal: the trial has ended."""
        self._open.pop(trial.number, None)

    # --- within

    def _learn(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)[self._read :]
        for trial in trials:
            if trial.state in ENDED:
                self._is_ended(trial)
        self._read += next((place for place, trial in enumerate(trials) if not trial.state.is_finished()), len(trials))

    def _is_ended(self, trial: FrozenTrial) -> None:
        place = self._places.get(self._space.candidate(trial.params).key())
        if place is None:
            return
        self._stopped.add(place)
        self._known.closed[place] = True
        self._hurried |= trial.user_attrs.get("outcome") == UNFINISHED
        if trial.state == TrialState.COMPLETE:
            self._known.accuracy[place] = trial.values[0]
            if not self._known.looks[place]:  # a study without a search around it
                self._known.latency_ms[place], self._known.looks[place] = trial.values[1], 1
        elif not numpy.isfinite(self._known.latency_ms[place]):
            self._known.failed[place] = True
        elif self._candidates[place] in self._plain and (found := trial.user_attrs.get("accuracies")):
            self._known.accuracy[place] = found[-1].get(
                "score", found[-1]["top1"]
            )  # beyond the budget, and all there is of its own training

    def _settings(self, costs: StageCosts) -> ProposerSettings:
        """By what the stages cost. The start is measured by the time there was when first asked."""
        self._at_first_s = self._at_first_s or costs.seconds_left
        limited = costs.seconds_left < float("inf")
        settings = settings_for(costs.latency_s, costs.brief_s, costs.training_s, self._at_first_s)
        return replace(settings, within=True, per_second=limited)

    def _count_screened(self) -> int:
        """Timed so far, but for the plain networks, which every search begins with."""
        return int((self._known.looks > 0).sum() - (self._known.looks[self._plain_places] > 0).sum())

    def _first(self) -> numpy.ndarray | None:
        """Which candidates the search begins with; None where all are of a kind."""
        return None if self._uncut.all else self._uncut.may_keep(self._known)

    def _surest(self) -> numpy.ndarray | None:
        """Return whom to time before the first training, so that something is soon there that keeps the budget.

        None when that is done, or nothing is uncompressed.
        """
        first = self._first()
        if first is None or not first.any() or self._known.is_finished()[first].any():
            return None
        if (
            self._hurried or self._count_screened() >= FEW
        ):  # the first guesses were too slow: what may be fastest comes next
            likely = self._uncut.likely_fastest(self._known)
        else:
            likely = self._uncut.likely_largest(self._known, float(numpy.median(self._bounds or [1.0])))
        return likely[self._known.is_open()[likely]]

    def _ready(self, settings: ProposerSettings | None = None) -> Proposer:
        if self._proposer is None:  # what is asked for here is trained here: without a search, no low fidelity
            settings = replace(settings or ProposerSettings(tries=0), within=True)
            self._proposer = Proposer(self._encoding, self._budget.latency_ms, self._seed, settings, self._earlier)
        return self._proposer

    def _early(self, proposer: Proposer) -> bool:
        """True until there is enough for the surrogates to go by."""
        return proposer.starting(self._known) or self._known.has_accuracy().sum() < 3

    def _propose(self) -> int:
        known, proposer = self._known, self._ready()
        open_ = numpy.array(list(self._open.values()), dtype=numpy.int64)
        early = self._early(proposer)
        if not self._heeded:  # a study without a search around it: latency and accuracy come together
            places = proposer.start_time(known) if early else proposer.to_time(known, len(open_) + 1)
        elif early or proposer.goal is None:
            places = proposer.start_train(known, self._first(), self._hurried)
        else:
            places = proposer.to_train(known, pending=open_)
        if len(left := places[~numpy.isin(places, open_)]):
            return int(left[0])
        gone = known.closed | known.failed
        gone[open_] = True
        useless = gone | known.is_hopeless()
        rest = numpy.flatnonzero(~gone if useless.all() else ~useless)
        return int(self._random.choice(rest if len(rest) else len(self._points)))

    def _candidates_at(self, places: numpy.ndarray) -> list[Candidate]:
        return [self._candidates[place] for place in places]


def make(seed: int, space: CandidateSet, budget: Budget) -> BudgetSampler:
    """Expected hypervolume improvement x probability of being buildable, see `search/bayesopt/`."""
    return BudgetSampler(seed, space, budget)


def _codes(points: Sequence[Mapping[str, Any]]) -> numpy.ndarray:
    """(N, axes) the place of each value among its axis's; one more for an axis that a point has not."""
    names = list(dict.fromkeys(name for point in points for name in point))
    columns = []
    for name in names:
        values = {value: place for place, value in enumerate(dict.fromkeys(p[name] for p in points if name in p))}
        columns.append([values[point[name]] if name in point else len(values) for point in points])
    return numpy.array(columns, dtype=numpy.int64).T
