"""Policies that nobody would write, by the schema and beside it: each is refused with its field or carried out, and the
operator goes on."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structural_schemas import values

from callwarden.local.process import Child
from callwarden.policy import crd
from callwarden.testing import kube_tools
from callwarden.testing.waiting import eventually
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, missing
from tests.kubernetes.conftest import OperatorSite
from tests.kubernetes.test_operator import bundle, conditions, message, policy

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(2 * CLUSTER_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    kube_tools.needs_kube_tools(),
]

KUBECTLS = 4  # at once: each takes a tenth of a second of a core
SCHEMA = crd.spec_schema(next(kind for kind in crd.KINDS if kind.kind == "SecurityPolicy"))


def travels(value: Any) -> bool:
    """Whether YAML can say it: the API server reads patches as that, and names no field of what it can't read."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError:
        return False
    return not re.search(r"\\[bfnrt]|\\u00|[\x7f-\x9f\ufffe\uffff]", text)


RIGHT, JUNK = values(SCHEMA), values(SCHEMA, junk=True)
SPECS = st.one_of(RIGHT, RIGHT, JUNK).filter(travels)


@pytest_asyncio.fixture
async def running(site: OperatorSite) -> AsyncIterator[tuple[OperatorSite, Child]]:
    async with site.operator() as operator:
        yield site, operator


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.generate],  # making it smaller would take minutes; the specs are printed
    suppress_health_check=list(HealthCheck),
)
@given(specs=st.lists(SPECS, min_size=8, max_size=12))
async def test_everything_that_the_schema_allows_gets_a_verdict(
    running: tuple[OperatorSite, Child], specs: list[dict[str, Any]]
) -> None:
    site, operator = running
    gate = asyncio.Semaphore(KUBECTLS)

    async def applied(number: int, spec: dict[str, Any]) -> bool:
        async with gate:
            body = json.dumps(policy(f"fuzz-{number}", **spec))
            code, _, errors = await site.kubectl.run(
                "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=body
            )
        # The API server names the field by its path, server-side apply by ".spec…".
        assert code == 0 or "spec" in errors, errors
        return code == 0

    await asyncio.gather(*(applied(number, spec) for number, spec in enumerate(specs)))

    async def judged() -> bool:
        assert operator.returncode is None, operator.log_tail
        return all(
            one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"]
            for one in (await site.kubectl.get("cwsp"))["items"]
        )

    await eventually(judged, timeout_s=60.0, interval_s=0.2, what="a verdict on each")
    resources = (await site.kubectl.get("cwsp"))["items"]
    documents = {document.name: document.spec for document in (await bundle(site)).documents}
    for one in resources:
        status, reason = conditions(one)["Accepted"]
        if status == "True":
            assert documents[one["metadata"]["name"]] == one.get("spec", {})
        else:
            assert reason in ("Invalid", "Conflict")
            assert "spec." in message(one, "Accepted")
    assert "Traceback" not in operator.log.read_text()
