"""A network is trained once, rung by rung, from one parent."""

from dataclasses import replace

import pytest

from evaluators.training.candidate_networks import CandidateNetworks, share_done
from spaces.candidate import Candidate
from tests.evaluators.worker_double import WorkerDouble, parent_config

CANDIDATE = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16, steps=(("prune", 0.25),))


@pytest.fixture
def worker():
    return WorkerDouble()


@pytest.fixture
def networks(worker, tmp_path):
    folder = tmp_path / "nets"
    return CandidateNetworks(
        parent_config(tmp_path), (0, 1, 3), folder=folder, worker=worker, doing=lambda what, share: None
    )


def test_candidate_networks_get_trains_every_rung_below_once(networks, worker):
    path = networks.get(CANDIDATE, 3)
    assert worker.calls == [("train_parent", 0), ("start_candidate", 0), ("fine_tune", 1), ("fine_tune", 2)]
    assert path == networks.path(CANDIDATE, 3) and path.exists()
    assert len(networks.saved(CANDIDATE)) == 3
    assert networks.get(CANDIDATE, 3) == path and len(worker.calls) == 4


def test_candidate_networks_get_serves_every_precision_and_runtime(networks, worker):
    path = networks.get(CANDIDATE, 0)
    assert networks.get(replace(CANDIDATE, precision="int8", runtime="tensorrt"), 0) == path
    networks.get(replace(CANDIDATE, steps=()), 0)
    assert worker.calls == [("train_parent", 0), ("start_candidate", 0), ("start_candidate", 0)]


@pytest.mark.parametrize(
    ("changes", "px", "weight"),
    [({"steps": ()}, 16, 0.0), ({"steps": ()}, 24, 0.7), ({}, 16, 0.7)],
    ids=["uncompressed", "uncompressed at another size", "pruned"],
)
def test_candidate_networks_uncompressed_at_its_parents_size_learns_from_labels_alone(
    networks, worker, changes, px, weight
):
    networks.start_px = lambda candidate: px
    networks.get(replace(CANDIDATE, **changes), 1)
    assert worker.calls[-1] == ("fine_tune", 1) and worker.jobs[-1].recipe.distillation == weight


def test_candidate_networks_better_teacher_teaches_uncompressed_networks_too(worker, tmp_path):
    config = replace(parent_config(tmp_path), teacher="best")
    networks = CandidateNetworks(config, (0, 1), folder=tmp_path / "n", worker=worker, doing=lambda what, share: None)
    networks.start_px = lambda candidate: candidate.image_px
    networks.parents._taught = tmp_path / "taught.pt"
    networks.get(replace(CANDIDATE, steps=()), 1)
    assert worker.jobs[-1].teacher == tmp_path / "taught.pt" and worker.jobs[-1].recipe.distillation == 0.7


def test_candidate_networks_parent_has_the_size_that_start_px_decides(networks):
    assert networks.parent(CANDIDATE).image_px == 24
    networks.start_px = lambda candidate: candidate.image_px
    assert networks.parent(CANDIDATE).image_px == 16


@pytest.mark.parametrize(("text", "share"), [('{"step": 1, "steps": 4}', 0.25), ("{", None), (None, None)])
def test_share_done_of_a_progress_file_is_its_share_or_none(tmp_path, text, share):
    if text is not None:
        (tmp_path / "progress.json").write_text(text)
    assert share_done(tmp_path / "progress.json") == share
