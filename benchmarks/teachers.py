"""Compare distillation from the best parent with distillation from a candidate's own: `python -m benchmarks.teachers`.

Every candidate is fine-tuned twice from the same start, in the same order of images: once with its own parent's logits,
once with those of the parent with the best validation accuracy. The results are compared on the test images in torch,
pair by pair. The parents of each seed are trained anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from evaluators.data.dataset import TEST, Dataset
from evaluators.data.loading import arrays, open_dataset
from evaluators.training.batches import logits
from evaluators.training.jobs import CandidateJob, FineTuneJob, ParentJob, TrainedNetwork, TrainingRecipe
from evaluators.training.teacher_logits import family_of, parent_top1
from evaluators.training.trainer import fine_tune, load_net, start_candidate, train_parent
from spaces.network import normalisation


def top1(path: Path, dataset: Dataset, family: str, variant: str, px: int, cache: Path) -> float:
    """Return the test accuracy of a saved candidate, 0..1."""
    images, labels = arrays(dataset, TEST, px, cache)
    found = logits(load_net(path), images, normalisation(family, variant)).argmax(1).numpy()
    return float((found == labels).mean())


def compare(args: argparse.Namespace, dataset: Dataset, seed: int, work: Path) -> list[tuple[str, float, float]]:
    """Compare both teachers by one seed; return (candidate, top-1 with its own parent, top-1 with the best one)."""
    recipe = replace(
        TrainingRecipe.of(dataset, seed, args.threads), distillation=args.distillation, temperature=args.temperature
    )
    family = {variant: str(family_of(variant)) for variant in args.variants}
    parents: dict[str, TrainedNetwork] = {}
    tops: dict[str, float] = {}
    for variant in args.variants:
        out = work / f"{variant}-{seed}.pt"
        job = ParentJob(
            dataset=dataset,
            cache=args.cache,
            family=family[variant],
            variant=variant,
            image_px=args.px,
            recipe=recipe,
            out=out,
            weights=args.weights,
        )
        parents[variant] = train_parent(job)
        tops[variant] = parent_top1(job)
        print(f"seed {seed}: parent {variant} {100 * tops[variant]:.1f} % validation", flush=True)
    best = max(tops, key=lambda variant: tops[variant])
    rows = []
    for variant, amount in product(args.variants, args.prune):
        if variant == best:
            continue
        steps = (("prune", amount),) if amount else ()
        common: dict[str, Any] = {
            "dataset": dataset,
            "cache": args.cache,
            "family": family[variant],
            "variant": variant,
            "image_px": args.px,
            "recipe": recipe,
        }
        cutting = CandidateJob(**common, steps=steps, parent=parents[variant].path, out=work / "start.pt")
        start = start_candidate(cutting)
        found = []
        for teacher in (variant, best):
            job = FineTuneJob(
                **common,
                epochs=args.epochs,
                teacher=parents[teacher].path,
                net=start.path,
                out=work / "tuned.pt",
            )
            found.append(
                top1(
                    fine_tune(job).path, dataset, family=family[variant], variant=variant, px=args.px, cache=args.cache
                )
            )
        rows.append((f"{variant} prune {amount:g}", *found))
        own, other = found
        print(f"seed {seed}: {rows[-1][0]}: own {100 * own:.1f}, {best} {100 * other:.1f}", flush=True)
    return rows


def main() -> None:
    """Run the benchmark and print the mean gain."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teachers", description=__doc__.splitlines()[0])
    p.add_argument("--data", default="digits")
    p.add_argument("--px", type=int, default=32)
    p.add_argument("--variants", nargs="+", default=["res8_w8_s2", "res8_w16_s2", "mb_w16", "res8_w32_s2"])
    p.add_argument("--prune", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    p.add_argument("--weights", type=Path)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--distillation", type=float, default=TrainingRecipe.distillation)
    p.add_argument("--temperature", type=float, default=TrainingRecipe.temperature)
    p.add_argument("--cache", type=Path, default=Path("~/.cache/edgefront/images").expanduser())
    args = p.parse_args()
    rows: list[tuple[str, float, float]] = []
    with TemporaryDirectory() as work:
        for seed in range(args.seeds):
            rows += compare(args, open_dataset(args.data, seed, args.cache), seed, Path(work))
    gains = [100 * (other - own) for _, own, other in rows]
    error = stdev(gains) / len(gains) ** 0.5
    own, other = (100 * mean(row[place] for row in rows) for place in (1, 2))
    print(f"{len(gains)} pairs: own {own:.2f} %, best {other:.2f} %, gain {mean(gains):+.2f} ± {error:.2f} points")


if __name__ == "__main__":
    main()
