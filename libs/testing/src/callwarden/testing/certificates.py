"""Certificates for tests of mutual TLS, as an authority of one installation makes them."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from callwarden.common.rpc.server import TlsFiles


class Authority:
    """A certificate authority for a test."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self._key.public_key(), is_authority=True)

    def _sign(
        self, name: str, public_key: ec.EllipticCurvePublicKey, dns: str = "localhost", *, is_authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def files(self, name: str, dns: str = "localhost") -> TlsFiles:
        """The certificate of `name`, which says that it is `dns`."""
        key = ec.generate_private_key(ec.SECP256R1())
        paths = [self._folder / f"{self._name}-{name}.{kind}" for kind in ("crt", "key", "ca")]
        pem = serialization.Encoding.PEM
        paths[0].write_bytes(self._sign(name, key.public_key(), dns, is_authority=False).public_bytes(pem))
        paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        paths[2].write_bytes(self.certificate.public_bytes(pem))
        return TlsFiles(*paths)
