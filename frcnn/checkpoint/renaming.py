"""Renaming the tensors of a state dict by rules, losing none silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Converted:
    """Weights of another framework under our names.

    Args:
        state_dict: our names.
        unused: names of the other framework that no rule knows, so that nothing is skipped silently.
        origins: our name -> the other framework's.
        left_out: names that are known and have no place here -> why.
    """

    state_dict: dict[str, Tensor]
    unused: list[str]
    origins: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """How some names of another framework read in ours.

    Args:
        pattern: regular expression for the whole name.
        replacement: our name, with \\1 for the groups of the pattern, or a function of the match.
    """

    pattern: str
    replacement: str | Callable[[re.Match[str]], str]

    def apply(self, name: str) -> str | None:
        """Our name, or None if the rule does not know this one."""
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return None
        return match.expand(self.replacement) if isinstance(self.replacement, str) else self.replacement(match)

    def under(self, pattern: str, replacement: str) -> Rule:
        """The same rule for names that stand under a prefix."""
        return Rule(
            f"(?:{pattern})(?P<rest>{self.pattern})",
            lambda match: replacement + str(self.apply(match["rest"])),
        )


def rename(
    state_dict: Mapping[str, Tensor], rules: Sequence[Rule], left_out: Sequence[tuple[str, str]] = ()
) -> Converted:
    """Gives every tensor the name that the first rule that knows it says.

    Args:
        state_dict: the weights of another framework.
        rules: how names read.
        left_out: patterns of names that have no place here, with the reason.

    Returns:
        the renamed weights and the names that no rule knows.

    Raises:
        ValueError: two tensors would get one name.
    """
    converted = Converted({}, [])
    for name, tensor in state_dict.items():
        ours = next((found for rule in rules if (found := rule.apply(name)) is not None), None)
        if ours is None:
            reason = next((why for pattern, why in left_out if re.fullmatch(pattern, name)), None)
            if reason is None:
                converted.unused.append(name)
            else:
                converted.left_out[name] = reason
        elif ours in converted.state_dict:
            raise ValueError(f"two of the weights would become {ours!r}; the second is {name!r}")
        else:
            converted.state_dict[ours] = tensor
            converted.origins[ours] = name
    return converted
