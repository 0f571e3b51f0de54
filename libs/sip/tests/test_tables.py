"""The tables say the same as RFC 3261 figures 5 to 8 and RFC 6026, and forget no event."""

import pytest

from callwarden.sip.tables import TABLES, Action, Event, Kind, State

CLIENTS = (Kind.INVITE_CLIENT, Kind.CLIENT)
NETWORK = {
    Kind.INVITE_CLIENT: {Event.PROVISIONAL, Event.SUCCESS, Event.FAILURE},
    Kind.CLIENT: {Event.PROVISIONAL, Event.SUCCESS, Event.FAILURE},
    Kind.INVITE_SERVER: {Event.REQUEST, Event.ACK},
    Kind.SERVER: {Event.REQUEST},
}
ANSWERS = {Event.SEND_PROVISIONAL, Event.SEND_SUCCESS, Event.SEND_FAILURE}
STARTS_EXPIRING = {action for action in Action if action.name.startswith("START_")}
START = {
    Kind.INVITE_CLIENT: State.CALLING,
    Kind.CLIENT: State.TRYING,
    Kind.INVITE_SERVER: State.PROCEEDING,
    Kind.SERVER: State.TRYING,
}
LIVE = [(kind, state) for kind, table in TABLES.items() for state in table if state is not State.TERMINATED]


@pytest.mark.parametrize(("kind", "state"), LIVE)
def test_every_event_that_the_network_can_cause_has_a_row(kind: Kind, state: State) -> None:
    assert set(TABLES[kind][state]) >= NETWORK[kind] | {Event.TRANSPORT_ERROR}


@pytest.mark.parametrize("kind", [Kind.INVITE_SERVER, Kind.SERVER])
def test_an_answer_of_the_user_has_a_row_in_every_state_even_the_last(kind: Kind) -> None:
    for state in [*TABLES[kind], State.TERMINATED]:
        assert set(TABLES[kind][state]) >= ANSWERS


@pytest.mark.parametrize("kind", list(Kind))
def test_rows_lead_to_states_of_the_same_machine(kind: Kind) -> None:
    for rows in TABLES[kind].values():
        for state, _ in rows.values():
            assert state in TABLES[kind] or state is State.TERMINATED


@pytest.mark.parametrize("kind", list(Kind))
def test_every_state_is_reached_and_leads_to_the_end(kind: Kind) -> None:
    def reachable(start: State) -> set[State]:
        found, todo = {start}, [start]
        while todo:
            for state, _ in TABLES[kind].get(todo.pop(), {}).values():
                if state not in found:
                    found.add(state)
                    todo.append(state)
        return found

    assert reachable(START[kind]) == set(TABLES[kind]) | {State.TERMINATED}
    for state in TABLES[kind]:
        assert State.TERMINATED in reachable(state)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_timer_can_fire_exactly_where_it_can_run(kind: Kind) -> None:
    """Follow both timers through all ways: whoever may find one running has a row for it."""
    running: dict[State, set[tuple[bool, bool]]] = {}
    client = kind in CLIENTS
    todo = [(START[kind], client, client)]
    while todo:
        state, retransmits, expires = todo.pop()
        if state is State.TERMINATED or (retransmits, expires) in running.setdefault(state, set()):
            continue
        running[state].add((retransmits, expires))
        rows = TABLES[kind][state]
        for event, (then, actions) in rows.items():
            if (event is Event.RETRANSMIT and not retransmits) or (event is Event.EXPIRE and not expires):
                continue
            still = retransmits and event is not Event.RETRANSMIT
            runs_out = expires and event is not Event.EXPIRE
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
            assert Event.RETRANSMIT in rows, state
        else:
            assert Event.RETRANSMIT not in rows, state
        if any(expires for _, expires in combinations):
            assert Event.EXPIRE in rows, state
        else:
            # The one exception is a cancelled INVITE that nobody answers (RFC 3261 9.1): `cancel` starts that timer.
            assert Event.EXPIRE not in rows or (kind, state) == (Kind.INVITE_CLIENT, State.PROCEEDING)


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
    assert TABLES[Kind.INVITE_CLIENT][State.ACCEPTED][Event.SUCCESS] == (State.ACCEPTED, (Action.DELIVER,))
    assert TABLES[Kind.INVITE_SERVER][State.ACCEPTED][Event.SEND_SUCCESS] == (State.ACCEPTED, (Action.SEND,))
    assert TABLES[Kind.INVITE_SERVER][State.ACCEPTED][Event.REQUEST] == (State.ACCEPTED, ())
