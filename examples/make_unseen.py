"""Draws unseen.zip: 20 emoji that are not in emoji.zip, for measuring what a model does with pictures it never saw.

They are drawn as those are, of kinds that are left out there: flags, keycaps, arrows, buttons, clock faces, religious
and other symbols, and people of several code points. `python examples/make_unseen.py`; see make_emoji.py for what it
takes.
"""

import io
import re
import zipfile
from pathlib import Path

from make_emoji import EMOJI_TEST, FONT, STRIKE_PX, draw, zip_entry
from PIL import ImageFont, features

OUTPUT = Path(__file__).with_name("unseen.zip")
SIZE_PX = 64
NAMES = (
    *("flag: Brazil", "flag: South Africa", "flag: United Kingdom", "flag: Bhutan", "pirate flag"),
    *("woman firefighter: medium skin tone", "man cook: dark skin tone", "astronaut", "woman playing handball"),
    *("family: man, woman, girl, boy", "polar bear", "heart on fire", "eye in speech bubble", "keycap: 7"),
    *("up-right arrow", "restroom", "nine-thirty", "wheel of dharma", "Japanese “secret” button", "recycling symbol"),
)


def code_points(emoji_test: str) -> dict[str, str]:
    """The characters of each name in Unicode's list."""
    lines = re.findall(r"^((?:[0-9A-F]+ )+) *; fully-qualified +# \S+ E[0-9.]+ (.+)$", emoji_test, re.MULTILINE)
    return {name: "".join(chr(int(code, 16)) for code in codes.split()) for codes, name in lines}


def main() -> None:
    """Draws them and writes the archive."""
    if not features.check("raqm"):
        raise SystemExit("Pillow has no raqm here; without it, emoji of several code points fall apart.")
    font = ImageFont.truetype(FONT, size=STRIKE_PX)
    characters = code_points(EMOJI_TEST.read_text(encoding="utf-8"))
    with zipfile.ZipFile(OUTPUT, "w") as archive:
        for name in NAMES:
            picture = draw(characters[name], font, SIZE_PX)
            if picture is None:
                raise SystemExit(f"The font has no picture of {name!r}.")
            png = io.BytesIO()
            picture.save(png, "PNG", optimize=True)
            file_name = "-".join(f"{ord(character):05x}" for character in characters[name]) + ".png"
            archive.writestr(zip_entry(file_name), png.getvalue(), zipfile.ZIP_STORED)  # deflated already
    print(f"{len(NAMES)} emoji, {OUTPUT.stat().st_size / 1e3:.0f} kB: {OUTPUT}")


if __name__ == "__main__":
    main()
