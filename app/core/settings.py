"""Settings: every GANVAS_* variable, in one class, with its unit and reason."""

import hashlib
import os
import tempfile
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.errors import SettingsInvalid

MIB = 1024 * 1024
RATE_PATTERN = r"^[1-9][0-9]{0,6}/(second|minute|hour|day)$"
SOCKET_PATH_BYTES = 100  # the kernel allows 107, macOS 103


class Settings(BaseSettings):
    """What can be set from outside; empty variables count as unset."""

    model_config = SettingsConfigDict(env_prefix="GANVAS_", env_ignore_empty=True, frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs an API key first.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 lets the system choose one.")
    data: Path = Field(Path("data"), description="Folder of everything Ganvas keeps: database, blobs, Redis log.")
    redis_url: str | None = Field(
        None, description="A Redis of your own; unset starts a private one in the data folder."
    )
    database_url: str | None = Field(None, description="SQLAlchemy URL; unset is SQLite in the data folder.")
    storage_url: str | None = Field(
        None, description="Object storage such as s3://bucket/prefix; unset is the data folder."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Device that draws and trains: auto, cpu, cuda or cuda:N.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers that pictures are painted with; auto is bfloat16 where the processor multiplies it, "
        "at about twice the speed of float32.",
    )
    default_model: str | None = Field(None, description="Model used when a request names none; unset is the newest.")
    model_aliases: dict[str, str] = Field(
        default_factory=lambda: {"gpt-image-1": "", "dall-e-2": "", "dall-e-3": ""},
        description='JSON object of names that clients send and the models they mean; "" means the default model.',
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least severe line logged.")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="JSON list of Host names answered on loopback besides localhost itself."
    )
    create_first_key: bool = Field(
        False, description="Where a key is needed and none exists, make an admin key at the start and print it once."
    )
    max_upload_mib: int = Field(2048, ge=1, description="Largest accepted upload of artwork, in MiB.")
    max_waiting_pictures: int = Field(1024, ge=1, description="Pictures that may wait for the device; more gets 429.")
    max_live_viewers: int = Field(
        256, ge=1, description="Live connections at once, to perform or to watch; more are turned away."
    )
    max_batch: int = Field(32, ge=1, le=256, description="Most pictures in one forward pass.")
    model_memory_mib: int = Field(
        2048, ge=16, description="Memory for loaded checkpoints, in MiB; the oldest leave first."
    )
    picture_cache_mib: int = Field(
        64, ge=0, description="Memory for pictures' files that may be asked for again, in MiB; 0 is none."
    )
    threads: int = Field(0, ge=0, description="CPU cores used to draw, and threads of a training step; 0 is all.")
    train_processes: int = Field(
        0, ge=0, description="Processes that train a model together; 0 is one a GPU, and one without a GPU."
    )
    train_torchrun: str | None = Field(
        None,
        description="Arguments of torchrun where other machines train along, such as "
        "--nnodes=2 --node-rank=0 --master-addr=10.0.0.1 --master-port=29400; unset is this machine alone.",
    )
    train_gpu_share: float = Field(
        0.8, gt=0, le=1, description="Part of each GPU's memory that training may take; the rest is left to drawing."
    )
    worker_niceness: int = Field(
        10, ge=0, le=19, description="Niceness of training, so that drawing pictures goes first."
    )
    free_space_floor_mib: int = Field(
        512, ge=0, description="Free space, in MiB, below which no new work is taken; what runs may use it to end well."
    )
    keep_samples_days: int = Field(
        0, ge=0, description="Days that sample sheets of ended trainings are kept; 0 is for ever."
    )
    keep_events_days: int = Field(
        90, ge=0, description="Days that the ticks of ended jobs are kept; 0 is for ever. Reports keep theirs."
    )
    keep_files_days: int = Field(
        0, ge=0, description="Days that files of renders are kept that nobody kept as artworks; 0 is for ever."
    )
    step_timeout_minutes: float = Field(
        30,
        gt=0,
        description="Minutes that one step of a job may take before its process is held to be stuck and ended.",
    )
    rate_per_key: str = Field(
        "6000/minute",
        pattern=RATE_PATTERN,
        description="Most requests of one API key, as 10/second or 6000/minute; keys may have their own.",
    )
    rate_per_address: str = Field(
        "12000/minute",
        pattern=RATE_PATTERN,
        description="Most requests of one address, whatever keys it sends; loopback is not counted.",
    )
    max_queued_jobs: int = Field(
        200, ge=1, description="Jobs that may wait at once for one API key, and for all of loopback; more gets 429."
    )
    drain_notice_seconds: float = Field(
        0,
        ge=0,
        description="How long /readyz says 503 before a stopping API takes no more: what a balancer needs to notice.",
    )
    webhook_hosts: list[str] = Field(
        default_factory=list,
        description="JSON list of host names that webhooks may go to although they are not public; localhost, say.",
    )
    import_samples: bool = Field(True, description="Import the bundled model and sample artwork into an empty studio.")

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        path = quote(str(self.data.absolute() / "ganvas.sqlite3"))
        return self.database_url or f"sqlite:///{path}"

    @cached_property
    def redis(self) -> str:
        """The Redis URL in force; the embedded one listens on a socket in the data folder."""
        return self.redis_url or f"unix://{quote(str(self.redis_socket))}"

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Redis listens: in the data folder, or in /tmp where that path is too long for a socket."""
        place = self.data.absolute() / "redis" / "redis.sock"
        if len(bytes(place)) < SOCKET_PATH_BYTES:
            return place
        digest = hashlib.sha256(bytes(place)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"ganvas-{os.getuid()}-{digest}" / "redis.sock"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach us."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def load_settings() -> Settings:
    """The settings of this process, or SettingsInvalid naming the variable and what it held."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "GANVAS_" + str(first["loc"][0]).upper()
        raise SettingsInvalid(f"{name} is {first['input']!r}: {first['msg']}.", param=name) from error
    except ValueError as error:  # pydantic-settings could not parse a JSON value
        raise SettingsInvalid(f"A GANVAS_ setting cannot be read: {error}.") from error
