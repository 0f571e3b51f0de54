"""The deployment's part of the checklist, as a table. Each check is a pure function of the objects found; where these
come from (kubectl, a rendered chart) is in callwarden.cli.audit.sources.

A fix is a strategic merge patch of the object that the finding names, or a whole object where one is missing. What the
chart sets by itself is found only where it was changed, or where something is deployed without the chart.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from callwarden.cli.audit.checks import cluster, credentials, pods
from callwarden.cli.audit.finding import AuditFinding, AuditRule, AuditSeverity
from callwarden.cli.audit.objects import Objects


@dataclass(frozen=True, slots=True)
class Check:
    rule: AuditRule
    find: Callable[[AuditRule, Objects], Iterator[AuditFinding]]
    needs: tuple[str, ...] = ()
    """Kinds whose absence it would tell."""


def findings(objects: Objects) -> Iterator[AuditFinding]:
    for check in CHECKS:
        if objects.unseen.isdisjoint(check.needs):
            yield from check.find(check.rule, objects)


_HARDENING: Final = ("os-hardening",)
_LOW, _MEDIUM, _HIGH, _CRITICAL = AuditSeverity.LOW, AuditSeverity.MEDIUM, AuditSeverity.HIGH, AuditSeverity.CRITICAL

CHECKS: Final = (
    Check(
        AuditRule(
            "deploy/root",
            _HIGH,
            "Containers run as an ordinary user",
            "A process that is broken into has the rights it runs with; root in a container is root for every file and "
            "device that the container reaches.",
            _HARDENING,
        ),
        pods.runs_as_root,
    ),
    Check(
        AuditRule(
            "deploy/root-file-system",
            _MEDIUM,
            "Root file systems are read-only",
            "What can't be written can't be replaced by an attacker's program.",
            _HARDENING,
        ),
        pods.writes_to_root,
    ),
    Check(
        AuditRule(
            "deploy/escalation",
            _CRITICAL,
            "No container is privileged or gains rights",
            "A privileged container owns its node, and with it every other pod there.",
            _HARDENING,
        ),
        pods.escalates,
    ),
    Check(
        AuditRule(
            "deploy/capabilities",
            _HIGH,
            "Containers have no capability",
            "Capabilities are pieces of root: raw sockets, any port, other users' files. Only the kernel firewall's "
            "container needs one.",
            _HARDENING,
        ),
        pods.has_capabilities,
    ),
    Check(
        AuditRule(
            "deploy/seccomp",
            _MEDIUM,
            "System calls are filtered",
            "Most ways out of a container go through system calls that no service of ours makes.",
            _HARDENING,
        ),
        pods.is_unconfined,
    ),
    Check(
        AuditRule(
            "deploy/host",
            _HIGH,
            "Pods share nothing with their node",
            "A node's network, processes and files are everybody's on it. Only the edge may be on the node's network, "
            "to see its callers' addresses.",
            _HARDENING,
        ),
        pods.shares_host,
    ),
    Check(
        AuditRule(
            "deploy/image-digest",
            _MEDIUM,
            "Images are named by digest",
            "A tag can be moved: pods that start tomorrow may run an image that another person pushed.",
            _HARDENING,
        ),
        pods.image_by_tag,
    ),
    Check(
        AuditRule(
            "deploy/resources",
            _LOW,
            "Containers have a memory limit and a CPU request",
            "Without them a flood against one service takes the memory and the cores of its neighbours.",
            _HARDENING,
        ),
        pods.no_limits,
    ),
    Check(
        AuditRule(
            "deploy/api-token",
            _LOW,
            "Pods carry no token that they don't need",
            "A token of the Kubernetes API in a pod on the open internet is a first step into the cluster.",
            _HARDENING,
        ),
        pods.has_token,
        ("rolebindings", "clusterrolebindings", "serviceaccounts"),
    ),
    Check(
        AuditRule(
            "deploy/probes",
            _LOW,
            "Services have probes",
            "Without them calls go to pods that can't take them.",
            _HARDENING,
        ),
        pods.without_probes,
    ),
    Check(
        AuditRule(
            "deploy/secret-in-environment",
            _HIGH,
            "Secrets are given by reference",
            "A user who may read a Deployment reads its variables; a Secret has rights of its own.",
            _HARDENING,
        ),
        credentials.secret_in_environment,
    ),
    Check(
        AuditRule(
            "deploy/secret-in-config-map",
            _HIGH,
            "No ConfigMap contains a secret",
            "ConfigMaps are readable by nearly everybody and written to etcd as they are.",
            _HARDENING,
        ),
        credentials.secret_in_config_map,
    ),
    Check(
        AuditRule(
            "deploy/tls",
            _HIGH,
            "Services talk over mutual TLS",
            "Who can listen between pods reads credentials' digests and numbers; who can speak there admits calls "
            "without an account.",
            ("https",),
        ),
        credentials.without_tls,
    ),
    Check(
        AuditRule(
            "deploy/tls-url",
            _HIGH,
            "NATS and the database are reached over TLS",
            "Passwords of both go over the network, and so do policies, bans and money.",
            ("https", "db-roles"),
        ),
        credentials.plain_url,
    ),
    Check(
        AuditRule(
            "deploy/network-policy",
            _HIGH,
            "Only what talks is let through",
            "Without a NetworkPolicy every pod of the cluster reaches the services and the database.",
            ("os-hardening", "db-roles"),
        ),
        cluster.without_network_policy,
        ("networkpolicies",),
    ),
    Check(
        AuditRule(
            "deploy/source-address",
            _HIGH,
            "The edge sees its callers' addresses",
            "With the node's address in their place a ban hits everybody, and so no address can be banned at all.",
            ("firewall-static",),
        ),
        cluster.hides_sources,
    ),
    Check(
        AuditRule(
            "deploy/replicas",
            _MEDIUM,
            "Services run in more than one pod",
            "One pod is an outage at each upgrade, each eviction and each crash.",
        ),
        cluster.one_replica,
        ("horizontalpodautoscalers",),
    ),
    Check(
        AuditRule(
            "deploy/disruption-budget",
            _LOW,
            "Nodes are drained pod by pod",
            "Without a budget a drain may stop all pods of a service at once.",
        ),
        cluster.without_budget,
        ("poddisruptionbudgets",),
    ),
    Check(
        AuditRule(
            "deploy/rights",
            _HIGH,
            "No role allows everything",
            "A role with a wildcard makes everyone who has it a cluster administrator.",
            _HARDENING,
        ),
        cluster.wildcard_rights,
    ),
    Check(
        AuditRule(
            "deploy/pod-security",
            _LOW,
            "The namespace admits restricted pods only",
            "The Pod Security Standard keeps what is checked here true for pods that come later.",
            _HARDENING,
        ),
        cluster.admits_anything,
    ),
    Check(
        AuditRule(
            "deploy/realms",
            _MEDIUM,
            "Namespaces act on realms of their own",
            "Who may create a SecurityPolicy, a Trunk or a Ban in any namespace changes the limits, the routes and the "
            "bans of all customers.",
        ),
        cluster.binds_everything,
        ("realmbindings",),
    ),
    Check(
        AuditRule(
            "deploy/policy-status",
            _HIGH,
            "Every policy is applied",
            "A policy that was refused, or hasn't reached every pod, protects nothing.",
        ),
        cluster.not_applied,
    ),
)
