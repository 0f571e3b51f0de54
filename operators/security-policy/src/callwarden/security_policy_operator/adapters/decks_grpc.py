"""Price lists by rating (ports.DeckRegistry)."""

from typing import TYPE_CHECKING, Final

from callwarden.api.rating.v1 import rating_pb2 as pb
from callwarden.common.rpc.client import unary
from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.core.decks import DeckImport, DeckLineError

if TYPE_CHECKING:
    from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceAsyncStub

IMPORT_TIMEOUT_S: Final = 60.0  # the rows of a full ConfigMap take seconds, after an import of a million longer
_METHODS: Final = {"up": pb.Rounding.UP, "middle": pb.Rounding.MIDDLE, "down": pb.Rounding.DOWN}


class RatingDecks:
    """Of one rating."""

    def __init__(self, rating: "RatingServiceAsyncStub") -> None:
        self._rating = rating

    async def import_deck(self, name: str, spec: RateDeckSpec, csv: bytes) -> DeckImport | list[DeckLineError]:
        request = pb.ImportDeckRequest(
            name=name,
            currency=spec.currency,
            csv=csv,
            peak_hours=spec.peak_hours,
            time_zone=spec.time_zone,
            rounding=pb.Rounding(method=_METHODS[spec.rounding.method], decimals=spec.rounding.decimals),
            windows=[pb.DeckWindow(name=window.name, hours=window.hours) for window in spec.windows],
        )
        reply = await unary(self._rating.ImportDeck, request, timeout_s=IMPORT_TIMEOUT_S)
        if reply.errors:
            return [DeckLineError(error.line, error.field, error.reason) for error in reply.errors]
        return DeckImport(reply.version, reply.rows)
