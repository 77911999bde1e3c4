"""The examples in deploy/, read as the platforms would read them."""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from dev.procfile import ROOT, commands, free_port
from prodserver_celery5 import probe
from prodserver_celery5.grace import shutdown as grace
from prodserver_celery5.pytest_plugin.process import StartedProcess
from tests.deployment import Deployment

from .blocks import of

DEPLOY = ROOT / "deploy"
RUNNING = ("web", "worker", "beat")


def test_every_example_is_looked_at() -> None:
    assert {path.name for path in DEPLOY.iterdir()} == {
        "compose", "dokku", "kubernetes", "systemd",
    }  # fmt: skip


def test_a_worker_ends_a_few_seconds_before_it_is_killed() -> None:
    worker = manifests()["Deployment", "prayer-room-worker"]
    pod = worker["spec"]["template"]["spec"]
    variables = {v["name"]: v["value"] for v in pod["containers"][0]["env"]}
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    service = compose["services"]["worker"]
    systemd = unit("worker")
    dokku = (DEPLOY / "dokku/setup.sh").read_text()
    for given, limit in (
        (variables["WORKER_GRACE_SECONDS"], pod["terminationGracePeriodSeconds"]),
        (
            service["environment"]["WORKER_GRACE_SECONDS"],
            service["stop_grace_period"].removesuffix("s"),
        ),
        (
            systemd["Environment"].removeprefix("WORKER_GRACE_SECONDS="),
            systemd["TimeoutStopSec"],
        ),
        (
            dokku.partition("WORKER_GRACE_SECONDS=")[2].split()[0],
            dokku.partition("stop-timeout-seconds ")[2].split()[0],
        ),
    ):
        assert int(limit) - int(given) > grace.SECONDS_TO_GIVE_BACK


def probes(name: str) -> list[list[str]]:
    """Return each command that probes the heartbeat of a process."""
    pod = manifests()["Deployment", f"prayer-room-{name}"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert {"name": "HEARTBEAT_FOLDER", "value": "/tmp"} in container["env"]
    kinds = ("startupProbe", "livenessProbe", "readinessProbe")
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    assert compose[name]["environment"]["HEARTBEAT_FOLDER"] == "/tmp"
    dokku = json.loads((DEPLOY / "dokku/app.json").read_text())["healthchecks"]
    return [
        *(container[kind]["exec"]["command"] for kind in kinds),
        compose[name]["healthcheck"]["test"][1:],
        dokku[name][0]["command"],
    ]


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_the_probes_say_yes(deployment: Deployment, name: str) -> None:
    deployment.env["HEARTBEAT_FOLDER"] = str(deployment.folder)
    deployment.start(name).wait_until_ready()
    for python, *words in probes(name):
        assert python == "python"
        assert words[:3] == ["-m", "prodserver_celery5.probe", f"/tmp/{name}.heartbeat"]
        words[2] = str(deployment.folder / f"{name}.heartbeat")
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_asks_what_it_finds(deployment: Deployment, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "ENV HEARTBEAT_FOLDER=/tmp\n" in text
    (command,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", text, re.MULTILINE)
    command = command.replace("/tmp/", f"{tmp_path}/").replace("python", sys.executable)

    def healthy() -> bool:
        return not subprocess.run(
            ["sh", "-c", command], cwd=ROOT, check=False
        ).returncode

    assert healthy()  # web has no heartbeat
    deployment.env["HEARTBEAT_FOLDER"] = str(tmp_path)
    worker = deployment.start("worker")
    worker.wait_until_ready()
    assert healthy()
    worker.kill()
    assert not healthy()


# The proxy in front


@pytest.fixture
def https(deployment: Deployment, tmp_path: Path) -> Iterator[int]:
    """Run web behind the documented nginx, and return nginx's port."""
    if shutil.which("nginx") is None:
        # In CI, nobody would notice a skip.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no nginx here")
    port, inner = free_port(), free_port()
    deployment.env |= {
        "ALLOWED_HOSTS": "pray.example.org",
        "HTTPS_ONLY": "on",
        "PORT": str(inner),
        "THROTTLE_SUBMIT": "2/hour",
        "TRUSTED_PROXIES": "1",
    }
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=pray.example.org",
         "-addext", "subjectAltName=DNS:pray.example.org",
         "-keyout", tmp_path / "pray.example.org.key",
         "-out", tmp_path / "pray.example.org.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (block,) = of("nginx")
    site = block.text
    for documented, here in (
        ("/etc/ssl", str(tmp_path)),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("127.0.0.1:8000", f"127.0.0.1:{inner}"),
    ):
        assert documented in site
        site = site.replace(documented, here)
    folders = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        "daemon off;\nmaster_process off;\nerror_log stderr notice;\nevents {}\n"
        f"pid {tmp_path}/nginx.pid;\nhttp {{\naccess_log off;\n{folders}{site}}}\n"
    )
    deployment.start("web").wait_until_ready()
    words = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    with StartedProcess(
        words, log=tmp_path / "nginx.log", cwd=tmp_path, env=dict(os.environ)
    ) as nginx:
        # By the time it logs this, it listens.
        nginx.wait_for("using the .* event method")
        yield port


def test_the_proxy_of_the_documentation(https: int, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=tmp_path / "pray.example.org.pem")

    def status(path: str, body: bytes | None = None, **headers: str) -> int:
        raw = socket.create_connection(("127.0.0.1", https), timeout=20)
        with context.wrap_socket(raw, server_hostname="pray.example.org") as wrapped:
            connection = http.client.HTTPConnection("pray.example.org")
            connection.sock = wrapped
            headers = {"Content-Type": "application/json", **headers}
            connection.request("POST" if body else "GET", path, body, headers)
            with connection.getresponse() as answer:
                return answer.status

    # Django knows that the request came by https, or it would redirect.
    assert status("/") == 200
    assert status("/api/requests/", b"[" * 3_000_000) == 413
    # Throttled by the address that nginx saw, not by what the client claims.
    posted = [
        status("/api/requests/", b'{"text": "x"}', **{"X-Forwarded-For": f"1.1.1.{n}"})
        for n in range(3)
    ]
    assert posted == [201, 201, 429]


# Dokku


def test_dokku_starts_and_checks_each_process() -> None:
    app = json.loads((DEPLOY / "dokku/app.json").read_text())
    assert set(app) == {"name", "formation", "healthchecks"}
    assert tuple(app["formation"]) == RUNNING == tuple(app["healthchecks"])
    assert app["formation"]["beat"] == {"quantity": 1}
    for (check,) in app["healthchecks"].values():
        # The fields that Dokku documents.
        assert check.keys() <= {
            "type", "name", "path", "attempts", "wait", "timeout", "command",
        }  # fmt: skip
        assert check["type"] == "startup"
        assert ("path" in check) != ("command" in check)


def test_dokku_waits_for_tasks() -> None:
    script = DEPLOY / "dokku/setup.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    lines = [
        shlex.split(line)
        for line in script.read_text().splitlines()
        if line.startswith("dokku ")
    ]
    # Only one of two beats leads, so no check has to be disabled.
    assert not any("checks:disable" in line for line in lines)
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
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    # SIGHUP would kill beat.
    assert ("ExecReload" in service) is (name == "worker")


def test_the_documented_unit_is_the_one_in_the_folder() -> None:
    (block,) = of("ini", page="docs/deploy-example.md")
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
        # A list: a shell in between would not pass SIGTERM on.
        assert container["command"] == commands()[name.rpartition("-")[2]]
        labels = template["metadata"]["labels"]
        if kind == "Deployment":
            assert document["spec"]["selector"]["matchLabels"] == labels
        assert container["envFrom"] == [{"secretRef": {"name": "prayer-room"}}]


def test_kubernetes_has_a_beat_that_takes_over() -> None:
    spec = manifests()["Deployment", "prayer-room-beat"]["spec"]
    assert (spec["replicas"], "strategy" in spec) == (2, False)
    assert settings.PRODUCTION_PROCESSES["beat"]["LEADER_LOCK"] == "default"


def test_no_process_of_the_example_is_the_first_of_its_container() -> None:
    """It would not get a SIGTERM that comes while it starts."""
    found = manifests()
    for name in RUNNING:
        pod = found["Deployment", f"prayer-room-{name}"]["spec"]["template"]["spec"]
        assert pod["shareProcessNamespace"] is True
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    assert all(compose["services"][name]["init"] is True for name in RUNNING)


def test_kubernetes_waits_for_tasks() -> None:
    spec = manifests()["Deployment", "prayer-room-worker"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 30  # the default


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


# docs/deploy.md: the reader's own project


def documented(language: str, containing: str) -> str:
    (block,) = of(language, containing, "docs/deploy.md")
    return block.text


def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(documented("yaml", "services:"))
    return found["services"]["worker"]


def pod() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(documented("yaml", "containers:"))
    return found["spec"]


def entries() -> dict[str, dict[str, Any]]:
    space: dict[str, Any] = {}
    exec(documented("python", "PRODUCTION_PROCESSES"), space)
    return space["PRODUCTION_PROCESSES"]


def test_the_documented_probes_read_the_entries_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (container,) = pod()["containers"]
    app = json.loads(documented("json", "healthchecks"))["healthchecks"]
    for python, _, module, *words in (
        *(container[f"{kind}Probe"]["exec"]["command"]
          for kind in ("startup", "liveness", "readiness")),
        service()["healthcheck"]["test"][1:],
        app["worker"][0]["command"],
    ):  # fmt: skip
        assert (python, module) == ("python", "prodserver_celery5.probe")
        assert words[0] == entries()["worker"]["HEARTBEAT_FILE"]
        # It knows the words: nothing runs there, so it says "no" and not "misuse".
        assert probe.main(["/nowhere/worker.heartbeat", *words[1:]]) == 1
    capsys.readouterr()


def test_the_documented_grace_is_shorter_than_the_platforms() -> None:
    limits = [pod()["terminationGracePeriodSeconds"]]
    limits.append(int(service()["stop_grace_period"].removesuffix("s")))
    for limit in limits:
        assert limit - entries()["worker"]["GRACE_SECONDS"] > grace.SECONDS_TO_GIVE_BACK
    page = (ROOT / "docs/deploy.md").read_text()
    (dokku,) = re.findall(r"stop-timeout-seconds (\d+)", page)
    (systemd,) = re.findall(r"^TimeoutStopSec=(\d+)", page, re.MULTILINE)
    assert [dokku, systemd] == ["60", "60"]
    assert page.count('"GRACE_SECONDS": 55') == 2


def test_the_documented_containers_have_an_init() -> None:
    assert service()["init"] is True
    assert pod()["shareProcessNamespace"] is True


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd on this machine"
)
def test_systemd_reads_the_documented_unit(tmp_path: Path) -> None:
    text = documented("ini", "[Service]")
    for there, here in (
        ("/srv/proj/venv/bin/python", sys.executable),
        ("/srv/proj", str(tmp_path)),
        ("User=proj", "User=root"),
    ):
        assert there in text
        text = text.replace(there, here)
    unit = tmp_path / "proj-worker.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "proj-worker" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
