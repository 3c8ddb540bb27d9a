"""The small form of the benchmark of compression, and whether it computes what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pandas
import pytest
from PIL import Image

from benchmarks.compression import front, report
from benchmarks.compression.__main__ import SHARED, main
from benchmarks.compression.bench import Bench, timed
from benchmarks.compression.plan import TASKS, front_rows, table_rows
from benchmarks.compression.sets import opened
from evaluators.data.dataset import TEST, TRAIN, VALIDATION, DataError
from evaluators.data.loading import arrays
from remote.device import Capabilities

COLUMNS = [*report.KEY, "prune", "lowrank", "precision", "validation", "test", "rank_ms"]
ABLE = Capabilities(precisions=("fp32",), why_not={}, int8=None, threads_max=1, opset_max=13, runtimes=("onnxruntime",))


def frame(*lines):
    return pandas.DataFrame([["neu_cls", *line] for line in lines], columns=COLUMNS)


def test_rows_are_named_once():
    rows = [row for task in TASKS.values() for row in (*table_rows(task), *front_rows(task))]
    assert len({row.key for row in rows}) == len(rows)
    steel = [row.candidate for row in front_rows(TASKS["neu_cls"])]
    assert {c.image_px for c in steel} == {60, 72, 84} and any(c.steps and c.precision == "int8" for c in steel)
    for task in TASKS.values():
        fine_tuned = {bool(row.candidate.steps): row.epochs for row in table_rows(task)}
        assert fine_tuned.get(False) == task.plain_epochs and fine_tuned.get(True, task.epochs) == task.epochs


def test_areas_by_hand():
    rows = frame(
        ("a", 96, "fp32", 0.0, 0.0, "fp32", 99, 98.0, 4.0),
        ("a", 96, "prune 0.5", 0.5, 0.0, "fp32", 95, 94.0, 2.0),
        ("a", 96, "int8 ladder", 0.0, 0.0, "int8", 98, 97.0, 3.0),
        ("a", 96, "prune 0.5 + int8", 0.5, 0.0, "int8", 96, 93.0, 1.0),
        ("a", 72, "fp32", 0.0, 0.0, "fp32", 97, 96.0, 2.5),
        ("b", 96, "fp32", 0.0, 0.0, "fp32", 90, 91.0, 0.5),
    )
    origin = front.corner(rows)
    assert origin == front.Corner(88.0, pytest.approx(4.4))
    found = {one.name: one for one in front.sets(rows)}
    # right of 1 ms 93 % until 2.5 ms, then 96 % until 3 ms, 97 % until 4 ms: the pruned one at 2 ms has a lower
    # validation accuracy than the faster int8 one, so nobody would take it
    assert found["joint"].area == pytest.approx(0.5 * 3 + 1.5 * 5 + 0.5 * 8 + 1 * 9 + 0.4 * 10)
    assert len(found["joint"].rows) == 6 and found["joint"].network == ""
    assert found["pruning"].area == pytest.approx(2 * 6 + 0.4 * 10) and found["pruning"].network == "a"
    assert found["precision"].area == pytest.approx(1 * 9 + 0.4 * 10)
    assert found["size"].area == pytest.approx(1.5 * 8 + 0.4 * 10)
    assert found["family"].area == pytest.approx(3.5 * 3 + 0.4 * 10)
    assert all(one.area < found["joint"].area for one in found.values() if one.name != "joint")
    assert found["pruning"].joint_area < found["joint"].area


def scored(network, how, correct, count, image_px=96, rungs="", **more):
    """A line of results.csv."""
    plain = {"prune": 0.0, "lowrank": 0.0, "precision": "fp32", "epochs": 3, "macs_m": 1.0, "size_mb": 2.0}
    line = dict(zip(report.KEY, ("neu_cls", network, image_px, how), strict=True)) | plain
    told = {"validation": correct / count, "correct": correct, "count": count, "rungs": rungs, "failed": None}
    return line | told | more


def test_what_int8_loses_is_judged(tmp_path):
    few, rungs = (
        "tf_mobilenetv3_small_100",
        "fp32 0.9900; int8 min-max 0.9000 kept; equalised 0.8900; bias corrected 1 kept",
    )
    lines = [
        scored("mobilenet_v2", "fp32", 9900, 10000),
        scored("mobilenet_v2", "int8 PTQ", 9000, 10000),
        scored("mobilenet_v2", "int8 ladder", 9790, 10000, rungs=rungs),
        scored("another", "fp32", 1, 2),
        scored(few, "fp32", 90, 100),
        scored(few, "int8 ladder", 88, 100),
        scored(few, "prune 0.3", 70, 100, failed="unbuildable: no"),
    ]
    pandas.DataFrame(lines).to_csv(tmp_path / "results.csv", index=False)
    report.write(tmp_path, tmp_path / "short.md")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| neu_cls | mobilenet_v2 | 99.0 | 9.0 | 1.1 | 1.0 | NO | int8 min-max, bias corrected |" in text
    assert f"| neu_cls | {few} | 90.0 |  | 2.0 | 3.1 | yes |  |" in text, "two of a hundred are noise"
    assert "another" not in text and "prune 0.3" not in text and not (tmp_path / "front.png").exists()
    assert "| neu_cls | mobilenet_v2 | 99.0 ± 0.1 % | 90.0 ± 0.3 % |" in (tmp_path / "short.md").read_text()


def test_the_latest_timing_counts_and_fronts_are_drawn(tmp_path):
    lines = [
        scored("mobilenet_v2", "fp32", 356, 360),
        scored("mobilenet_v2", "prune 0.5", 348, 360, prune=0.5),
        scored("mobilenet_v2", "int8 ladder", 355, 360, precision="int8"),
        scored("tf_efficientnet_lite0", "fp32", 352, 360),
        scored("tf_efficientnet_lite0", "lowrank 0.5", 340, 360, lowrank=0.5),
    ]
    timings = [
        {name: line[name] for name in report.KEY}
        | {"median_ms": ms, "p95_ms": 1.1 * ms, "rank_ms": ms, "peak_mb": 60.0, "disturbed": word}
        for ms_of_all, word in (((9.0,) * 5, "other load"), ((4.0, 2.0, 3.0, 5.0, 2.5), None))
        for line, ms in zip(lines, ms_of_all, strict=True)
    ]
    pandas.DataFrame(lines).to_csv(tmp_path / "results.csv", index=False)
    pandas.DataFrame(timings).to_csv(tmp_path / "timings.csv", index=False)
    report.write(tmp_path, tmp_path / "short.md")
    assert (
        "| 98.9 ± 0.7 %, 4.4 ms |  | 98.6 ± 0.7 %, 3.3 ms | 96.7 ± 1.0 %, 2.2 ms |"
        in (tmp_path / "short.md").read_text()
    )
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| mobilenet_v2 96px | fp32 | 98.9 ± 0.7 | 4 | 4.4 | 60 | 2.00 | 1.0 |" in text and "other load" not in text
    assert "| pruning | mobilenet_v2 | 2 |" in text and "| family | all | 2 |" in text
    assert "From the corner 88.9 %, 5.5 ms." in text
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size[0] > 800 and len(set(picture.convert("L").resize((60, 40)).tobytes())) > 20


@dataclass
class Turns:
    """A session that writes down whose turn it is. The reference takes 2 ms, a model as many as its name says."""

    calls: list[str] = field(default_factory=list)
    disturbed: int = 0  # blocks yet to come beside other load

    def put(self, data):
        return data.stem if isinstance(data, Path) else "reference"

    def state(self):
        return {}

    def time_block(self, model, reference, job, pairs, seconds_max):
        self.calls.append(f"{model} {job.precision}")
        cpu = 0.5 if self.disturbed else 1.0
        self.disturbed -= bool(self.disturbed)
        wall = [float(model)] * pairs
        theirs = [2.0] * pairs
        return {
            "wall_ms": wall,
            "cpu_ms": [cpu * ms for ms in wall],
            "reference_wall_ms": theirs,
            "reference_cpu_ms": [cpu * ms for ms in theirs],
            "peak_mb": 50.0 + float(model),
            "runtime_mb": 40.0,
            "load_ms": 1.0,
            "warmup_runs": 3,
            "load_average": 0.0,
        }


def test_variants_are_timed_in_turn(tmp_path):
    session = Turns(disturbed=1)
    bench = Bench(
        work=tmp_path, data=tmp_path, weights=tmp_path, session=session, able=ABLE, version="1.0", worker=None
    )
    found = timed(bench, [(Path("4.onnx"), "fp32"), (Path("3.onnx"), "int8")], 2.0, 2)
    assert session.calls == ["4 fp32", "4 fp32", "3 int8", "4 fp32", "3 int8"], "the disturbed one once more"
    assert [latency.median_ms.value for latency in found] == [4.0, 3.0]
    assert [latency.rank_ms.value for latency in found] == pytest.approx([4.0, 3.0])
    assert [(f.blocks, f.repeated, f.disturbed, f.peak_mb) for f in found] == [(2, 1, "", 54.0), (2, 0, "", 53.0)]


def test_rows_of_pixels_become_class_folders(tmp_path):
    source = tmp_path / "data" / "cifar10_subset"
    source.mkdir(parents=True)
    (source / "meta.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    for split, count in (("train", 20), ("test", 4)):
        pixels = numpy.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=numpy.uint8)
        Image.fromarray(pixels.reshape(count, -1, 3)).save(source / f"{split}.png")
        numpy.save(source / f"{split}_labels.npy", numpy.arange(count) % 2)
    for _ in range(2):
        data = opened("cifar10_subset", tmp_path / "data", tmp_path / "work")
    assert data.classes == ("cat", "dog") and [len(data.splits[s]) for s in (TRAIN, VALIDATION, TEST)] == [16, 4, 4]
    images, labels = arrays(data, TEST, 32, tmp_path / "cache")
    assert labels.tolist() == [0, 0, 1, 1]
    assert (images[1] == pixels[2]).all(), "lossless, and with its own label"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data sets in {SHARED}: they are not part of the repository")
def test_imagenet_is_calibrated_on_other_images(tmp_path):
    data = opened("imagenet_val700", SHARED / "data", tmp_path)
    assert [len(data.splits[split]) for split in (TRAIN, VALIDATION, TEST)] == [500, 350, 350]
    sources = [set(split.sources) for split in data.splits.values()]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 1200 and len(data.classes) == 1000
    assert all((data.root / source).is_file() for source in sorted(sources[0])[:3])


def test_a_set_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no neu_cls in .*: name the folder that has it with --data$"):
        opened("neu_cls", tmp_path, tmp_path)


@pytest.mark.slow
def test_the_command_writes_once_what_it_found(tmp_path, capsys):
    words = ["--sets", "digits", "--rows", "fp32", "int8 PTQ", "--rounds", "1"]
    words += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "2 of 2: digits res8_w8_s2 24 int8 PTQ" in told and "timed digits res8_w8_s2: 2 variants" in told
    rows = pandas.read_csv(tmp_path / "out" / "results.csv").set_index("how")
    assert rows.failed.isna().all() and (rows.correct > 0.2 * rows["count"]).all()
    assert rows.size_mb["int8 PTQ"] < 0.7 * rows.size_mb["fp32"] and rows.macs_m["fp32"] > 0.1
    timings = pandas.read_csv(tmp_path / "out" / "timings.csv")
    assert (timings.median_ms > 0).all() and (timings.p95_ms >= timings.median_ms).all() and len(timings) == 2
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| res8_w8_s2 24px | int8 PTQ |" in text and "| digits | res8_w8_s2" not in text
    assert main(words) == 0 and "of 2" not in capsys.readouterr().out, "nothing is done twice"
