"""README and docs can be followed line by line: commands run, examples are the files', links lead somewhere."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from onnx import helper

from evaluators.training.onnx_teacher import open_models
from search.cli import parser, settings_of
from spaces.family_checks import judge_family
from spaces.family_files import family_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES["README.md"] = README
SEARCHES = ("python -m search.run ", "edgefront search ")
STEPS = ("Install", "First result", "Your own data", "Your own board")  # from a clone to a first search on a board


def commands_of(text):
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = [command for text in PAGES.values() for command in commands_of(text)]
SHORT = ["--trials", "1", "--rungs", "0", "--parent-epochs", "1"]


def words(command):
    return shlex.split(command)


def runnable(command):
    """The command's argument list, with this Python and this checkout."""
    program, *rest = words(command)
    return [sys.executable, *(["-m", "search"] if program == "edgefront" else []), *rest]


def section(text, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def test_every_command_is_of_a_kind_that_is_tested():
    assert commands_of(README)
    known = (
        *SEARCHES,
        "make ",
        "source .venv/",
        "edgefront show",
        "edgefront doctor",
        "edgefront devices",
        "python -m spaces.show",
        "python benchmarks/",
        "optuna-",
        "python -m remote.",
    )
    assert [c for c in COMMANDS if not c.startswith(known)] == []


@pytest.mark.parametrize("title", STEPS)
def test_a_step_has_at_most_three_commands(title):
    blocks = re.findall(r"```sh\n.*?```", section(README, title), re.DOTALL)
    assert blocks and all(1 <= len(commands_of(block)) <= 3 for block in blocks)


def test_the_first_command_ends_on_the_first_screen():
    screen = "\n".join(README.splitlines()[:40])
    assert "make install" in screen and len(commands_of(screen)) >= 2


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(command):
    done = subprocess.run(["make", "--dry-run", *words(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(SEARCHES)])
def test_settings_are_understood(command):
    start = next(start for start in SEARCHES if command.startswith(start))
    args = parser().parse_args(words(command.removeprefix(start)))
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
    """As written, but for fewer trials, epochs and images, and folders of the test's own."""
    data = ROOT / ".." / "shared" / "data" / "neu_cls"
    if not data.is_dir():
        pytest.skip(f"no data set in {data}: it is not part of the repository")
    few = tmp_path / "neu_cls"
    for image in sorted(data.rglob("*.*"))[::12]:
        if image.is_file():
            (few / image.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, few / image.relative_to(data))
    out, ran = tmp_path / "steel", []
    steps = section(PAGES["docs/evidence.md"], "Steel and castings").split("### ")[1]
    for command in [c for c in commands_of(steps) if "runs/steel" in c]:
        line = words(command.replace("runs/steel", str(out)).replace("../shared/data/neu_cls", str(few)))
        if line[0] == "optuna-dashboard":
            continue  # tests/test_command.py opens it
        if "search.run" in command:
            line = line[: line.index("--trials")] + line[line.index("--trials") + 2 :]
            more = [*SHORT, "--cache", str(tmp_path / "cache")]
            line += ["--trials", "2"] if "--resume" in line else more
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
    commands = commands_of(PAGES["docs/sampler.md"])
    assert [command.split()[:3] for command in commands] == [["python", "-m", "search.run"]] * 2
    for command in commands:
        line = words(command.replace("runs/table", str(tmp_path / "table")))
        line[line.index("--trials") + 1] = "12"
        done = subprocess.run([sys.executable, *line[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is kept" in done.stdout


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    """As written, but for fewer trials and epochs."""
    text = (ROOT / "examples" / "search_digits.py").read_text(encoding="utf-8")
    assert text.count("trials=6,") == 1
    (tmp_path / "search_digits.py").write_text(text.replace("trials=6,", "trials=2, parent_epochs=1,"))
    env = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, tmp_path / "search_digits.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "chosen: " in done.stdout


@pytest.mark.parametrize("start", ["python -m spaces.show", "edgefront show"])
def test_a_space_is_shown(start):
    line = next(c for c in COMMANDS if c.startswith(start))
    done = subprocess.run(runnable(line), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "mobilenet_v2" in done.stdout and "candidates" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/settings.md"])
def test_the_settings_table_has_the_parsers_options_and_defaults(page):
    table = PAGES[page].partition("## Settings\n")[2].partition("| exit code")[0]
    known = {option for action in parser()._actions for option in action.option_strings}
    rows = re.findall(r"^\| (`--[^|]+) \| (.+) \| ([^|]+) \|$", table, re.M)
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
    """The file that docs/networks.md shows keeps the contract of families."""
    file = tmp_path / "nets.py"
    file.write_text(re.search(r"```python\n(.*?)```", PAGES["docs/networks.md"], re.DOTALL)[1])
    assert judge_family(family_of(file), (), (32, 96), 6) == ("mine_16", "mine_32")


def test_own_models_can_be_opened(tmp_path):
    """The JSON that docs/networks.md shows beside a model is accepted."""
    (tmp_path / "net.json").write_text(re.search(r"```json\n(.*?)```", PAGES["docs/networks.md"], re.DOTALL)[1])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString())
    (model,) = open_models([str(tmp_path / "net.onnx")], ("good", "scratch")).values()
    assert model.image_px == 224 and model.resize == "crop"


def test_the_reference_has_the_parsers_options():
    """`make docs-reference` has been run after the last change of an option."""
    assert runpy.run_path(str(ROOT / "docs" / "reference.py"))["reference"]() == PAGES["docs/reference.md"]


def test_the_evidence_can_be_rewritten_by_its_command():
    """One pair of marks, in the file that the documented commands name."""
    begin, end = "<!-- results: written by the command -->", "<!-- end of results -->"
    assert PAGES["docs/evidence.md"].count(begin) == PAGES["docs/evidence.md"].count(end) == 1
    benchmark = (ROOT / "benchmarks" / "compression" / "README.md").read_text(encoding="utf-8")
    named = [file for text in (*PAGES.values(), benchmark) for file in re.findall(r"--readme ([\w./]+)", text)]
    assert set(named) == {"docs/evidence.md"}


@pytest.mark.parametrize(
    "page", [*sorted(PAGES), "CONTRIBUTING.md", *(f"benchmarks/{name}/README.md" for name in ("compression", "peers"))]
)
def test_links_lead_to_files_and_headings(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:")):
            continue
        name, _, heading = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], link
