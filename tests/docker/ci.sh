#!/usr/bin/env bash
# Run a command with what the docker tests need, on a Debian that may lack it:
#
#     tests/docker/ci.sh nox -s docker
#
# If no Docker daemon answers, install and start Debian's; stop it and delete its data
# when the command ends. If no image registry answers, build the images from Debian
# packages, and tell the tests by DOCKER_IMAGES.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! docker info >/dev/null 2>&1; then
    if ! command -v dockerd >/dev/null; then
        # This script starts the daemon; the package must not start another.
        "$here/../../.ci/apt" docker.io
        # Newer Debians have the client in a separate package.
        command -v docker >/dev/null || "$here/../../.ci/apt" docker-cli
    fi
    daemon=$(mktemp -d)
    export DOCKER_HOST=unix://$daemon/socket
    as_root dockerd --host "$DOCKER_HOST" --group "$(id -gn)" --data-root "$daemon/data" \
        --exec-root "$daemon/run" --pidfile "$daemon/pid" >"$daemon/log" 2>&1 &
    started=$!
    stop() {
        # It stops its containers and unmounts their file systems before it ends.
        [ ! -e "$daemon/pid" ] || as_root kill "$(cat "$daemon/pid")" || true
        wait "$started" || true
        as_root rm -rf "$daemon"
    }
    trap stop EXIT
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && break
        kill -0 "$started" || break
        sleep 0.5
    done
    docker info >/dev/null 2>&1 || { tail "$daemon/log"; exit 1; }
fi

if ! docker pull --quiet redis:8 >/dev/null 2>&1; then
    "$here/ci-images.sh"
    export DOCKER_IMAGES=debian
fi
"$@"
