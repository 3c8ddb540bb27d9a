"""The README can be followed line by line: its commands are run, its example is the file's."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from onnx import helper

from evaluators.training.onnx_teacher import open_models
from search.cli import parser, settings_of
from spaces.family_files import family_of
from spaces.family_judgement import judge_family

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
SHORT = ["--trials", "2", "--rungs", "0", "--parent-epochs", "1"]


def words(command):
    return shlex.split(command)


def test_every_command_is_of_a_kind_that_is_tested():
    assert COMMANDS
    known = (
        "make ",
        "source .venv/",
        "python -m search.run",
        "python -m spaces.show",
        "python benchmarks/",
        "optuna-",
        "python -m remote.",
    )
    assert [c for c in COMMANDS if not c.startswith(known)] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(command):
    done = subprocess.run(["make", "--dry-run", *words(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m search.run")])
def test_settings_are_understood(command):
    args = parser().parse_args(words(command)[3:])
    if not args.resume:
        assert settings_of(args).budget_ms > 0


def test_the_example_is_the_file():
    shown = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1]
    assert (ROOT / "examples" / "search_digits.py").read_text(encoding="utf-8").endswith(shown)


@pytest.mark.parametrize("name", ["steel.toml", "castings.toml"])
def test_example_settings_are_understood(name):
    assert settings_of(parser().parse_args(["--config", str(ROOT / "examples" / name)])).trials == 30


@pytest.mark.slow
def test_the_steel_commands_run_in_order(tmp_path):
    """As written, but for fewer trials and epochs and folders of the test's own."""
    data = ROOT / ".." / "shared" / "data" / "neu_cls"
    if not data.is_dir():
        pytest.skip(f"no data set in {data}: it is not part of the repository")
    out, ran = tmp_path / "steel", []
    for command in [c for c in COMMANDS if "runs/steel" in c and "./defects" not in c]:
        line = words(command.replace("runs/steel", str(out)))
        if line[0] == "optuna-dashboard":
            continue  # tests/test_command.py opens it
        if "search.run" in command:
            line = line[: line.index("--trials")] + line[line.index("--trials") + 2 :]
            more = [*SHORT, "--cache", str(tmp_path / "cache")]
            line += ["--trials", "3"] if "--resume" in line else more
            if "--budget-ms" in line:
                line[line.index("--budget-ms") + 1] = "50"
        done = subprocess.run([sys.executable, *line[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        ran.append(done.stdout)
    assert len(ran) == 3 and "kept" in ran[2]
    accuracy, said = re.search(r"test accuracy \d+/\d+ = ([\d.]+), the report says ([\d.]+)", ran[2]).groups()
    assert float(accuracy) == pytest.approx(float(said), abs=1e-6)


def test_the_commands_of_the_sampler_run_in_order(tmp_path):
    """A search over a table, and one over another device's that starts from it."""
    if not (ROOT / ".." / "shared" / "bench").is_dir():
        pytest.skip("no tables in ../shared/bench: they are not part of the repository")
    text = (ROOT / "docs" / "sampler.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert [command.split()[:3] for command in commands] == [["python", "-m", "search.run"]] * 2
    for command in commands:
        line = words(command.replace("runs/table", str(tmp_path / "table")))
        line[line.index("--trials") + 1] = "12"
        done = subprocess.run([sys.executable, *line[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is kept" in done.stdout


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    env = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, ROOT / "examples" / "search_digits.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "chosen: " in done.stdout


def test_a_space_is_shown():
    line = next(c for c in COMMANDS if "spaces.show" in c)
    done = subprocess.run([sys.executable, *words(line)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "mobilenet_v2" in done.stdout and "candidates" in done.stdout


def test_the_settings_table_has_the_parsers_options_and_defaults():
    section = README[README.index("## Settings") : README.index("| exit code")]
    known = {option for action in parser()._actions for option in action.option_strings}
    rows = re.findall(r"^\| (`--[^|]+) \| (.+) \| ([^|]+) \|$", section, re.M)
    assert len(rows) > 12
    for names, _, _ in rows:
        assert set(re.findall(r"--[a-z0-9-]+", names)) <= known, names
    default = settings_of(parser().parse_args(["--budget-ms", "1"]))
    told = {name: cell.strip(" `") for names, _, cell in rows for name in re.findall(r"--([a-z0-9-]+)", names)[:1]}
    for name in ("percentile", "device", "data", "sampler", "teacher", "metric", "probe-share"):
        assert told[name] == f"{getattr(default, name.replace('-', '_'))}".removesuffix(".0"), name


def test_extras_are_of_packages_that_the_code_uses():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("spaces", "remote", "evaluators", "search", "reports", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    modules = {"optuna-dashboard": "optuna-dashboard"}
    for extra, packages in extras.items():
        if extra == "dev":
            continue
        for package in packages:
            name = re.match(r"[a-z-]+", package)[0]
            assert re.search(rf"\b{modules.get(name, name)}\b", sources), f"{package} of extra {extra} is used nowhere"


def test_own_networks_can_be_searched(tmp_path):
    """The file that README shows keeps the contract of families."""
    file = tmp_path / "nets.py"
    file.write_text(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0])
    assert judge_family(family_of(file), (), (32, 96), 6) == ("mine_16", "mine_32")


def test_own_models_can_be_opened(tmp_path):
    """What README shows beside a model is what is read."""
    (tmp_path / "net.json").write_text(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString())
    (model,) = open_models([str(tmp_path / "net.onnx")], ("good", "scratch")).values()
    assert model.image_px == 224 and model.resize == "crop"
