"""Compute scores by class from the number of images of each class and from their wrong predictions.

The definitions are scikit-learn's (`recall_score`, `precision_score`, `balanced_accuracy_score`, `f1_score`), which
takes a second to import: a class without images counts in no recall, one that neither has images nor was predicted in
no F1, and 0 / 0 is 0. The matrix is sparse: a thousand classes make a million cells, most of them empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

Error = tuple[int, int, int]  # label, predicted class, images
PRIOR = 2.0  # correct predictions, and as many wrong ones, added to each class for its error bar (Agresti-Coull)
BEHIND = 3.0  # standard errors that a class's recall may lie below the median class before it is reported
BEHIND_LEAST = 0.2  # minimum distance below the median class before it is reported, 0..1


@dataclass(frozen=True)
class Confusion:
    """Hold a sparse confusion matrix.

    Attributes:
        counts: Images by class.
        errors: Misclassified images, by label and predicted class.
    """

    counts: tuple[int, ...]
    errors: tuple[Error, ...]

    @cached_property
    def right(self) -> tuple[int, ...]:
        """Return the number of correctly classified images, by class."""
        right = list(self.counts)
        for label, _, count in self.errors:
            right[label] -= count
        return tuple(right)

    @cached_property
    def predicted(self) -> tuple[int, ...]:
        """Return the number of images that were predicted as each class."""
        given = [*self.right]
        for _, taken, count in self.errors:
            given += [0] * (taken + 1 - len(given))
            given[taken] += count
        return tuple(given)

    def recalls(self) -> tuple[float | None, ...]:
        """Return the share of each class's images that were classified correctly; None for a class without images."""
        return tuple(right / count if count else None for right, count in zip(self.right, self.counts, strict=True))

    def precisions(self) -> tuple[float | None, ...]:
        """Return the share of the images predicted as each class that belong to it; None without predictions."""
        given = self.predicted[: len(self.counts)]
        return tuple(right / count if count else None for right, count in zip(self.right, given, strict=True))

    def score_balanced(self) -> tuple[float, float]:
        """Return the mean recall over classes that have images, and its standard error.

        The error is that of a sum of independent shares, each Agresti-Coull, so that 0 and 1 do not imply certainty.
        """
        pairs = [(right, count) for right, count in zip(self.right, self.counts, strict=True) if count]
        if not pairs:
            return 0.0, 0.0
        spread = [_share_variance(right, count) for right, count in pairs]
        return sum(right / count for right, count in pairs) / len(pairs), sqrt(sum(spread)) / len(pairs)

    def macro_f1(self) -> tuple[float, float]:
        """Return the mean F1 over classes that have images or were predicted, and its standard error (delta method)."""
        given = self.predicted
        beyond = [0] * (len(given) - len(self.counts))  # outputs of a network beyond the classes of the data set
        counts, right = [*self.counts, *beyond], [*self.right, *beyond]
        f1 = [2 * hit / (n + g) for hit, n, g in zip(right, counts, given, strict=True) if n + g]
        if not f1:
            return 0.0, 0.0
        return sum(f1) / len(f1), self._macro_f1_error(counts, given, right, len(f1))

    def behind(self) -> tuple[int, ...]:
        """Return the classes whose recall is 0 or below the median class's by more than noise, worst first."""
        known = [(recall, place) for place, recall in enumerate(self.recalls()) if recall is not None]
        if len(known) < 2:
            return ()
        middle = sorted(recall for recall, _ in known)[len(known) // 2]

        def far(recall: float, place: int) -> bool:
            error = sqrt(_share_variance(self.right[place], self.counts[place]))
            return recall == 0 or middle - recall > max(BEHIND_LEAST, BEHIND * error)

        return tuple(place for recall, place in sorted(known) if far(recall, place))

    def _macro_f1_error(self, counts: Sequence[int], given: Sequence[int], right: Sequence[int], over: int) -> float:
        """Return the standard error of the mean F1 over `over` classes; the images of a class are one multinomial draw.

        Each class gets `PRIOR` additional correct predictions and as many wrong ones, spread over all others: without
        them, a matrix without errors would have no error bar.
        """
        size = len(counts)
        if size < 2:
            return sqrt(_share_variance(sum(right), sum(counts)))
        prior = [PRIOR if count else 0.0 for count in counts]
        stray = [wrong / (size - 1) for wrong in prior]  # to each other class
        strays = sum(stray)
        rows = [count + 2 * wrong for count, wrong in zip(counts, prior, strict=True)]
        hits = [hit + more for hit, more in zip(right, prior, strict=True)]
        # pull: F1 that one more wrong image costs its class, and the class that it is predicted as
        pull, gain = [], []
        for place in range(size):
            column = given[place] + prior[place] + strays - stray[place]
            whole = (rows[place] + column) or 1.0
            f1 = 2 * hits[place] / whole
            pull.append(f1 / whole)
            gain.append(2 * (1 - f1) / whole)  # F1 that one more correct image adds
        pulls, squares = sum(pull), sum(slope**2 for slope in pull)
        # by row: sums over its cells of images x gradient, and of images x gradient squared
        first, second = [], []
        for place, own in enumerate(pull):
            others, squared = pulls - own, squares - own**2
            first.append(hits[place] * gain[place] - stray[place] * ((size - 1) * own + others))
            second.append(
                hits[place] * gain[place] ** 2 + stray[place] * ((size - 1) * own**2 + 2 * own * others + squared)
            )
        for label, taken, count in self.errors:
            slope = pull[label] + pull[taken]
            first[label] -= count * slope
            second[label] += count * slope**2
        variance = sum(two - one**2 / row for one, two, row in zip(first, second, rows, strict=True) if row)
        return sqrt(max(0.0, variance)) / over


def worst(confusion: Confusion, most: int) -> list[int]:
    """Return the classes that have images, lowest recall first.

    Args:
        confusion: Confusion matrix.
        most: Maximum number of classes.
    """
    known = [(recall, place) for place, recall in enumerate(confusion.recalls()) if recall is not None]
    return [place for _, place in sorted(known)[:most]]


def iter_mistakes(confusion: Confusion, label: int) -> Iterator[tuple[int, int]]:
    """Iterate over the wrong predictions for one class, most frequent first.

    Args:
        confusion: Confusion matrix.
        label: Index of the class.

    Returns:
        Iterator over (predicted class, images).
    """
    wrong = [(taken, count) for of, taken, count in confusion.errors if of == label]
    return iter(sorted(wrong, key=lambda pair: (-pair[1], pair[0])))


def errors_from_json(data: Sequence[Sequence[int]]) -> tuple[Error, ...]:
    """Restore errors that JSON turned into lists."""
    return tuple((int(label), int(taken), int(count)) for label, taken, count in data)


def _share_variance(right: float, count: float) -> float:
    share = (right + PRIOR) / (count + 2 * PRIOR)
    return float(share * (1 - share) / (count + 2 * PRIOR))
