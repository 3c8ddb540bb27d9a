"""Propose latencies first, then the trainings with the largest expected gain of the front within reach of the budget.

The module holds an Optuna sampler that learns of trials from the study, as others do. Before each trial, a search also
asks it for latencies to measure and candidates to train at low fidelity (`search.sampling.protocol`), and reports the
results to it. Its proposals come from `search/bayesopt/`; it makes no final judgement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from evaluators.measurement import Accuracy, Failure, Latency, Outcome
from search.bayesopt.encoding import encode
from search.bayesopt.observations import Observations, PriorRun, ProposerSettings, settings_for
from search.bayesopt.proposer import Proposer
from search.budget import Budget
from search.sampling.protocol import StageCosts
from search.sampling.uncompressed import FEW, UncompressedCandidates
from search.sampling.whole_candidate_sampler import WholeSampler
from spaces.candidate import Candidate
from spaces.space import CandidateSet, Value

PARENT_SHARE = 2.0  # a network's first training with its parent's, relative to a training alone
SHORT = 2.0  # first trainings of all networks for which a limited time must suffice to compare them briefly first
OPENING_SHARE = 0.2  # share of a limited time for finding the largest inputs within the budget before any training
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class BudgetSampler(WholeSampler):
    """Propose among all candidates of a space, but never one that has, or is, a trial.

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run.
        budget: Limits of the run.
    """

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
        self._proposer: Proposer | None = None  # created once it is known whether there is a low fidelity
        self._earlier: PriorRun | None = None
        # the matrices are small: threads gain nothing, and under other load they wait for each other 100 times longer
        self._threads = ThreadpoolController()
        self._at_first_s = 0.0  # seconds left at the first request
        self._stopped: set[int] = set()  # indices that a stage limit or the end of a trial closed
        self._bounds: list[float] = []  # upper confidence bounds of latencies, relative to the rank
        self._hurried = False  # True once a training could not finish in the available time
        self._heeded = False  # True if a search requests latencies before trials
        self._is_short = False  # True while the time suffices for little more than one training of each network
        self._read = 0  # number of the first trial of the study that is not learned yet
        self._open: dict[int, int] = {}  # number of an open trial -> index of its candidate

    # --- results, reported by the search

    def start_from(self, earlier: PriorRun) -> None:
        """Use an earlier run's measurements of these candidates; this is called before the first proposal."""
        self._earlier = earlier

    def on_latency(self, key: str, found: Latency | Failure) -> None:
        """Record a latency; the last one of a candidate is the one that counts.

        Args:
            key: Key of the candidate.
            found: Latency pooled over all timings, or the failure.
        """
        place = self._places.get(key)
        if place is None:  # an original of compressed candidates that is no candidate itself
            return
        self._known.looks[place] += 1
        if isinstance(found, Failure):
            self._known.failed[place] = True
            return
        self._known.latency_ms[place] = found.rank_ms.value
        if numpy.isfinite(found.percentile_ms.high):
            self._bounds.append(max(1.0, found.percentile_ms.high / found.rank_ms.value))
        self._known.beyond[place] = not self._budget.may_keep(found)
        self._known.unsure[place] = not self._budget.keeps(found)
        # a candidate over the budget is never trained in full, unless another timing finds it within the budget
        self._known.closed[place] = self._known.beyond[place] or place in self._stopped

    def on_low_fidelity(self, key: str, found: Accuracy | Failure) -> None:
        """Record a low-fidelity accuracy.

        Args:
            key: Key of the candidate.
            found: Accuracy, or the failure.
        """
        if (place := self._places.get(key)) is not None:
            if isinstance(found, Failure):
                self._known.failed[place] = True
            else:
                self._known.brief[place] = found.score

    def on_training_time(self, key: str, seconds: float) -> None:
        """Record the training time of a candidate that passed every stage limit.

        Args:
            key: Key of the candidate.
            seconds: Seconds of all rungs.
        """
        if (place := self._places.get(key)) is not None:
            self._known.train_s[place] = seconds
            self._known.eased |= (self._structures == self._structures[place]) & numpy.isnan(self._known.train_s)

    def exclude(self, key: str) -> None:
        """Exclude a candidate that failed a stage limit."""
        if (place := self._places.get(key)) is not None:
            self._stopped.add(place)
            self._known.closed[place] = True

    # --- requests of the search

    def request_latencies(self, study: optuna.Study, costs: StageCosts) -> list[Candidate]:
        """Return candidates to time before the next trial, most promising first.

        There are as many as pay for themselves.

        Args:
            study: Study with all trials so far.
            costs: Seconds that each stage takes.
        """
        self._learn(study)
        known, settings = self._known, self._settings(costs)
        a_network_s = PARENT_SHARE * costs.training_s * len(self._uncut.find_untried(known))
        self._is_short = costs.seconds_left < SHORT * a_network_s
        proposer, self._heeded = self._ready(settings), True
        due = settings.timings * (int(known.is_finished().sum()) + 1) - int(known.looks.sum())
        proposer.settings = replace(
            settings,
            timings=int(numpy.clip(due, 1, settings.timings)),  # compensates for a large initial design
            # at least a few while none is ready for training
            start_timings=max(0 if known.waiting().any() else FEW, settings.start_timings - self._count_screened()),
            start_tries=max(0, settings.start_tries - int(numpy.isfinite(known.brief).sum())),
        )
        if not ((known.looks == 0) & ~known.closed).any():
            return []
        if self.is_opening(costs):
            return self._candidates_at(self._edges()[: self._count_opening(costs)])
        if self._list_untried():
            return []
        surest = self._surest()
        if surest is not None and len(surest) and not (known.waiting() & ~known.unsure).any():
            return self._candidates_at(surest)
        with self._threads.limit(limits=1):
            early = self._early(proposer)
            return self._candidates_at(proposer.start_time(known, self._first()) if early else proposer.to_time(known))

    def is_opening(self, costs: StageCosts) -> bool:
        """Return True until the largest inputs within the budget are known, with a time limit and before any training.

        It takes a share of the time at most.

        Args:
            costs: Seconds that each stage takes.
        """
        if self._uncut.all or self._known.has_accuracy().any() or self._known.is_finished().any():
            return False
        return self._count_opening(costs) > 0 and bool(len(self._edges()))

    def _count_opening(self, costs: StageCosts) -> int:
        """Return how many timings still fit into the share of a limited time; 0 without a limit."""
        if not 0 < self._at_first_s < float("inf"):
            return 0
        left_s = costs.seconds_left - (1 - OPENING_SHARE) * self._at_first_s
        return max(0, int(left_s / max(costs.latency_s, 1e-9)))

    def _edges(self) -> numpy.ndarray:
        bound = float(numpy.median(self._bounds or [1.0]))
        found = self._uncut.edges(self._known, bound)
        return found[self._known.is_open()[found]]

    def request_remeasurements(self) -> list[Candidate]:
        """Return the present choice, and candidates with a first latency that is probably an outlier."""
        proposer = self._ready()
        return [] if self._early(proposer) else self._candidates_at(proposer.to_confirm(self._known))

    def request_low_fidelity(self) -> list[Candidate]:
        """Return candidates that should be trained at low fidelity before the next trial."""
        proposer = self._ready()
        if (self._surest() is not None and self._known.waiting().any()) or self._list_untried():
            return []
        early = self._early(proposer)
        with self._threads.limit(limits=1):
            if not early:
                return self._candidates_at(proposer.to_try(self._known))
            first = None if self._uncut.all else self._uncut.find_untried(self._known)
            return self._candidates_at(proposer.start_try(self._known, first))

    # --- Optuna's interface

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Learn from the trials that ended since the last call, in this process or another."""
        self._learn(study)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Value:
        """Return one parameter of the candidate proposed for this trial."""
        if trial.number not in self._open:
            with self._threads.limit(limits=1):
                self._open[trial.number] = self._propose()
        return self._points[self._open[trial.number]][param_name]

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forget the proposal of a trial that has ended."""
        self._open.pop(trial.number, None)

    # --- internals

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
        self._hurried |= trial.user_attrs.get("outcome") == Outcome.UNFINISHED
        if trial.state == TrialState.COMPLETE:
            self._known.accuracy[place] = trial.values[0]
            if not self._known.looks[place]:  # a study without a search around it
                self._known.latency_ms[place], self._known.looks[place] = trial.values[1], 1
        elif not numpy.isfinite(self._known.latency_ms[place]):
            self._known.failed[place] = True
        elif self._candidates[place] in self._plain and (found := trial.user_attrs.get("accuracies")):
            self._known.accuracy[place] = found[-1].get(
                "score", found[-1]["top1"]
            )  # over the budget: the only score of its own training

    def _settings(self, costs: StageCosts) -> ProposerSettings:
        """Return settings derived from the stages' costs; the start is scaled to the time left at the first call."""
        self._at_first_s = self._at_first_s or costs.seconds_left
        limited = costs.seconds_left < float("inf")
        settings = settings_for(costs.latency_s, costs.brief_s, costs.training_s, self._at_first_s)
        return replace(settings, within=True, per_second=limited)

    def _count_screened(self) -> int:
        """Return how many candidates were timed, except the parents, with which every search begins."""
        return int((self._known.looks > 0).sum() - (self._known.looks[self._plain_places] > 0).sum())

    def _first(self) -> numpy.ndarray | None:
        """Return a mask of candidates to begin with; None if the space has no compressed candidate."""
        return None if self._uncut.all else self._uncut.may_keep(self._known)

    def _list_untried(self) -> list[int]:
        """Return the largest candidates of networks without any accuracy, most work first, if the time is short.

        A parent takes as long as the training that follows, and a first score of each network would leave no time for
        it.
        """
        if self._uncut.all or not self._is_short or not self._known.has_accuracy().any():
            return []
        found = self._uncut.find_untried(self._known)
        return [int(place) for place in found if not self._known.unsure[place]]

    def _work(self) -> numpy.ndarray | None:
        """Return (N,) the size of each uncompressed candidate, nan for others; None if the space has no others."""
        return None if self._uncut.all else self._uncut.work(self._known)

    def _surest(self) -> numpy.ndarray | None:
        """Return uncompressed candidates to time first, so that a feasible one is found early.

        Return None when that is done, or when no candidate is uncompressed.
        """
        first = self._first()
        if first is None or not first.any() or self._known.is_finished()[first].any():
            return None
        if self._hurried or self._count_screened() >= FEW:  # the first guesses were too slow: the likely fastest follow
            likely = self._uncut.likely_fastest(self._known)
        else:
            likely = self._uncut.likely_largest(self._known, float(numpy.median(self._bounds or [1.0])))
        return likely[self._known.is_open()[likely]]

    def _ready(self, settings: ProposerSettings | None = None) -> Proposer:
        if self._proposer is None:  # a study without a search has no low fidelity
            settings = replace(settings or ProposerSettings(tries=0), within=True)
            self._proposer = Proposer(self._encoding, self._budget.latency_ms, self._seed, settings, self._earlier)
        return self._proposer

    def _early(self, proposer: Proposer) -> bool:
        """Return True until the surrogates have enough data."""
        return proposer.starting(self._known) or self._known.has_accuracy().sum() < 3

    def _propose(self) -> int:
        known, proposer = self._known, self._ready()
        open_ = numpy.array(list(self._open.values()), dtype=numpy.int64)
        early = self._early(proposer)
        if untried := self._list_untried():
            places = numpy.array(untried)
        elif not self._heeded:  # without a search around the study, latency and accuracy come together
            places = proposer.start_time(known) if early else proposer.to_time(known, len(open_) + 1)
        elif early or proposer.goal is None:
            places = proposer.start_train(known, self._first(), self._hurried, self._work())
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
    """Return a sampler by expected hypervolume improvement x probability that a build works; see `search/bayesopt/`.

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run.
        budget: Limits of the run.
    """
    return BudgetSampler(seed, space, budget)


def _codes(points: Sequence[Mapping[str, Value]]) -> numpy.ndarray:
    """Return (N, axes) the index of each value within its axis, one past the last for an axis that a point lacks."""
    names = list(dict.fromkeys(name for point in points for name in point))
    columns = []
    for name in names:
        values = {value: place for place, value in enumerate(dict.fromkeys(p[name] for p in points if name in p))}
        columns.append([values[point[name]] if name in point else len(values) for point in points])
    return numpy.array(columns, dtype=numpy.int64).T
