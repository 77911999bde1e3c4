"""pytest-celery's containers for a project that django-prodserver runs.

Copy this module, its import in `conftest.py` and pytest's option
`-p no:celery.contrib.pytest` into your Django project. Change only the constants at the
top; the rest follows your Dockerfile and Procfile.

pytest-celery starts its broker and result backend in containers, sends tasks from the
test, and would start its own worker with `celery -A app worker`. Here the worker and
beat are the project's: its image, its commands, its settings. pytest-celery looks up
each part by the name of a fixture (`default_worker_…`), and a fixture in a
`conftest.py` overrides a plugin's. So does `celery_worker`: `celery.contrib.pytest` has
a fixture of the same name, for a worker in a thread (pytest-celery 442).
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from docker import DockerClient
from docker.models.images import Image
from docker.models.volumes import Volume
from pytest_celery import (
    CeleryTestContainer,
    CeleryTestNode,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RabbitMQContainer,
    RedisContainer,
)
from pytest_docker_tools import build, container, fxtr, volume
from pytest_docker_tools.exceptions import ContainerFailed, ContainerNotReady

# The folder with the project's Dockerfile.
PROJECT = Path(__file__).parents[2]
# Files that the tests add, by their path below /tests in the containers: the deployed
# image has no tests in it.
BROUGHT = {
    f"tests/docker/{name}": PROJECT / "tests" / "docker" / name
    for name in ("deployed_settings.py", "tasks.py")
}
# What a deployment's environment would set, except the broker's URL.
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "tests.docker.deployed_settings",
    "PYTHONPATH": "/tests",
    "SECRET_KEY": "only-for-tests",
    "ALLOWED_HOSTS": "*",
    "TRUSTED_PROXIES": "0",
    "WORKER_CONCURRENCY": "2",
}
# The variable in which the project looks for the broker, by the URL's scheme.
BROKER_VARIABLES = {"amqp": "RABBITMQ_URL", "redis": "REDIS_URL"}
# As in the Procfile.
COMMANDS = {
    name: ["python", "manage.py", "prodserver", name]
    for name in ("web", "worker", "beat")
}
RELEASE = ["python", "manage.py", "migrate", "--noinput"]

# Not pytest-celery's `rabbitmq:latest`: RabbitMQ 4.3 and newer refuse a kind of queue
# that older Celery versions declare (kombu 2531).
IMAGES = {"redis": "redis:8", "rabbitmq": "rabbitmq:4.1"}
# A template, not fxtr("worker_celery"): pytest sees it at collection, and so lets tests
# be parametrised with it.
BUILD_ARGUMENTS = {"CELERY": "{worker_celery}"}
if os.environ.get("DOCKER_IMAGES") == "debian":
    # Built by ci-images.sh, where no registry answers.
    IMAGES = {name: f"prodserver-ci/{name}" for name in IMAGES}
    BUILD_ARGUMENTS["BASE"] = "prodserver-ci/python"

# Each container gets the tests' files, and shares the data that is in no service.
MOUNTS = {
    "{default_worker_volume.name}": {"bind": "/tests", "mode": "ro"},
    "{data.name}": {"bind": "/data", "mode": "rw"},
}


class ProdserverContainer(CeleryTestContainer):
    """A container of the project's image that runs one of its processes."""

    process: str

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        """Return the Procfile's command; its options are in the settings."""
        return [*COMMANDS[cls.process], *args]

    def _wait_ready(self, timeout: int = 60) -> bool:
        """Wait for the line that says it is ready; fail at once if the process ends.

        pytest-celery's own would wait for minutes then.
        """
        deadline = time.monotonic() + timeout
        while str(self.ready_prompt) not in self.logs():
            self.reload()
            if self.status == "exited":
                raise ContainerFailed(self, f"{self.process} ended.\n{self.logs()}")
            if time.monotonic() > deadline:
                raise ContainerNotReady(self, f"{self.process}:\n{self.logs()}")
            time.sleep(0.2)
        return True

    def logs(self) -> str:
        """Return what it has written since it last started.

        pytest-celery takes a container for ready once a certain line is in its log:
        after a restart, it would find the old one.
        """
        started = str(self.attrs["State"]["StartedAt"])[: len("2026-01-31T12:00:00")]
        since = datetime.fromisoformat(started).replace(tzinfo=timezone.utc)
        log: bytes = self._container.logs(since=since.timestamp())
        return log.decode(errors="replace")

    def stop(self, timeout: int = 30) -> int:
        """Stop it as `docker stop` does, and return the exit status."""
        self._container.stop(timeout=timeout)
        return int(self._container.wait()["StatusCode"])


class WorkerContainer(ProdserverContainer, CeleryWorkerContainer):
    """``prodserver worker``; like any worker, it says when it is "ready."."""

    process = "worker"

    @classmethod
    def worker_name(cls) -> str:
        """Return what precedes the @: Celery's default, as ARGS set no hostname."""
        return "celery"

    @classmethod
    def log_level(cls) -> str:
        """Return the level in ARGS; "ready." and the tasks' lines are on INFO."""
        return "INFO"

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict, initial: dict | None = None
    ) -> dict:
        """Return the environment, with the broker where the project looks for it."""
        env = super().initial_env(
            celery_worker_cluster_config, {**ENVIRONMENT, **(initial or {})}
        )
        # Celery reads this variable too, and prefers it to the project's settings.
        broker = env.pop("CELERY_BROKER_URL")
        return {**env, BROKER_VARIABLES[broker.partition(":")[0]]: broker}


class BeatContainer(ProdserverContainer):
    """``prodserver beat``; on INFO it logs its start and what it sends."""

    process = "beat"

    @property
    def ready_prompt(self) -> str:
        return "beat: Starting..."


class WebContainer(ProdserverContainer):
    """The image's own command, with a port on the host."""

    process = "web"

    @property
    def ready_prompt(self) -> str:
        return "Booting worker"

    @property
    def url(self) -> str:
        host, port = self.get_addr("8000/tcp")
        return f"http://{host}:{port}"


@pytest.fixture(scope="session")
def worker_celery(request: pytest.FixtureRequest) -> str:
    """The Celery in the image, as a requirement: the newest, unless parametrised."""
    return getattr(request, "param", "celery[redis]")


project_image = build(path=str(PROJECT), buildargs=BUILD_ARGUMENTS)
data = volume()
default_worker_volume = volume(initial_content=fxtr("default_worker_initial_content"))


@pytest.fixture
def default_worker_initial_content() -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in BROUGHT.items()}


@pytest.fixture
def released(
    docker_client: DockerClient,
    project_image: Image,
    default_worker_env: dict[str, str],
    default_worker_volume: Volume,
    data: Volume,
) -> None:
    """The completed release step: the database has its tables."""
    docker_client.containers.run(
        project_image.id,
        RELEASE,
        environment=default_worker_env,
        volumes=mounts(default_worker_volume, data),
        remove=True,
    )


def mounts(tests: Volume, data: Volume) -> dict[str, dict[str, str]]:
    return dict(zip((tests.name, data.name), MOUNTS.values(), strict=True))


# --- The worker -----------------------------------------------------------------


@pytest.fixture
def default_worker_container_cls() -> type[CeleryWorkerContainer]:
    return WorkerContainer


# pytest-celery has a fixture each for the command and the environment, but only its own
# container uses them: an override has to name them again (pytest-celery 203).
WORKER: dict[str, Any] = {
    "image": "{project_image.id}",
    "command": fxtr("default_worker_command"),
    "environment": fxtr("default_worker_env"),
    "network": "{default_pytest_celery_network.name}",
    "volumes": MOUNTS,
    "wrapper_class": WorkerContainer,
    "timeout": 60,
}
default_worker_container = container(**WORKER)
second_worker_container = container(**WORKER)


@pytest.fixture
def celery_worker(celery_setup_worker: CeleryTestWorker) -> CeleryTestWorker:
    """The worker in its container, whichever plugins are installed."""
    return celery_setup_worker


@pytest.fixture
def second_worker(
    second_worker_container: WorkerContainer, celery_setup_app: Celery
) -> CeleryTestWorker:
    """A second worker; `celery_worker_cluster` says which ones a test has."""
    return CeleryTestWorker(second_worker_container, celery_setup_app)


# --- Beat -----------------------------------------------------------------------


@pytest.fixture
def beat_command() -> list[str]:
    return BeatContainer.command()


beat_container = container(
    image="{project_image.id}",
    command=fxtr("beat_command"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes=MOUNTS,
    wrapper_class=BeatContainer,
    timeout=60,
)


@pytest.fixture
def celery_beat(
    beat_container: BeatContainer, celery_setup_app: Celery
) -> CeleryTestNode:
    """Beat, on the worker's broker and database."""
    return CeleryTestNode(beat_container, celery_setup_app)


# --- Web ------------------------------------------------------------------------

web = container(
    image="{project_image.id}",
    environment=ENVIRONMENT,
    volumes=MOUNTS,
    ports={"8000/tcp": None},
    wrapper_class=WebContainer,
    timeout=60,
)


# --- Brokers and the result backend ---------------------------------------------


class Reachable(CeleryTestContainer):
    """A container that a test reaches by the address that goes with the port.

    pytest-docker-tools returns the port on the host or, if the tests themselves run in
    a container, the one in this container; pytest-celery puts "localhost" before both.
    """

    @property
    def host_url(self) -> str:
        (port,) = type(self).ports()  # on an instance, it is the mapping
        host, _ = self.get_addr(port)
        return str(super().host_url).replace("localhost", host)


class Redis(Reachable, RedisContainer):
    @classmethod
    def image(cls) -> str:
        return IMAGES["redis"]


class RabbitMQ(Reachable, RabbitMQContainer):
    @classmethod
    def image(cls) -> str:
        return IMAGES["rabbitmq"]


def server(name: str, wrapper: type[Reachable], **options: Any) -> Any:
    """Make one of pytest-celery's containers, but of another class."""
    return container(
        image=wrapper.image(),
        ports=fxtr(f"{name}_ports"),
        environment=fxtr(f"{name}_env"),
        network="{default_pytest_celery_network.name}",
        wrapper_class=wrapper,
        timeout=120,
        **options,
    )


default_redis_broker = server(
    "default_redis_broker", Redis, command=fxtr("default_redis_broker_command")
)
default_redis_backend = server(
    "default_redis_backend", Redis, command=fxtr("default_redis_backend_command")
)
default_rabbitmq_broker = server("default_rabbitmq_broker", RabbitMQ)
