"""The one table between our error kinds and gRPC status codes, both ways. Only adapters and `rpc` know statuses."""

from typing import Final

from grpc import StatusCode

from callwarden.kernel.errors import ERROR_OF_KIND, CallwardenError, ErrorKind

CODE_OF_KIND: Final[dict[ErrorKind, StatusCode]] = {
    ErrorKind.INVALID: StatusCode.INVALID_ARGUMENT,
    ErrorKind.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorKind.DENIED: StatusCode.PERMISSION_DENIED,
    ErrorKind.NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorKind.CONFLICT: StatusCode.ABORTED,
    ErrorKind.EXHAUSTED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: StatusCode.UNAVAILABLE,
    ErrorKind.TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.INTERNAL: StatusCode.INTERNAL,
}
"""Total over ErrorKind, and one to one (tested)."""

INTERNAL_TEXT: Final = "internal error"  # All that a caller learns of an unforeseen exception.
UNSAID: Final = "the request failed"  # No server of ours gave a reason: no answer, or one from something else.
MESSAGE_CHARS_MAX: Final = 512  # gRPC puts it into a header; 8 KiB of headers is what a peer accepts.

_KIND_OF_CODE: Final = {code.value[0]: kind for kind, code in CODE_OF_KIND.items()} | {
    # What grpc itself or a proxy in between may answer, by what the caller can do about it.
    StatusCode.CANCELLED.value[0]: ErrorKind.UNAVAILABLE,
    StatusCode.UNKNOWN.value[0]: ErrorKind.INTERNAL,
    StatusCode.ALREADY_EXISTS.value[0]: ErrorKind.CONFLICT,
    StatusCode.FAILED_PRECONDITION.value[0]: ErrorKind.CONFLICT,
    StatusCode.OUT_OF_RANGE.value[0]: ErrorKind.INVALID,
    StatusCode.UNIMPLEMENTED.value[0]: ErrorKind.INTERNAL,
    StatusCode.DATA_LOSS.value[0]: ErrorKind.INTERNAL,
}


def to_status(error: BaseException) -> tuple[StatusCode, str, str]:
    """Status code, text and field for the caller. Only a CallwardenError speaks; anything else is a fixed text."""
    if isinstance(error, CallwardenError) and error.kind is not ErrorKind.INTERNAL:
        # A message may repeat what a client sent, which need not be Unicode; then no reply could carry it.
        text = error.message[:MESSAGE_CHARS_MAX].encode("utf-8", "replace").decode()
        return CODE_OF_KIND[error.kind], text, error.field
    if isinstance(error, TimeoutError):  # a deadline that we ourselves set, with asyncio.timeout
        return StatusCode.DEADLINE_EXCEEDED, "deadline exceeded", ""
    return StatusCode.INTERNAL, INTERNAL_TEXT, ""


def to_error(code: int, message: str, *, field: str = "") -> CallwardenError:
    """The error for a status number (not 0), on the caller's side. `message` is from one of ours, or ''."""
    kind = _KIND_OF_CODE.get(code, ErrorKind.INTERNAL)
    return ERROR_OF_KIND[kind](message or f"{UNSAID}: {kind.value}", field=field)
