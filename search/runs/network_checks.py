"""Check the networks of a space and their weights at the start of a run, in the process that has torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluators.data.dataset import DataError, Dataset
from evaluators.fault_attribution import WorkerError, death
from evaluators.training.onnx_teacher import OnnxClassifier
from evaluators.training.worker_process import Worker
from remote.device import Capabilities
from search.settings import Settings
from spaces.family_files import is_file, split
from spaces.judgement import WeightsReport
from spaces.space import Space, SpaceError, fill_families

CHECK_S_MAX = 600.0  # building and filling every network of a space once


def read_families(space: Space, dataset: Dataset, worker: Worker) -> Space:
    """Return the space with the networks of the user's family files, each of which was built and run.

    Raises SpaceError where one can't be used.
    """
    found = {}
    for family in filter(is_file, space.variants):
        asked = family, space.variants[family], space.values(family, "image_px"), len(dataset.classes)
        try:
            found[family] = worker.call("spaces.family_judgement:judge_family", *asked, timeout_s=CHECK_S_MAX)
        except WorkerError as error:  # it ended its process, or takes for ever
            code = getattr(error, "code", None)
            why = f"trying it {death(code)}" if code is not None else error
            raise SpaceError(f"family file {split(family)[0]} can't be used: {why}") from None
    return fill_families(space, found)


def judge_models(given: Mapping[str, OnnxClassifier], able: Capabilities, classes: int, worker: Worker) -> None:
    """Raise DataError for one of the user's classifiers that can't run on the device."""
    for model in given.values():
        asked = model, classes, able.opset_max, able.runtimes
        try:
            worker.call("evaluators.given:judge_model", *asked, timeout_s=CHECK_S_MAX)
        except WorkerError as error:  # it ended its process, or takes for ever
            raise DataError(f"model {model.file} can't be used: {error}") from None


def check_networks(space: Space, settings: Settings, dataset: Dataset, worker: Worker) -> WeightsReport | None:
    """Return which weights the networks start from; None where no folder of weights is given.

    Raises:
        SpaceError: a name of the space is no network's.
        WeightsError: a SpaceError; a file can't be used, or the folder has nothing for this space.
    """
    worker.call("spaces.network:check_names", space.name, dict(space.trained), timeout_s=CHECK_S_MAX)
    if settings.weights in (None, "none"):
        return None
    sizes = {family: space.parent_px(family) for family in space.trained}
    judgement: WeightsReport = worker.call(
        "spaces.weights:judge",
        dict(space.trained),
        Path(str(settings.weights)),
        sizes,
        len(dataset.classes),
        timeout_s=CHECK_S_MAX,
    )
    return judgement
