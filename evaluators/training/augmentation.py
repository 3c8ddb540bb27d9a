"""Define the augmentation of training images: switches, their presets, and the views with stored teacher logits."""

from __future__ import annotations

NONE = "none"
SWITCHES = {
    "shift": "moved a little",
    "mirror": "left and right exchanged",
    "flip": "upside down",
    "rotate": "by quarter turns",
    "brightness": "darker and brighter",
}
# No switch is on by default that could change the class: text, arrows and one-sided parts have a left and a right.
PRESETS = {
    "default": ("shift",),
    "photo": ("shift", "mirror", "brightness"),
    "top-view": ("shift", "mirror", "flip", "rotate", "brightness"),
}
DEFAULT = PRESETS["default"]

# Whether rows and columns are exchanged, then the rows reversed, then the columns reversed; 0 or 1 each.
View = tuple[int, int, int]
PLAIN: View = (0, 0, 0)
TURNS: tuple[View, ...] = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))


def switches(text: str) -> tuple[str, ...]:
    """Parse the names of switches and presets.

    Args:
        text: Names of switches and presets, comma-separated, or `none` alone.

    Returns:
        Names of switches, each once, in the order of `SWITCHES`.

    Raises:
        ValueError: A name is unknown; one line.
    """
    words = [word.strip() for word in text.split(",")]
    if words == [NONE]:
        return ()
    wanted: set[str] = set()
    for word in words:
        if word not in SWITCHES and word not in PRESETS:
            known = f"{', '.join(SWITCHES)}, the presets {', '.join(PRESETS)}, and {NONE} alone"
            raise ValueError(f"has an unknown word, {word!r}; it accepts a comma-separated list of {known}")
        wanted |= set(PRESETS.get(word, (word,)))
    return tuple(name for name in SWITCHES if name in wanted)


def describe(augment: tuple[str, ...]) -> str:
    """Format the switches for display.

    Args:
        augment: Names of enabled switches.

    Returns:
        Words such as `shift, mirror`, or `none`.
    """
    return ", ".join(augment) or NONE


def views(augment: tuple[str, ...]) -> tuple[View, ...]:
    """Return every exact view that the switches lead to, the unchanged one first.

    There are 1, 2, 4 or 8 views, which are closed under composition. A view represents all its shifted and brightened
    copies.
    """
    mirrors = {"mirror", "flip"} & set(augment)
    if "rotate" in augment and not mirrors:
        return TURNS
    exchanged = (0, 1) if "rotate" in augment else (0,)
    rows = (0, 1) if "flip" in augment or "rotate" in augment else (0,)
    columns = (0, 1) if "mirror" in augment or "rotate" in augment else (0,)
    return tuple((e, r, c) for e in exchanged for r in rows for c in columns)
