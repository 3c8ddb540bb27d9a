"""Draw the way of one candidate in CONTRIBUTING.md from the imports: `python docs/candidate_way.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- candidate-way: written by docs/candidate_way.py -->", "<!-- end of candidate-way -->"
# The modules of the way, by the numbered steps of the page.
WAY = {
    "1 arguments": ("search.cli", "search.run", "search.runs.device_run", "search.runs.resources"),
    "2 ask": ("search.engines.serial", "search.sampling.screening", "search.sampling.optuna_study"),
    "3 evaluators": (
        *("search.pipeline.stages", "search.runs.evaluator_setup", "search.storage.cached_evaluator"),
        *("evaluators.rounding_evaluator", "evaluators.device_evaluator"),
    ),
    "4 structure": ("evaluators.stages.structure", "evaluators.export.onnx_export"),
    "5 latency": (
        *("evaluators.timing.latency", "remote.link.retrying_session", "remote.link.session", "remote.link.transport"),
        *("remote.agent", "remote.onboard.timing"),
    ),
    "6 accuracy": (
        *("evaluators.stages.graph_cache", "evaluators.training.candidate_networks", "evaluators.training.tasks"),
        *("evaluators.training.trainer", "evaluators.stages.accuracy"),
        *("evaluators.stages.trained_graph", "evaluators.quantization.ladder"),
    ),
    "8 finalists": ("search.selection.finalists",),
    "9 report": ("search.runs.assemble_result", "reports.run_report", "reports.model_bundle"),
}


def figure() -> str:
    """Return the figure as mermaid text: one box a step, one node a module, and an arrow for each import.

    A solid arrow is an import. A dotted one is a module named by text: a task of the worker process, or code that is
    sent to the device. An import that a chain of other imports implies is left out.
    """
    modules = [name for names in WAY.values() for name in names]
    imports = {name: imported(name) & set(modules) - {name} for name in modules}
    lines = ["```mermaid", "flowchart TD"]
    for step, names in WAY.items():
        lines.append(f'  subgraph step{step.split()[0]}["{step}"]')
        lines += [f'    {node(name)}["{name.replace(".", "/")}.py"]' for name in names]
        lines.append("  end")
    for name in modules:
        direct, named = reduce_edges(name, imports), named_by_text(name) - imports[name]
        lines += [f"  {node(name)} --> {node(other)}" for other in modules if other in direct]
        lines += [f"  {node(name)} -.-> {node(other)}" for other in modules if other in named]
    return "\n".join([*lines, "```"])


def node(name: str) -> str:
    """Return the identifier of a module in the figure."""
    return name.replace(".", "_")


def imported(name: str) -> set[str]:
    """Return the dotted names that a module imports, at its top or inside a function."""
    found: set[str] = set()
    for part in ast.walk(tree_of(name)):
        if isinstance(part, ast.Import):
            found |= {alias.name for alias in part.names}
        elif isinstance(part, ast.ImportFrom):
            found |= {str(part.module)} | {f"{part.module}.{alias.name}" for alias in part.names}
    return found


def named_by_text(name: str) -> set[str]:
    """Return the modules that a module names by text: `module:function` of a task, or a text sent to the device."""
    found: set[str] = set()
    for part in ast.walk(tree_of(name)):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            found |= {part.value.partition(":")[0]} if re.fullmatch(r"[\w.]+:\w+", part.value) else set()
        if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "part":
            found |= {f"remote.onboard.{text.value}" for text in part.args if isinstance(text, ast.Constant)}
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant) and part.slice.value == "agent":
            found.add("remote.agent")
    return found - {name}


def reduce_edges(name: str, imports: dict[str, set[str]]) -> set[str]:
    """Return the imports of a module without those that another of its imports reaches.

    Args:
        name: The module.
        imports: Imported modules by module; they have no circle.
    """
    implied: set[str] = set()
    ahead = [after for direct in imports[name] for after in imports[direct]]
    while ahead:
        implied.add(one := ahead.pop())
        ahead += imports[one] - implied
    return imports[name] - implied


def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))


def with_figure(page: str) -> str:
    """Return the page with the figure between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{figure()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the page."""
    FILE.write_text(with_figure(FILE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
