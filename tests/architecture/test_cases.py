"""Every case that trial found has a test on running processes: `pytest -m cases` runs them, and this table says which.

A case is a file of trial's by its name, and what it showed, or a numbered line of what was to be mended, with cases of
our own. In: that each has tests, that these exist and are marked.
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
ENDS: Final = "tests/integration/test_cases_ends.py"
REGISTRATIONS: Final = "tests/integration/test_cases_registrations.py"
HOLDS: Final = "tests/integration/test_cases_holds.py"
NUMBERS: Final = "tests/integration/test_cases_numbers.py"
OFFICE: Final = "cli/tests/test_commands.py::test_a_day_of_an_operator"

# By the numbers of the list of faults: cases of our own, of the same kind as those given.
LINES: Final[dict[int, tuple[str, ...]]] = {
    1: (f"{DIALOGS}::test_of_two_200s_by_forking_one_is_the_call_and_the_edge_ends_the_other",),
    2: (f"{EARLIER}::test_a_phone_that_changes_its_network_goes_on_at_either_edge_after_a_digest",),
    3: (
        f"{ENDS}::test_a_bye_from_before_the_answer_never_leaves_a_talk_free",
        f"{ENDS}::test_a_bye_by_an_edge_that_saw_no_answer_settles_what_was_talked",
        f"{ENDS}::test_a_callee_that_gives_up_a_call_behind_our_back_is_found_and_the_caller_told",
        f"{ENDS}::test_a_bye_as_large_as_a_datagram_passes_or_the_edge_ends_the_call_itself",
    ),
    4: (
        f"{DIALOGS}::test_no_number_of_a_request_keeps_the_edge_from_ending_the_call",
        f"{DIALOGS}::test_a_callee_without_a_contact_is_told_of_the_cut_where_its_invite_went",
    ),
    5: (f"{ENDS}::test_a_callee_speaks_before_the_answer_to_the_caller_and_to_nobody_else",),
    6: (
        f"{NUMBERS}::test_a_number_is_its_owners_from_the_moment_it_is_given_until_it_is_taken_away",
        f"{NUMBERS}::test_a_pbx_gets_its_numbers_at_its_address_and_no_carrier_does_while_it_is_away",
    ),
    7: (
        "services/call-admission/tests/test_admission_lists_process.py::"
        "test_one_account_can_not_have_a_number_refused_to_others_and_three_from_two_addresses_can",
    ),
    8: ("tests/integration/test_cases_bans.py::test_nobody_is_shut_out_by_it",),
    9: (f"{DIALOGS}::test_a_name_that_nobody_answers_for_stops_no_edge_and_ends_no_call",),
    10: (
        f"{OPERATOR}::test_a_call_goes_to_a_carrier_on_ipv6_by_an_address_that_can_be_read",
        f"{REGISTRATIONS}::test_a_user_who_is_guessed_from_address_after_address_is_at_home_where_he_was",
    ),
    11: ("tests/integration/test_cases_bans.py::test_nobody_is_shut_out_by_it",),
    12: (f"{ENDS}::test_the_200_of_a_carrier_is_never_lost_for_what_is_odd_in_it",),
    13: (f"{ENDS}::test_a_callee_can_not_ask_for_our_digests_at_any_edge_and_those_of_others_pass",),
    14: (
        f"{DIALOGS}::test_a_carrier_is_never_asked_to_call_somebody_nor_told_who_calls_by_a_phone",
        f"{ENDS}::test_a_carrier_is_asked_to_call_outside_numbers_only_and_nothing_stays_held",
    ),
    15: (
        f"{REGISTRATIONS}::test_the_preferred_phone_rings_first_at_the_other_edge",
        f"{REGISTRATIONS}::test_a_call_goes_where_the_contact_says_and_not_where_the_register_came_from",
        f"{REGISTRATIONS}::test_a_restarted_phone_replaces_at_one_edge_what_it_told_the_other",
        f"{REGISTRATIONS}::test_what_is_odd_in_a_registration_has_its_answer_at_each_edge_and_by_nonces_of_both",
    ),
    16: (
        "tests/integration/test_cases_phones.py::"
        "test_a_phone_registers_and_calls_by_default_and_hardened_if_it_knows_sha_256",
        "tests/integration/test_cases_phones.py::"
        "test_sipp_registers_and_calls_by_default_and_not_where_only_sha_256_is_good_enough",
    ),
    17: (f"{ENDS}::test_a_call_id_is_taken_to_its_bound_and_the_events_of_calls_go_on",),
    18: (
        "tests/integration/test_strangers.py::test_every_method_of_every_process_is_for_its_callers_only",
        "tests/integration/test_bus_rights.py::test_each_role_may_publish_and_hear_what_it_does_and_nothing_else",
    ),
    19: (
        "tests/kubernetes/test_operator.py::"
        "test_policies_apply_to_the_realms_of_their_namespace_as_long_as_it_may_act_on_them",
        "operators/security-policy/tests/test_operator_realms.py::"
        "test_without_bindings_only_the_releases_namespace_acts_and_on_everything",
    ),
    20: (
        f"{OPERATOR}::test_a_policy_that_is_nested_without_end_or_denies_everybody_stops_no_call_for_good",
        "libs/local/tests/test_system.py::test_the_callers_credentials_reach_no_process",
        "cli/tests/test_records.py::test_a_strangers_text_is_neither_a_formula_nor_a_control",
    ),
    21: (
        f"{HOLDS}::test_a_call_whose_end_is_told_before_its_hold_is_placed_holds_nothing",
        "tests/integration/test_outages.py::test_talked_seconds_are_charged_whatever_is_away",
    ),
    22: (
        f"{REGISTRATIONS}::test_what_is_odd_in_a_registration_has_its_answer_at_each_edge_and_by_nonces_of_both",
        "tests/integration/test_clocks.py::test_talked_seconds_are_charged_whichever_clock_is_wrong_and_set",
    ),
    23: (OFFICE,),
    24: (
        f"{ENDS}::test_a_call_is_charged_by_the_steps_of_its_deck_wherever_it_ends",
        f"{OPERATOR}::test_increments_and_fees_are_charged_as_the_deck_has_them",
    ),
    25: (OFFICE, f"{HOLDS}::test_a_call_that_was_retried_has_one_hold_and_one_charge"),
}
NUMBERED: Final = 25
TESTS: Final = CASES | {f"line {number}": tests for number, tests in LINES.items()}


def is_marked(node: ast.AST) -> bool:
    return "mark.cases" in ast.unparse(node)


@pytest.mark.parametrize("case", TESTS)
def test_each_case_has_tests_that_are_run_as_such(case: str) -> None:
    assert TESTS[case]
    for test in TESTS[case]:
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


def test_each_numbered_line_has_cases_of_our_own() -> None:
    assert list(LINES) == list(range(1, NUMBERED + 1))
