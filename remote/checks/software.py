"""Check for runtimes, and for the precisions that run in them."""

from __future__ import annotations

from collections.abc import Mapping

from remote.checks.check import NOT_TRIED, Check, RuntimeTrial, UntrustedReply
from remote.device import ON_GPU, Facts, Profile, capabilities, version_of

DIFFERENCE_MAX = 0.02  # relative, of a float32 answer; TF32 and other orders of summing stay below it
BINDINGS = "sudo apt-get install python3-libnvinfer  # and use /usr/bin/python3, which sees it"


def software(
    facts: Facts,
    shown: UntrustedReply,
    profile: Profile | None,
    tried: Mapping[str, RuntimeTrial] | None = None,
    used: str | None = None,
) -> list[Check]:
    """Check Python and every runtime: version, opset ceiling, precisions that run and why not the others.

    Args:
        facts: Facts that the device reported.
        shown: Its survey.
        profile: Its profile, or None.
        tried: Runtime -> outcome of a model in it; a runtime in which no model ran is not called ok.
        used: The runtime that a search would use, without which a search is impossible.
    """
    python = Check("python", "ok", facts.python)
    if not facts.runtimes:
        return [python, Check("runtimes", "bad", "none", install(facts, profile))]
    runs = tried or {}
    rows = [_runtime(facts, name, runs.get(name, NOT_TRIED), name == used) for name in sorted(facts.runtimes)]
    return [python, *rows, *_gpu(facts)]


def install(facts: Facts, profile: Profile | None) -> str:
    """Return how to install a runtime on the device, one line.

    Args:
        facts: Facts that the device reported.
        profile: Its profile, or None.
    """
    if version_of(facts.python) < (3, 7) and facts.machine == "aarch64":
        cpu = "pip3 install --user onnxruntime==1.10.0 numpy==1.19.5  # the last ones for Python 3.6"
        return f"{BINDINGS}; for the CPU: {cpu}" if _jetson(facts) else cpu
    if profile and profile.install:
        return profile.install
    return "python3 -m pip install --user onnxruntime, with the Python that is used there"


def _runtime(facts: Facts, name: str, tried: RuntimeTrial, is_used: bool) -> Check:
    able = capabilities(facts, [name], {name: tried.why_not})
    title = f"runtime {name}"
    if tried.failed:
        return Check(title, "bad" if is_used else "warn", f"{facts.runtimes[name]}: {tried.failed}", tried.mend)
    found = f"{facts.runtimes[name]}: opset up to {able.opset_max}, {', '.join(able.precisions)}"
    reasons = dict.fromkeys(able.why_not.values())  # one reason may stand for both
    for reason in reasons:
        found += f"; not {', '.join(p for p, why in able.why_not.items() if why == reason)}: {reason}"
    for precision, how in tried.basis.items():
        if precision in able.precisions:
            found += f"; {precision}: {how}"
    if tried.skipped or tried.ms is None or tried.difference is None:
        return Check(title, "warn", f"{found}; not tried: {tried.skipped or NOT_TRIED.skipped}", "run the doctor again")
    found += f"; the reference model ran, {tried.ms:.3g} ms"
    if tried.difference > DIFFERENCE_MAX:
        found += f"; its outputs differ from this machine's by {100 * tried.difference:.2g} %"
        return Check(title, "bad" if is_used else "warn", found, "install another version of the runtime")
    return Check(
        title, "ok", f"{found}; its outputs agree with this machine's{'; a search uses it' if is_used else ''}"
    )


def _gpu(facts: Facts) -> list[Check]:
    """Check whether a runtime uses the GPU, where there is one."""
    if facts.gpu is None and not _jetson(facts):
        return []
    if any(name in ON_GPU for name in facts.runtimes):
        gpu = f"{facts.gpu.name}, sm {facts.gpu.sm}, {facts.gpu.memory_mb} MB" if facts.gpu else "CUDA is not usable"
        shared = " shared with the CPU" if facts.gpu and facts.gpu.unified else ""
        return [Check("gpu", "ok" if facts.gpu else "warn", gpu + shared)]
    mend = BINDINGS if _jetson(facts) else "python3 -m pip install --user tensorrt, or onnxruntime-gpu"
    return [Check("gpu", "warn", "no runtime uses it: models would run on the CPU", mend)]


def _jetson(facts: Facts) -> bool:
    return facts.release.startswith("L4T")
