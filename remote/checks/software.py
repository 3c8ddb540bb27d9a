"""Is there something to run a model with, and what can it do here?"""

from __future__ import annotations

from remote.checks.check import Check, Shown
from remote.device import ON_GPU, Facts, Profile, capabilities, version_of

BINDINGS = "sudo apt-get install python3-libnvinfer  # and use /usr/bin/python3, which sees it"


def software(facts: Facts, shown: Shown, profile: Profile | None) -> list[Check]:
    """Python and every runtime: version, opset ceiling, fast precisions and why not the others."""
    python = Check("python", "ok", facts.python)
    if not facts.runtimes:
        return [python, Check("runtimes", "bad", "none", install(facts, profile))]
    return [python, *(_runtime(facts, name) for name in sorted(facts.runtimes)), *_gpu(facts)]


def install(facts: Facts, profile: Profile | None) -> str:
    """How a runtime gets there."""
    if version_of(facts.python) < (3, 7) and facts.machine == "aarch64":
        cpu = "pip3 install --user onnxruntime==1.10.0 numpy==1.19.5  # the last ones for Python 3.6"
        return f"{BINDINGS}; for the CPU: {cpu}" if _jetson(facts) else cpu
    if profile and profile.install:
        return profile.install
    return "python3 -m pip install --user onnxruntime, with the Python that is used there"


def _runtime(facts: Facts, name: str) -> Check:
    able = capabilities(facts, [name])
    found = f"{facts.runtimes[name]}: opset up to {able.opset_max}, {', '.join(able.precisions)}"
    reasons = dict.fromkeys(able.why_not.values())  # one reason may stand for both
    for reason in reasons:
        found += f"; not {', '.join(p for p, why in able.why_not.items() if why == reason)}: {reason}"
    return Check(f"runtime {name}", "ok", found)


def _gpu(facts: Facts) -> list[Check]:
    """Whether the GPU, where there is one, is of use."""
    if facts.gpu is None and not _jetson(facts):
        return []
    if any(name in ON_GPU for name in facts.runtimes):
        gpu = f"{facts.gpu.name}, sm {facts.gpu.sm}, {facts.gpu.memory_mb} MB" if facts.gpu else "no CUDA answers"
        shared = " shared with the CPU" if facts.gpu and facts.gpu.unified else ""
        return [Check("gpu", "ok" if facts.gpu else "warn", gpu + shared)]
    mend = BINDINGS if _jetson(facts) else "python3 -m pip install --user tensorrt, or onnxruntime-gpu"
    return [Check("gpu", "warn", "no runtime uses it: models would run on the CPU", mend)]


def _jetson(facts: Facts) -> bool:
    return facts.release.startswith("L4T")
