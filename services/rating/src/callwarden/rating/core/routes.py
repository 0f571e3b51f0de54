"""Routes: the carriers for a number, and how each wants the number written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from callwarden.rating.core.prefixes import PrefixOrder, code_of

ROUTES_MAX: Final = 8  # In one answer: each dead one costs the caller 20 s, who hangs up long before the ninth.
PRIORITY_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Carrier:
    """A trunk for outgoing calls. `is_usable`: it and its account are enabled."""

    trunk: str
    address: str
    account_id: str
    strip_digits: int = 0
    add_prefix: str = ""
    """Put before the number after stripping: the carrier's tech prefix first, then what its number format wants."""
    is_usable: bool = True


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route as an operator writes it: numbers with `prefix` (empty: all) may go to the trunk; lowest first."""

    prefix: str
    trunk: str
    priority: int = 0
    cost_deck: str = ""


@dataclass(frozen=True, slots=True)
class RatingRoute:
    """A row with its carrier."""

    row: RouteRow
    carrier: Carrier


class RouteTable:
    """Routes by longest prefix, then priority, then the trunk's name. Ignores carriers that aren't usable, so a shorter
    prefix takes over if the longest has none left.
    """

    def __init__(self, routes: Iterable[RatingRoute] = ()) -> None:
        by_prefix: dict[str, list[RatingRoute]] = {}
        for route in routes:
            if route.carrier.is_usable:
                by_prefix.setdefault(route.row.prefix, []).append(route)
        self._by_prefix = {
            prefix: tuple(sorted(found, key=lambda route: (route.row.priority, route.row.trunk))[:ROUTES_MAX])
            for prefix, found in by_prefix.items()
        }
        self._lengths = sorted({len(prefix) for prefix in by_prefix}, reverse=True)
        self.order = PrefixOrder(sorted(code_of(prefix) for prefix in by_prefix if prefix))

    def match(self, digits: str) -> tuple[RatingRoute, ...]:
        """The routes of the longest matching prefix, in the order to try them; empty if there are none."""
        for length in self._lengths:
            if (found := self._by_prefix.get(digits[:length])) is not None:
                return found
        return ()
