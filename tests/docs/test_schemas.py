"""The examples in deploy/ against the published schemas; `nox -s docs` runs this."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .test_deploy import DEPLOY, pod, service

REASON = "`nox -s docs` installs what this needs"


@pytest.mark.parametrize(
    "path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name
)
def test_kubernetes_knows_each_field(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason=REASON)
    for document in yaml.safe_load_all(path.read_text()):
        validator.validate(document, validator.latest_version(), strict=True)


def test_compose_knows_each_field() -> None:
    validator = pytest.importorskip("compose_spec", reason=REASON)
    text = (DEPLOY / "compose/compose.yaml").read_text()
    # Loading and dumping resolves `<<`.
    resolved = yaml.safe_dump(yaml.safe_load(text), sort_keys=False)
    validator.PyCompose.from_yaml(resolved).validate()


def test_kubernetes_knows_each_field_of_the_documented_pod() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason=REASON)
    labels = {"app": "proj"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "proj"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod()},
        },
    }
    validator.validate(deployment, validator.latest_version(), strict=True)


def test_compose_knows_each_field_of_the_documented_service() -> None:
    validator = pytest.importorskip("compose_spec", reason=REASON)
    resolved = yaml.safe_dump({"services": {"worker": service()}})
    validator.PyCompose.from_yaml(resolved).validate()
