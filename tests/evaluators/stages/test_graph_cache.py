"""A graph is exported once, and a missing or damaged one is made again from what is sound."""

import hashlib
from contextlib import nullcontext
from dataclasses import replace

import pytest

from evaluators.fault_attribution import WorkerError
from evaluators.stages.graph_cache import GraphCache, GraphConfig
from evaluators.training.candidate_networks import CandidateNetworks
from remote.device import Capabilities
from spaces.candidate import Candidate
from tests.evaluators.worker_double import WorkerDouble, parent_config

CANDIDATE = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16)


@pytest.fixture
def worker():
    return WorkerDouble()


@pytest.fixture
def networks(worker, tmp_path):
    return CandidateNetworks(
        parent_config(tmp_path), (0, 1), folder=tmp_path / "nets", worker=worker, doing=lambda what, share: None
    )


@pytest.fixture
def graphs(networks, worker, tmp_path):
    able = Capabilities(
        precisions=("fp32",), why_not={}, int8=None, threads_max=1, opset_max=17, runtimes=("onnxruntime",)
    )
    return GraphCache(
        GraphConfig(able=able),
        networks,
        folder=tmp_path / "graphs",
        worker=worker,
        watch=lambda kind: nullcontext(),
        doing=lambda what, share: None,
    )


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_graph_cache_get_exports_once_for_every_runtime(graphs, worker):
    graph = graphs.get(CANDIDATE, 1)
    assert graph.path == graphs.trained_path(CANDIDATE, 1) and worker.calls[-1] == ("make_graph", 0)
    assert graphs.get(replace(CANDIDATE, runtime="tensorrt"), 1) == graph
    assert worker.calls.count(("make_graph", 0)) == 1


def test_graph_cache_get_exports_again_what_a_damaged_note_describes(graphs, worker):
    path = graphs.get(CANDIDATE, 0).path
    path.with_suffix(".json").write_text("{")
    graphs.get(CANDIDATE, 0)
    assert worker.calls.count(("make_graph", 0)) == 2


def test_graph_cache_opset_is_that_of_old_boards_or_lower(graphs):
    assert graphs.opset(CANDIDATE) == 13


@pytest.mark.parametrize(
    ("damaged", "made"),
    [
        ("nothing", []),
        ("graph", ["make_graph"]),
        ("graph and network", ["make_graph", "start_candidate", "fine_tune", "make_graph"]),
    ],
)
def test_graph_cache_rebuild_removes_no_more_than_is_damaged(graphs, networks, worker, damaged, made):
    path = graphs.get(CANDIDATE, 1).path
    expected, before = sha256(path), len(worker.calls)
    if damaged != "nothing":
        path.write_text("damaged")
    if damaged == "graph and network":
        networks.path(CANDIDATE, 1).write_text("damaged")
    assert graphs.rebuild(CANDIDATE, 1, expected) and sha256(path) == expected
    assert [name for name, _ in worker.calls[before:]] == made


def test_graph_cache_rebuild_is_false_where_the_file_differs_or_fails(graphs, worker):
    graphs.get(CANDIDATE, 1)
    assert not graphs.rebuild(CANDIDATE, 1, "0" * 64)
    worker.fails = WorkerError("no room")
    assert not graphs.rebuild(CANDIDATE, 1, "0" * 64)
