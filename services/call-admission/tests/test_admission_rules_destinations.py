"""Where calls may go: countries, prefixes, trunks, satellite networks, premium numbers."""

import pytest
from admission_line import (
    account,
    admission,
    policy,
    refusal,
    request,
    snapshot,
)
from phonenumbers import SUPPORTED_REGIONS, PhoneNumberType, example_number_for_type

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.call_admission.model.number_plan import NumberKind, country_code_of, country_of, kind_of
from callwarden.kernel.verdict import Reason

BERLIN, PARIS, TORONTO, NEW_YORK, INMARSAT = "493012345678", "33142345678", "14165550123", "12125550123", "870773111632"


@pytest.mark.setting("blocked-destinations")
@pytest.mark.parametrize(
    ("listed", "number", "text"),
    [
        ({"blockCountries": ["FR"]}, PARIS, "Calls to FR are blocked."),
        ({"blockCountries": ["FR"]}, BERLIN, ""),
        ({"allowCountries": ["DE"]}, BERLIN, ""),
        ({"allowCountries": ["de"]}, PARIS, "Calls are allowed to listed countries only, and this goes to FR."),
        ({"allowCountries": ["US"]}, TORONTO, "Calls are allowed to listed countries only, and this goes to CA."),
        ({"allowCountries": ["US"]}, NEW_YORK, ""),
        (
            {"allowCountries": ["DE"]},
            "999123456",
            "Calls are allowed to listed countries only, and this goes to no known country.",
        ),
        ({"allowCountries": ["DE"], "blockCountries": ["DE"]}, BERLIN, "Calls to DE are blocked."),
        # A prefix says more than a country.
        ({"blockCountries": ["FR"], "allow": ["331"]}, PARIS, ""),
        ({"blockCountries": ["FR"], "allow": ["331"]}, "33612345678", "Calls to FR are blocked."),
        ({"allowCountries": ["DE"], "allow": ["331"]}, PARIS, ""),
        ({"allowCountries": ["DE"], "allow": ["331"]}, BERLIN, ""),
        ({"allowCountries": ["DE"], "block": ["4930"]}, BERLIN, "Calls to +4930 are blocked."),
        (
            {"blockCountries": ["FR"], "allow": ["331"]},
            BERLIN,
            "Calls are allowed to listed prefixes only, and this isn't one.",
        ),
    ],
)
def test_countries_are_allowed_and_blocked(listed: dict[str, list[str]], number: str, text: str) -> None:
    decided = decide(snapshot(), request(number), policy(fraud={"destinations": listed}))
    if text:
        assert (refusal(decided).reason, refusal(decided).text) == (Reason.DESTINATION, text)
    else:
        admission(decided)


@pytest.mark.setting("blocked-destinations")
@pytest.mark.parametrize(
    ("home", "number", "admitted"),
    [("DE", BERLIN, True), ("DE", PARIS, False), ("", BERLIN, False), ("CA", TORONTO, True), ("CA", NEW_YORK, False)],
)
def test_home_only_is_the_accounts_own_country(home: str, number: str, admitted: bool) -> None:
    home_only = policy(fraud={"destinations": {"homeOnly": True}})
    decided = decide(snapshot(account(country=home)), request(number), home_only)
    assert (admission if admitted else refusal)(decided)


@pytest.mark.setting("blocked-destinations")
def test_home_only_leaves_allowed_prefixes_and_no_other_country() -> None:
    listed = {"homeOnly": True, "allow": ["331"], "allowCountries": ["FR"]}
    of, at_home = policy(fraud={"destinations": listed}), snapshot(account(country="DE"))
    admission(decide(at_home, request(BERLIN), of))
    admission(decide(at_home, request(PARIS), of))
    assert refusal(decide(at_home, request("33612345678"), of)).window == "FR"


@pytest.mark.setting("blocked-destinations")
@pytest.mark.parametrize(
    ("allowed", "blocked", "admitted"),
    [((), ("4930",), False), (("49",), (), True), (("33",), (), False), (("4930",), ("49",), True)],
)
def test_a_trunks_prefixes_hold_besides(allowed: tuple[str, ...], blocked: tuple[str, ...], admitted: bool) -> None:
    trunk = SourceTrunk("pbx", allowed_prefixes=frozenset(allowed), blocked_prefixes=frozenset(blocked))
    decided = decide(snapshot(trunk=trunk), request(BERLIN), policy())
    if admitted:
        admission(decided)
        no = policy(fraud={"destinations": {"blockCountries": ["DE"]}})
        assert refusal(decide(snapshot(trunk=trunk), request(BERLIN), no)).reason is Reason.DESTINATION
    else:
        assert "trunk pbx" in refusal(decided).text


def test_satellite_networks_are_no_countrys() -> None:
    assert country_of(INMARSAT) == "+870"
    lenient = {"blockSatellite": False, "destinations": {"blockCountries": ["DE"]}}
    admission(decide(snapshot(), request(INMARSAT), policy(fraud=lenient)))


@pytest.mark.parametrize(
    ("number", "code"), [(BERLIN, "49"), (NEW_YORK, "1"), (INMARSAT, "870"), ("999", ""), ("4", "")]
)
def test_a_number_begins_with_one_country_code_or_none(number: str, code: str) -> None:
    assert country_code_of(number) == code


@pytest.mark.setting("blockpremiumnumbers")
@pytest.mark.parametrize(
    ("of_type", "kind"),
    [(PhoneNumberType.PREMIUM_RATE, NumberKind.PREMIUM), (PhoneNumberType.SHARED_COST, NumberKind.SHARED_COST)],
)
def test_the_example_of_every_country_that_has_one_is_refused(of_type: int, kind: NumberKind) -> None:
    found = 0
    for region in sorted(SUPPORTED_REGIONS):
        example = example_number_for_type(region, of_type)
        if example is None:
            continue
        zeros = "0" * (example.number_of_leading_zeros or 1) if example.italian_leading_zero else ""
        number = f"{example.country_code}{zeros}{example.national_number}"
        assert kind_of(number) is not NumberKind.OTHER, region
        assert refusal(decide(snapshot(), request(number), policy())).reason is Reason.PREMIUM, region
        found += 1
    assert found > 20
