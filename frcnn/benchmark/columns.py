"""The columns of every table of a benchmark: what they are called, how a cell reads, what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frcnn.benchmark.statistics import Difference, Spread
from frcnn.benchmark.summary import METRICS, Row, Summary

NOT_KNOWN = "n/a"
MIB = 2**20


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: with its unit.
        text: of a row's cell.
        number: what a row is sorted by; None where it is not known.
        about: a sentence for whoever hovers over the title.
        key: in the CSV.
    """

    title: str
    text: Callable[[Row], str]
    number: Callable[[Row], float | str | None]
    about: str
    key: str


def accuracy_columns(rows: Sequence[Row]) -> list[Column]:
    """AP and its differences to the first variant; what no row has (masks, keypoints) is left out."""
    names = [name for name in METRICS if name.startswith("bbox/") or any(row.metrics[name].values for row in rows)]
    columns = [_metric_column(name) for name in names]
    return [
        columns[0],
        Column(
            "ΔAP to the first",
            lambda row: "" if row.is_first else difference_text(row.differences["bbox/AP"]),
            lambda row: row.differences["bbox/AP"].mean,
            "mean over the seeds of the difference to the first variant, with the half width of its 95 % interval",
            "AP_difference",
        ),
        Column(
            "verdict",
            verdict,
            verdict,
            "within noise: the 95 % interval of the difference holds 0",
            "AP_verdict",
        ),
        *columns[1:],
    ]


def verdict(row: Row) -> str:
    """Whether the variant differs from the first by more than the seeds do."""
    return "compared with" if row.is_first else row.differences["bbox/AP"].verdict


def _metric_column(name: str) -> Column:
    def text(row: Row) -> str:
        return spread_text(row.metrics[name])

    def number(row: Row) -> float | None:
        return row.metrics[name].mean

    title = name.removeprefix("bbox/")
    return Column(title, text, number, f"COCO {title}, mean ± standard deviation over seeds, in 0..100", title)


def cost_columns() -> list[Column]:
    """Speed, memory and size."""
    peak = "peak of the process"
    return [
        _number("latency (ms)", lambda row: row.latency_median, 1e-3, 1, "median of one image", "latency_ms"),
        _number("p90 (ms)", lambda row: row.latency_p90, 1e-3, 1, "nine of ten passes are faster", "latency_p90_ms"),
        Column("image (h x w)", image_text, image_text, "what the latency and the FLOPs are of", "image_size"),
        _number("training (images/s)", lambda row: row.images_per_second, 1, 2, "by the median step", "train_images_s"),
        _number("GFLOPs", lambda row: row.facts.get("flops"), 1e9, 2, "1 multiply-add = 2 FLOPs", "gflops"),
        _number("parameters (M)", lambda row: row.facts.get("parameters"), 1e6, 2, "trained or not", "parameters_m"),
        _number("memory, inference (MiB)", lambda row: row.inference_memory, MIB, 0, peak, "memory_inference_mib"),
        _number("memory, training (MiB)", lambda row: row.training_memory, MIB, 0, peak, "memory_training_mib"),
    ]


def image_text(row: Row) -> str:
    """`320x427`."""
    return "x".join(map(str, row.facts["size"])) if row.facts else NOT_KNOWN


def _number(title: str, value: Callable[[Row], float | None], unit: float, digits: int, about: str, key: str) -> Column:
    def number(row: Row) -> float | None:
        found = value(row)
        return None if found is None else found / unit

    def text(row: Row) -> str:
        found = number(row)
        return NOT_KNOWN if found is None else f"{found:,.{digits}f}"

    return Column(title, text, number, about, key)


def spread_text(spread: Spread) -> str:
    """`57.9 ± 0.5`; without a spread of one seed."""
    if spread.mean is None:
        return NOT_KNOWN
    return f"{spread.mean:.1f} ± {NOT_KNOWN if spread.std is None else f'{spread.std:.1f}'}"


def difference_text(difference: Difference) -> str:
    """`+0.61 ± 1.24`, the half width of the 95 % interval behind the sign."""
    if difference.mean is None:
        return NOT_KNOWN
    half = difference.half_width
    return f"{difference.mean:+.2f} ± {NOT_KNOWN if half is None else f'{half:.2f}'}"


def notes(summary: Summary) -> list[str]:
    """How the numbers were made, in sentences."""
    plan, rows = summary.plan, summary.rows
    facts = [row.facts for row in rows if row.facts]
    seeds = len(plan.seeds)
    compared = sum(row.differences["bbox/AP"].half_width is not None for row in rows[1:])
    sentences = [f"machine: {machine}" for machine in summary.machines]
    if len(summary.machines) > 1:
        sentences.append(
            "warning: not everything was measured on the same machine; speeds of different ones do not compare"
        )
    if seeds:
        sentences += [
            f"AP at the end of the training, {seeds} seed{'s' if seeds > 1 else ''}; mean ± sample standard deviation",
            f"ΔAP: d = AP - AP of {rows[0].name} with the same seed; mean(d) ± t(0.975, n - 1) stdev(d) / sqrt(n); within "
            "noise where this 95 % interval holds 0. It speaks of other seeds, not of other test images",
        ]
    if compared:
        sentences.append(
            f"{compared} comparison{'s' if compared > 1 else ''}: of variants that are no better and no worse, "
            f"{compared * 0.05:.1f} are expected to be called so by chance"
        )
    if facts:
        sentences += _speed_notes(summary, facts)
    return sentences


def _speed_notes(summary: Summary, facts: Sequence[dict]) -> list[str]:
    speed, rounds = summary.plan.speed, summary.plan.rounds
    sizes = sorted({"x".join(map(str, fact["size"])) for fact in facts})
    amps = sorted({fact["amp"] for fact in facts})
    trained = {fact["trained"] for fact in facts}
    weights = "the first seed's weights" if trained == {True} else "random weights"
    if len(trained) > 1:
        untrained = ", ".join(fact["variant"] for fact in facts if not fact["trained"])
        weights = f"the first seed's weights (random ones: {untrained})"
    source = "generated images" if speed.synthetic_classes else f"{speed.images} test images"
    return [
        f"latency: one image of {' or '.join(sizes)} (h x w) from uint8 on the device to detections, {source}, {weights}, "
        f"amp {' or '.join(amps)}; {rounds} rounds of {speed.repeats} passes after {speed.warmup} to warm up, every "
        "round over all variants, every run a process of its own",
        f"training: forward, backward and optimizer step of whole batches read before; {rounds} rounds of {speed.repeats} steps",
        "memory: the largest resident set of the process, Python and torch included; on CUDA what torch allocated",
        f"GFLOPs: 1 multiply-add = 2 FLOPs (many papers print multiply-adds, half of it), ROI heads at {speed.proposals:,} "
        "proposals; convolutions, matrix products, attention, deformable convolutions and ROIAlign (8 FLOPs a sample)",
    ]


def all_columns(rows: Sequence[Row], *, accuracy: bool) -> list[Column]:
    """AP and what it costs, then the finer numbers; without accuracy where nothing was trained."""
    if not accuracy:
        return cost_columns()
    first, rest = accuracy_columns(rows)[:3], accuracy_columns(rows)[3:]
    return [*first, *cost_columns(), *rest]
