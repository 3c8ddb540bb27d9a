"""Check for capacity: disk, memory, and swap for engine builders."""

from __future__ import annotations

from remote.checks.check import NOT_SHOWN, Check, UntrustedReply
from remote.device import Facts, Profile

DISK_MB = (256, 1024)  # bad below the first, a warning below the second: the cache of models and engines grows
MEMORY_MB = (200, 500)
# CUDA, cuDNN and cuBLAS take 1.3 GB of a Jetson's memory before the model is loaded.
MEMORY_TENSORRT_MB = (1000, 1600)
SWAP_MB = 4000
SMALL_MB = 8500  # boards of up to 8 GB are known to kill engine builders for memory
BUILDERS = {"tensorrt", "trtexec", "onnxruntime:tensorrt"}
HEADLESS = "sudo systemctl isolate multi-user.target  # no desktop until the next start"
SWAP_FILE = (
    "sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile"
)


def room(facts: Facts, shown: UntrustedReply, profile: Profile | None) -> list[Check]:
    """Check disk, memory and swap.

    Args:
        facts: Facts that the device reported.
        shown: Its survey.
        profile: Its profile; not used here.
    """
    builds = facts.gpu is not None and facts.gpu.unified and bool(BUILDERS & set(facts.runtimes))
    return [_disk(shown), _memory(shown, builds), _swap(shown, builds)]


def _disk(shown: UntrustedReply) -> Check:
    free_mb = shown.number("disk_free_mb")
    if free_mb is None:
        return Check("disk", "ok", NOT_SHOWN)
    mend = "sudo apt-get clean; rm -r ~/.cache/edgefront/blobs  # models are sent again when needed"
    return _scarce("disk", free_mb, DISK_MB, f"{free_mb:,.0f} MB free", mend)


def _memory(shown: UntrustedReply, builds: bool) -> Check:
    free_mb, all_mb = shown.number("memory_available_mb"), shown.number("memory_mb")
    if free_mb is None:
        return Check("memory", "ok", NOT_SHOWN)
    found = f"{free_mb:,.0f} MB available" + (f" of {all_mb:,.0f}" if all_mb else "")
    mend = HEADLESS if shown.texts("desktop") else "ps axo rss,pid,comm --sort=-rss | head  # stop what is not needed"
    return _scarce("memory", free_mb, MEMORY_TENSORRT_MB if builds else MEMORY_MB, found, mend)


def _scarce(name: str, free_mb: float, limits: tuple[int, int], found: str, mend: str) -> Check:
    if free_mb >= limits[1]:
        return Check(name, "ok", found)
    return Check(name, "bad" if free_mb < limits[0] else "warn", found, mend)


def _swap(shown: UntrustedReply, builds: bool) -> Check:
    swap_mb, zram_mb, all_mb = (shown.number(name) for name in ("swap_mb", "swap_zram_mb", "memory_mb"))
    if swap_mb is None:
        return Check("swap", "ok", NOT_SHOWN)
    found = f"{swap_mb:,.0f} MB"
    if zram_mb:
        found += f", {zram_mb:,.0f} MB of it zram, which itself occupies memory"
    if not builds or all_mb is None or all_mb > SMALL_MB or swap_mb - (zram_mb or 0) >= SWAP_MB:
        return Check("swap", "ok", found)
    no_zram = "sudo systemctl disable --now nvzramconfig; " if zram_mb else ""
    return Check("swap", "warn", f"{found}: large engines may be killed while they are built", no_zram + SWAP_FILE)
