"""One training job: the loop in the middle, records and storage at its edges."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.core import catalogue, datasets, jobs, saving
from app.core.db import Database
from app.core.errors import CheckpointInvalid, Damaged, InvalidRequest, NotFound
from app.core.records import Dataset
from app.core.storage import Storage
from models import errors as models_errors
from models.config import TrainConfig
from models.text import HASHED, build_encoder
from worker.dataset.store import open_images, read_manifest
from worker.horse import breakable
from worker.training.final import publish_report
from worker.training.loop import choose_device, train
from worker.training.orders import give_orders
from worker.training.publish import Publisher
from worker.training.ranks import ALONE, Ranks
from worker.training.state import TrainingState
from worker.training.texts import Texts
from worker.training.transfer import start_from


class Ending(NamedTuple):
    """How a training that used up its budget ended: in a sentence, and as the job's result."""

    message: str
    result: dict[str, str]


def train_and_publish(
    db: Database, storage: Storage, claim: jobs.Claim, *, device: str, ranks: Ranks = ALONE
) -> Ending | None:
    """Train as the claimed job asks, publishing every tick and snapshot; how it ended, or None if it was stopped."""
    with db.read() as session:
        dataset = datasets.require_ready(datasets.find(session, claim.request["dataset"]))
    config = TrainConfig.model_validate(claim.request["config"])
    images = open_images(storage.path(dataset.array_sha256 or ""))
    texts = dataset_texts(storage, dataset, config, claim.sign)
    publisher = Publisher(storage, claim, config, dataset, texts)
    state = _first_state(db, storage, claim, config, publisher)
    give_orders(ranks, dataset, state)
    result = train(
        config,
        images,
        on_tick=publisher.tick,
        on_snapshot=publisher.snapshot,
        on_concern=publisher.concern,
        should_stop=claim.should_stop,
        on_stop=publisher.stop,
        texts=texts,
        state=state,
        device=device,
        ranks=ranks,
    )
    ranks.part()
    if result.stopped:
        return None
    message = f"Trained {config.preset} for {result.kimg:.1f} kimg in {result.minutes:.0f} minutes."
    with breakable():
        report = claim.patiently(lambda: publish_report(publisher, images, choose_device(device)))
    return Ending(message, {"model": claim.request["name"], **report})


def dataset_texts(storage: Storage, dataset: Dataset, config: TrainConfig, sign: Callable[[], None]) -> Texts | None:
    """The captions and labels of a dataset as its networks take them; None for networks that know no texts.

    sign: called while they are encoded, as a sign of life.
    """
    if config.network.text is None:
        return None
    try:
        encoder = build_encoder(config.network.text.encoder)
    except models_errors.EncoderUnavailable as error:
        raise InvalidRequest(str(error), code="encoder_unavailable", param="config") from error
    if encoder.size != config.network.text.features:
        raise InvalidRequest(
            f"Text encoder {encoder.id!r} gives {encoder.size} numbers a text; the configuration says "
            f"{config.network.text.features}. Set network.text.features to {encoder.size}.",
            code="config_does_not_fit",
            param="config",
        )
    manifest = read_manifest(storage.path(dataset.manifest_sha256 or ""))
    kept = {item.position: item for item in manifest.items if item.position is not None}
    items = [kept[row] for row in range(dataset.count)]
    cache = None if encoder.id.startswith(HASHED) else storage.beside(f"{dataset.manifest_sha256} {encoder.id}")
    return Texts.of([item.caption for item in items], [item.label for item in items], encoder, cache, sign)


def _first_state(
    db: Database, storage: Storage, claim: jobs.Claim, config: TrainConfig, publisher: Publisher
) -> TrainingState:
    """Where this attempt starts: from what the last one saved, from another training, or from nothing."""
    with db.read() as session:
        states = saving.states(jobs.find(session, claim.job_id))
    if states:
        state = _saved_state(storage, states, publisher)
        publisher.go_on(state)
        return state
    publisher.begin()
    if (branch := claim.request.get("branch")) is not None:
        try:
            return _saved_state(storage, [branch], publisher).under(config)
        except models_errors.ConfigInvalid as error:
            raise InvalidRequest(str(error), code="config_does_not_fit", param="config") from error
    state = TrainingState.start(config)
    if (base := claim.request.get("base")) is not None:
        with db.read() as session:
            sha256 = catalogue.resolve(session, base).checkpoint.sha256
        try:
            transfer = start_from(state, storage.path(sha256))
        except models_errors.ModelsError as error:
            raise InvalidRequest(f"Base {base!r}: {error}", code="base_does_not_fit", param="base") from error
        publisher.say(transfer.message, warn=bool(transfer.left))
    return state


def _saved_state(storage: Storage, states: Sequence[str], publisher: Publisher) -> TrainingState:
    """The newest of the saved states that can be read."""
    problems: list[str] = []
    for sha256 in states:
        try:
            state = TrainingState.from_bytes(storage.get(sha256))
        except (models_errors.CheckpointInvalid, NotFound, Damaged) as error:
            problems.append(f"The saved state {sha256[:12]} cannot be read: {error}")
            continue
        if problems:
            publisher.say(f"{problems[0]} Went on from the one before it, at {state.kimg:.1f} kimg.", warn=True)
        return state
    raise CheckpointInvalid(" ".join(problems))
