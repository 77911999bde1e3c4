"""The examples below deploy/: what the platforms would read, and what it means."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.procfile import ROOT, commands

from .blocks import of

DEPLOY = ROOT / "deploy"
RUNNING = ("web", "worker", "beat")


def test_every_example_is_looked_at() -> None:
    assert {path.name for path in DEPLOY.iterdir()} == {
        "compose", "dokku", "kubernetes", "systemd",
    }  # fmt: skip


# Dokku


def test_dokku_starts_and_checks_each_process() -> None:
    app = json.loads((DEPLOY / "dokku/app.json").read_text())
    assert set(app) == {"name", "formation", "healthchecks"}
    assert tuple(app["formation"]) == RUNNING == tuple(app["healthchecks"])
    assert app["formation"]["beat"] == {"quantity": 1, "max_parallel": 1}
    for (check,) in app["healthchecks"].values():
        # The fields that Dokku's documentation has.
        assert check.keys() <= {
            "type", "name", "path", "attempts", "wait", "timeout", "uptime",
        }  # fmt: skip
        assert check["type"] == "startup"
        assert ("path" in check) != ("uptime" in check)


def test_dokku_never_has_two_beats_and_waits_for_tasks() -> None:
    script = DEPLOY / "dokku/setup.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    lines = [
        shlex.split(line)
        for line in script.read_text().splitlines()
        if line.startswith("dokku ")
    ]
    assert ["dokku", "checks:disable", "$app", "beat"] in lines
    assert ["dokku", "ps:set", "$app", "stop-timeout-seconds", "60"] in lines


# systemd


def unit(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.optionxform = str
    parser.read(DEPLOY / f"systemd/prayer-room-{name}.service")
    return parser["Service"]


@pytest.mark.parametrize("name", RUNNING)
def test_a_unit_signals_the_process_alone(name: str) -> None:
    service = unit(name)
    python, *words = shlex.split(service["ExecStart"])
    assert Path(python).name == "python"
    assert words == commands()[name][1:]
    assert service["KillMode"] == "mixed"
    assert service["Type"] == "exec"
    assert service["Restart"] == "on-failure"
    # beat would die of it.
    assert ("ExecReload" in service) is (name == "worker")


def test_the_documented_unit_is_the_one_in_the_folder() -> None:
    (block,) = of("ini")
    file = (DEPLOY / "systemd/prayer-room-worker.service").read_text().splitlines()
    assert set(block.text.splitlines()) <= set(file)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd on this machine"
)
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    units = []
    for path in (DEPLOY / "systemd").glob("*.service"):
        text = path.read_text().replace(
            "/srv/prayer-room/.venv/bin/python", sys.executable
        )
        units.append(tmp_path / path.name)
        units[-1].write_text(text.replace("User=prayer-room", "User=root"))
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "prayer-room" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


# Kubernetes


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (document["kind"], document["metadata"]["name"]): document
        for path in (DEPLOY / "kubernetes").glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
    }


def test_kubernetes_runs_each_process() -> None:
    found = manifests()
    assert {(kind, name) for kind, name in found if kind != "Service"} == {
        *(("Deployment", f"prayer-room-{name}") for name in RUNNING),
        ("Job", "prayer-room-release"),
    }
    for (kind, name), document in found.items():
        if kind == "Service":
            continue
        template = document["spec"]["template"]
        (container,) = template["spec"]["containers"]
        # A list: a shell in between would keep SIGTERM to itself.
        assert container["command"] == commands()[name.rpartition("-")[2]]
        labels = template["metadata"]["labels"]
        if kind == "Deployment":
            assert document["spec"]["selector"]["matchLabels"] == labels
        assert container["envFrom"] == [{"secretRef": {"name": "prayer-room"}}]


def test_kubernetes_ends_the_old_beat_before_it_starts_the_new_one() -> None:
    spec = manifests()["Deployment", "prayer-room-beat"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_kubernetes_waits_for_tasks() -> None:
    spec = manifests()["Deployment", "prayer-room-worker"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 30  # the default
    assert "livenessProbe" not in spec["containers"][0]


def test_kubernetes_sends_requests_to_web() -> None:
    found = manifests()
    service = found["Service", "prayer-room"]["spec"]
    template = found["Deployment", "prayer-room-web"]["spec"]["template"]
    assert service["selector"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 8000)
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/healthz",
        "port": "http",
    }


def test_the_release_runs_once() -> None:
    spec = manifests()["Job", "prayer-room-release"]["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


# compose


def test_compose_runs_each_process_after_the_release() -> None:
    document = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    services = document["services"]
    assert set(services) == {*commands(), "db", "broker"}
    for name, command in commands().items():
        assert services[name]["command"] == command
        assert "deploy" not in services[name]
    for name in RUNNING:
        waits = services[name]["depends_on"]
        assert waits["release"] == {"condition": "service_completed_successfully"}
        assert waits.keys() <= services.keys()
    assert services["worker"]["stop_grace_period"] == "60s"
    context = services["release"]["build"]["context"]
    assert (DEPLOY / "compose" / context / "Dockerfile").is_file()
    used = {volume.partition(":")[0] for s in services.values()
            for volume in s.get("volumes", ())}  # fmt: skip
    assert used == set(document["volumes"])


def test_compose_sets_variables_that_the_settings_read() -> None:
    document = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    settings = (ROOT / "prayer_room_api/settings.py").read_text()
    for name in document["services"]["worker"]["environment"]:
        assert f'"{name}"' in settings
    manifest = manifests()["Deployment", "prayer-room-worker"]
    for variable in manifest["spec"]["template"]["spec"]["containers"][0]["env"]:
        assert f'"{variable["name"]}"' in settings
