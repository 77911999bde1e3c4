"""The deployed image: what is in it, and its own command."""

from __future__ import annotations

import re
from urllib.request import urlopen

from docker import DockerClient
from docker.models.images import Image

from .containers import COMMANDS, WebContainer


def test_runs_as_no_root(docker_client: DockerClient, project_image: Image) -> None:
    config = project_image.attrs["Config"]
    assert config["User"] == "app"
    # A Procfile's command replaces CMD, but would be appended to an ENTRYPOINT.
    assert not config["Entrypoint"]
    assert config["Cmd"] == COMMANDS["web"]
    owned = "find /app /venv ! -user root -o ! -type l -perm /o+w"
    assert run(docker_client, project_image, f"id -u; {owned}") == "1000"


def test_has_no_secret_and_no_tests(
    docker_client: DockerClient, project_image: Image
) -> None:
    names = {line.partition("=")[0] for line in project_image.attrs["Config"]["Env"]}
    assert not {name for name in names if "SECRET" in name or name.endswith("_URL")}
    files = run(docker_client, project_image, "ls /app; ls -A /data").split()
    assert files == ["Procfile", "manage.py", "prayer_room_api", "staticfiles"]


def test_web(web: WebContainer) -> None:
    """Without a command it serves, with the files collected at build."""
    with urlopen(f"{web.url}/healthz", timeout=10) as response:
        assert response.status == 200
    with urlopen(f"{web.url}/admin/login/", timeout=10) as response:
        page = response.read().decode()
    (style,) = re.findall(r'href="(/static/admin/css/base\.\w+\.css)"', page)
    with urlopen(web.url + style, timeout=10) as response:
        assert response.status == 200
    assert web.stop() == 0


def run(docker_client: DockerClient, image: Image, command: str) -> str:
    output: bytes = docker_client.containers.run(
        image.id, ["sh", "-c", command], remove=True
    )
    return output.decode().strip()
