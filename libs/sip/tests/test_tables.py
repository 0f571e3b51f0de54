"""The tables say the same as RFC 3261 figures 5 to 8 and RFC 6026, and forget no event."""

import pytest

from callwarden.sip.tables import TABLES, Action, TransactionEvent, TransactionKind, TransactionState

CLIENTS = (TransactionKind.INVITE_CLIENT, TransactionKind.CLIENT)
NETWORK = {
    TransactionKind.INVITE_CLIENT: {TransactionEvent.PROVISIONAL, TransactionEvent.SUCCESS, TransactionEvent.FAILURE},
    TransactionKind.CLIENT: {TransactionEvent.PROVISIONAL, TransactionEvent.SUCCESS, TransactionEvent.FAILURE},
    TransactionKind.INVITE_SERVER: {TransactionEvent.REQUEST, TransactionEvent.ACK},
    TransactionKind.SERVER: {TransactionEvent.REQUEST},
}
ANSWERS = {TransactionEvent.SEND_PROVISIONAL, TransactionEvent.SEND_SUCCESS, TransactionEvent.SEND_FAILURE}
STARTS_EXPIRING = {action for action in Action if action.name.startswith("START_")}
START = {
    TransactionKind.INVITE_CLIENT: TransactionState.CALLING,
    TransactionKind.CLIENT: TransactionState.TRYING,
    TransactionKind.INVITE_SERVER: TransactionState.PROCEEDING,
    TransactionKind.SERVER: TransactionState.TRYING,
}
LIVE = [(kind, state) for kind, table in TABLES.items() for state in table if state is not TransactionState.TERMINATED]


@pytest.mark.parametrize(("kind", "state"), LIVE)
def test_every_event_that_the_network_can_cause_has_a_row(kind: TransactionKind, state: TransactionState) -> None:
    assert set(TABLES[kind][state]) >= NETWORK[kind] | {TransactionEvent.TRANSPORT_ERROR}


@pytest.mark.parametrize("kind", [TransactionKind.INVITE_SERVER, TransactionKind.SERVER])
def test_an_answer_of_the_user_has_a_row_in_every_state_even_the_last(kind: TransactionKind) -> None:
    for state in [*TABLES[kind], TransactionState.TERMINATED]:
        assert set(TABLES[kind][state]) >= ANSWERS


@pytest.mark.parametrize("kind", list(TransactionKind))
def test_rows_lead_to_states_of_the_same_machine(kind: TransactionKind) -> None:
    for rows in TABLES[kind].values():
        for state, _ in rows.values():
            assert state in TABLES[kind] or state is TransactionState.TERMINATED


@pytest.mark.parametrize("kind", list(TransactionKind))
def test_every_state_is_reached_and_leads_to_the_end(kind: TransactionKind) -> None:
    def reachable(start: TransactionState) -> set[TransactionState]:
        found, todo = {start}, [start]
        while todo:
            for state, _ in TABLES[kind].get(todo.pop(), {}).values():
                if state not in found:
                    found.add(state)
                    todo.append(state)
        return found

    assert reachable(START[kind]) == set(TABLES[kind]) | {TransactionState.TERMINATED}
    for state in TABLES[kind]:
        assert TransactionState.TERMINATED in reachable(state)


@pytest.mark.parametrize("kind", list(TransactionKind))
def test_a_timer_can_fire_exactly_where_it_can_run(kind: TransactionKind) -> None:
    """Follow both timers through all ways: whoever may find one running has a row for it."""
    running: dict[TransactionState, set[tuple[bool, bool]]] = {}
    client = kind in CLIENTS
    todo = [(START[kind], client, client)]
    while todo:
        state, retransmits, expires = todo.pop()
        if state is TransactionState.TERMINATED or (retransmits, expires) in running.setdefault(state, set()):
            continue
        running[state].add((retransmits, expires))
        rows = TABLES[kind][state]
        for event, (then, actions) in rows.items():
            if (event is TransactionEvent.RETRANSMIT and not retransmits) or (
                event is TransactionEvent.EXPIRE and not expires
            ):
                continue
            still = retransmits and event is not TransactionEvent.RETRANSMIT
            runs_out = expires and event is not TransactionEvent.EXPIRE
            for action in actions:
                match action:
                    case Action.STOP_RETRANSMITTING:
                        still = False
                    case Action.STOP_EXPIRING:
                        runs_out = False
                    case Action.BACK_OFF:
                        still = True
                    case Action.START_H:
                        still = runs_out = True
                    case _ if action in STARTS_EXPIRING:
                        runs_out = True
                    case _:
                        pass
            todo.append((then, still, runs_out))
    for state, combinations in running.items():
        rows = TABLES[kind][state]
        if any(retransmits for retransmits, _ in combinations):
            assert TransactionEvent.RETRANSMIT in rows, state
        else:
            assert TransactionEvent.RETRANSMIT not in rows, state
        if any(expires for _, expires in combinations):
            assert TransactionEvent.EXPIRE in rows, state
        else:
            # The one exception is a cancelled INVITE that nobody answers (RFC 3261 9.1): `cancel` starts that timer.
            assert TransactionEvent.EXPIRE not in rows or (kind, state) == (
                TransactionKind.INVITE_CLIENT,
                TransactionState.PROCEEDING,
            )


def test_every_action_is_used() -> None:
    used = {
        action
        for table in TABLES.values()
        for rows in table.values()
        for _, actions in rows.values()
        for action in actions
    }
    assert used == set(Action)


def test_the_accepted_state_of_rfc_6026_lets_every_2xx_through_and_absorbs_every_invite() -> None:
    assert TABLES[TransactionKind.INVITE_CLIENT][TransactionState.ACCEPTED][TransactionEvent.SUCCESS] == (
        TransactionState.ACCEPTED,
        (Action.DELIVER,),
    )
    assert TABLES[TransactionKind.INVITE_SERVER][TransactionState.ACCEPTED][TransactionEvent.SEND_SUCCESS] == (
        TransactionState.ACCEPTED,
        (Action.SEND,),
    )
    assert TABLES[TransactionKind.INVITE_SERVER][TransactionState.ACCEPTED][TransactionEvent.REQUEST] == (
        TransactionState.ACCEPTED,
        (),
    )
