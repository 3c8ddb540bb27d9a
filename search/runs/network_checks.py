"""Check a space's networks and their weights at the start of a run, in the process that imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluators.data.dataset import DataError, Dataset
from evaluators.fault_attribution import WorkerError, death
from evaluators.training.onnx_teacher import OnnxClassifier
from evaluators.training.tasks import CHECK_NAMES, JUDGE_FAMILY, JUDGE_MODEL, JUDGE_WEIGHTS
from evaluators.training.worker_process import Worker
from remote.device import Capabilities
from search.settings import Settings
from spaces.family_files import is_file, split
from spaces.space import Space, SpaceError, fill_families
from spaces.weights_report import WeightsReport

CHECK_S_MAX = 600.0  # seconds for building and filling every network of a space once


def read_families(space: Space, dataset: Dataset, worker: Worker) -> Space:
    """Return the space with the networks of the user's family files, after building and running each.

    Args:
        space: Search space.
        dataset: Data set, which gives the number of classes.
        worker: Process that imports torch.

    Raises:
        SpaceError: A family file can't be used.
    """
    found = {}
    for family in filter(is_file, space.variants):
        asked = family, space.variants[family], space.values(family, "image_px"), len(dataset.classes)
        try:
            found[family] = worker.call(JUDGE_FAMILY, *asked, timeout_s=CHECK_S_MAX)
        except WorkerError as error:  # it ended its process, or never finishes
            code = getattr(error, "code", None)
            why = f"trying it {death(code)}" if code is not None else error
            raise SpaceError(f"family file {split(family)[0]} can't be used: {why}") from None
    return fill_families(space, found)


def judge_models(given: Mapping[str, OnnxClassifier], able: Capabilities, classes: int, worker: Worker) -> None:
    """Check that the user's classifiers can run on the device.

    Args:
        given: The user's classifiers, by family.
        able: Capabilities of the device's runtimes.
        classes: Number of classes.
        worker: Process that imports torch.

    Raises:
        DataError: A classifier can't run on the device.
    """
    for model in given.values():
        asked = model, classes, able.opset_max, able.runtimes
        try:
            worker.call(JUDGE_MODEL, *asked, timeout_s=CHECK_S_MAX)
        except WorkerError as error:  # it ended its process, or never finishes
            raise DataError(f"model {model.file} can't be used: {error}") from None


def check_networks(space: Space, settings: Settings, dataset: Dataset, worker: Worker) -> WeightsReport | None:
    """Check the names of the networks, and return which weights they start from.

    Args:
        space: Search space.
        settings: Settings of the run.
        dataset: Data set of the run.
        worker: Process that imports torch.

    Returns:
        Report on the weights; None if no folder of weights is given.

    Raises:
        SpaceError: A name in the space is no network.
        WeightsError: A file can't be used, or the folder has no weights for this space. It is a SpaceError.
    """
    worker.call(CHECK_NAMES, space.name, dict(space.trained), timeout_s=CHECK_S_MAX)
    if settings.weights in (None, "none"):
        return None
    sizes = {family: space.parent_px(family) for family in space.trained}
    return worker.call(
        JUDGE_WEIGHTS,
        dict(space.trained),
        Path(str(settings.weights)),
        sizes,
        len(dataset.classes),
        timeout_s=CHECK_S_MAX,
    )
