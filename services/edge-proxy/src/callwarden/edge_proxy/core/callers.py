"""Who may call as whom, and whom: from an authenticated identity and an INVITE to what call-admission is asked.

In: caller ids, domains, called names and numbers. Out: credentials (`challenge`), limits (call-admission).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from callwarden.edge_proxy.core.call import Target
from callwarden.edge_proxy.core.context import ProxyIdentity
from callwarden.edge_proxy.core.effects import CallerIdentity, CarrierRoute, NumberOwner
from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.kernel.clock import UnixS
from callwarden.kernel.phone import E164, BadNumber, is_number
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip.address import Endpoint
from callwarden.sip.grammar import split_list
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request
from callwarden.sip.nameaddr import parse_name_addr
from callwarden.sip.uri import Uri

ANONYMOUS_HOST = "anonymous.invalid"  # RFC 3323 4.1.1.3
DIALLED_MAX = 64  # For the record; longer ones are no number and no name of ours.


@dataclass(frozen=True, slots=True)
class Called:
    """The called party: E.164 digits for a carrier; or a local user's name and the phones to ring; or the digits of a
    trunk's number and the trunk."""

    destination: str
    dialled: str
    local: bool
    targets: tuple[Target, ...] = ()


def caller_number(request: Request, identity: CallerIdentity, username: str, proxy: ProxyIdentity) -> str | Refuse:
    """The number (or name) that the caller shows, if it may.

    A subscriber's From must be in a domain of ours and name the user itself or a number of its account; a trunk shows
    the numbers of its own customers. Where From is anonymous, P-Preferred-Identity says it (RFC 3323 4.1.1.3, RFC 3325
    6), or it is the user.
    """
    try:
        sender = request.from_.uri
        if sender.host.lower() == ANONYMOUS_HOST and not identity.is_trunk:
            preferred = request.get("p-preferred-identity")
            if preferred is None:
                return identity.numbers[0] if identity.numbers else username
            sender = parse_name_addr(split_list(preferred)[0]).uri
        shown = _in_full(sender, proxy)
    except Malformed:
        return Refuse(Reason.MALFORMED, "caller-id", text="From can't be read")
    except BadNumber:
        return Refuse(Reason.CALLER_ID, "caller-id", text="From has a local number of somebody else's")
    if identity.is_trunk:
        return shown[:DIALLED_MAX]
    if proxy.realm_of(sender) is None:
        return Refuse(Reason.FOREIGN_DOMAIN, "foreign-domain", text="From is in a domain that isn't ours")
    if shown == username:
        return identity.numbers[0] if identity.numbers else username
    number = _number_of(shown)
    if number is not None and number in identity.numbers:
        return number
    return Refuse(Reason.CALLER_ID, "caller-id", text="From is neither the user nor a number of its account")


def called_user(request: Request, proxy: ProxyIdentity) -> tuple[str, str]:
    """What auth is asked whose number or name it is, and the realm; "": nothing that can be read, or a realm of others,
    which `called_party` refuses."""
    try:
        return _in_full(request.uri, proxy)[:DIALLED_MAX], proxy.realm_of(request.uri) or ""
    except (Malformed, BadNumber):
        return "", ""


def called_party(
    request: Request, identity: CallerIdentity, proxy: ProxyIdentity, locations: Locations, unix_s: UnixS
) -> Called | Refuse:
    """Whom the INVITE is for."""
    try:
        uri = request.uri
    except Malformed:
        return Refuse(Reason.MALFORMED, "called", text="the Request-URI can't be read")
    return called_uri(
        uri, identity.tech_prefix, proxy, locations, unix_s, identity.called_owner, is_user=identity.called_is_user
    )


def called_uri(
    uri: Uri,
    tech_prefix: str,
    proxy: ProxyIdentity,
    locations: Locations,
    unix_s: UnixS,
    owner: NumberOwner | None = None,
    *,
    is_user: bool = False,
) -> Called | Refuse:
    """Whom a URI means: a number for a carrier, or a user of ours. `is_user`: its digits are a user's name."""
    try:
        user = _in_full(uri, proxy)
    except Malformed:
        return Refuse(Reason.MALFORMED, "called", text="the URI can't be read")
    except BadNumber:
        return Refuse(Reason.BAD_NUMBER, "called", text="a local number whose phone-context isn't ours to complete")
    realm = proxy.realm_of(uri)
    if realm is None:
        # No open relay, for any caller (spec.routing.blockOtherDomains, forwardToOtherDomains).
        return Refuse(Reason.FOREIGN_DOMAIN, "foreign-domain", text="the called domain isn't ours")
    if not user or len(user) > DIALLED_MAX:
        return Refuse(Reason.NOT_FOUND, "called", text="the Request-URI names no user")
    dialled = user
    if tech_prefix:
        user = user.removeprefix(tech_prefix)
    if owner is not None:
        # Before any user of that name: a number is its owner's, whatever others are called.
        return _owned(owner, E164.parse(user), dialled, locations, unix_s)
    location = locations.find_user(realm, user, unix_s)
    if location is not None:
        return Called(location.username, dialled, local=True, targets=_phones([location], unix_s))
    if is_user:
        # A name of ours is local, as a number of ours is. With "+" it would have been a number.
        return Refuse(Reason.NOT_REGISTERED, "called", text="no phone of this user of ours is registered")
    if not is_number(user):
        return Refuse(Reason.NOT_FOUND, "called", text="no such user is registered")
    try:
        return Called(E164.parse(user).digits, dialled, local=False)
    except BadNumber:
        return Refuse(Reason.BAD_NUMBER, "called", text="not a number in international form")


def _owned(owner: NumberOwner, number: E164, dialled: str, locations: Locations, unix_s: UnixS) -> Called | Refuse:
    """A number of ours: its owner's phones, in whatever realm those are, or its trunk. It never leaves to a carrier."""
    found = locations.find_account(owner.account_id, unix_s)
    if found:
        return Called(found[0].username, dialled, local=True, targets=_phones(found, unix_s))
    if owner.trunks:
        targets = tuple(trunk_target(number.digits, trunk) for trunk in owner.trunks)
        return Called(number.digits, dialled, local=True, targets=targets)
    return Refuse(Reason.NOT_REGISTERED, "called", text="nobody is registered for this number of ours")


def trunk_target(digits: str, route: CarrierRoute) -> Target:
    """A number at a carrier's or a trunk's address."""
    return Target(carrier_uri(digits, route.add_prefix, route.strip_digits, route.address), route.address, route.trunk)


def _phones(found: Sequence[Location], unix_s: UnixS) -> tuple[Target, ...]:
    return tuple(_phone(binding) for location in found for binding in location.live(unix_s))


def _phone(binding: Binding) -> Target:
    return Target(binding.uri, binding.received, is_phone=True, account_id=binding.account_id)


def _in_full(uri: Uri, proxy: ProxyIdentity) -> str:
    """The user part, in global form where a phone-context makes it a local number (RFC 3966 5.1.5).

    Raises Malformed, BadNumber for what the context leaves open: a national prefix, a numbering plan of others.
    """
    user = uri.username
    context = uri.params.get("phone-context")
    name, _, params = user.partition(";")
    for param in params.split(";"):
        key, _, value = param.partition("=")
        if key.lower() == "phone-context":
            context = value
    if context is None or name.startswith("+"):
        return user
    context = unquote(context).lower()
    if context.startswith("+"):
        if name.startswith("0"):
            raise BadNumber(user)
        return f"{context}{name}"
    if context in proxy.realms:
        return name
    raise BadNumber(user)


def _number_of(user: str) -> str | None:
    try:
        return str(E164.parse(user))
    except BadNumber:
        return None


def carrier_uri(digits: str, add_prefix: str, strip_digits: int, carrier: Endpoint) -> str:
    """The Request-URI for a carrier: its digits as it wants them, at its address."""
    return f"sip:{add_prefix}{digits[strip_digits:]}@{carrier}"
