"""Report a model's results by class: recall, precision, confusions, and classes that it never predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.class_scores import Confusion, iter_mistakes, worst
from evaluators.measurement import TOP1, Accuracy, Measurement
from reports.trial_table import same
from search.result import Result

ALL, WORST = 20, 10  # number of classes up to which all are shown; number of worst classes shown beyond it
TAKEN, NAMED = 3, 5  # number of confusions listed per class, and of classes named in one warning


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Describe one class in the predictions of one model.

    Attributes:
        name: Name of the class.
        images: Number of images of the class.
        recall: Share of its images that are predicted correctly, 0..1; None without images.
        precision: Share of the images predicted as this class that belong to it, 0..1; None if there are none.
        taken_for: Most frequent wrong predictions for its images, such as `scratches (3), patches (1)`.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None
    taken_for: str


@dataclass(frozen=True)
class HeatMap:
    """Hold the confusion matrix of a few classes.

    Attributes:
        names: Class names of the rows and columns.
        cells: One row per label, with (images, share 0..1 of the label's images) by predicted class.
        others: By label, the number of images predicted as a class that is not shown.
    """

    names: tuple[str, ...]
    cells: tuple[tuple[tuple[int, float], ...], ...]
    others: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """Hold the results of the choice or the baseline by class.

    Attributes:
        what: `choice` or `baseline`.
        candidate: Description of the candidate.
        split: Split whose images were predicted.
        shown: Rows of the shown classes.
        classes: Number of all classes.
        matrix: Confusion matrix of the shown classes.
    """

    what: str
    candidate: str
    split: str
    shown: tuple[ClassRow, ...]
    classes: int
    matrix: HeatMap


def by_class(result: Result) -> list[ClassReport]:
    """Return the results of choice and baseline by class, on the test images or else on the validation images.

    Of more than `ALL` classes, the `WORST` by recall are shown. The list is empty if confusions were not recorded.
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
    """Return the accuracy on the test images, or on the validation images if there is no test result."""
    return (measurement.test or measurement.accuracy) if measurement else None


def class_warnings(result: Result) -> list[str]:
    """Return one line if the choice misses classes: their recall is 0, or below the median class by more than noise."""
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
        f"Classes that the choice rarely recognises ({accuracy.split} images; median recall {middle:.0f} %): "
        f"{', '.join(told)}{more}.{advice}"
    ]


def summary(accuracy: Accuracy, names: Sequence[str]) -> dict[str, object]:
    """Return the scores by class as plain values; empty if confusions were not recorded.

    Args:
        accuracy: A result on one split.
        names: Class names by index.
    """
    confusion = accuracy.confusion
    if confusion is None:
        return {}
    rows = zip(confusion.counts, confusion.recalls(), confusion.precisions(), strict=True)
    return {
        "balanced": confusion.score_balanced()[0],
        "macro_f1": confusion.macro_f1()[0],
        "by_class": [
            {"class": class_name(names, place), "images": images, "recall": recall, "precision": precision}
            for place, (images, recall, precision) in enumerate(rows)
        ],
    }


def class_name(names: Sequence[str], place: int) -> str:
    """Return a class's name, or its number if it has no name.

    Args:
        names: Class names by index.
        place: Index of the class.
    """
    return names[place] if place < len(names) else f"class {place}"


def _by_class(
    what: str, measurement: Measurement, accuracy: Accuracy, confusion: Confusion, names: Sequence[str]
) -> ClassReport:
    classes = len(confusion.counts)
    places = list(range(classes)) if classes <= ALL else worst(confusion, WORST)
    recalls, precisions = confusion.recalls(), confusion.precisions()
    rows = [
        ClassRow(
            name=class_name(names, place),
            images=confusion.counts[place],
            recall=recalls[place],
            precision=precisions[place],
            taken_for=", ".join(
                f"{class_name(names, other)} ({n})" for other, n in [*iter_mistakes(confusion, place)][:TAKEN]
            ),
        )
        for place in places
    ]
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
