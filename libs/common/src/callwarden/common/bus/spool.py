"""Events on disk while NATS is away: appended in order, read back in order, bounded, safe to tear anywhere.

One file of records: length and CRC-32 (4 bytes each, big-endian), then the subject, the message id and the payload. A
process that dies while it writes leaves a torn tail, which is cut off at the next start; what was read and
acknowledged is recorded as an offset in a second file, replaced atomically. After a crash some records are sent twice
and none is lost; message ids make the duplicates harmless.

fsync: once per FSYNC_INTERVAL_S of appends, off the loop. What is appended survives the death of the process at once,
and that of the machine (power) after that interval.
"""

import asyncio
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from callwarden.common.logs import get_logger
from callwarden.kernel.errors import Exhausted

log = get_logger(__name__)

SPOOL_BYTES_MAX: Final = 256 * 1024 * 1024  # 800,000 ended calls: an hour at 200 calls/s.
RECORD_BYTES_MAX: Final = 1024 * 1024  # more can only be garbage; NATS takes 1 MB at most
FSYNC_INTERVAL_S: Final = 0.2

_CHUNK_BYTES: Final = 1024 * 1024

_HEAD = struct.Struct(">II")  # bytes in the body, CRC-32 of the body
_NAMES = struct.Struct(">HH")  # bytes of subject and of message id; the payload is the rest


@dataclass(frozen=True, slots=True)
class Record:
    """One event, and the offset behind it: what to acknowledge when it is delivered."""

    subject: str
    message_id: str
    payload: bytes
    end: int


class Spool:
    """A queue of events on disk. One process owns a directory; that is not checked."""

    def __init__(self, directory: Path, *, bytes_max: int = SPOOL_BYTES_MAX) -> None:
        """Opens what an earlier process left. Raises OSError if the directory can't be used."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "events.spool"
        self._offset_path = directory / "events.offset"
        self._bytes_max = bytes_max
        self._file: BinaryIO = self._path.open("a+b")
        self._end = self._repair()
        self._start = min(self._read_offset(), self._end)
        self._count = sum(1 for _ in self._records(self._start))
        self._synced_s = 0.0
        self._fsync: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Events that are not delivered yet."""
        return self._count

    def append(self, subject: str, message_id: str, payload: bytes) -> None:
        """Write one event behind the others. Raises Exhausted when the spool is full, OSError when the disk is."""
        subject_bytes, id_bytes = subject.encode(), message_id.encode()
        body = _NAMES.pack(len(subject_bytes), len(id_bytes)) + subject_bytes + id_bytes + payload
        if len(body) > RECORD_BYTES_MAX or self._end - self._start + len(body) > self._bytes_max:
            raise Exhausted("the event spool is full")
        record = _HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            self._file.write(record)
            self._file.flush()  # to the kernel: survives us
        except OSError:
            self._file.truncate(self._end)  # not half a record in the middle
            raise
        self._end += len(record)
        self._count += 1
        self._sync_soon()

    def read(self, count_max: int) -> list[Record]:
        """The oldest events, which stay until they are acknowledged."""
        records = self._records(self._start)
        return [record for record, _ in zip(records, range(count_max), strict=False)]

    def acknowledge(self, end: int) -> None:
        """Forget everything up to `end` (Record.end)."""
        if not self._start < end <= self._end:
            return
        self._count -= sum(1 for _ in self._records(self._start, end))
        self._start = end
        if self._start == self._end:
            # All delivered: start again instead of growing. The offset first: a crash in between sends twice.
            self._write_offset(0)
            self._file.truncate(0)
            self._start = self._end = 0
        elif self._start > self._bytes_max:
            self._compact()
        else:
            self._write_offset(self._start)

    def _compact(self) -> None:
        """Drop what is delivered from the front of the file, which is otherwise cut only when all is delivered."""
        replacement = self._path.with_suffix(".spool-new")
        with replacement.open("wb") as kept:
            position = self._start
            while position < self._end:
                chunk = os.pread(self._file.fileno(), min(_CHUNK_BYTES, self._end - position), position)
                kept.write(chunk)
                position += len(chunk)
            kept.flush()
            os.fsync(kept.fileno())
        self._write_offset(0)  # before the file: a crash in between sends again, and loses nothing
        replacement.replace(self._path)
        self._file.close()
        self._file = self._path.open("a+b")
        self._end -= self._start
        self._start = 0

    def close(self) -> None:
        """Make durable and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _records(self, start: int, stop: int | None = None) -> Iterator[Record]:
        """The sound records from `start` on; ends at the first that is torn or wrong."""
        position = start
        while stop is None or position < stop:
            head = os.pread(self._file.fileno(), _HEAD.size, position)
            if len(head) < _HEAD.size:
                return
            length, crc = _HEAD.unpack(head)
            if not _NAMES.size <= length <= RECORD_BYTES_MAX:
                return
            body = os.pread(self._file.fileno(), length, position + _HEAD.size)
            if len(body) < length or zlib.crc32(body) != crc:
                return
            subject_bytes, id_bytes = _NAMES.unpack_from(body)
            names_end = _NAMES.size + subject_bytes
            position += _HEAD.size + length
            yield Record(
                body[_NAMES.size : names_end].decode(),
                body[names_end : names_end + id_bytes].decode(),
                body[names_end + id_bytes :],
                position,
            )

    def _repair(self) -> int:
        """Cut off a torn tail; the length that is left."""
        end = 0
        for record in self._records(0):
            end = record.end
        size = os.fstat(self._file.fileno()).st_size
        if size > end:
            log.warning("spool.torn_tail_cut", bytes=size - end)
            self._file.truncate(end)
        return end

    def _read_offset(self) -> int:
        try:
            return max(0, int(self._offset_path.read_text()))
        except (FileNotFoundError, ValueError):
            return 0

    def _write_offset(self, offset: int) -> None:
        replacement = self._offset_path.with_suffix(".offset-new")
        replacement.write_text(str(offset))
        replacement.replace(self._offset_path)

    def _sync_soon(self) -> None:
        mono_s = time.monotonic()
        if mono_s - self._synced_s < FSYNC_INTERVAL_S or (self._fsync is not None and not self._fsync.done()):
            return
        self._synced_s = mono_s
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            os.fsync(self._file.fileno())
        else:
            # A descriptor of the thread's own: ours may be closed meanwhile, and its number given to another file.
            self._fsync = loop.run_in_executor(None, _fsync_and_close, os.dup(self._file.fileno()))


def _fsync_and_close(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
