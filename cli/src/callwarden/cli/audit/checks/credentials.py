"""Checks of credentials and encryption: secrets where they can be read, connections without TLS."""

import re
from collections.abc import Iterator
from typing import Any, Final

from callwarden.cli.audit.checks.fixes import by_chart, containers, in_container
from callwarden.cli.audit.finding import AuditFinding, AuditRule
from callwarden.cli.audit.objects import Objects, mapping, sequence
from callwarden.cli.yaml_lines import line_of_yaml

_SECRET_NAME: Final = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|_KEY)S?$|(DATABASE|NATS)_URL$", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_REFERENCE: Final = re.compile(r'"?\$\([A-Za-z_][A-Za-z0-9_]*\)"?')  # to another variable; the kubelet fills it in
_PRIVATE_KEY: Final = "PRIVATE KEY-----"
_TLS_VARIABLES: Final = ("CALLWARDEN_TLS_CERT", "CALLWARDEN_TLS_KEY", "CALLWARDEN_TLS_CA")
_TLS_FOLDER: Final = "/var/run/callwarden/tls"
_TLS_FILES: Final = ("tls.crt", "tls.key", "ca.crt")  # As cert-manager writes them.


def secret_in_environment(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        for variable in map(mapping, sequence(found[3].get("env"))):
            name, value = str(variable.get("name", "")), str(variable.get("value", ""))
            if not _is_secret(name, value):
                continue
            reference = {"secretKeyRef": {"name": f"{found[0].object.name}-secrets", "key": name}}
            change: dict[str, Any] = {"env": [{"name": name, "value": None, "valueFrom": reference}]}
            yield in_container(rule, found, f"has {name} in clear text", change)


def _is_secret(name: str, value: str) -> bool:
    if _PRIVATE_KEY in value or _CREDENTIALS.search(value):
        return True
    # A path to a file of secrets is none, nor is a URL without a password, nor another variable's name.
    if not value or value.startswith("/") or "://" in value or _REFERENCE.fullmatch(value):
        return False
    return bool(_SECRET_NAME.search(name))


def secret_in_config_map(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("ConfigMap"):
        for key, value in mapping(one.body.get("data")).items():
            if _is_secret(str(key), str(value)):
                patch = f"kubectl patch {one.to_kubectl} --type merge -p 'LINE'"
                how = f"move it into a Secret and refer to that, then: {patch}"
                yield AuditFinding(
                    rule,
                    rule.severity,
                    one.place,
                    f"contains a secret ({key})",
                    line_of_yaml({"data": {key: None}}),
                    how,
                )


def without_tls(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        names = {str(mapping(variable).get("name", "")) for variable in sequence(found[3].get("env"))}
        if not any(name.startswith("CALLWARDEN_") and name.endswith(("_TARGETS", "GRPC_LISTEN")) for name in names):
            continue
        if not names.issuperset(_TLS_VARIABLES):
            workload, group, name, _ = found
            secret = {"name": "tls", "secret": {"secretName": f"{workload.object.name}-tls"}}
            container = {
                "name": name,
                "env": [
                    {"name": variable, "value": f"{_TLS_FOLDER}/{file}"}
                    for variable, file in zip(_TLS_VARIABLES, _TLS_FILES, strict=True)
                ],
                "volumeMounts": [{"name": "tls", "mountPath": _TLS_FOLDER, "readOnly": True}],
            }
            finding = AuditFinding(
                rule,
                rule.severity,
                workload.object.within(f"container {name}"),
                "talks to other services in clear text",
                line_of_yaml(workload.patch({group: [container], "volumes": [secret]})),
                f"for every service together, with a certificate in the Secret named; {workload.how()}",
            )
            yield by_chart(finding, workload.object, {"tls": {"enabled": True}})


def plain_url(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    """URLs outside of Secrets; Secrets are never read."""
    for found in containers(objects):
        for variable in map(mapping, sequence(found[3].get("env"))):
            name, value = str(variable.get("name", "")), str(variable.get("value", ""))
            if name.endswith("NATS_URL") and value.startswith("nats://"):
                safe = value.replace("nats://", "tls://")
            elif name.endswith("DATABASE_URL") and "://" in value and not re.search(r"ssl(mode)?=", value):
                safe = f"{value}{'&' if '?' in value else '?'}ssl=verify-full"
            else:
                continue
            if _CREDENTIALS.search(value):
                continue  # Told as a secret in clear text, and not to be repeated here.
            what = f"reaches {'NATS' if 'NATS' in name else 'the database'} without TLS ({name})"
            yield in_container(rule, found, what, {"env": [{"name": name, "value": safe}]})
