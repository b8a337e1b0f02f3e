"""mp4 and WebM by FFmpeg: H.264 and VP9, in the colours of BT.709 or exactly those of the frames."""

from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, cast

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

from app.core.errors import InvalidRequest
from app.serving.encode import XMP, Pixels
from app.serving.films.settings import FilmSettings

THREADS: Final = 2  # always: x264 codes otherwise with another number
XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # of the box that holds it; XMP, part 3, 1.1.4
SCALING: Final = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class Coding:
    """An encoder as FFmpeg knows it."""

    name: str
    pixels: str  # what it takes
    options: dict[str, str]
    container: dict[str, str]  # the container's own options


WEBM: Final = {"fflags": "bitexact"}  # no times, random numbers and names of versions
MP4: Final = WEBM | {"movflags": "faststart"}  # a player begins before it has all
SITED: Final = {"chroma_sample_location": "center"}  # where swscale puts it; players take it to be left unless told
VP9: Final = {"deadline": "good", "cpu-used": "4", "row-mt": "1"}
# x264's AVX-512 code for macroblock trees reads what lies behind a row, and decides otherwise from run to run.
STEADY: Final = {"x264-params": "mbtree=0"}
CODINGS: Final[dict[tuple[str, bool], Coding]] = {  # (container, lossless); rates: docs/adr/0013
    ("mp4", False): Coding("libx264", "yuv420p", SITED | STEADY | {"preset": "medium", "crf": "16"}, MP4),
    ("mp4", True): Coding("libx264rgb", "rgb24", {"preset": "medium", "crf": "0"}, MP4),
    ("webm", False): Coding("libvpx-vp9", "yuv420p", SITED | VP9 | {"crf": "8", "b": "0"}, WEBM),
    ("webm", True): Coding("libvpx-vp9", "gbrp", VP9 | {"lossless": "1"}, WEBM),
}
FINE: Final[dict[str, dict[str, str]]] = {  # in place of the lossy rates
    "mp4": SITED | {"preset": "medium", "qp": "1"},
    "webm": SITED | VP9 | {"crf": "2", "b": "0"},
}


class Video:
    """One stream of frames at a steady rate. Lossy, grey becomes RGB and alpha is left out, as in a JPEG."""

    def __init__(self, path: Path, container: Literal["mp4", "webm"], settings: FilmSettings) -> None:
        coding = CODINGS[container, settings.lossless]
        if settings.fine and not settings.lossless:
            coding = replace(coding, options=FINE[container])
        self._path = path
        self._settings = settings
        self._coding = coding
        self._frames = 0
        self._file = av.open(str(path.absolute()), "w", format=container, options=coding.container)
        if settings.recipe is not None:
            self._file.metadata["comment"] = settings.recipe
        if container == "webm":
            self._file.metadata["XMP"] = XMP.decode()
        self._stream = cast("VideoStream", self._file.add_stream(coding.name, settings.fps, options=coding.options))
        self._stream.width, self._stream.height = settings.size
        self._stream.pix_fmt = coding.pixels
        context = self._stream.codec_context
        context.thread_count = THREADS
        context.flags |= CodecFlags.bitexact
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1  # sRGB's
        if not settings.lossless:
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG

    def add(self, pixels: Pixels) -> None:
        channels = pixels.shape[2]
        if channels in (2, 4) and self._settings.lossless:
            message = "mp4 and webm keep no transparency, which this model's pictures have; ask for webp or zip."
            raise InvalidRequest(message, param="format")
        rgb = np.repeat(pixels[:, :, :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(pixels[:, :, :3])
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        if self._coding.pixels != "rgb24":
            frame = frame.reformat(
                format=self._coding.pixels,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.JPEG if self._settings.lossless else ColorRange.MPEG,
                dst_colorspace=None if self._settings.lossless else Colorspace.ITU709,
                interpolation=SCALING,
                threads=1,
            )
        frame.pts, frame.time_base, frame.duration = self._frames, Fraction(1, self._settings.fps), 1
        self._frames += 1
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._file.mux(self._stream.encode())
        self._file.close()
        if self._file.format.name == "mp4":
            with self._path.open("ab") as file:
                file.write((24 + len(XMP)).to_bytes(4) + b"uuid" + XMP_UUID + XMP)

    def abandon(self) -> None:
        with suppress(av.FFmpegError, ValueError):  # it would complete what is not complete
            self._file.close()
