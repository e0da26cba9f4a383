"""A run in numbers: how many slides, which answers, how fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

_BINS = 6


def distribution(name: str, results: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Slides by a pipeline's answer: calls, risk groups or ranges of mitoses per mm², then answers withheld; the most frequent calls first."""
    answers = [r["pipelines"][name] for r in results if r["status"] == "ok" and name in r["pipelines"]]
    given = [a for a in answers if a["status"] == "ok"]
    if given and "per_mm2" in given[0]:
        found = _ranges([a["hotspot"]["per_mm2"] if a.get("hotspot") else a["per_mm2"] for a in given])
    elif given and "share" in given[0]:
        shares = Counter(min(int(a["share"] * 4), 3) for a in given)
        found = [(f"{25 * i}–{25 * (i + 1)} % of the tissue", shares[i]) for i in range(4) if shares[i]]
    else:
        found = Counter(str(a.get("call") or a.get("group")) for a in given).most_common()
    return found + Counter(a["status"] for a in answers if a["status"] != "ok").most_common()


def _ranges(values: Sequence[float]) -> list[tuple[str, int]]:
    """Counts in ranges of equal width from 0, whole numbers wide."""
    width = max(1, int(np.ceil(max(values) / _BINS)))
    at = Counter(min(int(v // width), _BINS - 1) for v in values)
    return [(f"{i * width}–{(i + 1) * width}/mm²", at[i]) for i in range(max(at) + 1)]


def throughput(run: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How long, how fast, and where the workers' time went; what the passport does not say is left out."""
    facts = []
    done = [r for r in results if r["status"] == "ok"]
    try:
        seconds = (datetime.fromisoformat(run["finished"]) - datetime.fromisoformat(run["started"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        seconds = 0.0
    if seconds > 0:
        facts.append(("Last pass", f"{seconds:.0f} s with {run.get('workers', '?')} worker{'' if run.get('workers') == 1 else 's'}"))
        if before := run.get("slides_before"):  # what this pass found done would count as done in no time
            facts.append(("Begun earlier", f"{before} of {len(results)} slides"))
        else:
            facts.append(("Throughput", f"{3600 * len(done) / seconds:.0f} slides/h, {sum(r['tissue_mm2'] for r in done) / seconds:.2f} mm² of tissue/s"))
    spent = run.get("worker_seconds")
    if isinstance(spent, Mapping) and spent:
        total = sum(spent.values()) or 1
        parts = sorted(spent.items(), key=lambda kv: -kv[1])[:5]
        facts.append(("Workers' time", ", ".join(f"{k} {v / total:.0%}" for k, v in parts)))
    return facts
