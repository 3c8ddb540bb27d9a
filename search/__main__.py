"""Run any edgefront command: `edgefront COMMAND`, the installed program, or `python -m search`."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.metadata import version

# command -> (module with `main` and `parser`, one-line description)
COMMANDS = {
    "search": ("search.run", "find the most accurate model that keeps a latency budget on a device"),
    "polish": ("search.polish", "train the leading candidates of a run for longer"),
    "show": ("spaces.show", "show a search space, as defined or as a device restricts it"),
    "doctor": ("remote.doctor", "check whether a device is fit to be measured"),
    "devices": ("remote.devices", "list, add and show devices"),
}
SHELLS = ("bash", "zsh")
PROG = "edgefront"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program itself; each command has its own parser."""
    names = "\n".join(f"  {name:<12}{what}" for name, (_, what) in COMMANDS.items())
    p = argparse.ArgumentParser(
        prog=PROG,
        description="Find the most accurate image model that keeps a latency budget on your own board.",
        epilog=f"commands:\n{names}\n  {'completion':<12}print shell completion: {', '.join(SHELLS)}\n\n"
        f"`{PROG} COMMAND --help` shows its options. A shell sources the output of `{PROG} completion bash`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"{PROG} {version('edgefront')}")
    p.add_argument("command", choices=[*COMMANDS, "completion"], metavar="COMMAND", help="One of the commands below")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Command and its arguments; None uses those of the process.

    Returns:
        An exit code of `remote/exit_codes.py`, 0 on success.
    """
    words = sys.argv[1:] if argv is None else argv
    command = parser().parse_args(words[:1]).command
    if command == "completion":
        return _print_completion(words[1:])
    run = importlib.import_module(COMMANDS[command][0]).main
    return int(run(words[1:], prog=f"{PROG} {command}"))


def _print_completion(words: list[str]) -> int:
    """Print a shell's completion script for the whole program."""
    import shtab

    p = argparse.ArgumentParser(prog=f"{PROG} completion", description="Print shell completion, which a shell sources.")
    p.add_argument("shell", choices=SHELLS)
    shell = p.parse_args(words).shell
    whole = argparse.ArgumentParser(prog=PROG)
    commands = whole.add_subparsers()
    for name, (module, what) in COMMANDS.items():
        one = importlib.import_module(module).parser(f"{PROG} {name}")
        commands.add_parser(name, parents=[one], add_help=False, help=what)
    print(shtab.complete(whole, shell=shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
