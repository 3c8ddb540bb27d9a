"""The same search from Python."""

from search import Settings, search

if __name__ == "__main__":  # training runs in a process of its own, which imports this file again
    result = search(Settings(budget_ms=0.2, trials=6, rungs=(0, 1), out="runs/python"))
    for m in result.front:
        print(m.candidate.describe(), f"{m.accuracy.top1:.3f}", f"{m.latency.percentile_ms.high:.3g} ms")
    print("chosen:", result.choice.candidate.describe() if result.choice else result.miss)
