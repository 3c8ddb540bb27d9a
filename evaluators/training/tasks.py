"""Name the tasks of the worker process, so that the controlling process need not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from evaluators.measurement import Structure
from evaluators.training.jobs import ExportedGraph, TrainedNetwork
from spaces.weights_report import WeightsReport

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task(Generic[Result]):
    """Represent a function that the worker process imports and calls.

    Attributes:
        name: `module:function`. A test checks that it exists and returns the annotated type.
    """

    name: str


Triple = tuple[float, float, float]

CHECK_NAMES: Task[None] = Task("spaces.network:check_names")
FAMILY_OF: Task[str | None] = Task("evaluators.training.teacher_logits:family_of")
FINE_TUNE: Task[TrainedNetwork] = Task("evaluators.training.trainer:fine_tune")
HOST_CLASSES: Task[tuple[np.ndarray, str]] = Task("evaluators.stages.host_agreement:host_classes")
JUDGE_FAMILY: Task[tuple[str, ...]] = Task("spaces.family_checks:judge_family")
JUDGE_MODEL: Task[None] = Task("evaluators.fixed_models:judge_model")
JUDGE_WEIGHTS: Task[WeightsReport] = Task("spaces.weights:judge")
MAKE_GRAPH: Task[ExportedGraph] = Task("evaluators.stages.trained_graph:make_graph")
MEASURE_FIXED: Task[tuple[Structure, Path]] = Task("evaluators.stages.structure:measure_given")
MEASURE_STRUCTURE: Task[tuple[Structure, Path]] = Task("evaluators.stages.structure:measure")
NORMALISATION: Task[tuple[Triple, Triple]] = Task("spaces.network:normalisation")
PARENT_TOP1: Task[float] = Task("evaluators.training.teacher_logits:parent_top1")
START_CANDIDATE: Task[TrainedNetwork] = Task("evaluators.training.trainer:start_candidate")
TEACH: Task[float] = Task("evaluators.training.teacher_logits:teach")
TRAIN_PARENT: Task[TrainedNetwork] = Task("evaluators.training.trainer:train_parent")
WEIGHTS_IDENTITY: Task[str | None] = Task("evaluators.training.trainer:weights_identity")
