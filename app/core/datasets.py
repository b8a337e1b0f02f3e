"""Datasets as rows: made with their prepare job in one transaction, found, and deleted when nothing needs them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import jobs
from app.core.errors import Conflict, NotFound
from app.core.records import Dataset, Job, new_id


def create(session: Session, *, name: str, source_sha256: str, request: dict[str, Any]) -> tuple[Dataset, Job]:
    """Add a dataset and the job that prepares it; dispatch the job after the transaction."""
    dataset = Dataset(id=new_id("ds"), name=name, source_sha256=source_sha256, request=request)
    session.add(dataset)
    job = jobs.submit(session, "prepare", {"dataset": dataset.id, **request})
    dataset.job_id = job.id
    return dataset, job


def find(session: Session, dataset_id: str) -> Dataset:
    """The dataset, or NotFound."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        message = f"There is no dataset {dataset_id!r}. GET /v1/datasets lists them."
        raise NotFound(message, code="dataset_not_found", param="dataset")
    return dataset


def require_ready(dataset: Dataset) -> Dataset:
    """The dataset, or Conflict saying why it cannot be trained on."""
    if dataset.status == "preparing":
        raise Conflict(
            f"Dataset {dataset.id} is still being prepared; follow GET /v1/jobs/{dataset.job_id}.",
            code="dataset_not_ready",
            param="dataset",
        )
    if dataset.status == "failed":
        reason = (dataset.error or {}).get("message", "its preparation failed.")
        raise Conflict(f"Dataset {dataset.id} cannot be used: {reason}", code="dataset_failed", param="dataset")
    return dataset


def says_something(dataset: Dataset) -> bool:
    """Whether there is a caption or a label to learn from."""
    return dataset.captions > 0 or len(dataset.labels) > 0


def delete(session: Session, dataset_id: str) -> list[str]:
    """Remove the row and return the blobs that no other dataset needs; Conflict while a job works on it."""
    dataset = find(session, dataset_id)
    active = select(Job).where(Job.status.in_(["queued", "running"]))
    for job in session.scalars(active):
        if job.request.get("dataset") == dataset_id:
            raise Conflict(f"Job {job.id} still works on dataset {dataset_id}; cancel it first.", code="dataset_in_use")
    session.delete(dataset)
    session.flush()
    blobs = {dataset.source_sha256, dataset.array_sha256, dataset.manifest_sha256} - {None}
    for other in session.scalars(select(Dataset)):
        blobs -= {other.source_sha256, other.array_sha256, other.manifest_sha256}
    return sorted(blob for blob in blobs if blob)
