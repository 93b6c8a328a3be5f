"""How long an HDF5 file says its texts are, looked at before memory is taken for them.

Texts of any length lie in heaps of their own. Where one belongs, in an array or an attribute, the
file keeps its length and its place in the heap, and HDF5 takes and fills memory of that length
before it finds out that the heap holds less: 4 GB for one changed byte. No function of HDF5 tells
the lengths without reading the texts, so they are read here from the bytes of the file. All texts
of an array lie in the file as they are, each by itself, so together they are no longer than it.

Objects with more than eight attributes, in files of the newest format, keep them in a heap with
check sums, which is not looked into: HDF5 finds damage there itself, though not malice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

#: gzip makes nothing smaller than that, and neither do the other filters of HDF5 by much.
MOST_SQUEEZED = 10_000
#: In the file: four bytes of length, eight of place in the heap and four of number.
_ON_DISK = 16
_COMPACT, _ATTRIBUTE, _LAYOUT, _CONTINUED = 0, 12, 8, 16
_SHUFFLE = 2
#: No header of an object has more parts; a damaged one may go round in a ring.
_MOST_BLOCKS = 10_000


def check_lengths(item: Any, raw: BinaryIO, n_file: int) -> None:
    """Refuse a group or array with texts, or attributes that are texts, longer than the file.

    `raw` is the same file, open for reading bytes, of `n_file` bytes. ValueError with the length,
    and the name of the array or attribute.
    """
    address = h5py.h5o.get_info(item.id).addr
    messages = list(_messages(raw, item.file.userblock_size, address, n_file))
    for kind, body in messages:
        if kind == _ATTRIBUTE:
            _check_attribute(item, body, n_file)
    if isinstance(item, h5py.Dataset) and item.shape is not None:
        places, size = _texts_in(item.id.get_type())
        if places:
            for block in _blocks(item, raw, messages, size):
                _check_block(block, places, size, n_file, item.name)


def _check_attribute(item: Any, body: bytes, n_file: int) -> None:
    version, _, n_name, n_type, n_space = struct.unpack_from("<BBHHH", body)
    start = 9 if version == 3 else 8
    name = body[start : start + n_name].rstrip(b"\0")
    # The first version fills each part up to eight bytes.
    parts = [n + -n % 8 if version == 1 else n for n in (n_name, n_type, n_space)]
    attribute = h5py.h5a.open(item.id, name)
    places, size = _texts_in(attribute.get_type())
    if places:
        what = f"{item.name}, attribute {name.decode(errors='replace')!r},"
        n_values = int(np.prod(attribute.shape, dtype=np.int64))
        values = body[start + sum(parts) :][: n_values * size]
        _check_block(values, places, size, n_file, what)


def _check_block(
    block: bytes, places: list[tuple[int, int]], size: int, n_file: int, name: str
) -> None:
    """Add up the lengths in the raw values of an array."""
    values = np.frombuffer(block[: len(block) // size * size], dtype=np.uint8).reshape(-1, size)
    for place, unit in places:
        lengths = np.ascontiguousarray(values[:, place : place + 4]).view("<u4")
        n_bytes = unit * int(lengths.sum(dtype=np.int64))
        if n_bytes > n_file:
            raise ValueError(f"{name} says that it has {n_bytes} bytes, more than the whole file")


def _texts_in(kind: Any, start: int = 0) -> tuple[list[tuple[int, int]], int]:
    """Where lengths stand in a value on disk, with the bytes of one unit, and the value's size."""
    if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
        return [(start, 1)], _ON_DISK
    if isinstance(kind, h5py.h5t.TypeVlenID):
        return [(start, int(kind.get_super().get_size()))], _ON_DISK
    if isinstance(kind, h5py.h5t.TypeArrayID):
        one, size = _texts_in(kind.get_super())
        count = int(np.prod(kind.get_array_dims(), dtype=np.int64))
        return [(start + i * size + at, unit) for i in range(count) for at, unit in one], (
            count * size
        )
    found: list[tuple[int, int]] = []
    grown = 0  # texts take more on disk than the pointers that they are in memory
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for number in range(kind.get_nmembers()):
            member = kind.get_member_type(number)
            at = start + int(kind.get_member_offset(number)) + grown
            within, size = _texts_in(member, at)
            found, grown = found + within, grown + size - int(member.get_size())
    return found, int(kind.get_size()) + grown


def _blocks(
    item: Any, raw: BinaryIO, messages: list[tuple[int, bytes]], size: int
) -> Iterator[bytes]:
    """The values of an array as they lie in the file, unpacked."""
    creation = item.id.get_create_plist()
    if item.chunks is not None:
        yield from _chunks(item, creation, size)
    elif creation.get_layout() == _COMPACT:
        for kind, body in messages:
            # Version, class and length of the data, which follow.
            if kind == _LAYOUT and len(body) > 4:
                yield body[4:]
    elif item.id.get_offset() is not None:
        raw.seek(item.id.get_offset())
        yield raw.read(item.id.get_storage_size())


def _chunks(item: Any, creation: Any, size: int) -> Iterator[bytes]:
    """The chunks of an array, unpacked by the filters of HDF5 as bytes that mean nothing."""
    chunks: list[Any] = []
    item.id.chunk_iter(chunks.append)
    if not chunks:
        return
    n_bytes = size * int(np.prod(item.chunks, dtype=np.float64))
    n_stored = sum(chunk.size for chunk in chunks)
    if n_bytes > MOST_SQUEEZED * n_stored:
        raise ValueError(f"{item.name} has {n_stored} bytes for a part of {n_bytes}")
    codes = [creation.get_filter(number)[0] for number in range(creation.get_nfilters())]
    if not all(map(h5py.h5z.filter_avail, codes)):
        return  # HDF5 cannot unpack it, and finds that out first
    filters = [creation.get_filter(number)[:3] for number in range(creation.get_nfilters())]
    # The filter that sorts bytes by their place in a value noted how many a value has.
    widths = [settings[0] for code, _, settings in filters if code == _SHUFFLE and settings]
    width = next((w for w in widths if w and n_bytes % w == 0), 1)
    for chunk in chunks:
        skipped, packed = item.id.read_direct_chunk(chunk.chunk_offset)
        used = [one for number, one in enumerate(filters) if not skipped >> number & 1]
        yield _unpacked(packed, used, n_bytes // width, width) if used else packed


def _unpacked(packed: bytes, filters: list[Any], n_values: int, width: int) -> bytes:
    """What filters made of some values, undone."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((n_values,))
    for code, flags, settings in filters:
        creation.set_filter(code, flags, settings)
    kind, space = h5py.h5t.create(h5py.h5t.OPAQUE, width), h5py.h5s.create_simple((n_values,))
    values = np.empty(n_values, dtype=f"V{width}")
    with h5py.File("chunk", "w", driver="core", backing_store=False) as memory:
        one = h5py.h5d.create(memory.id, b"chunk", kind, space, creation)
        one.write_direct_chunk((0,), packed)
        one.read(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)
    return values.tobytes()


def _messages(raw: BinaryIO, base: int, address: int, n_file: int) -> Iterator[tuple[int, bytes]]:
    """What the header of an object holds: the kind of each part, and its bytes."""
    raw.seek(base + address)
    start = raw.read(64)
    if start[:4] == b"OHDR":
        flags = start[5]
        at = 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        width = 1 << (flags & 3)
        blocks = [(address + at + width, int.from_bytes(start[at : at + width], "little"))]
        head, around = ("<BHB2x" if flags & 4 else "<BHB"), 4  # a signature, and a check sum
    else:
        blocks = [(address + 16, struct.unpack_from("<I", start, 8)[0])]
        head, around = "<HHB3x", 0
    for number, (at, n_bytes) in enumerate(blocks):  # which grow as they are read
        if number >= _MOST_BLOCKS or at > n_file:
            raise ValueError("the header of an object does not end")
        raw.seek(base + at)
        block, offset = raw.read(min(n_bytes, n_file)), 0
        while offset + struct.calcsize(head) <= len(block):
            kind, n_body, flags = struct.unpack_from(head, block, offset)
            offset += struct.calcsize(head)
            body = block[offset : offset + n_body]
            offset += n_body
            if kind == _CONTINUED and len(body) >= 16:
                place, length = struct.unpack_from("<QQ", body)
                blocks.append((place + around, max(0, length - 2 * around)))
            if not flags & 2:  # what is shared lies elsewhere
                yield kind, body
