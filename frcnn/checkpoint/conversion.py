"""What became of every tensor of another framework's file, as one table that fits a screen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from frcnn.checkpoint.report import group_names

_MOST_WORDS = 3


@dataclass(frozen=True)
class Conversion:
    """Where the tensors of a file went.

    Args:
        source: the file, as the person wrote it.
        kind: which framework wrote it, in words.
        theirs: tensors by the file's names.
        ours: tensors by our names; those that nobody knows keep their names.
        origins: our name -> the file's name; what is not in it was added.
        left_out: the file's name -> why it has no place here.
        unknown: the file's names that no rule knows.
        notes: what else was changed, in sentences.
    """

    source: str
    kind: str
    theirs: Mapping[str, Tensor]
    ours: Mapping[str, Tensor]
    origins: Mapping[str, str]
    left_out: Mapping[str, str]
    unknown: Sequence[str]
    notes: Sequence[str] = ()

    def table(self) -> str:
        """One row for each group of tensors that went the same way.

        Returns:
            Text: every tensor of the file is counted in exactly one row.
        """
        rows = [(*names, str(len(group)), self._changes(group)) for names, group in self._moved().items()]
        for reason, names in _by_reason(self.left_out).items():
            rows += [(label, f"left out: {reason}", "", "") for label in group_names(names, self.theirs)]
        rows += [(label, "unknown: keeps its name", "", "") for label in group_names(self.unknown, self.theirs)]
        added = [name for name in self.ours if name not in self.origins and name not in self.theirs]
        if added:
            endings = sorted({name.rsplit(".", 1)[1] for name in added})
            rows.append((f"(added: {', '.join(endings)})", "the norms of the backbone", str(len(added)), ""))
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1, 2)]
        lines = [f"{self.source}: {self.kind}, {len(self.theirs)} tensors"]
        for theirs, ours, count, change in rows:
            row = f"  {theirs:<{widths[0]}}  ->  {ours:<{widths[1]}}  {count:>{widths[2]}}  {change}"
            lines.append(row.rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _moved(self) -> dict[tuple[str, str], list[str]]:
        """(their group, our group) -> our names in it, in the order of the file."""
        groups: dict[tuple[str, str], list[str]] = {}
        for ours, theirs in self.origins.items():
            groups.setdefault((_group(theirs), _group(ours)), []).append(ours)
        return groups

    def _changes(self, names: Sequence[str]) -> str:
        """The tensors of a group that have another shape than in the file: `[91, 1024] -> [81, 1024]`."""
        pairs = [(self.theirs[self.origins[name]].shape, self.ours[name].shape) for name in names]
        changed = dict.fromkeys(f"{list(old)} -> {list(new)}" for old, new in pairs if old != new)
        return ", ".join(changed)


def _group(name: str) -> str:
    """The module that stands for a tensor: at most three words, none of them behind a number at the end.

    `backbone.body.layer1.0.conv1.weight` is in `backbone.body.layer1.*`, and `res2_0_branch2a_w` in `res2_*`, and
    a classifier's `layer1.0.conv1.weight` in `layer1.*`.
    """
    if "." not in name:
        stem = re.match(r"[a-z]+\d*(?=_)", name)
        return f"{stem[0]}_*" if stem else name
    words = name.split(".")[:-1][:_MOST_WORDS]
    if re.fullmatch(r"(layer|res)\d", words[0]):
        return f"{words[0]}.*"
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return ".".join(words) + ".*"


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    return reasons
