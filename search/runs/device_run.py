"""Run one search on a device: search, select finalists, assemble the result and publish it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from evaluators.data.resizing import Preprocessing
from evaluators.device_evaluator import DeviceEvaluator
from evaluators.measurement import Measurement, Outcome
from evaluators.rounding_evaluator import RoundingEvaluator
from evaluators.training.time_allowance import TimeAllowance
from search.engines import serial
from search.pipeline.channel_steps import ChannelStepProbe, ProbeBudget
from search.pipeline.parent_sizes import ParentSizes
from search.pipeline.stages import StageLimits
from search.result import Result
from search.runs import table_run
from search.runs.assemble_result import VERSIONS, Origin, assemble_result, describe_origin, describe_versions
from search.runs.evaluator_setup import configure_evaluator
from search.runs.model_restoration import make_remeasure, make_void, restore_chosen_model
from search.runs.resources import RunResources, open_resources
from search.runs.run_state import hold_to_state
from search.runs.time_budget import REPORT_S, SEEING_S, brief_epochs, limits_of, probing_s
from search.sampling.optuna_study import open_study, record_corrections
from search.selection.finalists import SearchOutcome, finish
from search.selection.screened import looks
from search.settings import Settings
from search.storage.cached_evaluator import CachedEvaluator, CachedInspector
from spaces.family_files import label

# Receives the result, the choice's preprocessing and the class names while the run folder is locked.
Publish = Callable[[Result, Preprocessing, tuple[str, ...]], None]


def run(settings: Settings, console: Console, publish: Publish) -> Result:
    """Search on a device or over a table, and publish the result.

    Args:
        settings: Settings of the run.
        console: Console for progress output.
        publish: Function that writes report and model.

    Returns:
        The published result.

    Raises:
        UserError: A setting or a file of the user is invalid.
        DeviceError: The connection to the device was lost, or the device can't be measured.
        HostError: This machine has no disk space or memory left.
    """
    if settings.table is not None:
        return table_run.run(settings, console, lambda result: publish(result, {}, ()))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with open_resources(settings, console) as rooms:
        result, preprocessing = _search_device(rooms, started)
        rooms.view.doing("writing the report")
        publish(result, preprocessing, rooms.dataset.classes)
        return result


def _search_device(rooms: RunResources, started: str) -> tuple[Result, Preprocessing]:
    """Return the result and the preprocessing of the choice, which is empty without a choice."""
    settings, view = rooms.settings, rooms.view
    judged = rooms.weights.lines() if rooms.weights else ()
    for line in (*rooms.dataset.left_out, f"data: {rooms.dataset.note}", *judged):
        view.log(line)
    rooms.worker.ready()
    allowance = TimeAllowance()
    config, restless = configure_evaluator(rooms, allowance)
    measuring = DeviceEvaluator(config, rooms.session, worker=rooms.worker, watch=rooms.watch, doing=view.doing)
    weights = measuring.networks.parents.weights_used(name for names in rooms.space.trained.values() for name in names)
    hold_to_state(rooms.ledger, {"weights": weights}, rooms.watch.wall_s())
    limits = limits_of(settings, rooms.ledger, rooms.watch, allowance, rooms.space.parents())
    unrounded = CachedEvaluator(measuring, rooms.ledger, rooms.watch, config.yardstick.of)
    measuring.networks.start_px = ParentSizes(
        unrounded, rooms.ledger, rooms.space, settings.budget(), rooms.watch.wall_s
    ).of
    steps = _steps(rooms, unrounded, limits)
    built = RoundingEvaluator(measuring, steps.rounding)
    evaluator = CachedEvaluator(built, rooms.ledger, rooms.watch, config.yardstick.of)
    outcome, looked = _search_and_finish(rooms, built, evaluator, limits)
    device, data = describe_origin(
        settings=settings, facts=rooms.facts, able=rooms.able, runtimes=config.versions, dataset=rooms.dataset
    )
    warnings = [*rooms.dataset.left_out, *_warnings(rooms, measuring, outcome, restless)]
    origin = Origin(
        device=device,
        data=data,
        provenance={
            "fingerprint": rooms.facts.fingerprint(),
            "kernel": rooms.facts.kernel,
            **describe_versions(settings, rooms.space, VERSIONS),
            "data digest": rooms.dataset.digest,
            "teacher": measuring.teaching(),
            **({"weights": rooms.weights.describe()} if rooms.weights else {}),
            **{f"model {label(family)}": model.provenance() for family, model in rooms.given.items()},
            **{f"channels of {name}": line for name, line in steps.describe().items()},
        },
        classes=tuple(rooms.dataset.classes),
        reference_ms=config.yardstick.of(next(iter(config.versions))),
        warnings=tuple(filter(None, dict.fromkeys(warnings))),
    )
    result = assemble_result(
        settings=settings,
        started=started,
        space=rooms.space,
        ledger=rooms.ledger,
        watch=rooms.watch,
        outcome=outcome,
        looked=looked,
        pooled=evaluator.pooled,
        origin=origin,
    )
    return result, measuring.preprocessing(outcome.choice.candidate) if outcome.choice else {}


def _search_and_finish(
    rooms: RunResources, built: RoundingEvaluator, evaluator: CachedEvaluator, limits: serial.Limits
) -> tuple[SearchOutcome, list[Measurement]]:
    """Return the outcome of the search, and the screened candidates, which never became trials."""
    settings, view = rooms.settings, rooms.view
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
    looked = looks(rooms.space, rooms.ledger, evaluator.pooled, searched.measurements, settings.budget())

    def has_time() -> bool:
        return limits.seconds_left() > REPORT_S + SEEING_S

    def finish_known(known: Sequence[Measurement]) -> SearchOutcome:
        return finish(
            known,
            evaluator,
            budget=settings.budget(),
            plain=plain,
            tell=view.doing,
            sees=sees,
            looks=looked,
            has_time=has_time,
        )

    outcome = restore_chosen_model(
        searched.measurements,
        finish_known,
        built,
        make_remeasure(evaluator, gates, view.doing),
        make_void(rooms.ledger, rooms.watch, view.log),
    )
    record_corrections(study, outcome.measurements)
    return outcome, looked


def _steps(rooms: RunResources, evaluator: CachedEvaluator, limits: serial.Limits) -> ChannelStepProbe:
    """Return the probe of the device's latency steps over channel counts."""
    settings, folder = rooms.settings, Path(rooms.settings.cache).expanduser() / "steps" / rooms.facts.fingerprint()
    terms = ProbeBudget(lambda: probing_s(settings, limits), folder)
    return ChannelStepProbe(
        evaluator, rooms.ledger, watch=rooms.watch, space=rooms.space, terms=terms, tell=rooms.view.doing
    )


def _warnings(rooms: RunResources, measuring: DeviceEvaluator, outcome: SearchOutcome, restless: str) -> list[str]:
    """Return the warnings of a run, except those about images; some may be empty."""
    return [
        *(_scratch(measuring) if rooms.dataset.kind != "digits" else []),
        restless,
        *_warn_of_unfolded(outcome.measurements),
        _warn_of_unequal_epochs(outcome, rooms.settings.rungs[-1]),
        *(m.agreement.warning(m.candidate.describe()) for m in outcome.measurements if m.agreement),
    ]


def _scratch(board: DeviceEvaluator) -> list[str]:
    """Return a warning for every parent that had no pretrained weights."""
    return [
        f"{variant} was trained from scratch: more accurate with pretrained weights (--weights DIR)"
        for variant, start in board.networks.parents.starts.items()
        if start.startswith("none")
    ]


def _warn_of_unequal_epochs(outcome: SearchOutcome, last_rung: int) -> str:
    """Return a warning if the choice was polished, and a network that it is compared with was trained for less."""
    choice = outcome.choice
    if choice is None or choice.accuracy is None or choice.accuracy.epochs <= last_rung:
        return ""
    over = [m for m in outcome.measurements if m.outcome == Outcome.OVER_BUDGET and not m.candidate.steps]
    for rival in (outcome.baseline, *over):
        if rival and rival.accuracy and rival.accuracy.epochs < choice.accuracy.epochs:
            return (
                f"after its parent's training the choice was trained for {choice.accuracy.epochs} epochs, "
                f"{rival.candidate.describe()} for {rival.accuracy.epochs}: with as many, the latter may be more "
                "accurate than shown"
            )
    return ""


def _warn_of_unfolded(measurements: Sequence[Measurement]) -> list[str]:
    """Return a warning for every network that is timed and deployed with branches that could not be folded."""
    why: dict[str, str] = {}
    for one in measurements:
        told = [found.unfolded for found in (one.structure, one.accuracy) if found is not None and found.unfolded]
        if told:
            why.setdefault(one.candidate.variant, told[0])
    return [f"{variant} runs with its branches, slower than it could: {reason}" for variant, reason in why.items()]
