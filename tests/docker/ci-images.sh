#!/usr/bin/env bash
# Build the base images of `nox -s docker` from Debian packages, on a Debian where no
# image registry answers:
#
#     tests/docker/ci-images.sh
#     DOCKER_IMAGES=debian nox -s docker
#
# Images built from the same inputs are kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
export DOCKER_BUILDKIT=0  # BuildKit is a separate package, which not every Debian has

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

inputs=$(cat pyproject.toml tests/docker/celery-versions.txt tests/docker/ci-images.sh | sha256sum | cut -c1-32)
missing() {
    [ "$(docker image inspect --format '{{.Config.Labels.inputs}}' "$1" 2>/dev/null)" != "$inputs" ]
}
if ! { missing prodserver-ci/python || missing prodserver-ci/redis || missing prodserver-ci/rabbitmq; }; then
    exit 0
fi

work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT

if ! command -v debootstrap >/dev/null || ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    .ci/apt debootstrap python3-venv
fi

# A container may not be able to reach, or verify, a package index that this machine
# can: fetch the wheels here, with the same Python that will install them.
wheels() {
    /usr/bin/python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -qq --upgrade pip
    while read -r celery; do
        "$work/venv/bin/pip" wheel -qq --wheel-dir "$work/python/wheels" \
            --group project . pip hatchling "$celery"
    done <tests/docker/celery-versions.txt
    # The Dockerfile builds it, from code that changes with each commit.
    rm "$work"/python/wheels/prodserver_celery5-*.whl
}
wheels &
wheels=$!

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
as_root debootstrap --variant=minbase "$suite" "$work/rootfs" >"$work/debootstrap.log" \
    || { tail "$work/debootstrap.log"; exit 1; }
# Installed packages must not start servers while an image is built.
printf '#!/bin/sh\nexit 101\n' | as_root tee "$work/rootfs/usr/sbin/policy-rc.d" >/dev/null
as_root chmod +x "$work/rootfs/usr/sbin/policy-rc.d"
# Nor must they sync each file to disk.
echo force-unsafe-io | as_root tee "$work/rootfs/etc/dpkg/dpkg.cfg.d/unsafe-io" >/dev/null
as_root tar -C "$work/rootfs" --exclude='./var/cache/apt/archives/*.deb' -c . \
    | docker import - prodserver-ci/debian >/dev/null

build() {
    docker build --label "inputs=$inputs" --tag "prodserver-ci/$1" "${@:2}" \
        >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log"; exit 1; }
}
install="RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends"

build redis - <<END
FROM prodserver-ci/debian
$install redis-server >/dev/null
USER redis
CMD ["redis-server", "--protected-mode", "no"]
END

# As in the public image, guest may connect from another container, and the log goes to
# the container's output.
build rabbitmq - <<END
FROM prodserver-ci/debian
$install rabbitmq-server >/dev/null \
    && printf 'loopback_users.guest = false\nlog.console = true\n' >/etc/rabbitmq/rabbitmq.conf
USER rabbitmq
ENV HOME=/var/lib/rabbitmq
CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
END

wait "$wheels"
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$work/python/pip.conf"
build python --file - "$work/python" <<END
FROM prodserver-ci/debian
$install python-is-python3 python3-venv >/dev/null
COPY pip.conf /etc/pip.conf
COPY wheels /wheels
END
