"""Puts the rooms together for one run: opens what is needed, searches, finishes, closes."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from evaluators.data.dataset import Dataset
from evaluators.data.loading import open_dataset
from evaluators.data.resizing import RESIZES
from evaluators.device_evaluator import DeviceEvaluator, EvaluatorConfig, keep_block
from evaluators.device_probes import DeviceProbes
from evaluators.device_space import cut_to
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.measurement import Block, Measurement, WallTime
from evaluators.rounding_evaluator import RoundingEvaluator
from evaluators.timing.latency import TimingRules, calibrate
from evaluators.timing.reference_model import IMAGE_PX as REFERENCE_PX
from evaluators.timing.reference_model import no_reference, reference_model
from evaluators.timing.reference_pace import ReferencePace
from evaluators.timing.sample_log import SAMPLES, SampleLog
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.augmentation import describe, switches
from evaluators.training.jobs import LadderConfig, recipe_for
from evaluators.training.onnx_teacher import OnnxClassifier, open_models
from evaluators.training.time_allowance import TimeAllowance
from evaluators.training.worker_process import Worker
from remote.connect import connect
from remote.device import Capabilities, Device, Facts
from remote.errors import CandidateError, DeviceConfigError, DeviceError
from remote.files import write_file
from remote.inventory.setup_commands import prepare_device
from remote.link.reply_parsing import clean, parse_sensors, printable
from remote.link.retrying_session import Incident, RetryingSession, RetryPolicy
from remote.link.session import Job
from search.bayesopt.observations import PriorRun
from search.engines import serial
from search.pipeline.channel_steps import ChannelStepProbe, ProbeBudget
from search.pipeline.parent_sizes import ParentSizes
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.result import Result
from search.runs import table_run
from search.runs.model_restoration import make_remeasure, make_void, restore_chosen_model
from search.runs.network_checks import check_networks, judge_models, read_families
from search.runs.run_directory import code_version, command, lock_run_directory, open_cache
from search.runs.run_state import describe_device, hold_to_state
from search.runs.time_budget import REPORT_S, SEEING_S, brief_epochs, limits_of, probing_s
from search.runs.warm_start import read_earlier
from search.sampling.optuna_study import open_study, record_corrections, samplers
from search.selection.finalists import SearchOutcome, finish
from search.selection.screened import early_stops, looks, screened_candidates
from search.settings import Settings, SettingsError
from search.storage.cached_evaluator import CachedEvaluator, CachedInspector
from search.storage.ledger import Ledger
from spaces.candidate import UnbuildableError
from spaces.family_files import is_file, is_fixed, label, split
from spaces.judgement import WeightsReport
from spaces.space import Space, add_families, add_models, load

LOOK_SHARE, LOOK_S = 0.02, 3.0  # of a time limit, and at least, after which a disturbed timing is not repeated
PROBING_S = 120.0  # that a failing device is waited for before the search has begun
VERSIONS = ("edgefront", "optuna", "torch", "torchvision", "torch-pruning", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class RunResources:
    """What one run has open."""

    settings: Settings
    folder: Path
    dataset: Dataset
    device: Device
    session: RetryingSession
    facts: Facts
    able: Capabilities
    space: Space
    ledger: Ledger
    watch: Stopwatch
    worker: Worker
    view: ProgressView
    earlier: PriorRun | None  # run that the sampler starts from
    given: Mapping[str, OnnxClassifier]  # the user's own classifiers, by family
    weights: WeightsReport | None  # which of the user's weights the networks start from
    runtime_mb: dict[str, float] = field(default_factory=dict)  # by runtime, before any model was loaded


# Is given the result, the choice's preprocessing and the class names while no other process may use the run folder.
Publish = Callable[[Result, dict[str, Any], tuple[str, ...]], None]


def run(settings: Settings, console: Console, publish: Publish) -> Result:
    """The result, after it was published."""
    if settings.table is not None:
        return table_run.run(settings, console, lambda result: publish(result, {}, ()))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = Path(settings.out)
    if settings.sampler not in samplers():
        raise SettingsError(f"no sampler {settings.sampler!r}; there are {', '.join(samplers())}")
    with ExitStack() as stack:
        watch = Stopwatch()
        cache = stack.enter_context(open_cache(settings))
        dataset = open_dataset(settings.data, settings.seed, cache, resize=settings.resize)
        if settings.weights not in (None, "none") and not Path(settings.weights).is_dir():
            raise SettingsError(
                f"no folder {settings.weights}: --weights takes the folder that weight files lie in, named like their "
                "networks (mobilenet_v2.pth), or none"
            )
        space = load(settings.space or ("tiny" if max(dataset.sizes[0]) <= 64 else "edge"))
        space = add_families(space, settings.family)
        # the run's folder is not this run's yet, so its log lies elsewhere at first
        log = Path(stack.enter_context(TemporaryDirectory())) / "worker.log"
        views: list[ProgressView] = []  # there is none yet while networks are checked and the device is probed
        worker = stack.enter_context(Worker(log, on_retry=partial(_log, views, console)))
        worker.start()
        space = read_families(space, dataset, worker)
        given = open_models([*space.models, *settings.model], dataset.classes)
        space = add_models(space, {family: model.image_px for family, model in given.items()})
        weights = check_networks(space, settings, dataset, worker)
        console.print(f"connecting to {settings.device}", highlight=False, markup=False)
        tell = partial(_tell, settings.device, views, console)
        session, device, _ = connect(settings.device, on_event=tell)
        stack.enter_context(session)
        facts = session.facts
        stack.enter_context(prepare_device(device, facts))
        asking = RetryingSession(
            session, RetryPolicy(patience_s=PROBING_S), lambda hitch: console.print(hitch.reason, markup=False)
        )
        probes = DeviceProbes(asking, facts, cache / "probes", device.workspace_mb or 256)
        space, able = cut_to(space, facts, device.runtime or "", probes)
        judge_models(given, able, len(dataset.classes), worker)
        earlier = None
        if settings.warm_start:
            say = partial(_log, views, console)
            earlier = read_earlier(Path(settings.warm_start), space, settings.metric, say)
        settings = stack.enter_context(lock_run_directory(folder, settings))
        ledger = Ledger(folder / "ledger.jsonl")
        stack.callback(ledger.close)
        is_known = hold_to_state(ledger, _state(settings, dataset, facts, space), watch.wall_s())
        view: ProgressView = stack.enter_context(
            ProgressView(console, settings.budget(), settings.trials_max(), settings.time_limit_s)
        )
        views.append(view)
        if not is_known:
            view.log("begun by a version that did not record data and device: they are taken to be the same")
        worker.keep_log(folder / "worker.log")
        patient = RetryingSession(session, on_incident=lambda incident: _note(incident, ledger, watch, view))
        open_now = (patient, facts, able, space, ledger, watch, worker, view)
        rooms = RunResources(settings, folder, dataset, device, *open_now, earlier, given, weights)
        result, preprocessing, classes = _search_device(rooms, started)
        view.doing("writing the report")
        publish(result, preprocessing, classes)
        return result


def _tell(device: str, views: list[ProgressView], console: Console, event: dict[str, Any]) -> None:
    """Show an event of the device: in the view, or as a line before there is one."""
    line, lasts = "", False
    if event.get("event") == "waiting":
        holder = clean(str(event.get("holder", "")), 100)
        line = f"waiting for {device}: in use by {holder or 'another session'}"
    elif event.get("event") == "note":
        line, lasts = f"{device}: {clean(str(event.get('text', '')), 300)}", True
    elif event.get("event") == "building":
        line = f"building an engine on {device}"
    elif event.get("event") == "received":
        line = f"sending to {device}: {parse_sensors(event).get('bytes', 0.0) / 1e6:.1f} MB"
    if line and views:
        (views[0].log if lasts else views[0].doing)(line)
    elif line:
        console.print(line, highlight=False, markup=False)


def _log(views: list[ProgressView], console: Console, line: str) -> None:
    """Log a line in the view, or print it before there is one."""
    if views:
        views[0].log(line)
    else:
        console.print(line, highlight=False, markup=False)


def _note(incident: Incident, ledger: Ledger, watch: Stopwatch, view: ProgressView) -> None:
    """Counts a failure that was survived, for the report."""
    view.log(f"device: {incident.reason}; tried again")
    number = sum(1 for _ in ledger.entries("incident"))
    ledger.put("incident", str(number), asdict(incident), {}, watch.wall_s())


def _search_device(rooms: RunResources, started: str) -> tuple[Result, dict[str, Any], tuple[str, ...]]:
    settings, view = rooms.settings, rooms.view
    judged = rooms.weights.lines() if rooms.weights else ()
    for line in (*rooms.dataset.left_out, f"data: {rooms.dataset.note}", *judged):
        view.log(line)
    rooms.worker.ready()
    allowance = TimeAllowance()
    setup, restless = _setup(rooms, allowance)
    board = DeviceEvaluator(
        setup, rooms.session, worker=rooms.worker, dataset=rooms.dataset, watch=rooms.watch, doing=view.doing
    )
    weights = board.parents.weights_used(name for names in rooms.space.trained.values() for name in names)
    hold_to_state(rooms.ledger, {"weights": weights}, rooms.watch.wall_s())
    plainly = CachedEvaluator(board, rooms.ledger, rooms.watch, setup.yardstick.of)
    board.start_px = ParentSizes(plainly, rooms.ledger, rooms.space, settings.budget(), rooms.watch.wall_s).of
    limits = limits_of(settings, rooms.ledger, rooms.watch, allowance)
    steps = _steps(rooms, plainly, limits)
    built = RoundingEvaluator(board, steps.rounding)
    evaluator = CachedEvaluator(built, rooms.ledger, rooms.watch, setup.yardstick.of)
    study = open_study(
        rooms.folder,
        settings.sampler,
        seed=settings.seed_of_sampler(),
        space=rooms.space,
        budget=settings.budget(),
        earlier=rooms.earlier,
    )
    gates = StageLimits(
        budget=settings.budget(),
        rungs=settings.rungs,
        brief_epochs=brief_epochs(settings),
        less_cut=rooms.space.less_cut,
    )
    searched = serial.run(study, rooms.space, evaluator=evaluator, gates=gates, limits=limits, view=view)
    plain = frozenset(rooms.space.parents())
    sees = CachedInspector(built, rooms.ledger, rooms.watch)
    looked = looks(rooms.space, rooms.ledger, searched.measurements, settings.budget())

    def has_time() -> bool:
        return limits.seconds_left() > REPORT_S + SEEING_S

    ending = restore_chosen_model(
        searched.measurements,
        lambda known: finish(
            known,
            evaluator,
            budget=settings.budget(),
            plain=plain,
            tell=view.doing,
            sees=sees,
            looks=looked,
            has_time=has_time,
        ),
        built,
        make_remeasure(evaluator, gates, view.doing),
        make_void(rooms.ledger, rooms.watch, view.log),
    )
    record_corrections(study, ending.measurements)
    stops = early_stops([*ending.measurements, *looked], rooms.ledger)
    data = rooms.dataset
    warnings = [
        *rooms.dataset.left_out,
        *(_scratch(board) if data.kind != "digits" else []),
        *([restless] if restless else []),
        *_unfolded(ending.measurements),
        *(m.agreement.warning(m.candidate.describe()) for m in ending.measurements if m.agreement),
    ]
    used = {"weights": rooms.weights.describe()} if rooms.weights else {}
    used |= {f"model {label(family)}": model.provenance() for family, model in rooms.given.items()}
    told = (
        {"teacher": board.teaching()} | used | {f"channels of {name}": line for name, line in steps.describe().items()}
    )
    result = _result(
        rooms,
        ending,
        stops=stops,
        setup=setup,
        started=started,
        told=told,
        warnings=tuple(filter(None, dict.fromkeys(warnings))),
    )
    preprocessing = board.preprocessing(ending.choice.candidate) if ending.choice else {}
    return result, preprocessing, rooms.dataset.classes


def _state(settings: Settings, dataset: Dataset, facts: Facts, space: Space) -> dict[str, Any]:
    """Return what the measurements of a run depend on beside their keys."""
    runtimes = {str(name): facts.runtimes[str(name)] for name in space.axes["runtime"]}
    augment = switches(settings.augment)
    recipe = recipe_for(
        dataset,
        settings.seed,
        parent_epochs=settings.parent_epochs,
        distillation=settings.distillation,
        temperature=settings.temperature,
        augment=augment,
    )
    own = {label(family): split(family)[1] for family in space.variants if is_file(family)}
    state = {"data": dataset.digest, **describe_device(facts, runtimes), "recipe": asdict(recipe)}
    fixed = {label(family): split(family)[1] for family in space.variants if is_fixed(family)}
    return state | ({"families": own} if own else {}) | ({"models": fixed} if fixed else {})


def _steps(rooms: RunResources, evaluator: CachedEvaluator, limits: serial.Limits) -> ChannelStepProbe:
    """What is known of the device's steps, and how more of it is found out."""
    settings, folder = rooms.settings, Path(rooms.settings.cache).expanduser() / "steps" / rooms.facts.fingerprint()
    terms = ProbeBudget(lambda: probing_s(settings, limits), folder)
    return ChannelStepProbe(
        evaluator, rooms.ledger, watch=rooms.watch, space=rooms.space, terms=terms, tell=rooms.view.doing
    )


def _scratch(board: DeviceEvaluator) -> list[str]:
    """A warning for every parent that had no weights to start from."""
    return [
        f"{variant} was trained from scratch: more accurate with pretrained weights (--weights DIR)"
        for variant, start in board.parents.starts.items()
        if start.startswith("none")
    ]


def _unfolded(measurements: Sequence[Measurement]) -> list[str]:
    """Return a warning for every network whose branches could not be folded, and so are timed and deployed."""
    why: dict[str, str] = {}
    for one in measurements:
        told = [found.unfolded for found in (one.structure, one.accuracy) if found is not None and found.unfolded]
        if told:
            why.setdefault(one.candidate.variant, told[0])
    return [f"{variant} runs with its branches, slower than it could: {reason}" for variant, reason in why.items()]


def _calm(rooms: RunResources, runtime: str, rules: TimingRules, workspace_mb: int) -> tuple[float, str]:
    """Milliseconds of the reference in a runtime on the calm device, and why it may not have been calm.

    Raises UnknownDevice where no file can be made for the runtime, DeviceError where the device can't run it.
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
        keep_block(samples, f"reference {runtime}", block)
    rooms.runtime_mb[runtime] = min(block.runtime_mb for block in blocks)
    known = rooms.ledger.get("calibration", runtime)
    if known is not None:  # one yardstick a run: what was timed before must stay comparable
        return known.value["reference_ms"], restless
    calm = {"reference_ms": reference_ms, "restless": restless}
    rooms.ledger.put("calibration", runtime, calm, rooms.watch.lap(), rooms.watch.wall_s())
    return reference_ms, restless


def _record_device_change(rooms: RunResources, runtime: str, old_ms: float, new_ms: float) -> None:
    """Write down that the device has changed for good."""
    pace = "faster" if new_ms < old_ms else "slower"
    rooms.view.log(f"the device is {pace} than when the run began: reference {new_ms:.3g} ms, it was {old_ms:.3g}")
    calm = {"reference_ms": new_ms, "restless": ""}
    rooms.ledger.put("calibration", runtime, calm, {}, rooms.watch.wall_s())


def _reference(rooms: RunResources, runtime: str) -> Path:
    """The reference model as a file that the runtime reads."""
    path = rooms.folder / "reference.onnx"
    write_file(path, reference_model())
    return for_runtime(path, needs(runtime), REFERENCE_PX, rooms.folder)


def _setup(rooms: RunResources, allowance: TimeAllowance) -> tuple[EvaluatorConfig, str]:
    """What the evaluator needs, and why the device was not calm when the reference was timed; mostly empty."""
    settings, rules = rooms.settings, TimingRules()
    if settings.time_limit_s is not None:
        rules = replace(rules, repeat_seconds_max=max(LOOK_S, LOOK_SHARE * settings.time_limit_s))
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
        cache=Path(settings.cache).expanduser(),
        able=rooms.able,
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
        weights=None if settings.weights in (None, "none") else Path(settings.weights),
        download=settings.weights is None,
        parent_epochs=settings.parent_epochs,
        variants=_first(rooms.space, settings.trials),
        teacher=settings.teacher,
        distillation=settings.distillation,
        temperature=settings.temperature,
        parent_px={family: rooms.space.parent_px(family) for family in rooms.space.trained},
        given=rooms.given,
        seed=settings.seed,
        augment=switches(settings.augment),
        simulated=rooms.facts.simulated,
        metric=settings.metric,
        ladder=LadderConfig(allowed_drop=settings.int8_drop, qat_epochs=settings.qat_epochs),
        allowance=allowance,
    )
    return setup, f"the device was not calm at the start: {restless}" if restless else ""


def _first(space: Space, trials: int | None) -> dict[str, tuple[str, ...]]:
    """The networks whose parents the first trials train, by family."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for parent in [parent for parent in space.parents() if not parent.fixed][:trials]:
        found[parent.family] += (parent.variant,)
    return dict(found)


def _result(
    rooms: RunResources,
    ending: SearchOutcome,
    stops: tuple[int, int],
    setup: EvaluatorConfig,
    started: str,
    told: dict[str, str],
    warnings: tuple[str, ...],
) -> Result:
    settings, facts, ledger, data = rooms.settings, rooms.facts, rooms.ledger, rooms.dataset
    wall = ledger.earlier_wall_s() + rooms.watch.wall_s()
    kinds = {
        k: ledger.spent_s(k) + rooms.watch.spent_s.get(k, 0.0) for k in ("structure", "timing", "training", "scoring")
    }
    kinds["training"] += ledger.spent_s("parents") + rooms.watch.spent_s.get("parents", 0.0)
    return Result(
        folder=rooms.folder,
        command=command(settings),
        started=started,
        budget=settings.budget(),
        device={
            "name": settings.device,
            **({"simulated": "yes: every latency comes from a model of a device"} if facts.simulated else {}),
            **({"board": facts.board} if facts.board else {}),
            "cpu": facts.cpu,
            **({"gpu": f"{facts.gpu.name} (sm {facts.gpu.sm})"} if facts.gpu else {}),
            **({"system": facts.release} if facts.release else {}),
            "cores": str(facts.cores),
            "memory": f"{facts.memory_mb} MB",
            "runtime": ", ".join(f"{name} {version}" for name, version in setup.versions.items()),
            "precisions": ", ".join(rooms.able.precisions),
            **{f"no {precision}": why for precision, why in rooms.able.why_not.items()},
            **{f"{name} known by": how for name, how in rooms.able.basis.items() if name in rooms.able.precisions},
        },
        data={
            "set": printable(settings.data),
            "classes": ", ".join(data.classes),
            **{f"{name} images": str(len(split.labels)) for name, split in data.splits.items()},
            "split": data.note,
            "resize": RESIZES[data.resize],
            "augmentation": describe(switches(settings.augment)),
        },
        provenance={
            "fingerprint": facts.fingerprint(),
            "kernel": facts.kernel,
            "python": platform.python_version(),
            **{name: version(name) for name in VERSIONS},
            "code": code_version(),
            "data digest": data.digest,
            "seed": str(settings.seed),
            "sampler": settings.sampler,
            "space": f"{rooms.space.name}, {rooms.space.size():,} candidates",
            **told,
        },
        measurements=ending.measurements,
        front=ending.front,
        choice=ending.choice,
        baseline=ending.baseline,
        miss=ending.miss,
        seconds=WallTime(**kinds, wall=wall),
        reference_ms=setup.yardstick.of(next(iter(setup.versions))),
        trials_asked=settings.trials_max(),
        classes=tuple(data.classes),
        screened_candidates=tuple(screened_candidates(rooms.space, ledger, ending.measurements, settings.budget())),
        early_stops=stops,
        warnings=warnings,
        incidents=tuple(Counter(entry.value["kind"] for entry in ledger.entries("incident")).most_common()),
    )
