"""The node's DNS, without a node."""

import struct

from tests.cluster.dns import answer, names_of

SLICE = {
    "metadata": {"namespace": "n", "labels": {"kubernetes.io/service-name": "headless"}},
    "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "hostname": "pod-0"},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
    ],
}
SERVICES = [
    {"metadata": {"name": "web", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.7"}},
    {"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None"}},
    {"metadata": {"name": "outside", "namespace": "n"}, "spec": {"type": "ExternalName"}},
]


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def test_services_have_names_and_headless_ones_those_of_their_ready_pods() -> None:
    assert names_of(SERVICES, [SLICE]) == {
        "web.n.svc.cluster.local": ["10.96.0.7"],
        "headless.n.svc.cluster.local": ["10.0.0.1"],
        "pod-0.headless.n.svc.cluster.local": ["10.0.0.1"],
        "outside.n.svc.cluster.local": [],
    }


def test_a_known_name_is_answered_whatever_its_case_and_no_record_isn_t_no_name() -> None:
    names = {"web.n.svc.cluster.local": ["10.96.0.7"]}
    reply = answer(question("WEB.n.svc.cluster.local"), names)
    assert struct.unpack_from("!HHHH", reply) == (7, 0x8580, 1, 1)
    assert reply.endswith(bytes([0, 4, 10, 96, 0, 7]))
    of_ipv6 = answer(question("web.n.svc.cluster.local", kind=28), names)
    assert struct.unpack_from("!HHHH", of_ipv6) == (7, 0x8580, 1, 0)
    unknown = answer(question("web.other.svc.cluster.local"), names)
    assert struct.unpack_from("!HHHH", unknown) == (7, 0x8583, 1, 0)
