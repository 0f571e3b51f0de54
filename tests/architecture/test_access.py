"""Who may call what: every gRPC method says it, and the roles have no more than what they do."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from callwarden.auth.adapters.grpc_server import AuthServicer
from callwarden.call_admission.admission.adapters.admission_grpc import AdmissionGrpc
from callwarden.common.rpc.access import OTHERS, ROLES, callers_of
from callwarden.rate_guard.adapters.grpc_server import RateGuardServicer
from callwarden.rating.adapters.grpc_server import RatingServicer

pytestmark = pytest.mark.cases

PROTO = Path(__file__).parents[2] / "proto"


def methods() -> Iterator[MethodDescriptor]:
    """All of all services in proto/."""
    for path in sorted(PROTO.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTO).with_suffix("").parts)
        for service in importlib.import_module(f"{name}_pb2").DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def allowed(role: str) -> set[str]:
    return {
        f"{method.containing_service.name}.{method.name}" for method in methods() if role in callers_of(path_of(method))
    }


@pytest.mark.parametrize("method", list(methods()), ids=path_of)
def test_every_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    callers = callers_of(path_of(method))
    assert callers, f"{path_of(method)} needs `option (access.v1.callers)` in its .proto file"
    assert callers <= ROLES


def test_all_services_are_looked_at() -> None:
    services = {method.containing_service.name for method in methods()}
    assert services == {
        "AccountService", "AdmissionService", "AuthService", "ListService", "PaymentService", "RateGuardService",
        "RatingService",
    }  # fmt: skip


def test_a_method_that_nobody_has_heard_of_can_be_called_by_nobody() -> None:
    for path in ("/callwarden.api.admission.v1.AdmissionService/Forget", "/x.Y/Z", "", "/", "nonsense"):
        assert callers_of(path) == frozenset()


def test_each_role_may_do_what_it_does_and_nothing_else() -> None:
    assert allowed("edge-proxy") == {
        "AdmissionService.Admit", "AdmissionService.Extend", "AdmissionService.Stream",
        "AuthService.Verify", "AuthService.VerifyAddress", "AuthService.FindCalled", "AuthService.Stream",
        "RateGuardService.Count", "RateGuardService.AddBan", "RateGuardService.Stream",
    }  # fmt: skip
    assert allowed("call-admission") == allowed("administration") == {"RatingService.Quote", "RatingService.Stream"}
    assert allowed("security-policy") == {
        "AccountService.CreateAccount", "AccountService.GetAccount", "AccountService.CreateTrunk",
        "AccountService.UpdateTrunk", "AccountService.ListTrunks", "AccountService.DeleteTrunk",
        "RateGuardService.AddBan", "RateGuardService.RemoveBans", "RatingService.ImportDeck",
    }  # fmt: skip
    for silent in ("auth", "rate-guard", "rating", "payment", "monitor"):
        assert allowed(silent) == set()
    everything = {f"{method.containing_service.name}.{method.name}" for method in methods()}
    # Made by phones, not by hand.
    calls = {"Admit", "Extend", "Verify", "VerifyAddress", "FindCalled", "Count", "Quote", "Stream"}
    assert allowed("admin") == {each for each in everything if each.partition(".")[2] not in calls}


def test_money_and_accounts_are_for_the_administrator() -> None:
    for method in ("payment.v1.PaymentService/TopUp", "admission.v1.AccountService/CorrectCall",
                   "admission.v1.AccountService/ReverseEntry", "auth.v1.AuthService/SetPassword"):  # fmt: skip
        assert callers_of(f"/callwarden.api.{method}") == {"admin"}


def test_what_grpc_itself_serves_is_in_the_table_too() -> None:
    assert callers_of("/grpc.health.v1.Health/Check") == ROLES
    assert callers_of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") == {"admin"}
    assert all(OTHERS.values())


@pytest.mark.parametrize(
    ("servicer", "service"),
    [
        (AuthServicer, "auth.v1.AuthService"),
        (AdmissionGrpc, "admission.v1.AdmissionService"),
        (RateGuardServicer, "rateguard.v1.RateGuardService"),
        (RatingServicer, "rating.v1.RatingService"),
    ],
)
def test_what_goes_by_a_stream_may_be_asked_by_those_who_may_open_it(servicer: Any, service: str) -> None:
    found = next(method for method in methods() if path_of(method) == f"/callwarden.api.{service}/Stream")
    opened_by = callers_of(path_of(found))
    hot = {name for name in dir(servicer) if callers_of(f"/callwarden.api.{service}/{name}") == opened_by}
    assert len(hot) >= 2  # Stream itself, and at least one that goes by it
