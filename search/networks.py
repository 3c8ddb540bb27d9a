"""Check the networks of a space and their weights at the start of a run, in the process that has torch."""

from __future__ import annotations

from pathlib import Path

from evaluators.dataset import Dataset
from evaluators.worker import Worker
from search.settings import Settings
from spaces.judgement import Judgement
from spaces.space import Space

CHECK_S_MAX = 600.0  # building and filling every network of a space once


def check_networks(space: Space, settings: Settings, dataset: Dataset, worker: Worker) -> Judgement | None:
    """Return which weights the networks start from; None where no folder of weights is given.

    Raises:
        SpaceError: a name of the space is no network's.
        WeightsError: a SpaceError; a file can't be used, or the folder has nothing for this space.
    """
    worker.call("spaces.network:check_names", space.name, dict(space.variants), timeout_s=CHECK_S_MAX)
    if settings.weights in (None, "none"):
        return None
    sizes = {family: space.parent_px(family) for family in space.variants}
    judgement: Judgement = worker.call(
        "spaces.weights:judge",
        dict(space.variants),
        Path(str(settings.weights)),
        sizes,
        len(dataset.classes),
        timeout_s=CHECK_S_MAX,
    )
    return judgement
