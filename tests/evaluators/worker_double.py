"""A worker that trains and exports nothing: it writes the files that are asked for, and remembers the requests."""

import json
from dataclasses import asdict
from pathlib import Path

from evaluators.data.loading import open_dataset
from evaluators.training.jobs import ExportedGraph, TrainedNetwork, TrainingRecipe, beside
from evaluators.training.parent_networks import ParentConfig
from evaluators.training.tasks import FINE_TUNE, MAKE_GRAPH, START_CANDIDATE, TRAIN_PARENT
from remote.files import write_file


class WorkerDouble:
    """`calls` holds what was trained or exported, as (task, epochs); `jobs` the requests themselves."""

    def __init__(self):
        self.calls, self.jobs = [], []
        self.fails = None  # raised in place of an export

    def call(self, task, job, *, timeout_s, tick):
        tick()
        self.jobs.append(job)
        self.calls.append((task.name.partition(":")[2], getattr(job, "epochs", 0)))
        if task == MAKE_GRAPH:
            if self.fails:
                raise self.fails
            job.out.write_bytes(job.net.read_bytes())
            graph = ExportedGraph(job.out)
            write_file(beside(job.out), json.dumps(asdict(graph) | {"path": ""}))
            return graph
        assert task in (TRAIN_PARENT, START_CANDIDATE, FINE_TUNE)
        before = job.net.read_text() if task == FINE_TUNE else ""
        job.out.write_text(f"{before}{task.name} ")
        return TrainedNetwork(path=job.out, steps=0, epochs=0, loss=0.0, seconds=0.0, start="none")


def parent_config(folder: Path) -> ParentConfig:
    return ParentConfig(
        dataset=open_dataset(None, 0),
        images=folder / "images",
        folder=folder / "parents",
        recipe=TrainingRecipe(threads=1),
        weights=None,
        download=False,
        variants={},
        parent_px={"tiny_resnet": 24},
        teacher="parent",
        progress=folder / "progress.json",
        record=folder / "teacher.json",
    )
