"""Settings come from the environment, are checked whole, and never show a secret."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from callwarden.common.settings import Settings, redact_url, split_listen


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("CALLWARDEN_", "OTEL_")):
            monkeypatch.delenv(name)


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLWARDEN_LOG_LEVEL", "debug")
    monkeypatch.setenv("CALLWARDEN_GRPC_LISTEN", "[::1]:8080")
    monkeypatch.setenv("CALLWARDEN_DATABASE_URL", "cockroachdb+asyncpg://u:p@db/c")
    settings = Settings()
    assert (settings.log_level, settings.grpc_listen) == ("debug", "[::1]:8080")
    assert settings.database_url.get_secret_value() == "cockroachdb+asyncpg://u:p@db/c"


def test_a_service_adds_its_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Settings):
        lines_max: int = 3

    monkeypatch.setenv("CALLWARDEN_LINES_MAX", "7")
    assert Mine().lines_max == 7


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "CALLWARDEN_OTLP_ENDPOINT"])
def test_the_standard_name_of_the_collector_is_honoured(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://collector:4317")
    assert Settings().otlp_endpoint == "http://collector:4317"


def test_ours_goes_before_the_standard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4317")
    monkeypatch.setenv("CALLWARDEN_OTLP_ENDPOINT", "http://ours:4317")
    assert Settings().otlp_endpoint == "http://ours:4317"


@pytest.mark.parametrize(
    "wrong",
    [
        {"grpc_listen": "8080"},
        {"grpc_listen": "host:port"},
        {"metrics_listen": "a b:1"},
        {"log_level": "loud"},
        {"drain_timeout_s": -1},
        {"instance": "with.dot"},
        {"instance": ""},
        {"trace_sample_ratio": 1.5},
        {"tls_cert": "/x"},
        {"tls_cert": "/x", "tls_ca": "/y"},
        {"database_connections_max": 0},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLWARDEN_DATABASE_URL", "postgresql+asyncpg://u:hunter2@db/c")
    monkeypatch.setenv("CALLWARDEN_NATS_URL", "nats://u:hunter2@nats")
    settings = Settings()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("CALLWARDEN_GRPC_LISTEN", "hunter2 hunter2")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().log_level = "debug"


def test_an_instance_has_a_name_that_a_key_can_hold() -> None:
    assert Settings().instance
    assert "." not in Settings().instance


def test_tls_is_whole() -> None:
    files = {"tls_cert": Path("a"), "tls_key": Path("b"), "tls_ca": Path("c")}
    assert Settings.model_validate(files).tls_ca == Path("c")


@pytest.mark.parametrize(
    ("listen", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8080", ("::1", 8080)), ("edge.example:443", ("edge.example", 443))],
)
def test_a_listen_address_splits(listen: str, parts: tuple[str, int]) -> None:
    assert split_listen(listen) == parts


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        ("fd00:10:244::5:7000", "[fd00:10:244::5]:7000"),
        ("2001:db8:1:2:3:4:5:6:0", "[2001:db8:1:2:3:4:5:6]:0"),
        ("[::1]:7000", "[::1]:7000"),
        ("10.0.0.5:7000", "10.0.0.5:7000"),
    ],
)
def test_a_pods_ipv6_address_and_a_port_need_no_brackets(told: str, understood: str) -> None:
    assert Settings(grpc_listen=told).grpc_listen == understood


@pytest.mark.parametrize("wrong", ["::1", "fd00::5", "fd00::g:7000", ":7000", "[fd00::5]", "10.0.0.5"])
def test_what_is_no_address_with_a_port_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(grpc_listen=wrong)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@db:5432/callwarden?password=x", "postgresql://…@db:5432/callwarden"),
        ("nats://token@nats:4222", "nats://…@nats:4222"),
        ("nats://nats:4222", "nats://nats:4222"),
        ("postgresql://u:p@ss@db/c", "postgresql://…@db/c"),
        ("postgresql://db?password=x", "postgresql://db"),
        ("u:p@db", "…"),
    ],
)
def test_a_url_in_a_log_has_no_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown
