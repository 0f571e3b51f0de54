"""The few calls to the Kubernetes API that the operator makes. Watching is kopf's (`watch`).

Server and credentials come from kopf's logins: the pod's service account, else KUBECONFIG. Why there is no client
library: docs/decisions/0009.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import kopf

from callwarden.kernel.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from callwarden.security_policy_operator.core.status import ResourceEvent

GROUP: Final = "callwarden.io"
VERSION: Final = "v1"
TIMEOUT_S: Final = 10.0
_PAGE: Final = 500
_PAGES_MAX: Final = 200
MANAGER: Final = "callwarden-security-policy"
"""Who has written a field, as the API server notes it in managedFields."""
MERGE_PATCH: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

Json = dict[str, Any]


class Kubernetes:
    """`async with Kubernetes() as cluster`. Every call raises Unavailable, Denied, NotFound, Conflict or Invalid."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._server = ""

    async def __aenter__(self) -> Self:
        self._log_in()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self, plural: str) -> list[Json]:
        """All resources of one of our kinds, in all namespaces."""
        found: list[Json] = []
        token = ""
        for _ in range(_PAGES_MAX):
            query = {"limit": str(_PAGE), **({"continue": token} if token else {})}
            page = await self._ask("GET", f"/apis/{GROUP}/{VERSION}/{plural}", query=query)
            found += page.get("items", ())
            token = str(page.get("metadata", {}).get("continue", ""))
            if not token:
                return found
        raise Unavailable(f"there are more than {_PAGE * _PAGES_MAX} {plural}")

    async def patch(self, plural: str, namespace: str, name: str, body: Json, *, status: bool = False) -> Json:
        """A JSON merge patch (RFC 7396) of a resource of ours, or of its status."""
        where = f"{_path(f'apis/{GROUP}/{VERSION}', namespace, plural)}/{name}{'/status' if status else ''}"
        return await self._ask("PATCH", where, body=body, content_type=MERGE_PATCH)

    async def notify(self, about: Mapping[str, Any], event: ResourceEvent, at: str, by: str) -> None:
        """A Kubernetes Event about a resource. `at`: RFC 3339."""
        metadata = about["metadata"]
        namespace = str(metadata.get("namespace") or "default")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{str(metadata['name'])[:200]}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.get("apiVersion"),
                "kind": about.get("kind"),
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1_024],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": "callwarden.io/security-policy",
            "reportingInstance": by,
        }
        await self._ask("POST", _path("api/v1", namespace, "events"), body=body)

    async def config_map(self, namespace: str, name: str) -> Json:
        return await self._ask("GET", f"{_path('api/v1', namespace, 'configmaps')}/{name}")

    async def config_map_version(self, namespace: str, name: str) -> str:
        """Its resourceVersion, without its files."""
        where = f"{_path('api/v1', namespace, 'configmaps')}/{name}"
        return str((await self._ask("GET", where, accept=METADATA_ONLY))["metadata"]["resourceVersion"])

    async def lease(self, namespace: str, name: str) -> Json:
        return await self._ask("GET", f"{_path('apis/coordination.k8s.io/v1', namespace, 'leases')}/{name}")

    async def create_lease(self, namespace: str, body: Json) -> Json:
        return await self._ask("POST", _path("apis/coordination.k8s.io/v1", namespace, "leases"), body=body)

    async def replace_lease(self, namespace: str, name: str, body: Json) -> Json:
        """Conflict if its resourceVersion is no longer `body.metadata.resourceVersion`."""
        path = f"{_path('apis/coordination.k8s.io/v1', namespace, 'leases')}/{name}"
        return await self._ask("PUT", path, body=body)

    def _log_in(self) -> None:
        info = _credentials()
        self._server = info.server.rstrip("/")
        headers = {"Authorization": f"{info.scheme or 'Bearer'} {info.token}"} if info.token else {}
        auth = aiohttp.BasicAuth(info.username, info.password or "") if info.username else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(info), limit=8),
            headers=headers,
            auth=auth,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        headers = {"Content-Type": content_type, "Accept": accept}
        if method != "GET":
            query = {**(query or {}), "fieldManager": MANAGER}
        for attempt in (0, 1):
            assert self._session is not None
            try:
                async with self._session.request(
                    method, self._server + path, json=body, params=query, headers=headers
                ) as reply:
                    if reply.status == 401 and not attempt:
                        # A service account's token lasts an hour and is renewed in its file.
                        await self._session.close()
                        self._log_in()
                        continue
                    answer = await reply.json(content_type=None)
                    if reply.status < 300:
                        return dict(answer)
                    raise _error(reply.status, answer)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise Unavailable("the Kubernetes API is not available") from error
        raise Denied("the Kubernetes API doesn't accept the operator's credentials")


def _error(status: int, answer: object) -> Exception:
    text = str(answer.get("message", ""))[:500] if isinstance(answer, dict) else ""
    match status:
        case 404:
            return NotFound(text or "there is no such resource")
        case 409:
            return Conflict(text or "someone else has changed it")
        case 401 | 403:
            return Denied(text or "the Kubernetes API denies it")
        case 400 | 422:
            return Invalid(text or "the Kubernetes API refuses it")
        case _:
            return Unavailable(f"the Kubernetes API answered {status}")


def _path(prefix: str, namespace: str, plural: str) -> str:
    return f"/{prefix}/namespaces/{namespace}/{plural}" if namespace else f"/{prefix}/{plural}"


def _credentials() -> kopf.ConnectionInfo:
    logins: Sequence[Any] = (kopf.login_with_service_account, kopf.login_with_kubeconfig)
    for login in logins:
        info = login(settings=kopf.OperatorSettings())
        if info is not None:
            return info  # type: ignore[no-any-return]
    raise Unavailable("no cluster is configured: neither a service account nor KUBECONFIG")


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext | bool:
    if not info.server.startswith("https"):
        return False
    context = ssl.create_default_context(cafile=str(info.ca_path) if info.ca_path else None)
    if info.ca_data:
        context.load_verify_locations(cadata=_decoded(info.ca_data).decode())
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if info.certificate_path and info.private_key_path:
        context.load_cert_chain(str(info.certificate_path), str(info.private_key_path))
    elif info.certificate_data and info.private_key_data:
        # The ssl module loads keys from files only. This one is readable by no one else, and gone right after.
        with tempfile.NamedTemporaryFile() as pem:
            os.fchmod(pem.fileno(), 0o600)
            pem.write(_decoded(info.certificate_data) + b"\n" + _decoded(info.private_key_data))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


def _decoded(data: str | bytes) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return raw if raw.lstrip().startswith(b"-----") else base64.b64decode(raw)
