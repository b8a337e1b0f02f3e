"""The dashboard asks for what the studio tells, and Prometheus reaches it with a key that is in no file of ours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.serving.meters import Meters

DOCKER = Path(__file__).parents[2] / "docker"
SERIES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
OF_THE_SCRAPE = {"instance", "job", "le"}  # labels that Prometheus or a histogram adds


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCKER / "grafana" / "dashboards" / "ganvas.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read("docker-compose.yml")


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return loaded


def targets(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel.get("targets", [])


def expressions(dashboard: dict[str, Any]) -> list[str]:
    queries = [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    return queries + [target["expr"] for target in targets(dashboard)]


def told(exposition: str) -> tuple[set[str], set[str]]:
    """Every series an exposition may hold, by its type where it has no sample yet, and every label of its samples."""
    families = list(text_string_to_metric_families(exposition))
    names = {family.name + ending for family in families for ending in SERIES.get(family.type, ())}
    return names, {label for family in families for sample in family.samples for label in sample.labels}


def test_every_series_the_dashboard_asks_for_is_told_by_the_studio(
    dashboard: dict[str, Any], client: httpx.Client
) -> None:
    asked = set(re.findall(r"\bganvas_\w+", " ".join(expressions(dashboard))))
    names, _ = told(client.get("/metrics").text)
    assert len(asked) > 15
    assert asked - names == set()


def test_every_label_the_dashboard_asks_for_is_told_by_the_studio(
    dashboard: dict[str, Any], client: httpx.Client
) -> None:
    meters = Meters()
    meters.passed("tiny", 1, 0.1)
    meters.encoded("png", 0.1)
    meters.refused("full", 1)
    client.get("/v1/models/tiny/image?seed=1")
    known = told(generate_latest(meters.registry).decode())[1] | told(client.get("/metrics").text)[1]
    asked = set()
    for expression in expressions(dashboard):
        asked |= set(re.findall(r"(\w+)=~?\"", expression))
        asked |= {label for group in re.findall(r"by \(([^)]+)\)", expression) for label in group.split(", ")}
    for target in targets(dashboard):
        asked |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert asked >= {"model", "route", "status", "reason", "format", "le"}
    assert asked - known - OF_THE_SCRAPE == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_panel_reads_the_provisioned_source(dashboard: dict[str, Any], compose: dict[str, Any]) -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    named = {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"}
    named |= {target["datasource"]["uid"] for target in targets(dashboard)}
    named |= {variable["datasource"]["uid"] for variable in dashboard["templating"]["list"]}
    assert named == {source["uid"]}
    host = str(source["url"]).removeprefix("http://").removesuffix(":9090")
    assert compose["services"][host]["image"].startswith("prom/prometheus:")


def test_the_dashboard_is_provisioned_from_the_folder_it_is_mounted_in(compose: dict[str, Any]) -> None:
    (provider,) = read("grafana/provisioning/dashboards/ganvas.yml")["providers"]
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/ganvas.json"


def test_prometheus_shows_a_key_from_a_secret_that_is_not_kept_here(compose: dict[str, Any]) -> None:
    (job,) = read("prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    place = DOCKER / compose["secrets"][secret]["file"]
    assert (place.parent / ".gitignore").read_text().splitlines()[1:] == ["*", "!.gitignore"]


def test_watching_is_asked_for_and_comes_in_pinned_versions(compose: dict[str, Any]) -> None:
    watching = {name: service for name, service in compose["services"].items() if "profiles" in service}
    assert set(watching) == {"prometheus", "grafana"}
    for service in watching.values():
        assert service["profiles"] == ["monitoring"]
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
