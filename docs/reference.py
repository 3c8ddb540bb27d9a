"""Write docs/reference.md, the options of every command, from the commands' own parsers: `python docs/reference.py`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE / "reference.md"
HEAD = """\
# Reference of commands and options
`make docs-reference` writes this page from the parsers of the commands. [settings.md](settings.md) explains the
settings of a search.
"""


def reference() -> str:
    """Return the page: a section for each command, and for each command of a command."""
    from remote.inventory.device_files import device_files
    from search.__main__ import COMMANDS, PROG

    parts = [HEAD]
    for name, (module, _) in COMMANDS.items():
        parser = importlib.import_module(module).parser(f"{PROG} {name}")
        parts += section(parser, 2, f"`python -m {module}` is the same command.")
    return "\n".join(parts).replace(str(device_files()[1]), "~/.config/edgefront/devices.toml")


def section(parser: argparse.ArgumentParser, level: int, note: str = "") -> Iterator[str]:
    """Yield the parts of a command's section.

    Args:
        parser: The parser of the command; `prog` is its full name.
        level: Level of the heading.
        note: A sentence after the description.
    """
    yield f"{'#' * level} {parser.prog}"
    yield " ".join(text for text in (parser.description, note) if text) + "\n"
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not hidden(action)]
        if actions:
            yield f"| {group.title} | meaning |\n|---|---|"
            yield "\n".join(row(action, formatter) for action in actions) + "\n"
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {one.dest: one.help or "" for one in action._choices_actions}
            for name, one in action.choices.items():
                one.description = one.description or f"{texts[name][:1].upper()}{texts[name][1:]}."
                yield from section(one, level + 1)


def hidden(action: argparse.Action) -> bool:
    """Return whether an action is left out: --help, and the choice among commands that have sections of their own."""
    return isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS


def row(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """Return an action's row: its option strings with their value, and its help text."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    names = ", ".join(action.option_strings)
    text = formatter._expand_help(action) if action.help else ""
    return f"| `{f'{names} {value}'.strip()}` | {text.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))  # the packages of this checkout
    FILE.write_text(reference(), encoding="utf-8")
