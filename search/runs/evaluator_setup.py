"""Time the reference model on the calm device, and configure the evaluator of a run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from evaluators.device_evaluator import EvaluatorConfig
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.measurement import Block
from evaluators.stages.graph_cache import GraphConfig
from evaluators.timing.latency import TimingRules, calibrate
from evaluators.timing.reference_model import IMAGE_PX as REFERENCE_PX
from evaluators.timing.reference_model import no_reference, reference_model
from evaluators.timing.reference_pace import ReferencePace
from evaluators.timing.sample_log import SAMPLES, SampleLog
from evaluators.training.jobs import LadderConfig
from evaluators.training.parent_networks import ParentConfig
from evaluators.training.time_allowance import TimeAllowance
from remote.errors import CandidateError, DeviceConfigError, DeviceError
from remote.files import write_file
from remote.link.session import Job
from search.runs.resources import RunResources
from search.settings import SettingsError
from spaces.candidate import UnbuildableError
from spaces.space import Space

LOOK_SHARE, LOOK_S = 0.02, 3.0  # share of the time limit, and minimum, after which a timing takes no more blocks


def configure_evaluator(rooms: RunResources, allowance: TimeAllowance) -> tuple[EvaluatorConfig, str]:
    """Calibrate every runtime of the space, and return the evaluator's configuration.

    Args:
        rooms: Open resources of the run.
        allowance: Time allowance within which trainings must end.

    Returns:
        The configuration, and why the device was not calm when the reference was timed; usually empty.

    Raises:
        SettingsError: The memory limit is below the memory of a runtime alone.
        DeviceConfigError: No model file can be made for a runtime.
        DeviceError: The device can't run the reference model.
    """
    settings, rules = rooms.settings, TimingRules()
    if settings.time_limit_s is not None:
        rules = replace(rules, seconds_max=max(LOOK_S, LOOK_SHARE * settings.time_limit_s))
    workspace_mb = rooms.device.workspace_mb or 256
    runtimes = [str(name) for name in rooms.space.axes["runtime"]]
    timed = {runtime: _calm(rooms, runtime, rules, workspace_mb) for runtime in runtimes}
    if impossible := settings.budget().impossible_mb(rooms.runtime_mb):
        raise SettingsError(impossible)
    restless = next((why for _, why in timed.values() if why), "")
    state = f"disturbed: {restless}" if restless else "calm"
    kind = "SIMULATED " if rooms.facts.simulated else ""
    reference_ms = timed[runtimes[0]][0]
    rooms.view.device(rooms.device.name, f"{kind}{rooms.facts.cpu}, {state}, reference {reference_ms:.3g} ms")
    setup = EvaluatorConfig(
        folder=rooms.folder,
        parents=_configure_parents(rooms, allowance),
        graphs=GraphConfig(
            able=rooms.able,
            ladder=LadderConfig(allowed_drop=settings.int8_drop, qat_epochs=settings.qat_epochs),
            given=rooms.given,
        ),
        versions={runtime: rooms.facts.runtimes[runtime] for runtime in runtimes},
        workspace_mb=workspace_mb,
        references={runtime: rooms.session.put(_reference(rooms, runtime)) for runtime in runtimes},
        yardstick=ReferencePace(
            {runtime: reference_ms for runtime, (reference_ms, _) in timed.items()},
            rules.reference_drift_max,
            lambda runtime, old_ms, new_ms: _record_device_change(rooms, runtime, old_ms, new_ms),
        ),
        percentile=settings.percentile,
        rules=rules,
        rungs=settings.rungs,
        simulated=rooms.facts.simulated,
        metric=settings.metric,
    )
    return setup, f"the device was not calm at the start: {restless}" if restless else ""


def _configure_parents(rooms: RunResources, allowance: TimeAllowance) -> ParentConfig:
    """Return the settings that parents depend on, with the files of this run and of the cache that runs share."""
    settings, cache = rooms.settings, Path(rooms.settings.cache).expanduser()
    return ParentConfig(
        dataset=rooms.dataset,
        images=cache / "images",
        folder=cache / "parents",
        recipe=rooms.recipe,
        weights=None if settings.weights in (None, "none") else Path(settings.weights),
        download=settings.weights is None,
        variants=_first(rooms.space, settings.trials),
        parent_px={family: rooms.space.parent_px(family) for family in rooms.space.trained},
        teacher=settings.teacher,
        progress=rooms.folder / "progress.json",
        record=rooms.folder / "teacher.json",
        allowance=allowance,
        shortened=rooms.folder / "short_parents.json",
    )


def _calm(rooms: RunResources, runtime: str, rules: TimingRules, workspace_mb: int) -> tuple[float, str]:
    """Return the reference's latency in ms in a runtime on the calm device, and why the device may not have been calm.

    Raises:
        DeviceConfigError: No model file can be made for the runtime.
        DeviceError: The device can't run the reference model.
    """
    rooms.view.doing(f"timing the reference model on the calm device, {runtime}")
    blocks: list[Block] = []
    try:
        reference = rooms.session.put(_reference(rooms, runtime))
        with rooms.watch("timing"):
            job = Job(runtime=runtime, workspace_mb=workspace_mb)
            reference_ms, restless = calibrate(rooms.session, reference, job, rules, blocks.append)
    except UnbuildableError as error:
        raise DeviceConfigError(f"{rooms.device.name}: no model can be made for {runtime}: {error}") from None
    except CandidateError as error:
        raise DeviceError(no_reference(rooms.device.name, runtime, rooms.facts, error), "no_reference") from None
    samples = SampleLog(rooms.folder / SAMPLES)
    for block in blocks:
        samples.add_block(f"reference {runtime}", block)
    rooms.runtime_mb[runtime] = min(block.runtime_mb for block in blocks)
    known = rooms.ledger.get("calibration", runtime)
    if known is not None:  # one reference pace per run: earlier timings must stay comparable
        return known.value["reference_ms"], restless
    calm = {"reference_ms": reference_ms, "restless": restless}
    rooms.ledger.put("calibration", runtime, calm, rooms.watch.lap(), rooms.watch.wall_s())
    return reference_ms, restless


def _record_device_change(rooms: RunResources, runtime: str, old_ms: float, new_ms: float) -> None:
    """Record that the pace of the device has changed permanently."""
    pace = "faster" if new_ms < old_ms else "slower"
    rooms.view.log(f"the device is {pace} than when the run began: reference {new_ms:.3g} ms, it was {old_ms:.3g}")
    calm = {"reference_ms": new_ms, "restless": ""}
    rooms.ledger.put("calibration", runtime, calm, {}, rooms.watch.wall_s())


def _reference(rooms: RunResources, runtime: str) -> Path:
    """Return the reference model as a file that the runtime reads."""
    path = rooms.folder / "reference.onnx"
    write_file(path, reference_model())
    return for_runtime(path, needs(runtime), REFERENCE_PX, rooms.folder)


def _first(space: Space, trials: int | None) -> dict[str, tuple[str, ...]]:
    """Return the networks, by family, that need their parents trained for the first trials."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for parent in [parent for parent in space.parents() if not parent.fixed][:trials]:
        found[parent.family] += (parent.variant,)
    return dict(found)
