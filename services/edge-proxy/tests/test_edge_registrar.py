"""The registrar over the wire (RFC 3261 10.3), and who may register what."""

import pytest
from edge_world import PASSWORD, REALM, Agent, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import StoreLocation, Unanswered
from callwarden.edge_proxy.core.locations import Location
from callwarden.edge_proxy.core.registrar import BINDINGS_MAX, TEXT_MAX, URI_MAX
from callwarden.kernel.verdict import Reason
from callwarden.sip.message import Request, Response


def register(agent: Agent, *, contacts: list[str] | None = None, expires: str | None = None, cseq: int = 1) -> Request:
    request = agent.request(
        "REGISTER", f"sip:{REALM}", to=f"<sip:{agent.user}@{REALM}>", call_id=f"reg-{agent.user}", cseq=cseq
    )
    if contacts is not None:
        request.remove("contact")
        for contact in contacts:
            request.add("Contact", contact)
    if expires is not None:
        request.set("Expires", expires)
    return request


def send(agent: Agent, request: Request) -> Response:
    """Through the challenge; the final answer."""
    agent.send(request)
    agent.send(agent.with_credentials(request, agent.response(401)))
    answer = agent.next()
    assert isinstance(answer, Response)
    return answer


def location(world: EdgeWorld, user: str) -> Location | None:
    return world.edge.locations.get(REALM, user)


def uris(world: EdgeWorld, user: str) -> list[str]:
    found = location(world, user)
    return [binding.uri for binding in found.bindings] if found else []


def test_a_phone_registers_and_is_told_its_bindings() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    answer = send(alice, register(alice, expires="600"))
    assert answer.status == 200
    assert answer.get("contact") == "<sip:alice@192.0.2.1:5060>;expires=600"
    found = location(world, "alice")
    assert found is not None
    assert found.bindings[0].received == ("192.0.2.1", 5060)
    assert [(change.location, change.expires_s) for change in world.events_of(StoreLocation)] == [(found, 600)]


def test_a_contacts_own_expires_goes_before_the_header_and_is_bounded() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    answer = send(
        alice, register(alice, contacts=["<sip:a@192.0.2.1>;expires=120", "<sip:b@192.0.2.1>;expires=999999"])
    )
    assert [value.rpartition("=")[2] for value in answer.get_all("contact")] == ["7200", "120"]


def test_a_time_too_short_is_refused_with_the_least() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    answer = send(alice, register(alice, expires="30"))
    assert (answer.status, answer.get("min-expires")) == (423, "60")
    assert uris(world, "alice") == []


def test_refreshing_moves_a_binding_and_does_not_double_it() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice))
    world.advance(100)
    send(alice, register(alice, contacts=["<sip:alice@192.0.2.1:5060>"], cseq=5))
    found = location(world, "alice")
    assert found is not None
    (binding,) = found.bindings
    assert binding.expires_s == world.unix_s + 3_600


def test_unregistering_one_phone_leaves_the_others() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice, contacts=["<sip:desk@192.0.2.1>", "<sip:mobile@192.0.2.1>"]))
    answer = send(alice, register(alice, contacts=["<sip:desk@192.0.2.1>;expires=0"], cseq=5))
    assert answer.status == 200
    assert uris(world, "alice") == ["sip:mobile@192.0.2.1"]


def test_a_star_unregisters_all() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice, contacts=["<sip:desk@192.0.2.1>", "<sip:mobile@192.0.2.1>"]))
    answer = send(alice, register(alice, contacts=["*"], expires="0", cseq=5))
    assert answer.status == 200
    assert "contact" not in answer
    assert location(world, "alice") is None
    assert world.events_of(StoreLocation)[-1].location.bindings == ()


@pytest.mark.parametrize(("contacts", "expires"), [(["*"], "600"), (["*", "<sip:a@192.0.2.1>"], "0"), (["*"], None)])
def test_a_star_must_stand_alone_and_expire_now(contacts: list[str], expires: str | None) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice))
    assert send(alice, register(alice, contacts=contacts, expires=expires, cseq=5)).status == 400
    assert len(uris(world, "alice")) == 1


def test_without_contact_the_bindings_are_told_and_stay() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice))
    answer = send(alice, register(alice, contacts=[], cseq=5))
    assert answer.status == 200
    assert len(answer.get_all("contact")) == 1
    assert len(world.events_of(StoreLocation)) == 1


@pytest.mark.parametrize("contacts", [["<sip:alice@192.0.2.1:5060>;expires=0"], ["*"]])
def test_an_update_that_was_overtaken_changes_nothing(contacts: list[str]) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice, cseq=10))
    answer = send(alice, register(alice, contacts=contacts, expires="0", cseq=3))
    assert (answer.status, answer.reason) == (500, "Out Of Order")
    assert len(uris(world, "alice")) == 1


def test_the_oldest_binding_goes_when_there_are_too_many() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    for number in range(BINDINGS_MAX + 2):
        send(alice, register(alice, contacts=[f"<sip:alice@192.0.2.1:{6000 + number}>"], cseq=2 * number + 1))
    found = uris(world, "alice")
    assert len(found) == BINDINGS_MAX
    assert found[0].endswith(str(6000 + BINDINGS_MAX + 1))
    assert "sip:alice@192.0.2.1:6000" not in found


def test_too_many_contacts_at_once_are_refused() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    contacts = [f"<sip:alice@192.0.2.1:{6000 + number}>" for number in range(BINDINGS_MAX + 1)]
    assert send(alice, register(alice, contacts=contacts)).status == 403


@pytest.mark.parametrize("contact", ["<tel:+4930>", "<mailto:a@b>", "<sip:a@192.0.2.1?subject=x", "<sip:>"])
def test_a_contact_that_nobody_can_call_is_refused(contact: str) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    assert send(alice, register(alice, contacts=[contact])).status == 400
    assert uris(world, "alice") == []


def test_a_binding_ends_by_itself() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.advance(3_601)
    world.invite(alice, "bob")
    alice.response(404)
    assert not [message for message in bob.inbox if isinstance(message, Request)]


def test_nobody_registers_for_another() -> None:
    world = EdgeWorld()
    mallory = world.user("mallory", "192.0.2.66")
    request = register(mallory)
    request.set("To", f"<sip:alice@{REALM}>")
    assert send(mallory, request).status == 403
    assert location(world, "alice") is None
    (decided,) = world.decided
    assert (decided.method, decided.refuse.rule) == ("REGISTER", "registration")


def test_a_user_registers_by_its_number_too() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1", numbers=("+4930111",))
    request = register(alice)
    request.set("To", f"<sip:4930111@{REALM}>")
    assert send(alice, request).status == 200
    assert len(uris(world, "alice")) == 1


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_a_wrong_password_and_an_unknown_user_are_asked_again_alike(user: str) -> None:
    world = EdgeWorld()
    world.user("alice", "192.0.2.9")
    agent = world.agent("192.0.2.1", 5060, user)
    request = register(agent)
    agent.send(request)
    agent.send(agent.with_credentials(request, agent.response(401), "guess"))
    answer = agent.response(401)
    assert len(answer.get_all("www-authenticate")) == 2
    assert "stale" not in (answer.get("www-authenticate") or "")
    reports = world.edge.counters.take_report(world.mono_s)
    assert [(name, sums.failures) for report in reports for *_, name, sums in report.endpoints if name] == [(user, 1)]
    (decided,) = world.decided
    assert (decided.method, decided.refuse.reason, decided.source) == ("REGISTER", Reason.CREDENTIALS, "192.0.2.1")
    assert [rule.rule for rule in decided.rules] == ["banned", "rate", "scanner", "credentials"]


def test_the_first_challenge_is_no_failure_and_a_success_is_told() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice))
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for *_, sums in report.endpoints) == 0
    assert [(name, sums.successes) for *_, name, sums in report.endpoints if sums.successes] == [("alice", 1)]
    assert report.wrong == 0


def test_when_auth_is_dead_registered_phones_stay_and_others_come_again() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    request = register(alice, cseq=20)
    alice.send(request)
    again = alice.with_credentials(request, alice.response(401))
    world.hold_answers = True
    alice.send(again)
    world.release(Unanswered())
    assert alice.response(503).get("retry-after") == "5"
    world.hold_answers = False
    world.invite(bob, "alice")
    alice.got("INVITE")


def test_a_foreign_domain_is_not_registered_here() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    alice.send(alice.request("REGISTER", "sip:example.org", to="<sip:alice@example.org>"))
    alice.response(403)


def test_a_repeated_register_is_answered_from_memory() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    request = register(alice)
    alice.send(request)
    again = alice.with_credentials(request, alice.response(401), PASSWORD)
    alice.send(again)
    alice.send(again)
    assert alice.response(200).to_bytes() == alice.response(200).to_bytes()
    assert len(world.events_of(StoreLocation)) == 1


def test_what_a_phone_says_of_itself_is_kept_shortened() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    request = alice.request("REGISTER", f"sip:{REALM}", to=f"<sip:alice@{REALM}>", call_id="c" * 200, cseq=7)
    request.set("Contact", f'<sip:alice@192.0.2.1>;+sip.instance="<{"i" * 200}>"')
    request.add("User-Agent", "u" * 200)
    assert send(alice, request).status == 200
    found = location(world, "alice")
    assert found is not None
    (kept,) = found.bindings
    assert (kept.call_id, kept.cseq, kept.account_id) == ("c" * TEXT_MAX, 8, account_id("alice"))
    assert (kept.instance_id, kept.user_agent) == (f"<{'i' * (TEXT_MAX - 1)}", "u" * TEXT_MAX)


@pytest.mark.parametrize(("expires", "status"), [("1", 423), ("59", 423), ("60", 200), ("0", 200)])
def test_the_least_time_is_a_minute(expires: str, status: int) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    assert send(alice, register(alice, expires=expires)).status == status
    assert len(uris(world, "alice")) == (status == 200 and expires != "0")


@pytest.mark.parametrize(("length", "status"), [(URI_MAX, 200), (URI_MAX + 1, 400)])
def test_a_contact_is_kept_up_to_a_length(length: int, status: int) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    end = "@192.0.2.1"
    contact = f"sip:{'a' * (length - len('sip:') - len(end))}{end}"
    assert send(alice, register(alice, contacts=[f"<{contact}>"])).status == status


@pytest.mark.parametrize(
    ("q", "kept"), [("0", 0.0), ("1.000", 1.0), ("0.25", 0.25), (".5", None), ("1.1", None), ("2", None), ("x", None)]
)
def test_a_preference_that_can_not_be_read_is_none(q: str, kept: float | None) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    answer = send(alice, register(alice, contacts=[f"<sip:alice@192.0.2.1>;q={q}"]))
    found = location(world, "alice")
    assert found is not None
    assert found.bindings[0].q == kept
    assert (";q=" in (answer.get("contact") or "")) == (kept is not None)


def test_as_many_contacts_as_are_kept_may_come_at_once() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    contacts = [f"<sip:alice@192.0.2.1:{6000 + number}>" for number in range(BINDINGS_MAX)]
    assert send(alice, register(alice, contacts=contacts)).status == 200
    assert len(uris(world, "alice")) == BINDINGS_MAX


def test_the_same_number_in_another_call_is_no_old_update() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    send(alice, register(alice, cseq=10))
    restarted = register(alice, cseq=3)
    restarted.set("Call-ID", "after the restart")
    assert send(alice, restarted).status == 200
    again = register(alice, cseq=3)
    again.set("Call-ID", "after the restart")
    assert send(alice, again).status == 500  # its own number, once more
