"""The recipe inside anyone's film."""

from mmap import mmap
from typing import Final

from app.serving.recipe import MAX_RECIPE_BYTES, RECIPE_ENDS, RECIPE_OPENS

MAX_FINDS: Final = 16  # openings that are tried before a file is given up
GIF_SIGNATURE: Final = b"GIF8"
GIF_COMMENT: Final = b"!\xfe"


def read_recipe_text(data: bytes | mmap) -> str | None:
    """The canonical form of the recipe in a film, wherever it stands; None where there is none.

    The file is anyone's: it is searched once, and of what may be a recipe only `MAX_RECIPE_BYTES` are looked at. If it
    is one, its reader says. All containers hold it as it is, but GIF in pieces of 255 bytes.
    """
    start = -1
    for _ in range(MAX_FINDS):
        start = data.find(RECIPE_OPENS, start + 1)
        if start < 0:
            return None
        in_pieces = data[:4] == GIF_SIGNATURE and data[start - 3 : start - 1] == GIF_COMMENT
        text = joined(data, start - 1) if in_pieces else data[start : start + MAX_RECIPE_BYTES]
        end = text.find(RECIPE_ENDS)
        found = text[: end + len(RECIPE_ENDS)]
        if end > 0 and found.isascii():
            return found.decode()
    return None


def joined(data: bytes | mmap, start: int) -> bytes:
    """GIF's sub-blocks from `start` on, each a length and so many bytes, put together up to an empty one or a limit."""
    parts, held = [], 0
    while held < MAX_RECIPE_BYTES and start < len(data) and data[start]:
        parts.append(data[start + 1 : start + 1 + data[start]])
        held += data[start]
        start += 1 + data[start]
    return b"".join(parts)
