"""The head of a VP8 frame, which a lossy WebP is: how large it is, and how coarsely it was quantised. RFC 6386.

And of a VP8L frame, which a lossless WebP is: how large it is. RFC 9649.
"""

import struct
from typing import Final

START_CODE: Final = b"\x9d\x01\x2a"  # of a key frame, behind its three-byte tag; 9.1
SIDE_MASK: Final = 0x3FFF
LOSSLESS_SIGNATURE: Final = 0x2F
FIRST_PARTITION: Final = 10  # bytes from the start of the frame
SEGMENTS: Final = 4


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height of a key frame, pixels; None for any other. Raises struct.error where it is cut off."""
    width, height = struct.unpack_from("<2H", frame, 6)
    return (width & SIDE_MASK, height & SIDE_MASK) if frame[3:6] == START_CODE else None


def lossless_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height of a VP8L frame, pixels; None for what is none. Raises struct.error where it is cut off.
    RFC 9649, 3.4: a signature, 14 bits for each side less one, a hint of transparency, 3 bits of version."""
    signature, bits = struct.unpack_from("<BI", frame)
    if signature != LOSSLESS_SIGNATURE or bits >> 29:
        return None
    return (bits & SIDE_MASK) + 1, (bits >> 14 & SIDE_MASK) + 1


def quantisers(frame: bytes) -> tuple[int, int]:
    """The coarsest and the finest quantiser of a key frame as libwebp writes it, 0-127; of one picture, neither rises
    with the quality. Raises IndexError where the frame is cut off."""
    bits = _Bits(frame, FIRST_PARTITION)
    bits.read(2)  # colour space, clamping: 9.2
    if bits.read(1):  # segments: 9.3
        has_map, has_values = bits.read(1), bits.read(1)
        if has_values:
            bits.read(1)  # absolute, as libwebp's are
            values = [number >> 1 for number in bits.optional(SEGMENTS, 8)]  # the last bit is the sign
            return max(values), min(values)
        if has_map:
            bits.optional(SEGMENTS - 1, 8)
    bits.read(10)  # loop filter: 9.6
    if bits.read(1) and bits.read(1):
        bits.optional(2 * SEGMENTS, 7)
    bits.read(2)  # partitions: 9.5
    value = bits.read(7)
    return value, value


class _Bits:
    """Numbers of even chance out of the boolean decoder: 7.3."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._next = start + 2
        self._value = data[start] << 8 | data[start + 1]
        self._range = 255
        self._shifts = 0

    def read(self, count: int) -> int:
        """The next number of so many bits."""
        number = 0
        for _ in range(count):
            number = number << 1 | self._bit()
        return number

    def optional(self, count: int, bits: int) -> list[int]:
        """Numbers that each have a flag before them; 0 where it is not set."""
        return [self.read(bits) if self.read(1) else 0 for _ in range(count)]

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._value -= split << 8
            self._range -= split
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifts += 1
            if self._shifts % 8 == 0:
                self._value |= self._data[self._next]
                self._next += 1
        return bit
