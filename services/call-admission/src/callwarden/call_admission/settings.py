"""What the two processes of call-admission read from their environment."""

from typing import Annotated

from pydantic import Field

from callwarden.common import settings


class ProcessSettings(settings.Settings):
    """What both processes read, besides what every process does; every name gets the prefix CALLWARDEN_."""

    rating_targets: Annotated[str, Field(pattern=r"^\S+$")] = "127.0.0.1:7003"
    """host:port of rating, several with commas."""

    quotes_cached_max: Annotated[int, Field(ge=1_000, le=1_000_000)] = 50_000
    """Prices kept in memory, by price list and called number, 0.4 KB each."""

    def targets(self) -> tuple[str, ...]:
        return tuple(part for part in self.rating_targets.split(",") if part)


class AdmissionSettings(ProcessSettings):
    """Of the process that calls are decided in."""


class AdministrationSettings(ProcessSettings):
    """Of the process that serves operators."""

    keep_cdr_days: Annotated[int, Field(ge=0, le=100_000)] = 400
    """Call records are kept so many days; 0: for ever. Ledger entries always stay."""

    keep_decision_days: Annotated[int, Field(ge=0, le=100_000)] = 30
    """Refusals and cuts, for `callwarden explain`; 0: for ever. Decisions of admitted calls stay with their records."""

    keep_counter_days: Annotated[int, Field(ge=0, le=100_000)] = 400
    """Counters of addresses, realms and resellers that nothing was counted in for so long; 0: for ever."""

    keep_spend_day_days: Annotated[int, Field(ge=0, le=100_000)] = 400
    """Spend of an account's past days; 0: for ever."""

    check_charges_every_s: Annotated[int, Field(ge=0, le=30 * 86_400)] = 3_600
    """How often charges are checked against prices, ledger and holds, as `callwarden ledger check` does; 0: never."""

    check_charges_span_s: Annotated[int, Field(ge=60, le=366 * 86_400)] = 86_400
    """Such a check looks at calls that began, or were charged, so long ago at most."""

    def kept_days(self) -> dict[str, int]:
        """By what callwarden.call_admission.records.ports.KEPT names."""
        return {
            "cdr": self.keep_cdr_days,
            "decision": self.keep_decision_days,
            "counter": self.keep_counter_days,
            "spend_day": self.keep_spend_day_days,
        }
