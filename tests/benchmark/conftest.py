"""Summaries by hand, with as many variants and seeds as a test wants."""

import pytest

from frcnn.benchmark.session import Plan
from frcnn.benchmark.statistics import Spread, paired_difference
from frcnn.benchmark.summary import METRICS, Row, Summary
from frcnn.benchmark.variants import Variant
from frcnn.checkpoint.config_changes import ConfigChange


@pytest.fixture
def summary_of(tmp_path):
    """({variant: (APs of the seeds, latency in ms)}) -> Summary."""

    def make(variants, **fields):
        rows = []
        for name, (aps, milliseconds) in variants.items():
            metrics = {m: Spread(dict(enumerate(aps)) if m.startswith("bbox/") else {}) for m in METRICS}
            first = rows[0].metrics if rows else metrics
            row = Row(
                name,
                not rows,
                metrics,
                {m: paired_difference(metrics[m], first[m]) for m in METRICS},
                latency=[[milliseconds / 1e3] * 10] if milliseconds else (),
                steps=[[0.5, 0.5]],
                batch_size=4,
                facts={"variant": name, "size": [320, 427], "flops": 2e9, "amp": "off", "trained": True},
                changes=[ConfigChange("model.x", "1 < 2", "3", False)] if rows else [],
                **(fields if rows else {}),
            )
            rows.append(row)
        seeds = range(max(len(aps) for aps, _ in variants.values()))
        plan = Plan([Variant(name, f"{name}.yaml", None) for name in variants], tmp_path, seeds=tuple(seeds))
        return Summary(rows, [], ["a machine"], plan)

    return make
