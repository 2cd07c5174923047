"""Read the records of a WARC, WET or WAT file (WARC 1.0 and 1.1), compressed or plain, damaged or not.

Members are inflated and records cut here, rather than by FastWARC's iterator, for four things that it does not do:
give the position of a record in a gzip member that holds several, tell a cut file from one that ends, go on behind
damage, and stop inflating at a limit. FastWARC then parses what a record holds; see page.py.
"""

import re
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from shared.rows import LOST

RAW_BYTES = 64 * 2**10  # read from the file at a time
INFLATED_BYTES = 256 * 2**10  # inflated at a time, whatever a gzip member holds
HEADER_BYTES = 64 * 2**10  # the longest header of a record
SKIPPED_BYTES = 2**28  # inflated at most to get past what cannot be used: a second or two of a gzip bomb
MEMBER = 2**40  # a position is MEMBER * (start of the record in its gzip member) + start of the member in the file
GZIP = b"\x1f\x8b\x08"
START = b"WARC/"
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_RECORD_START = re.compile(rb"WARC/[01]\.[0-9]+\r?\n")


class Damage(Exception):
    """The file is not what it should be at this place. The message is a fixed phrase; `detail` says more."""

    def __init__(self, reason: str, detail: str = "", passed: bool = False) -> None:
        super().__init__(reason)
        self.detail = detail
        self.passed = passed  # the stream is at the next record already


class WrongLength(Damage):
    """A record is not as long as its header says, so nothing but this record is lost."""


@dataclass
class Record:
    """One record, or a place where one could not be read: then `problem` says why."""

    offset: int  # where it starts in the file, or the gzip member that it starts in, in bytes
    inner: int  # where it starts in what this member holds; 0 in a plain file
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    block: bytes = b""
    too_large: bool = False  # its block was passed over
    problem: str = ""
    detail: str = ""
    position: int = 0  # to start from, to read what comes after
    share: float = 0.0  # of the file that is read

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "").lower()


class Inflater:
    """The inflated bytes of a file from a position on, a window at a time. A plain file is its own content.

    Where damage ends the bytes of a gzip member, those before it can still be taken; asking for more raises Damage.
    """

    def __init__(self, file: BufferedReader, position: int) -> None:
        self.file = file
        self.size = Path(file.name).stat().st_size
        start = file.read(len(START))
        self.compressed = start != START and (start.startswith(GZIP[:2]) or file.name.endswith(".gz"))
        inner, offset = divmod(position, MEMBER) if self.compressed else (0, position)
        self._start(offset)
        self.skip(inner)

    def _start(self, offset: int) -> None:
        """Go on at this offset of the file, with nothing in the window."""
        self.file.seek(offset)
        self.raw = b""  # read and not inflated
        self.raw_end = offset  # where the file is read to
        self.window = bytearray()
        self.at = 0 if self.compressed else offset  # of the window's first byte, in what is inflated
        self.members: deque[tuple[int, int]] = deque()  # (start in what is inflated, start in the file)
        self.inflate: zlib._Decompress | None = None
        self.ended = offset >= self.size
        self.damage: Damage | None = None

    @property
    def share(self) -> float:
        return min(1.0, (self.raw_end - len(self.raw)) / max(self.size, 1))

    def where(self, ahead: int = 0) -> tuple[int, int]:
        """Offset in the file, and in the gzip member, of a byte of the window."""
        at = self.at + ahead
        if not self.compressed:
            return at, 0
        start, offset = next((m for m in reversed(self.members) if m[0] <= at), (at, self.raw_end - len(self.raw)))
        return offset, at - start

    def fill(self, size: int) -> bool:
        """Hold at least `size` bytes in the window; whether there are as many. Raises Damage."""
        while len(self.window) < size and not self.ended:
            if self.damage:
                raise self.damage
            self._more()
        return len(self.window) >= size

    def skip(self, size: int) -> None:
        """Drop `size` bytes from the front. Raises Damage."""
        while size > len(self.window) and not self.ended:
            size -= len(self.window)
            self._drop(len(self.window))
            self.fill(1)
        self._drop(min(size, len(self.window)))

    def find_record(self, start: int, limit: int) -> bool:
        """Go on at the first record that starts at the beginning of a line or gzip member, `start` to `limit` bytes
        from here. Otherwise drop this much and return False. Raises Damage."""
        while True:
            place = start
            while match := _RECORD_START.search(self.window, place):
                place = match.start()
                if place >= limit:
                    break
                in_line = self.window[max(place - 1, 0) : place] != b"\n"
                if not in_line or any(member == self.at + place for member, _ in self.members):
                    self._drop(place)
                    return True
                place += 1
            passed = min(max(len(self.window) - 32, 0), limit)  # a start may be cut by the end of the window
            self._drop(passed)
            limit -= passed
            start = max(start - passed, 1)
            if limit <= start or not self.fill(len(self.window) + 1):
                self._drop(min(limit, len(self.window)))
                return False

    def find_member(self, offset: int) -> None:
        """Go on at the first gzip member from this offset on that holds the start of a record, or at the end."""
        self.file.seek(offset)
        data = self.file.read(RAW_BYTES)
        while len(data) >= len(GZIP):
            place = data.find(GZIP)
            while place >= 0:
                if place > len(data) - 1024:
                    data += self.file.read(RAW_BYTES)
                content = b""
                with suppress(zlib.error):
                    content = zlib.decompressobj(31).decompress(data[place : place + 1024], 64)
                if _RECORD_START.match(content.lstrip(b"\r\n")):
                    self._start(offset + place)
                    return
                place = data.find(GZIP, place + 1)
            offset += len(data) - 2
            more = self.file.read(RAW_BYTES)
            data = data[-2:] + more if more else b""
        self._start(self.size)

    def _drop(self, size: int) -> None:
        del self.window[:size]
        self.at += size
        while len(self.members) > 1 and self.members[1][0] <= self.at:
            self.members.popleft()

    def _more(self) -> None:
        """Add to the window, or note the end or the damage that is there instead."""
        if len(self.raw) < len(GZIP):
            more = self.file.read(RAW_BYTES)
            self.raw += more
            self.raw_end += len(more)
        if not self.compressed:
            self.window += self.raw
            self.ended = not self.raw
            self.raw = b""
            return
        if self.inflate is None:
            if not self.raw.strip(b"\0"):  # zeros fill up the last block of some files
                self.ended = not self.raw
                self.raw = b""
                return
            self.members.append((self.at + len(self.window), self.raw_end - len(self.raw)))
            self.inflate = zlib.decompressobj(31)
        elif not self.raw:
            self.damage = Damage("truncated gzip member")
            return
        before = self.inflate.copy()
        try:
            self.window += self.inflate.decompress(self.raw, INFLATED_BYTES)
        except zlib.error as error:
            # The call that fails gives nothing: take what comes before the damage, byte by byte.
            self.damage = Damage("damaged gzip member", str(error))
            with suppress(zlib.error):
                for index in range(len(self.raw)):
                    self.window += before.decompress(self.raw[index : index + 1])
            return
        if self.inflate.eof:
            self.raw = self.inflate.unused_data
            self.inflate = None
        else:
            self.raw = self.inflate.unconsumed_tail


def read_records(path: str, position: int, kinds: tuple[str, ...], max_bytes: int) -> Iterator[Record]:
    """Yield the records of these `kinds` (WARC-Type) from a position on, and one for each damaged place.

    A block of more than `max_bytes` is passed over, inflating at most SKIPPED_BYTES of it. Memory holds a few times
    `max_bytes`. A record that is whole is yielded, however its neighbours look.
    """
    with open(path, "rb") as file:
        stream = Inflater(file, position)
        while True:
            offset, inner = stream.where()
            headers: dict[str, str] = {}
            size, wanted = 0, True
            try:
                if not _pass_blank(stream):
                    return
                offset, inner = stream.where()
                headers, size = _read_headers(stream)
                record = Record(offset, inner, headers)
                end = size + int(headers["content-length"])
                if end - size > max_bytes:
                    record.too_large = True
                    at_end = _pass_block(stream, size, end, offset)
                    size = end = 0
                else:
                    at_end = stream.fill(end)
                    if not at_end:
                        raise WrongLength("truncated record", f"{len(stream.window) - size} of {end - size} bytes")
                if at_end:
                    _check_end(stream, end)
                wanted = record.kind in kinds
                if wanted:
                    record.block = bytes(stream.window[size:end])
                stream.skip(end)
            except Damage as damage:
                record = Record(offset, inner, headers, problem=str(damage), detail=damage.detail)
                wanted = not (isinstance(damage, WrongLength) and record.kind not in kinds)
                if not damage.passed:
                    _recover(stream, size, offset)
                # In whole gzip members a record that is cut is one with a wrong length.
                cut = record.problem == f"truncated {'gzip member' if stream.compressed else 'record'}"
                if cut and stream.ended and not stream.window:
                    record.problem, wanted = f"{record.problem}: {LOST}", True
            if wanted:
                with suppress(Damage):
                    _pass_blank(stream)
                start, within = stream.where()
                record.position = MEMBER * within + start
                # Between members it depends on the position alone, and so does what a resumed stage writes down.
                record.share = stream.share if within else start / stream.size
                yield record


def response_of(record: Record) -> bytes:
    """The block of a `resource` record, which is a page without the protocol it came by, as a server's answer."""
    kind = re.sub(r"[^\x20-\x7e]", "", record.headers.get("content-type", ""))
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n%s" % (kind.encode("ascii"), record.block)


def _pass_blank(stream: Inflater) -> bool:
    """Skip line ends before a record; False at the end of the file. Raises Damage."""
    for _ in range(16):
        if not stream.fill(1):
            return False
        blank = len(stream.window) - len(stream.window.lstrip(b"\r\n"))
        if not blank:
            return True
        stream.skip(blank)
    raise Damage("no WARC record where one should start", "empty lines")


def _read_headers(stream: Inflater) -> tuple[dict[str, str], int]:
    """The header of the record that starts here, and its size."""
    stream.fill(len(START))
    if not stream.window.startswith(START):
        raise Damage("no WARC record where one should start", repr(bytes(stream.window[:40])))
    while not (end := _HEADER_END.search(stream.window, 0, HEADER_BYTES)):
        if len(stream.window) >= HEADER_BYTES:
            raise Damage("WARC header without an end")
        if not stream.fill(len(stream.window) + 1):
            raise Damage("truncated record", "in its header")
    headers: dict[str, str] = {}
    for line in bytes(stream.window[: end.start()]).decode("utf-8", "replace").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    if not re.fullmatch("[0-9]{1,18}", headers.get("content-length", "")):
        raise Damage("no Content-Length in the WARC header", headers.get("content-length", ""))
    if "warc-type" not in headers:
        raise Damage("no WARC-Type in the WARC header")
    return headers, end.end()


def _pass_block(stream: Inflater, size: int, end: int, offset: int) -> bool:
    """Leave a block that is too large behind; whether the stream is at its end, or farther. Raises Damage if another
    record starts in the block: the stream is there."""
    limit = min(end, SKIPPED_BYTES) if stream.compressed else end
    if stream.find_record(size, limit):
        raise WrongLength("wrong Content-Length in the WARC header", "a record starts within", passed=True)
    if limit < end:
        stream.find_member(offset + 1)
    return limit == end


def _check_end(stream: Inflater, end: int) -> None:
    """Raise Damage if what follows, `end` bytes from here, shows that the record does not end there."""
    size = 8
    try:
        while stream.fill(end + size) and not stream.window[end:].strip(b"\r\n") and size < HEADER_BYTES:
            size *= 8
    except Damage as damage:
        last = stream.members[-1][1]
        if stream.window[end:].strip(b"\r\n") or not damage.detail or stream.where(end - 1)[0] != last:
            pass  # the next record's affair, or no more than the end of the member is missing
        else:  # the checksum of the member that this record ends
            raise
    rest = bytes(stream.window[end : end + size])
    if rest.startswith(b"\r\n\r\n"):  # as it should be; what comes then is not this record's affair
        return
    rest = rest.lstrip(b"\r\n")[: len(START)]
    if not START.startswith(rest):  # nothing at all is the end
        raise WrongLength("wrong Content-Length in the WARC header", f"followed by {rest!r}")


def _recover(stream: Inflater, size: int, offset: int) -> None:
    """Bring the stream to the next record that can be read, behind `size` bytes of this one."""
    with suppress(Damage):
        if stream.find_record(max(size, 1), SKIPPED_BYTES if stream.compressed else stream.size):
            return
    if stream.compressed:
        stream.find_member(offset + 1)
