"""Train the leading candidates of a run for longer: `python -m search.polish RUN --time-limit 2h`."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from remote.exit_codes import USER
from remote.link.reply_parsing import printable
from search import run
from search.settings import Settings, SettingsError, from_toml, seconds

PROG = "python -m search.polish"


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the parser of the command.

    Args:
        prog: Program name as the user typed it.
    """
    p = argparse.ArgumentParser(
        prog=prog,
        description="Train the leading candidates of a run for longer, without trying new ones, and write its report "
        "and its chosen/ anew. A longer training counts only if it is more accurate on the validation images. It needs "
        "the run's data, weights and device; with a device reached over ssh, this machine may be another one.",
        epilog=f"example:\n  {prog} runs/defects --time-limit 2h\n\nExit codes are those of a search.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("run", metavar="RUN", type=Path, help="Run folder (--out) of a search")
    p.add_argument("--time-limit", metavar="TIME", required=True, help="Time for it, such as 90s, 15m, 1h30m")
    p.add_argument("--cache", metavar="DIR", help="Folder of trained parents and decoded images (default: the run's)")
    return p


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command and return its exit code, which is that of a search.

    Args:
        argv: Arguments; None uses those of the process.
        prog: Program name as the user typed it.
    """
    args = parser(prog).parse_args(argv)
    try:
        words = resume_words(args.run, seconds(args.time_limit))
    except SettingsError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return USER
    return run.main([*words, *(["--cache", args.cache] if args.cache else [])], prog)


def resume_words(folder: Path, limit_s: float) -> list[str]:
    """Return the arguments of a search that resumes a run only to polish it.

    Args:
        folder: Run folder.
        limit_s: Seconds from now on.

    Raises:
        SettingsError: There is no run in the folder, or it can't be read.
    """
    from search.storage.ledger import read_wall_s

    recorded = folder / "config.toml"
    try:
        if not recorded.is_file():
            raise SettingsError(f"nothing to polish: {recorded} does not exist; name the --out of a search")
        settings = from_toml(recorded)
        total_s = read_wall_s(folder / "ledger.jsonl") + limit_s
    except OSError as error:
        raise SettingsError(f"{folder} can't be read: {error.strerror}; name the --out of a search") from None
    share = settings.polish_share or Settings.polish_share
    limits = {"--trials": max(_count_trials(folder), 1), "--time-limit": f"{total_s:.0f}s", "--polish-share": share}
    return ["--resume", "--out", str(folder), *(str(word) for pair in limits.items() for word in pair)]


def _count_trials(folder: Path) -> int:
    """Return the number of trials in a run's report; 0 without one."""
    try:
        with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
            return sum(1 for _ in csv.DictReader(file))
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
