"""Measure how the code speaks of itself: docstrings, names, `Any`, positional arguments, long functions.

`python -m tests.language` prints the figures; `tests/test_language.py` holds them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "spaces", "evaluators", "remote", "reports")
# What runs on a device has no imports of ours, and names that its protocol fixes.
ON_DEVICE = ("remote/agent.py", "remote/onboard/", "remote/runtimes/")
OPENINGS = ("Raised ", "Context manager ", "Decorator ")
IRREGULAR_WORDS = """
told held kept bought seen made found sent written known shown taken gone drawn begun built said heard left lost
met sold spent understood given chosen bound brought caught done fallen grown hidden laid led sure
"""
IRREGULAR = frozenset(IRREGULAR_WORDS.split())
NOT_PARTICIPLES = frozenset(("need", "speed", "feed", "seed", "exceed", "embed"))
FUNCTION_LINES_MAX = 60


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What `measure` found.

    Attributes:
        verb_share: Share of public docstrings whose first sentence begins with a verb, 0..1.
        participle_share: Share of functions whose name begins with a participle, 0..1.
        boundary_lines: Mean lines of the docstrings of names that another package imports.
        any_per_1000: Mentions of `Any` per 1000 lines.
        positional_per_1000: Calls with six and more positional arguments per 1000 lines.
        long_functions: Functions of more than 60 lines.
        headless: Public docstrings that begin with no verb, `file:name: first line`.
    """

    verb_share: float
    participle_share: float
    boundary_lines: float
    any_per_1000: float
    positional_per_1000: float
    long_functions: tuple[str, ...]
    headless: tuple[str, ...]


def measure(packages: tuple[str, ...] = PACKAGES) -> Figures:
    """Read every file of the packages and count.

    Args:
        packages: Names of top-level folders.

    Returns:
        The figures of house.md, section 3, rule 10.
    """
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    docs = [doc for path, tree in trees.items() for doc in public_docstrings(path, tree)]
    names = [node.name for tree in trees.values() for node in ast.walk(tree) if _is_named_function(node)]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    crossing = imported_across(trees)
    crossing_docs = [text for path, name, text in docs if (module_of(path), name) in crossing]
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    anys = sum(isinstance(node, ast.Name) and node.id == "Any" for _, node in nodes)
    calls = sum(isinstance(node, ast.Call) and len(node.args) >= 6 for path, node in nodes if not is_on_device(path))
    functions = [(path, node) for path, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return Figures(
        verb_share=sum(begins_with_verb(text) for _, _, text in docs) / max(len(docs), 1),
        participle_share=sum(map(is_participle, names)) / max(len(names), 1),
        boundary_lines=sum(len(text.splitlines()) for text in crossing_docs) / max(len(crossing_docs), 1),
        any_per_1000=1000 * anys / lines,
        positional_per_1000=1000 * calls / lines,
        long_functions=tuple(
            f"{path.relative_to(ROOT)}:{node.name}"
            for path, node in functions
            if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
        ),
        headless=tuple(
            f"{path.relative_to(ROOT)}:{name}: {text.splitlines()[0]}"
            for path, name, text in docs
            if not begins_with_verb(text)
        ),
    )


def public_docstrings(path: Path, tree: ast.Module) -> Iterator[tuple[Path, str, str]]:
    """Iterate over (file, name, docstring) of public functions, classes and methods."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield path, node.name, text
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if not isinstance(inner, ast.FunctionDef) or inner.name.startswith("_") or _is_property(inner):
                    continue
                if text := ast.get_docstring(inner):
                    yield path, f"{node.name}.{inner.name}", text


def imported_across(trees: dict[Path, ast.Module]) -> set[tuple[str, str]]:
    """Return (module, name) of what another top-level package imports."""
    found: set[tuple[str, str]] = set()
    for path, tree in trees.items():
        own = path.relative_to(ROOT).parts[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != own:
                found |= {(node.module, alias.name) for alias in node.names}
    return found


def begins_with_verb(text: str) -> bool:
    """Return whether a docstring's first word is a verb: an imperative such as `Return`, or a known opening."""
    first = text.split()[0].rstrip(".,:;")
    return text.startswith(OPENINGS) or first.lower() in VERBS


def is_participle(name: str) -> bool:
    """Return whether a function's name begins with a participle."""
    word = name.strip("_").split("_")[0]
    return word in IRREGULAR or (word.endswith("ed") and word not in NOT_PARTICIPLES)


def is_on_device(path: Path) -> bool:
    """Return whether a file is sent to a device."""
    return path.relative_to(ROOT).as_posix().startswith(ON_DEVICE)


def module_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _is_named_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and not _is_property(node)


def _is_property(node: ast.FunctionDef) -> bool:
    return any(
        getattr(mark, "id", getattr(mark, "attr", "")) in {"property", "cached_property"}
        for mark in node.decorator_list
    )


VERBS_WORDS = """
add agree allow answer append apply ask assemble assign augment begin build calibrate call cancel cast check
choose claim classify clean climb close collect combine compare complete compress compute confirm connect
continue convert copy correct count create cut decide decode decompose delete describe detect determine discard
divide download draw drop empty encode end enter equalise escape estimate evaluate examine exclude execute
expand explain export extract factor fail fetch fill filter find finish fit flatten float fold follow forbid
forget format forward free freeze gather generate get give go group guess handle hand hash hold identify ignore
import include infer initialise insert inspect interpret iterate join judge keep label launch learn leave limit
link list listen load lock log look lower make map mark mask match measure merge model modify mount move
multiply name normalise note observe obtain open order pack pad parse pause permute pick place plan plot pool
position predict prepare print probe process profile propose prune publish push put quantize query queue quote
raise rank reach read rebuild receive reconnect record recover reduce register reject release reload remember
remove rename render repeat replace replay report request require reset resize resolve restore restrict resume
retry return reverse rewrite round run sample save scale scan score search select send serve set shorten show
shrink shuffle sign simulate skip slice smooth sort split stamp standardise start state stop store stratify
stream strip subscribe substitute suggest sum summarise swap take tell test tie time trace track train transform
translate treat truncate try tune turn undo unpack unwrap update upload use validate verify view visit wait wake
warm warn weigh widen wrap write yield
"""
VERBS = frozenset(VERBS_WORDS.split())


def main() -> None:
    """Print the figures."""
    found = measure()
    for line in found.headless:
        print(line)
    print(f"{found.verb_share:.3f} of public docstrings begin with a verb")
    print(f"{found.participle_share:.3f} of function names are participles")
    print(f"{found.boundary_lines:.1f} lines a docstring of what crosses a package boundary")
    print(f"{found.any_per_1000:.1f} Any per 1000 lines")
    print(f"{found.positional_per_1000:.2f} calls with six and more positional arguments per 1000 lines")
    print(f"over {FUNCTION_LINES_MAX} lines: {', '.join(found.long_functions) or 'none'}")


if __name__ == "__main__":
    main()
