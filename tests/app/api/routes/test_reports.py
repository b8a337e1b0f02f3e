"""What a training leaves beside its model: the pictures behind its warnings, and its report."""

import secrets
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.core import jobs


@pytest.fixture
def claim(app: Any) -> Iterator[jobs.Claim]:
    """A running training."""
    with app.db.begin() as session:
        job = jobs.submit(session, "train", {"name": secrets.token_hex(4)}).id
    held = jobs.claim(app.db, job, threading.Event())
    assert held is not None
    yield held
    held.release()


def test_the_evidence_of_a_warning_is_a_picture(client: httpx.Client, app: Any, claim: jobs.Claim) -> None:
    sha256 = app.storage.put(b"nearest pairs")
    claim.report("warning", {"kind": "rolled_back", "message": "No picture."})
    claim.report("warning", {"kind": "copying", "evidence_sha256": sha256})
    shown = client.get(f"/v1/jobs/{claim.job_id}/evidence/{sha256[:12]}.png")
    assert (shown.content, shown.headers["content-type"]) == (b"nearest pairs", "image/png")


def test_only_what_the_jobs_own_warnings_show_is_evidence(client: httpx.Client, app: Any, claim: jobs.Claim) -> None:
    others = app.storage.put(b"somebody else's")
    claim.report("log", {"evidence_sha256": others})
    refused = client.get(f"/v1/jobs/{claim.job_id}/evidence/{others[:12]}.png")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "evidence_not_found")
    assert client.get(f"/v1/jobs/job_nothing/evidence/{others[:12]}.png").json()["error"]["code"] == "job_not_found"
    assert client.get(f"/v1/jobs/{claim.job_id}/evidence/beef.png").status_code == 422


def test_a_report_is_a_page_that_can_run_nothing_and_the_same_as_figures(
    client: httpx.Client, app: Any, claim: jobs.Claim
) -> None:
    page, figures = app.storage.put(b"<!doctype html><title>Report</title>"), app.storage.put(b'{"swd": 18.1}')
    claim.finish("succeeded", message="Done.", result={"report_sha256": page, "report_json_sha256": figures})
    answer = client.get(f"/v1/jobs/{claim.job_id}/report")
    assert answer.text == "<!doctype html><title>Report</title>"
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
    assert client.get(f"/v1/jobs/{claim.job_id}/report.json").json() == {"swd": 18.1}


@pytest.mark.parametrize("name", ["report", "report.json"])
def test_before_the_end_there_is_no_report_and_the_answer_says_when(
    client: httpx.Client, claim: jobs.Claim, name: str
) -> None:
    answer = client.get(f"/v1/jobs/{claim.job_id}/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "report_not_found")
    assert "is running" in answer.json()["error"]["message"]
