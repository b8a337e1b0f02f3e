"""Draws the sample datasets: the single-code-point emoji of Noto Color Emoji on white, named and labelled.

On Debian 12: apt-get install fonts-noto-color-emoji unicode-data, then
python examples/make_emoji.py
python examples/make_emoji.py --label face --count 100 --size 128 --output examples/faces.zip
The same font, Unicode data and Pillow give the same archives, byte for byte.
"""

import argparse
import csv
import io
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
STRIKE_PX = 109  # the only size of the font's colour bitmaps
MARGIN = 0.04  # of the side, left white on every edge
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: the archive must not depend on the clock

LABELS = {  # Unicode's subgroups, by prefix, gathered into words an artist would ask for
    "face": ("face-", "cat-face", "monkey-face"),
    "body": ("hand", "body-parts"),
    "person": ("person", "family"),
    "animal": ("animal-",),
    "plant": ("plant-",),
    "food": ("food-", "drink", "dishware"),
    "place": ("place-", "hotel"),
    "transport": ("transport-ground", "transport-water", "transport-air"),
    "sky": ("sky & weather",),
    "activity": ("event", "award-medal", "sport", "game", "arts & crafts"),
    "object": (
        *("clothing", "sound", "music", "phone", "computer", "light & video", "book-paper", "money", "mail", "writing"),
        *("office", "lock", "tool", "science", "medical", "household", "other-object", "time"),
    ),
    "symbol": ("heart", "emotion", "zodiac", "flag", "warning"),
}  # a subgroup that fits none (arrows, keycaps, lettered buttons, country flags, skin tones) teaches little: left out
NEAR_DUPLICATE = re.compile(r"o’clock|-thirty")  # 24 clock faces that differ in a hand


class Emoji(NamedTuple):
    """One emoji of Unicode's list."""

    character: str
    name: str
    label: str

    @property
    def file_name(self) -> str:
        return f"{ord(self.character):05x}.png"


def label_of(subgroup: str) -> str | None:
    """One of our words for one of Unicode's subgroups, None for those left out."""
    for label, prefixes in LABELS.items():
        if subgroup.startswith(prefixes):
            return label
    return None


def read_emoji(emoji_test: str) -> list[Emoji]:
    """The emoji of one code point (a variation selector aside) worth drawing, in Unicode's own order."""
    emoji = []
    label = None
    for line in emoji_test.splitlines():
        if line.startswith("# subgroup: "):
            label = label_of(line.removeprefix("# subgroup: "))
        found = re.match(r"([0-9A-F]+)(?: FE0F)? +; fully-qualified +# \S+ E[0-9.]+ (.+)", line)
        if found and label and not NEAR_DUPLICATE.search(found[2]):
            emoji.append(Emoji(chr(int(found[1], 16)), found[2].lower(), label))
    return emoji


def draw(character: str, font: ImageFont.FreeTypeFont, size_px: int) -> Image.Image | None:
    """The emoji centred on a white square, or None where the font has no picture of it."""
    glyph = Image.new("RGBA", (2 * STRIKE_PX, 2 * STRIKE_PX))
    ImageDraw.Draw(glyph).text((STRIKE_PX // 4, STRIKE_PX // 4), character, font=font, embedded_color=True)
    box = glyph.getbbox()
    if box is None:
        return None
    glyph = glyph.crop(box)
    side = round(max(glyph.size) / (1 - 2 * MARGIN))
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return square.convert("RGB").resize((size_px, size_px), Image.Resampling.LANCZOS)


def zip_entry(file_name: str) -> zipfile.ZipInfo:
    """An entry that says nothing of when and where it was made."""
    entry = zipfile.ZipInfo(file_name, EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


def write_zip(path: Path, pictures: dict[Emoji, Image.Image]) -> None:
    """The pictures, then metadata.csv with their captions and labels."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["file_name", "text", "label"])
    with zipfile.ZipFile(path, "w") as archive:
        for emoji, picture in pictures.items():
            png = io.BytesIO()
            picture.save(png, "PNG", optimize=True)
            rows.writerow([emoji.file_name, emoji.name, emoji.label])
            archive.writestr(zip_entry(emoji.file_name), png.getvalue(), zipfile.ZIP_STORED)  # deflated already
        archive.writestr(zip_entry("metadata.csv"), table.getvalue(), zipfile.ZIP_DEFLATED)


def main() -> None:
    """Reads the command line and writes the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("emoji.zip"))
    parser.add_argument("--size", type=int, default=64, help="side of each picture in pixels")
    parser.add_argument("--label", choices=sorted(LABELS), help="draw those of one label; default all")
    parser.add_argument("--count", type=int, help="draw as many, the first of them; default all")
    options = parser.parse_args()
    font = ImageFont.truetype(FONT, size=STRIKE_PX)
    pictures: dict[Emoji, Image.Image] = {}
    drawn: set[bytes] = set()
    missing = draw("\U0010fffd", font, options.size)  # what the font draws for a character it lacks
    if missing:
        drawn.add(missing.tobytes())
    for emoji in read_emoji(EMOJI_TEST.read_text(encoding="utf-8")):
        if options.label not in (None, emoji.label) or len(pictures) == options.count:
            continue
        picture = draw(emoji.character, font, options.size)
        if picture and picture.tobytes() not in drawn:
            drawn.add(picture.tobytes())
            pictures[emoji] = picture
    write_zip(options.output, pictures)
    print(f"{len(pictures)} emoji, {options.output.stat().st_size / 1e6:.1f} MB: {options.output}")


if __name__ == "__main__":
    main()
