"""Tables made up for these tests: every choice costs time, brings accuracy, and has luck in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from search.bayesopt.acquisition import ReferencePoint, front, hypervolume
from search.bayesopt.encoding import Encoding, encode
from search.bayesopt.observations import Observations, PriorRun, ProposerSettings
from search.bayesopt.proposer import Proposer

BRIEF_COST = 0.06  # of a full training


@dataclass(frozen=True, kw_only=True)
class Made:
    """A table to search."""

    codes: np.ndarray
    features: np.ndarray
    latency_ms: np.ndarray  # nan: fails
    accuracy: np.ndarray
    brief: np.ndarray
    train_s: np.ndarray

    @property
    def encoding(self) -> Encoding:
        return encode(self.codes, self.features)

    @property
    def goal(self) -> ReferencePoint:
        ok = np.isfinite(self.latency_ms)
        return ReferencePoint(
            accuracy_low=float(np.median(self.accuracy)),
            latency_high_ms=1.1 * float(self.latency_ms[ok].max()),
            budget_ms=None,
            budget_weight=0.0,
        )

    def share(self, trained: np.ndarray) -> float:
        """Hypervolume of those, as a share of the true front's."""
        ok = np.flatnonzero(np.isfinite(self.latency_ms))
        best = ok[front(self.accuracy[ok], self.latency_ms[ok])]
        whole = hypervolume(self.accuracy[best], self.latency_ms[best], self.goal)
        return hypervolume(self.accuracy[trained], self.latency_ms[trained], self.goal) / whole


def make(seed: int = 0, axes: int = 5, values: int = 4, device: int = 0) -> Made:
    """All combinations; the same seed on another device differs in latency only."""
    random, board = np.random.default_rng(seed), np.random.default_rng([seed, device])
    codes = np.stack(np.meshgrid(*[np.arange(values)] * axes, indexing="ij"), axis=-1).reshape(-1, axes)
    work = random.uniform(0.2, 2.0, (axes, values))
    macs = np.array([sum(work[axis, value] for axis, value in enumerate(row)) for row in codes])
    speed = board.uniform(0.6, 1.4, (axes, values))
    latency = np.array([sum((work * speed)[axis, value] for axis, value in enumerate(row)) for row in codes])
    taste = random.normal(0.0, 0.02, (axes, values))
    quality = 0.9 - 0.5 * np.exp(-0.6 * macs) + np.array([taste[range(axes), row].sum() for row in codes])
    accuracy = quality + random.normal(0.0, 0.003, len(codes))
    brief = 0.4 + 0.4 * (quality - quality.mean()) / quality.std() * 0.1 + random.normal(0.0, 0.01, len(codes))
    latency *= np.exp(board.normal(0.0, 0.02, len(codes)))
    return Made(
        codes=codes, features=macs[:, None], latency_ms=latency, accuracy=accuracy, brief=brief, train_s=60.0 * macs
    )


@dataclass(kw_only=True)
class Run:
    """A search of a made-up table, step by step; every step holds what must hold of any."""

    table: Made
    proposer: Proposer
    known: Observations
    first_look: dict[int, float] = field(default_factory=dict)  # factor on the first latency of some
    order: list[int] = field(default_factory=list)
    spent: float = 0.0

    def time(self, which: np.ndarray) -> None:
        for i in which:
            self.known.looks[i] += 1
            value = self.table.latency_ms[i] * (self.first_look.get(int(i), 1.0) if self.known.looks[i] == 1 else 1.0)
            self.known.failed[i] = not np.isfinite(value)
            self.known.latency_ms[i] = value

    def first_time(self, which: np.ndarray) -> None:
        assert len(set(which)) == len(which) and not self.known.closed[which].any()
        assert not self.known.looks[which].any() and not self.known.failed[which].any()
        self.time(which)

    def again(self, which: np.ndarray) -> None:
        assert len(set(which)) == len(which) and (self.known.looks[which] == 1).all()
        self.time(which)

    def brief(self, which: np.ndarray) -> None:
        assert len(set(which)) == len(which) and np.isnan(self.known.brief[which]).all()
        assert self.known.waiting()[which].all()
        self.known.brief[which] = self.table.brief[which]
        self.spent += BRIEF_COST * len(which)

    def train(self, which: np.ndarray) -> None:
        assert len(set(which)) == len(which) and self.known.waiting()[which].all()
        self.known.accuracy[which] = self.table.accuracy[which]
        self.known.train_s[which] = self.table.train_s[which]
        self.order += [int(i) for i in which]
        self.spent += len(which)

    def start(self) -> None:
        self.first_time(self.proposer.start_time(self.known))
        self.brief(self.proposer.start_try(self.known))
        self.train(self.proposer.start_train(self.known))

    def round(self, batch: int = 1) -> int:
        """Candidates trained: 0 when there is nothing left to do."""
        self.first_time(self.proposer.to_time(self.known))
        self.again(self.proposer.to_confirm(self.known))
        self.brief(self.proposer.to_try(self.known))
        chosen = self.proposer.to_train(self.known, batch)
        self.train(chosen)
        return len(chosen)

    def until(self, spent: float) -> Run:
        while self.spent < spent and self.round():
            pass
        return self


SMALL = ProposerSettings(timings=6, tries=3, start_timings=24, start_tries=16, start_trainings=5, pool=300)


def start(
    table: Made,
    seed: int = 0,
    settings: ProposerSettings = SMALL,
    budget_ms: float | None = None,
    earlier: PriorRun | None = None,
) -> Run:
    """A search that has made its start."""
    known = Observations.nothing(len(table.codes))
    run = Run(table=table, proposer=Proposer(table.encoding, budget_ms, seed, settings, earlier), known=known)
    run.start()
    return run
