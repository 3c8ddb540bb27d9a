"""Give mkdocs the pages and their images under their paths in the repository, so that their links work in both places.

mkdocs.yml names this file as a hook.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "benchmarks/*/README.md", "benchmarks/*/*.png")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the pages of the repository in place of those that mkdocs found in docs/.

    Args:
        files: Files of docs/ and of the theme.
        config: Configuration of the site.
    """
    from mkdocs.structure.files import File

    for file in list(files):
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(ROOT / "docs"):
            files.remove(file)
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files
