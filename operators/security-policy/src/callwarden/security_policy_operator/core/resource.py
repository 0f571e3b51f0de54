"""Resources that a service carries out (Ban, Trunk, RateDeck): their specs, and the word for getting nothing.

In: what goes for all of them. Out: what each kind asks for (`bans`, `named`), what is said of them (`status`).
"""

from dataclasses import dataclass
from typing import TypeVar

from callwarden.policy.bundle import BadPolicy
from callwarden.policy.fields import Part
from callwarden.policy.resources import parse_resource
from callwarden.security_policy_operator.core.plan import Source

S = TypeVar("S", bound=Part)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is done for a resource, and why. `accepted`: it is right all the same."""

    reason: str
    message: str
    accepted: bool = False


def spec_of(source: Source, kind: type[S]) -> S | Refusal:
    """What a resource asks for, or the fields that a schema can't check and that are wrong."""
    try:
        spec = parse_resource({name: value for name, value in source.body.items() if name != "status"}).spec
    except BadPolicy as error:
        return Refusal("Invalid", "; ".join(map(str, error.problems)))
    assert isinstance(spec, kind)
    return spec
