"""What a model does class by class: which classes it finds, which it takes for others, and which it never gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.class_scores import Confusion, iter_mistakes, worst
from evaluators.measurement import TOP1, Accuracy, Measurement
from reports.trial_table import same
from search.result import Result

ALL, WORST = 20, 10  # up to so many classes all are shown, of more the worst
TAKEN, NAMED = 3, 5  # of what a class is taken for, and of the classes that one warning names


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class as one model sees it."""

    name: str
    images: int
    recall: float | None  # share of its images that were right; None without images
    precision: float | None  # share of the images given this class that are of it; None where none was
    taken_for: str  # `scratches (3), patches (1)`: what its images were wrongly taken for


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix of a few classes.

    Attributes:
        names: Of rows and columns.
        cells: One row a label: (images, share of the label's images) by predicted class.
        others: Images by label that were given a class that is not shown.
    """

    names: tuple[str, ...]
    cells: tuple[tuple[tuple[int, float], ...], ...]
    others: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """Choice or baseline, class by class."""

    what: str  # choice | baseline
    candidate: str
    split: str
    shown: tuple[ClassRow, ...]
    classes: int
    matrix: HeatMap


def by_class(result: Result) -> list[ClassReport]:
    """Return choice and baseline class by class, on the test images or, where those were not seen, on validation.

    Of more than `ALL` classes the `WORST`, by recall, are shown. Empty where classes are not told apart.
    """
    found = []
    for what, measurement in (("choice", result.choice), ("baseline", result.baseline)):
        if what == "baseline" and same(result.choice, result.baseline):
            continue
        accuracy = final(measurement)
        if measurement is not None and accuracy is not None and accuracy.confusion is not None:
            found.append(_by_class(what, measurement, accuracy, accuracy.confusion, result.classes))
    return found


def final(measurement: Measurement | None) -> Accuracy | None:
    """Return the accuracy on the test images, or on validation images where those were not seen."""
    return (measurement.test or measurement.accuracy) if measurement else None


def class_warnings(result: Result) -> list[str]:
    """Return one line if the choice misses classes: a recall of 0, or far below the median class by more than noise."""
    accuracy = final(result.choice)
    if result.choice is None or accuracy is None or accuracy.confusion is None:
        return []
    confusion, names = accuracy.confusion, result.classes
    late = confusion.behind()
    if not late:
        return []
    told = [f"{class_name(names, place)} {_format_recall(confusion, place)}" for place in late[:NAMED]]
    more = f" and {len(late) - NAMED} more" if len(late) > NAMED else ""
    recalls = sorted(recall for recall in confusion.recalls() if recall is not None)
    middle = 100 * recalls[len(recalls) // 2]
    advice = " --metric balanced searches by the mean over classes." if accuracy.metric == TOP1 else ""
    return [
        f"Classes that the choice misses ({accuracy.split} images; the median class is found at {middle:.0f} %): "
        f"{', '.join(told)}{more}.{advice}"
    ]


def summary(accuracy: Accuracy, names: Sequence[str]) -> dict[str, Any]:
    """Return the scores by class as plain values; empty where classes are not told apart."""
    confusion = accuracy.confusion
    if confusion is None:
        return {}
    rows = zip(confusion.counts, confusion.recalls(), confusion.precisions(), strict=True)
    return {
        "balanced": confusion.balanced()[0],
        "macro_f1": confusion.macro_f1()[0],
        "by_class": [
            {"class": class_name(names, place), "images": images, "recall": recall, "precision": precision}
            for place, (images, recall, precision) in enumerate(rows)
        ],
    }


def class_name(names: Sequence[str], place: int) -> str:
    """Return a class's name; its number where it has none."""
    return names[place] if place < len(names) else f"class {place}"


def _by_class(
    what: str, measurement: Measurement, accuracy: Accuracy, confusion: Confusion, names: Sequence[str]
) -> ClassReport:
    classes = len(confusion.counts)
    places = list(range(classes)) if classes <= ALL else worst(confusion, WORST)
    recalls, precisions = confusion.recalls(), confusion.precisions()
    rows = [
        ClassRow(
            name=class_name(names, place), images=confusion.counts[place], recall=recalls[place], precision=precisions[place],
            taken_for=", ".join(f"{class_name(names, other)} ({n})" for other, n in [*iter_mistakes(confusion, place)][:TAKEN]),
        )
        for place in places
    ]  # fmt: skip
    matrix = _heat_map(confusion, places, names)
    return ClassReport(
        what=what,
        candidate=measurement.candidate.describe(),
        split=accuracy.split,
        shown=tuple(rows),
        classes=classes,
        matrix=matrix,
    )


def _heat_map(confusion: Confusion, places: Sequence[int], names: Sequence[str]) -> HeatMap:
    at = {place: row for row, place in enumerate(places)}
    cells = [[0] * len(places) for _ in places]
    others = [0] * len(places)
    for place in places:
        cells[at[place]][at[place]] = confusion.right[place]
    for label, taken, count in confusion.errors:
        if label in at and taken in at:
            cells[at[label]][at[taken]] += count
        elif label in at:
            others[at[label]] += count
    return HeatMap(
        tuple(class_name(names, place) for place in places),
        tuple(
            tuple((count, count / max(1, confusion.counts[place])) for count in row)
            for place, row in zip(places, cells, strict=True)
        ),
        tuple(others),
    )


def _format_recall(confusion: Confusion, place: int) -> str:
    return f"{confusion.right[place]} of {confusion.counts[place]}"
