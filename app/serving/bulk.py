"""Ten thousand pictures in one zip: what is ordered, and how its files are called."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.serving.recipe import MetadataLevel, OutputFormat, Recipe
from models.latents.seeds import parse_seeds

MAX_BULK: Final = 100_000  # pictures of one job: half a gigabyte of the bundled model's
LISTED_CHARACTERS: Final = 20_000  # of the seeds as they are written, which the job and its result repeat
PART: Final = 500  # pictures that are stored together: less than a second of work is lost where a worker dies


class BulkOrder(BaseModel):
    """The job of drawing one recipe at many seeds; the worker adds what it is painted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["batch"] = Field("batch", description="Always batch.")
    recipe: Recipe = Field(description="Of each picture, but for its seed.")
    seeds: str = Field(max_length=LISTED_CHARACTERS, description="Of the pictures, as 0,1,4-6; each once.")
    format: Literal["zip"] = Field("zip", description="Always zip.")
    output_format: OutputFormat = Field(description="Kind of the files in it.")
    output_compression: int | None = Field(None, description="Quality of JPEG and WebP.")
    metadata: MetadataLevel = Field(description="What each file tells of its making.")

    def listed(self) -> list[int]:
        """The seeds, one by one, each once."""
        return list(dict.fromkeys(parse_seeds(self.seeds, limit=MAX_BULK)))

    def name(self, seed: int) -> str:
        """The file of a seed in the zip."""
        return file_name(seed, self.output_format)


def file_name(seed: int, suffix: str) -> str:
    """What the picture of a seed is called: all of one length, so that they sort by seed."""
    return f"{seed:010d}.{suffix}"
