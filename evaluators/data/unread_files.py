"""Find the images below class folders, and count all other files there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.data.decode_check import EXTENSIONS
from remote.link.reply_parsing import printable

# Endings of files that accompany pictures: notes, labels, files of operating systems.
SIDECARS = frozenset(
    f".{name}" for name in ("txt", "json", "xml", "csv", "tsv", "yaml", "yml", "toml", "md", "log", "ini", "db", "html")
)
ENDINGS_MAX = 8  # maximum number of endings that are listed


@dataclass
class UnreadFiles:
    """Count files below class folders that are not read.

    Attributes:
        pictures: Number of files by (class folder, ending as it is written).
        sidecars: Number of files by ending, or by name for those without one.
        unread: Unreadable folders, with the reason.
    """

    pictures: Counter[tuple[str, str]] = field(default_factory=Counter)
    sidecars: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)

    def note(self, folder: str, name: str) -> None:
        """Count a file.

        Args:
            folder: Class folder, relative to the root of the set.
            name: Name of the file.
        """
        ending = Path(name).suffix
        if ending.lower() in SIDECARS:
            self.sidecars[ending.lower()] += 1
        else:
            self.pictures[folder, ending] += 1

    def lines(self) -> list[str]:
        """Return a printable line for each class folder and ending."""
        counted = [
            f"{folder}: {_files(count)} with{f' ending {ending}' if ending else 'out an ending'} "
            f"{'is' if count == 1 else 'are'} not read; save {'it' if count == 1 else 'them'} as PNG or JPEG"
            for (folder, ending), count in sorted(self.pictures.items())
        ]
        return [printable(line) for line in (*counted, *self.unread)]


def images_below(root: Path, folder: Path, passed: UnreadFiles) -> Iterator[str]:
    """Yield the paths of images below a class folder, at any depth.

    Args:
        root: Folder that the paths are relative to.
        folder: Class folder. Links are followed, loops and hidden files are skipped.
        passed: Counter of all other files.

    Yields:
        Paths with slashes. Bytes of names that are not UTF-8 are surrogates, as Python represents them.
    """

    def unreadable(error: OSError) -> None:
        passed.unread.append(f"{Path(error.filename).relative_to(root)}: cannot be read ({error.strerror})")

    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(here)
        below[:] = [] if real in seen else sorted(d for d in below if not d.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        for file in files:
            if file.startswith("."):
                continue
            if Path(file).suffix.lower() in EXTENSIONS:
                yield (Path(here) / file).relative_to(root).as_posix()
            else:
                passed.note(folder.relative_to(root).as_posix(), file)


def no_pictures(passed: Iterable[UnreadFiles]) -> str:
    """Return a remark on files that are not pictures; empty if there are none."""
    counted = sum((each.sidecars for each in passed), Counter())
    if not counted:
        return ""
    few = ", ".join(sorted(counted, key=lambda name: (-counted[name], name))[:ENDINGS_MAX])
    return f"; ignored because they are not images: {_files(counted.total())} ({few})"


def beside(root: Path, given: Mapping[str, Path]) -> list[str]:
    """Return printable lines that count the files beside the class folders, or beside the folders of splits.

    Args:
        root: Folder of the set.
        given: Folder of each split; `root` itself where it contains class folders.
    """
    lines = []
    for folder in sorted({root, *given.values()}):
        loose = [p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".")]
        count = sum(1 for p in loose if not p.is_dir())
        if count:
            where = folder.relative_to(root).as_posix() if folder != root else root.name
            lines.append(f"{where}: {_files(count)} beside the class folders, of no class, not read")
    if root not in given.values():
        split = {folder.name for folder in given.values()}
        folders = (p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        others = sorted(name for name in folders if name not in split)
        few = ", ".join(others[:ENDINGS_MAX])
        lines += [f"beside {', '.join(sorted(split))}: not read: {few}"] if others else []
    return [printable(line) for line in lines]


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
