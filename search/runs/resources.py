"""Open the resources of one run on a device, and close them however the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from evaluators.data.dataset import Dataset, cap_validation
from evaluators.data.loading import open_dataset
from evaluators.device_probes import DeviceProbes
from evaluators.device_space import cut_to
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.augmentation import switches
from evaluators.training.jobs import TrainingRecipe, recipe_for
from evaluators.training.onnx_teacher import OnnxClassifier, open_models
from evaluators.training.worker_process import Worker
from remote.connect import connect
from remote.device import Capabilities, Device, Facts
from remote.inventory.resolve import load_device
from remote.inventory.setup_commands import prepare_device
from remote.link.reply_parsing import clean, parse_sensors
from remote.link.retrying_session import Incident, RetryingSession, RetryPolicy
from remote.link.session import Session
from search.bayesopt.observations import PriorRun
from search.progress import ProgressView
from search.runs.network_checks import check_networks, judge_models, read_families
from search.runs.run_directory import lock_run_directory, open_cache
from search.runs.run_state import describe_device, hold_to_state
from search.runs.warm_start import read_earlier
from search.sampling.optuna_study import samplers
from search.settings import Settings, SettingsError
from search.storage.ledger import Ledger
from spaces.family_files import is_file, is_fixed, label, split
from spaces.space import Space, add_families, add_models, load
from spaces.weights_report import WeightsReport

PROBING_S = 120.0  # seconds to wait for a failing device before the search begins


@dataclass(frozen=True, kw_only=True)
class RunResources:
    """Hold the open resources of one run.

    Attributes:
        settings: Settings that the run folder holds.
        folder: Run folder.
        dataset: Data set of the run.
        device: Configuration of the device.
        session: Session with the device, which retries failures.
        facts: Facts that the device reported.
        able: Capabilities of its runtimes.
        space: Search space, restricted to the capabilities of the device.
        ledger: Ledger of the run.
        watch: Stopwatch of the session.
        worker: Process that imports torch and trains.
        view: Display of the progress.
        earlier: Earlier run for a warm start; None without one.
        given: The user's own classifiers, by family.
        weights: Report on which of the user's weights the networks start from; None without a folder of weights.
        runtime_mb: Memory in MB of each runtime before any model is loaded.
    """

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
    earlier: PriorRun | None
    given: Mapping[str, OnnxClassifier]
    weights: WeightsReport | None
    runtime_mb: dict[str, float] = field(default_factory=dict)

    @property
    def recipe(self) -> TrainingRecipe:
        """Return the training recipe with the changes that the settings make to it."""
        return _recipe(self.settings, self.dataset)


@contextmanager
def open_resources(settings: Settings, console: Console) -> Iterator[RunResources]:
    """Context manager that opens data, space, device and run folder, and closes them on exit.

    The user's input is checked from cheap to expensive: names, files, then what needs torch or the device.

    Args:
        settings: Settings of this call.
        console: Console for messages until the run's own view exists.

    Yields:
        The open resources, with the settings that the run folder holds.

    Raises:
        UserError: A setting or a file of the user is invalid.
        DeviceError: The device can't be reached.
        HostError: This machine has no disk space or memory left.
    """
    _check_names(settings)
    with ExitStack() as stack:
        watch, folder = Stopwatch(), Path(settings.out)
        cache = stack.enter_context(open_cache(settings))
        dataset = _open_data(settings, cache)
        space = _load_space(settings, dataset)
        given = open_models([*space.models, *settings.model], dataset.classes)
        views: list[ProgressView] = []  # empty while networks are checked and the device is probed
        say = partial(_log, views, console)
        worker = stack.enter_context(_start_worker(say))
        say(f"connecting to {settings.device}, checking networks meanwhile")
        session, device, _ = connect(settings.device, on_event=partial(_tell, settings.device, views, console))
        stack.enter_context(session)
        space, weights = _check_networks(settings, space, given, dataset, worker)
        stack.enter_context(prepare_device(device, session.facts))
        space, able = _restrict_space(space, session, device, cache, say)
        judge_models(given, able, len(dataset.classes), worker)
        earlier = _read_earlier(settings, space, say)
        settings = stack.enter_context(lock_run_directory(folder, settings))
        ledger = stack.enter_context(closing(Ledger(folder / "ledger.jsonl")))
        is_known = hold_to_state(ledger, _state(settings, dataset, session.facts, space), watch.wall_s())
        view = stack.enter_context(_open_view(settings, console))
        views.append(view)
        if not is_known:
            view.log("this run has no record of its data and device (older version); they are assumed to be the same")
        worker.keep_log(folder / "worker.log")
        yield RunResources(
            settings=settings,
            folder=folder,
            dataset=dataset,
            device=device,
            session=RetryingSession(session, on_incident=lambda incident: _note(incident, ledger, watch, view)),
            facts=session.facts,
            able=able,
            space=space,
            ledger=ledger,
            watch=watch,
            worker=worker,
            view=view,
            earlier=earlier,
            given=given,
            weights=weights,
        )


def _check_names(settings: Settings) -> None:
    """Refuse a wrong sampler, device name or folder of weights before anything takes time."""
    if settings.sampler not in samplers():
        raise SettingsError(f"unknown sampler {settings.sampler!r}; accepted: {', '.join(samplers())}")
    load_device(settings.device)
    if settings.weights not in (None, "none") and not Path(settings.weights).is_dir():
        raise SettingsError(
            f"no folder {settings.weights}: --weights takes the folder that weight files lie in, named like their "
            "networks (mobilenet_v2.pth), or none"
        )


def _load_space(settings: Settings, dataset: Dataset) -> Space:
    """Return the space asked for, or the one that suits the images, with the user's own families."""
    space = load(settings.space or ("tiny" if max(dataset.sizes[0]) <= 64 else "edge"))
    return add_families(space, settings.family)


@contextmanager
def _start_worker(say: Callable[[str], None]) -> Iterator[Worker]:
    """Context manager with a worker that imports torch while the device is connected.

    The run folder is not locked yet, so the worker's log is elsewhere at first.
    """
    with TemporaryDirectory() as folder, Worker(Path(folder) / "worker.log", on_retry=say) as worker:
        worker.start()
        yield worker


def _check_networks(
    settings: Settings, space: Space, given: Mapping[str, OnnxClassifier], dataset: Dataset, worker: Worker
) -> tuple[Space, WeightsReport | None]:
    """Return the space with the user's families and classifiers, and the weights that its networks start from."""
    space = read_families(space, dataset, worker)
    space = add_models(space, {family: model.image_px for family, model in given.items()})
    return space, check_networks(space, settings, dataset, worker)


def _open_view(settings: Settings, console: Console) -> ProgressView:
    return ProgressView(console, settings.budget(), settings.trials_max(), settings.time_limit_s)


def _restrict_space(
    space: Space, session: Session, device: Device, cache: Path, say: Callable[[str], None]
) -> tuple[Space, Capabilities]:
    """Return the space as the device can run it, and what its runtimes can do, after probing them."""
    asking = RetryingSession(session, RetryPolicy(patience_s=PROBING_S), lambda hitch: say(hitch.reason))
    probes = DeviceProbes(asking, session.facts, cache / "probes", device.workspace_mb or 256)
    return cut_to(space, session.facts, device.runtime or "", probes)


def _read_earlier(settings: Settings, space: Space, say: Callable[[str], None]) -> PriorRun | None:
    """Return the run that the sampler starts from; None without `--warm-start`."""
    if not settings.warm_start:
        return None
    return read_earlier(Path(settings.warm_start), space, settings.metric, say)


def _tell(device: str, views: list[ProgressView], console: Console, event: dict[str, object]) -> None:
    """Show an event of the device in the view, or print it before there is a view."""
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
    """Log a line in the view, or print it before there is a view."""
    if views:
        views[0].log(line)
    else:
        console.print(line, highlight=False, markup=False)


def _note(incident: Incident, ledger: Ledger, watch: Stopwatch, view: ProgressView) -> None:
    """Record a survived device failure for the report."""
    view.log(f"device: {incident.reason}; retried")
    number = sum(1 for _ in ledger.entries("incident"))
    ledger.put("incident", str(number), asdict(incident), {}, watch.wall_s())


def _open_data(settings: Settings, cache: Path) -> Dataset:
    """Return the data set with as many validation images as candidates are compared on."""
    dataset = open_dataset(settings.data, settings.seed, cache, resize=settings.resize)
    return cap_validation(dataset, settings.val_images, settings.seed)


def _recipe(settings: Settings, dataset: Dataset) -> TrainingRecipe:
    """Return the recipe for the data set, with the changes that the settings make to it."""
    return recipe_for(
        dataset,
        settings.seed,
        parent_epochs=settings.parent_epochs,
        distillation=settings.distillation,
        temperature=settings.temperature,
        augment=switches(settings.augment),
    )


def _state(settings: Settings, dataset: Dataset, facts: Facts, space: Space) -> dict[str, object]:
    """Return the dependencies of a run's measurements, besides their keys."""
    runtimes = {str(name): facts.runtimes[str(name)] for name in space.axes["runtime"]}
    own = {label(family): split(family)[1] for family in space.variants if is_file(family)}
    state = {"data": dataset.digest, **describe_device(facts, runtimes), "recipe": asdict(_recipe(settings, dataset))}
    fixed = {label(family): split(family)[1] for family in space.variants if is_fixed(family)}
    return state | ({"families": own} if own else {}) | ({"models": fixed} if fixed else {})
