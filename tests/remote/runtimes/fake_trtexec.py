"""A stand-in for trtexec: `python fake_trtexec.py VERSION options`, VERSION one of trtexec/options.json.

It takes exactly the options of that version, each once looked up and then crossed out, as the real one does, and
says what is recorded in trtexec/. An "ONNX file" is JSON:
  compute_ms, h2d_ms  how long it runs, and its input is copied
  shape, classes      of its input and its output, which sums each n-th input, n being the classes
  layers              what the timing cache remembers
  inspected           the engine's layers: [name, type, format, milliseconds]
  record, status      what it says instead of building, and the exit status (negative: a signal)
  when                "build" or "run": which of the two ends so
The engine is the same with the command line that made it.
"""

import json
import os
import struct
import sys
from pathlib import Path

HERE = Path(__file__).with_name("trtexec")
BANNERS = {"8.2.1": "[TensorRT v8201]", "10.3.0": "[TensorRT v100300] [b26]", "11.4.0": "[TensorRT v110400] [b106]"}


def main(version, words):
    command = f"TensorRT.trtexec {BANNERS[version]} # trtexec {' '.join(words)}"
    print(f"&&&& RUNNING {command}", flush=True)
    options = dict(word[2:].partition("=")[::2] for word in words)
    known = json.loads((HERE / "options.json").read_text())[version].split()
    if "help" in options:
        print("=== Model Options ===\n  --onnx=<file>               ONNX model")
        return 0
    if unknown := [name for name in options if name not in known]:
        for name in unknown:
            print(f"[11/20/2026-10:00:00] [E] Unknown option: --{name} {options[name]}")
        if version < "11" or version[0] == "8":  # 11 leaves without the last line
            print(f"&&&& FAILED {command}")
        return 1
    status = build(version, options) if "onnx" in options else run(version, options)
    print(f"&&&& {'FAILED' if status else 'PASSED'} {command}")
    return status


def say(version, record, **fields):
    text = (HERE / f"{version}-{record}.txt").read_text()
    for name, value in fields.items():
        text = text.replace("{" + name + "}", str(value))
    print(text, end="", flush=True)


def end(version, graph):
    """Ends as the graph says."""
    say(version, graph["record"], input="1", output="1", queries=0)
    if graph["status"] < 0:
        os.kill(os.getpid(), -graph["status"])
    return graph["status"]


def build(version, options):
    graph = json.loads(Path(options["onnx"]).read_text())
    if graph.get("when") == "build":
        return end(version, graph)
    cache = Path(options["timingCacheFile"]) if "timingCacheFile" in options else None
    known = cache.read_text().split() if cache and cache.exists() else ["TIMES"]
    if known[0] != "TIMES":
        say(version, "timing_cache")
        return 1
    graph["timed"] = [layer for layer in graph.get("layers", []) if layer not in known]
    if cache:
        cache.write_text(" ".join(known + graph["timed"]))
    say(version, "build")
    if not graph.get("forgets"):
        Path(options["saveEngine"]).write_text(json.dumps(dict(graph, options=options, version=version)))
    return 0


def run(version, options):
    graph = json.loads(Path(options["loadEngine"]).read_text())
    if graph.get("when") == "run":
        return end(version, graph)
    assert "exposeDMA" in options and int(options["duration"]) >= 0
    if version[:2] == "11":
        assert {"includeDataTransfers", "noSpinWait", "noCudaGraph"} <= set(options)
    rows = list(timed(graph, options))
    shape = "x".join(map(str, graph["shape"]))
    say(version, "run", input=shape, output=f"1x{graph['classes']}", queries=options["iterations"])
    if "exportTimes" in options:
        warm_up_ms = 0 if version[0] == "8" else int(options["warmUp"])  # 8.2 exports the warm-up too
        kept = [row for row in rows if row["startComputeMs"] >= warm_up_ms]
        Path(options["exportTimes"]).write_text(exported(kept, version))
    if "exportLayerInfo" in options:
        Path(options["exportLayerInfo"]).write_text(layer_information(graph))
    if "exportProfile" in options:
        Path(options["exportProfile"]).write_text(profile(graph, int(options["iterations"])))
    if "exportOutput" in options:
        name, _, file = options["loadInputs"].rpartition(":")
        assert name == "x"
        Path(options["exportOutput"]).write_text(outputs(graph, Path(file).read_bytes()))
    return 0


def timed(graph, options):
    """Rows of trtexec's own loop: until there are enough after the warm-up, and it has lasted long enough."""
    warm_up_ms, at_ms, counted = int(options["warmUp"]), 0.0, 0
    end_ms = warm_up_ms + 1000 * int(options["duration"])
    while counted < int(options["iterations"]) or at_ms < end_ms:
        h2d = at_ms + 0.04
        compute = h2d + graph["h2d_ms"] + 0.01
        d2h = compute + graph["compute_ms"] * (1 + counted % 3 / 100) + 0.01
        yield {
            "startEnqMs": at_ms,
            "endEnqMs": at_ms + 0.5,
            "startH2dMs": h2d,
            "endH2dMs": h2d + graph["h2d_ms"],
            "startComputeMs": compute,
            "endComputeMs": d2h - 0.01,
            "startD2hMs": d2h,
            "endD2hMs": d2h + 0.008,
        }
        counted += compute >= warm_up_ms
        at_ms = d2h + 0.1


def exported(rows, version):
    """--exportTimes' file: six digits each, as C++ streams print them."""
    lines = []
    for row in rows:
        for name in ("h2d", "compute", "d2h"):
            key = name[0].upper() + name[1:]
            row[f"{name}Ms"] = row[f"end{key}Ms"] - row[f"start{key}Ms"]
        row["latencyMs"] = row["h2dMs"] + row["computeMs"] + row["d2hMs"]
        if version[0] == "8":
            row["endToEndMs"] = row["endD2hMs"] - row["startH2dMs"]
        lines.append("{ " + ", ".join(f'"{name}" : {value:g}' for name, value in row.items()) + " }")
    return "[\n  " + "\n, ".join(lines) + "\n]\n"


def layer_information(graph):
    """--exportLayerInfo's file: names alone unless the engine was built to tell more."""
    rows, detailed = graph.get("inspected", []), graph["options"].get("profilingVerbosity") == "detailed"
    layers = [
        {"Name": name, "LayerType": kind, "Inputs": [{"Name": "t", "Dimensions": [1], "Format/Datatype": words}]}
        if detailed
        else name
        for name, kind, words, _ in rows
    ]
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


def profile(graph, count):
    """--exportProfile's file."""
    rows = [
        {"name": name, "timeMs": ms * count, "averageMs": ms, "percentage": 10.0}
        for name, _, _, ms in graph.get("inspected", [])
    ]
    return json.dumps([{"count": count}, *rows])


def outputs(graph, data):
    """--exportOutput's file; C++ prints what is no number as `nan` and `inf`."""
    values, classes = struct.unpack(f"<{len(data) // 4}f", data), graph["classes"]
    sums = ", ".join(f"{sum(values[index::classes]):g}" for index in range(classes))
    return f'[\n  {{ "name" : "y"\n  , "dimensions" : "1x{classes}"\n  , "values" : [ {sums} ]\n  }}\n]\n'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
