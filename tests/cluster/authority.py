"""The keys of one node: an authority, the API server's certificate, the key that signs ServiceAccounts' tokens."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.cluster.layout import ADDRESS, API_SERVICE, CLUSTER_DOMAIN

LIFETIME = datetime.timedelta(days=1)
_API_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


def write_certificates(folder: Path) -> None:
    """`ca.crt`, `server.crt`, `server.key` and `accounts.key` in `folder`."""
    authority, server, accounts = (_key() for _ in range(3))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in _API_NAMES]
    names.append(x509.DNSName(f"kubernetes.default.svc.{CLUSTER_DOMAIN}"))
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", ADDRESS, API_SERVICE)]
    root = _sign(authority, authority, "callwarden-test", [], is_authority=True)
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(root.public_bytes(pem))
    signed = _sign(authority, server, "kube-apiserver", names, is_authority=False)
    (folder / "server.crt").write_bytes(signed.public_bytes(pem))
    for name, key in {"server.key": server, "accounts.key": accounts}.items():
        text = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        (folder / name).write_bytes(text)


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _sign(
    authority: rsa.RSAPrivateKey,
    key: rsa.RSAPrivateKey,
    name: str,
    names: list[x509.GeneralName],
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "callwarden-test")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if is_authority:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority, hashes.SHA256())
