"""Which faults may be tried in one and the same run."""

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")


def stage(rule: str) -> str:
    """Figures are drawn by rules of their own, but by one script."""
    return "draw_*" if rule.startswith("draw_") else rule


def waves(items: list[Item], at_odds: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """Items that may be tried in one and the same run."""
    found: list[list[Item]] = []
    for item in items:
        for wave in found:
            if not any(at_odds(item, other) or at_odds(other, item) for other in wave):
                wave.append(item)
                break
        else:
            found.append([item])
    return found
