"""Every case that trial found has a test on running processes: `pytest -m cases` runs them, and this table says which.

A case is a file of trial's by its name, and what it showed. In: that each has tests, that these exist and are marked.
"""

import ast
from typing import Final

import pytest

from tests.architecture.remaining import ROOT

DIALOGS: Final = "tests/integration/test_cases_dialogs.py"
EARLIER: Final = "services/edge-proxy/tests/test_edge_dialog_cases.py"
MESSAGES: Final = "tests/integration/test_cases_messages.py"
OPERATOR: Final = "tests/integration/test_cases_operator.py"
ATTACKS: Final = "tests/integration/test_attacks.py::test_no_normal_call_fails_beside_an_attack"
TWO_EDGES: Final = f"{EARLIER}::test_the_cases_of_dialogs_over_two_edges"
NOT_ENDED: Final = f"{EARLIER}::test_what_could_not_be_ended_is_refused_and_a_missing_ack_is_found"
HOSTILE: Final = (
    "tests/integration/test_hostile.py::test_whatever_a_far_side_does_the_call_ends_at_both_sides_or_is_charged"
)

CASES: Final[dict[str, tuple[str, ...]]] = {
    "attack/F1-F2-free-calls": (TWO_EDGES,),
    "attack/F3-bye-that-the-edge-sends": (
        NOT_ENDED,
        f"{DIALOGS}::test_no_number_of_a_request_keeps_the_edge_from_ending_the_call",
    ),
    "attack/F3-cseq-poison_F8-refer_F8-update-pai": (
        f"{DIALOGS}::test_no_number_of_a_request_keeps_the_edge_from_ending_the_call",
        f"{DIALOGS}::test_a_carrier_is_never_asked_to_call_somebody_nor_told_who_calls_by_a_phone",
    ),
    "attack/F4-spoofed-bans": (ATTACKS, "tests/integration/test_cases_bans.py::test_nobody_is_shut_out_by_it"),
    "attack/F5-local-process-no-credential": (
        "tests/integration/test_strangers.py::test_every_method_of_every_process_is_for_its_callers_only",
        "tests/integration/test_strangers.py::test_a_process_of_this_machine_can_not_top_up_an_account",
        "tests/integration/test_bus_rights.py::test_nobody_gets_in_without_the_password_of_a_role",
    ),
    "attack/F6-smart-list_and-hostile-strings": (
        ATTACKS,
        f"{MESSAGES}::test_a_number_is_called_however_it_is_written_and_nothing_else_is",
        f"{MESSAGES}::test_a_phone_registers_however_it_writes_it_and_with_right_credentials_only",
    ),
    "attack/F7-dns-freeze": (
        ATTACKS,
        f"{DIALOGS}::test_a_name_that_nobody_answers_for_stops_no_edge_and_ends_no_call",
    ),
    "attack/F11-invite-to-ipv6-carrier": (
        f"{OPERATOR}::test_a_call_goes_to_a_carrier_on_ipv6_by_an_address_that_can_be_read",
    ),
    "attack/F12-poison-call-id": (ATTACKS, NOT_ENDED),
    "attack/F13-deep": (
        f"{OPERATOR}::test_a_policy_that_is_nested_without_end_or_denies_everybody_stops_no_call_for_good",
    ),
    "attack/deny0": (
        f"{OPERATOR}::test_a_policy_that_is_nested_without_end_or_denies_everybody_stops_no_call_for_good",
    ),
    "money/bye_as_callee": (TWO_EDGES,),
    "money/bye_wrong_to_tag": (
        TWO_EDGES,
        f"{DIALOGS}::test_a_bye_that_the_carrier_refuses_ends_no_charge",
        HOSTILE,
    ),
    "money/edge_clock_ahead": (
        "services/call-admission/tests/test_admission_clocks.py::test_talked_seconds_are_charged_whatever_the_edges_clock_says",
    ),
    "money/nats_outage": ("tests/integration/test_outages.py::test_talked_seconds_are_charged_whatever_is_away",),
    "money/pol_long": (
        f"{OPERATOR}::test_a_policy_that_is_nested_without_end_or_denies_everybody_stops_no_call_for_good",
    ),
    "money/r1": (f"{OPERATOR}::test_increments_and_fees_are_charged_as_the_deck_has_them",),
    "sip/d01_digest": (f"{MESSAGES}::test_a_phone_registers_however_it_writes_it_and_with_right_credentials_only",),
    "sip/k01_keepalives": ("tests/integration/test_cases_bans.py::test_nobody_is_shut_out_by_it",),
    "sip/m01_bye_wrong_totag": (TWO_EDGES,),
    "sip/m03_bye_refused_500": (TWO_EDGES, HOSTILE),
    "sip/m04_prack_nat": (f"{EARLIER}::test_a_request_before_the_answer_never_goes_where_its_sender_points_it",),
    "sip/m05_invite_without_contact": (
        NOT_ENDED,
        f"{DIALOGS}::test_a_callee_without_a_contact_is_told_of_the_cut_where_its_invite_went",
    ),
    "sip/m06_no_ack": (NOT_ENDED, HOSTILE),
    "sip/m07_reinvite_481": (TWO_EDGES, HOSTILE),
    "sip/n01_numbers": (f"{MESSAGES}::test_a_number_is_called_however_it_is_written_and_nothing_else_is",),
    "sip/p01_odd_messages": (f"{MESSAGES}::test_odd_invites_reach_the_carrier_and_its_answer_the_caller",),
    "sip/r01_registrar": (f"{MESSAGES}::test_a_phone_registers_however_it_writes_it_and_with_right_credentials_only",),
    "sip/t02_missing_route": (TWO_EDGES, f"{DIALOGS}::test_the_carriers_bye_without_route_ends_the_call"),
    "two 200s by forking": (f"{DIALOGS}::test_of_two_200s_by_forking_one_is_the_call_and_the_edge_ends_the_other",),
}
GIVEN: Final = 29


def is_marked(node: ast.AST) -> bool:
    return "mark.cases" in ast.unparse(node)


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_tests_that_are_run_as_such(case: str) -> None:
    assert CASES[case]
    for test in CASES[case]:
        path, _, name = test.partition("::")
        module = ast.parse((ROOT / path).read_text())
        found = [
            node
            for node in module.body
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name == name
        ]
        assert len(found) == 1, test
        marks = [node for node in module.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)]
        assert any(map(is_marked, [*marks, *found[0].decorator_list])), f"{test} isn't marked as a case"


def test_no_case_of_trial_is_left_out() -> None:
    assert len([case for case in CASES if "/" in case]) == GIVEN
