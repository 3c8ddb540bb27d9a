"""Runs as a search would hand them over, made from a small law instead of a device."""

import random
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import (
    Accuracy,
    Agreement,
    Interval,
    LadderStep,
    Latency,
    Measurement,
    Outcome,
    Structure,
    WallTime,
)
from search.budget import Budget
from search.pipeline.stages import over
from search.result import Result
from search.selection.pareto import front
from search.selection.ranking import baseline, nearest_miss, rank_feasible
from spaces.candidate import Candidate

# ms at 128 px fp32, unpruned; validation top-1 there; megabytes; family
NETWORKS = {
    "mobilenet_v2": (4.6, 0.955, 95.0, "mobilenet"),
    "mobilenet_v3_small": (2.1, 0.925, 84.0, "mobilenet"),
    "resnet18": (11.0, 0.968, 140.0, "resnet"),
    "resnet50": (31.0, 0.983, 230.0, "resnet"),
    "efficientnet_b0": (8.2, 0.972, 118.0, "efficientnet"),
}
PX = {64: (0.36, -0.045), 96: (0.62, -0.018), 128: (1.0, 0.0)}
PRECISION = {"fp32": (1.0, 0.0), "int8": (0.55, -0.006)}
DEVICE = {
    "name": "local",
    "cpu": "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz",
    "cores": "2",
    "memory": "24000 MB",
    "runtime": "onnxruntime 1.31.1",
    "precisions": "fp32, int8",
    "no fp16": "no fast fp16 on this CPU",
}
CLASSES = ("crazing", "inclusion", "patches", "pitted", "rolled-in", "scratches")
DATA = {
    "set": "./defects",
    "classes": ", ".join(CLASSES),
    "train images": "1260",
    "validation images": "360",
    "test images": "540",
    "split": "stratified, seed 0",
}
PROVENANCE = {
    "fingerprint": "0123456789ab",
    "kernel": "6.1.0",
    "python": "3.11.7",
    "torch": "2.15.0",
    "onnxruntime": "1.31.1",
    "code": "3f2a9c1d0b7e",
    "seed": "0",
    "sampler": "tpe",
    "space": "edge, 2,880 candidates",
}


def law(candidate: Candidate) -> tuple[float, float, float]:
    """(ms, validation top-1, MB): a product of one factor an axis, so that every lever is known."""
    ms, top1, mb, _ = NETWORKS[candidate.variant]
    time_px, cost_px = PX[candidate.image_px]
    time_precision, cost_precision = PRECISION[candidate.precision]
    prune = candidate.amount("prune")
    time = ms * time_px * time_precision * (1 - 0.9 * prune) / candidate.threads**0.7
    return time, top1 + cost_px + cost_precision - 0.06 * prune**2, mb * (1 - 0.2 * prune)


def timed(ms: float, mb: float, percentile: float = 95.0, **changes) -> Latency:
    p95 = 1.12 * ms
    return replace(
        Latency(
            percentile=percentile,
            percentile_ms=Interval(p95, 0.97 * p95, 1.03 * p95),
            median_ms=Interval(1.02 * ms, 1.0 * ms, 1.04 * ms),
            rank_ms=Interval(ms, 0.99 * ms, 1.01 * ms),
            peak_mb=mb,
            runtime_mb=44.0,
            load_ms=60.0 + ms,
            samples=320,
            blocks=2,
            repeated=0,
            disturbed="",
            model_sha256="a" * 64,
            runtime_version="1.31.1",
        ),
        **changes,
    )


def climbed(top1: float) -> tuple[LadderStep, ...]:
    """What int8 took, where two layers had to go back."""
    return (
        LadderStep(name="fp32", top1=top1 + 0.004, seconds=1.0),
        LadderStep(name="int8 min-max", top1=top1 - 0.1, seconds=2.0, kept=True),
        LadderStep(name="bias corrected", top1=top1 - 0.2, seconds=3.0),
        LadderStep(
            name="2 layers in floating point",
            top1=top1,
            seconds=4.0,
            kept=True,
            note="/features.0/Conv first",
            floating=2,
            floating_macs=0.0625,
        ),
    )


def accuracy(top1: float, epochs: int, split: str = "validation", count: int = 360) -> Accuracy:
    correct = round(min(1.0, max(0.0, top1)) * count)
    counts = tuple(count // 6 + (place < count % 6) for place in range(6))
    return Accuracy(
        top1=correct / count,
        correct=correct,
        count=count,
        epochs=epochs,
        split=split,
        model_sha256="a" * 64,
        class_counts=counts,
        errors=spread(counts, correct),
    )


def spread(counts: tuple[int, ...], correct: int) -> tuple[tuple[int, int, int], ...]:
    """Errors in every class alike, each taken for the next."""
    wrong = sum(counts) - correct
    by_class = [wrong // len(counts) + (place < wrong % len(counts)) for place in range(len(counts))]
    return tuple((place, (place + 1) % len(counts), n) for place, n in enumerate(by_class) if n)


def measure(candidate: Candidate, trial: int, budget: Budget) -> Measurement:
    """What the funnel would have measured of a candidate."""
    ms, top1, mb = law(candidate)
    pruned = candidate.amount("prune")
    structure = Structure(
        parameters=int(3e6 * (1 - pruned) ** 2),
        macs=int(3e8 * ms / 4),
        onnx_bytes=int(1.2e7 * (1 - pruned)),
        parity_max_abs=4e-7,
        exporter="torchscript",
        opset=13,
    )
    latency = timed(ms, mb, budget.percentile, repeated=trial % 7 == 0)
    made = Measurement(candidate=candidate, outcome=Outcome.KEPT, structure=structure, latency=latency, trial=trial)
    if not budget.keeps(latency):
        if latency.percentile_ms.low > budget.latency_ms:  # as timing does: sure enough, so no bound was waited for
            latency = replace(latency, percentile_ms=replace(latency.percentile_ms, high=inf))
        made = replace(made, outcome=Outcome.OVER_BUDGET, reason=over(budget, latency), latency=latency)
        plain = not candidate.compressed
        return replace(made, accuracies=(accuracy(top1, 0),), model_path=f"models/{trial}.onnx") if plain else made
    climb = tuple(accuracy(top1 - lost, epochs) for epochs, lost in ((0, 0.08 * pruned + 0.01), (1, 0.01), (3, 0.0)))
    if candidate.precision == "int8":
        climb = (*climb[:2], replace(climb[2], rungs=climbed(climb[2].top1)))
    return replace(made, accuracies=climb, model_path=f"models/{trial}.onnx")


def seen(m: Measurement) -> Measurement:
    """A finalist as the device shows it; in int8 a third of the layers stays behind."""
    right = m.accuracy.correct
    agreement = Agreement(
        same=360 - m.trial % 4,
        count=360,
        device_top1=right / 360,
        host_top1=(right + m.trial % 4) / 360,
        host="onnxruntime 1.31.1",
    )
    covered = LayerPrecision(
        precision="int8",
        layers=(("int8", 40), ("fp32", 20)),
        others=(("HardSigmoid", 20),),
        reformats=31,
        reformat_share=0.19,
        other_share=0.08,
        untold="",
        fp32_ratio=1.13,
    )
    return replace(m, agreement=agreement, coverage=covered if m.candidate.precision == "int8" else None)


def candidates(count: int, seed: int) -> list[Candidate]:
    """The plain networks first, then points of the space, none twice."""
    rng = random.Random(seed)
    found = [Candidate(family=family, variant=name, image_px=128) for name, (_, _, _, family) in NETWORKS.items()]
    while len(found) < count:
        name = rng.choice(list(NETWORKS))
        prune = rng.choice([0.0, 0.2, 0.3, 0.5])
        candidate = Candidate(
            family=NETWORKS[name][3],
            variant=name,
            image_px=rng.choice(list(PX)),
            steps=(("prune", prune),) if prune else (),
            precision=rng.choice(list(PRECISION)),
            threads=rng.choice([1, 1, 2]),
        )
        if candidate not in found:
            found.append(candidate)
    return found[:count]


def finished(measurements: list[Measurement], budget: Budget, folder: Path, **changes) -> Result:
    """The Result a search over these measurements ends with, choice, baseline and miss by the search's own rules."""
    plain = frozenset(m.candidate for m in measurements if not m.candidate.compressed)
    greedy = baseline(measurements, plain)
    best = next(iter(rank_feasible([m for m in measurements if m.outcome == Outcome.KEPT], budget, greedy)), None)
    known = {m.trial: m for m in measurements}
    for m in [*front(measurements), *(m for m in (greedy, best) if m)]:
        known[m.trial] = replace(m, test=accuracy(m.accuracy.top1 - 0.008, m.accuracy.epochs, "test", 540))
    for m in (greedy, best):
        if m:
            known[m.trial] = replace(known[m.trial], confirmed=True)
    for m in [*front(measurements), *([best] if best else [])]:
        known[m.trial] = seen(known[m.trial])
    slow = [m for m in known.values() if m.outcome == Outcome.OVER_BUDGET]
    result = Result(
        folder=folder,
        command=f"python -m search.run --budget-ms {budget.latency_ms:g} --data ./defects --out {folder.name}",
        started="2026-11-21T09:30:00+00:00",
        budget=budget,
        device=DEVICE,
        data=DATA,
        provenance=PROVENANCE,
        measurements=tuple(known.values()),
        front=tuple(known[m.trial] for m in front(measurements)),
        choice=known[best.trial] if best else None,
        baseline=known[greedy.trial] if greedy else None,
        miss=None if best else nearest_miss(list(known.values()), budget, greedy),
        seconds=WallTime(structure=64.0, timing=310.0, training=702.0, scoring=95.0, wall=1240.0),
        reference_ms=1.83,
        trials_asked=40,
        classes=CLASSES,
        early_stops=(sum(1 for m in slow if not m.accuracies), len(slow)),
        warnings=("2 broken images left out: a/7.jpg, b/9.jpg", "no weights for efficientnet_b0: trained from scratch"),
    )
    return replace(result, **changes)


def usual(folder: Path, budget: Budget | None = None, count: int = 40, seed: int = 3, **changes) -> Result:
    """A run with every outcome in it."""
    budget = budget or Budget(latency_ms=5.0)
    measurements = [measure(c, trial, budget) for trial, c in enumerate(candidates(count, seed))]
    compressed = [i for i, m in enumerate(measurements) if m.outcome == Outcome.KEPT and m.candidate.compressed]
    for order, i in enumerate(compressed):
        if order % 6 == 1:
            why = "87.1 % after 1 epochs; trial 3, which is no slower, had 94.0 % after 1"
            measurements[i] = replace(
                measurements[i], outcome=Outcome.UNPROMISING, reason=why, accuracies=measurements[i].accuracies[:2]
            )
        elif order % 6 == 3:
            why = "2.31 ms, no faster than the 2.29 ms of mobilenet_v2 64px int8, which is uncompressed"
            measurements[i] = replace(
                measurements[i], outcome=Outcome.NO_GAIN, reason=why, accuracies=(), model_path=""
            )
        elif order % 6 == 5:
            why = "structure, parity: 0.031 between torch and the exported graph, 0.0001 allowed"
            measurements[i] = Measurement(
                candidate=measurements[i].candidate, outcome=Outcome.FAILED, reason=why, trial=i
            )
    return finished(measurements, budget, folder, **changes)


EVIL = '</script><script>document.title="owned"</script><b>"R&D\' 測試 \u2028 [red]{{ 7*7 }}'


def evil(folder: Path) -> Result:
    """A run whose names come from someone who means no good."""
    result = usual(folder, count=12)
    moved = {
        m.trial: replace(m, candidate=replace(m.candidate, variant=m.candidate.variant + EVIL), reason=m.reason + EVIL)
        for m in result.measurements
    }
    return replace(
        result,
        command=result.command + EVIL,
        device=result.device | {"name": EVIL, EVIL: EVIL},
        data=result.data | {"classes": EVIL},
        provenance={EVIL: EVIL},
        warnings=(EVIL,),
        classes=(EVIL, *CLASSES[1:]),
        measurements=tuple(moved.values()),
        front=tuple(moved[m.trial] for m in result.front),
        choice=moved[result.choice.trial],
        baseline=moved[result.baseline.trial],
    )


def no_fit(folder: Path) -> Result:
    """Nothing keeps the budget, and nothing but the plain networks was trained."""
    budget = Budget(latency_ms=0.3)
    return finished([measure(c, i, budget) for i, c in enumerate(candidates(24, 5))], budget, folder)


def disturbed(folder: Path) -> Result:
    result = usual(folder)
    noisy = [
        replace(m, latency=replace(m.latency, disturbed="foreign load 2.1 of 2 cores", simulated=True))
        if m.latency
        else m
        for m in result.measurements
    ]
    return replace(finished(noisy, result.budget, folder), warnings=())


def failed(folder: Path) -> Result:
    """No trial got as far as being timed."""
    why = "structure, unbuildable: no such layer"
    made = [
        Measurement(candidate=c, outcome=Outcome.FAILED, reason=why, trial=i) for i, c in enumerate(candidates(3, 0))
    ]
    return finished(made, Budget(latency_ms=5.0), folder, warnings=(), early_stops=(0, 0))


KINDS = {
    "usual": usual,
    "no fit": no_fit,
    "disturbed": disturbed,
    "evil": evil,
    "failed": failed,
    "empty": lambda folder: finished([], Budget(latency_ms=5.0), folder, seconds=WallTime(), warnings=()),
    "single": lambda folder: usual(folder, count=1, budget=Budget(latency_ms=50.0)),
    "no baseline": lambda folder: replace(usual(folder), baseline=None),
    "memory": lambda folder: usual(folder, Budget(latency_ms=5.0, percentile=90.0, peak_mb=110.0, max_drop=0.02)),
    "memory missed": lambda folder: usual(folder, Budget(latency_ms=5.0, percentile=95.0, peak_mb=20.0)),
    "drop missed": lambda folder: usual(folder, Budget(latency_ms=2.0, percentile=95.0, peak_mb=None, max_drop=0.001)),
    "wide": lambda folder: usual(folder, Budget(latency_ms=0.9, percentile=99.0)),
}


@pytest.fixture(params=sorted(KINDS))
def result(request, tmp_path) -> Result:
    """One run of each kind, usual and degenerate."""
    return KINDS[request.param](tmp_path / "run")
