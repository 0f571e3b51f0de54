"""Trace context as W3C says, and the scope a request carries."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.common import trace

HEX = "0123456789abcdef"


@given(st.text(HEX, min_size=32, max_size=32), st.text(HEX, min_size=16, max_size=16), st.booleans())
def test_what_is_formatted_parses_to_the_same(trace_id: str, span_id: str, sampled: bool) -> None:
    context = trace.TraceContext(trace_id, span_id, sampled)
    expected = None if set(trace_id) == {"0"} or set(span_id) == {"0"} else context
    assert trace.TraceContext.parse(str(context)) == expected


@given(st.text())
def test_anything_else_is_no_context(text: str) -> None:
    context = trace.TraceContext.parse(text)
    assert context is None or str(context)[:53] == text[:53]


# https://www.w3.org/TR/trace-context/#traceparent-header-field-values and 4.3
@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", True),
    ],
)
def test_the_examples_of_the_standard(header: str, sampled: bool) -> None:
    context = trace.TraceContext.parse(header)
    assert context == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled)


@pytest.mark.parametrize(
    "header",
    [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
        "",
    ],
)
def test_what_the_standard_forbids_is_none(header: str) -> None:
    assert trace.TraceContext.parse(header) is None


def test_a_scope_ends_with_its_block() -> None:
    assert (trace.traceparent(), trace.call_id(), trace.deadline_remaining_s()) == ("", "", None)
    with trace.scope(call_id="outer"):
        with trace.scope(call_id="inner"):
            assert trace.call_id() == "inner"
        assert trace.call_id() == "outer"
    assert trace.call_id() == ""


async def test_a_scope_is_of_its_task() -> None:
    async def inside(call_id: str) -> str:
        with trace.scope(call_id=call_id):
            await asyncio.sleep(0)
            return trace.call_id()

    assert await asyncio.gather(*map(inside, "ab")) == ["a", "b"]


def test_a_call_id_is_bounded() -> None:
    with trace.scope(call_id="x" * 10_000) as scope:
        assert len(scope.call_id) == trace.CALL_ID_BYTES_MAX
