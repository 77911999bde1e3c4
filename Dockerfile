# The prayer room: one image for web, worker, beat and the release.
#
#     docker build -t prayer-room .
#     docker run --rm --env-file env prayer-room python manage.py migrate --noinput
#     docker run --init --env-file env -p 8000:8000 prayer-room
#     docker run --init --env-file env --stop-timeout 60 prayer-room \
#         python manage.py prodserver worker
#     docker run --init --env-file env prayer-room python manage.py prodserver beat
#
# The second line is the release: run it once per version, before the processes start,
# never as part of one. `env` has SECRET_KEY, ALLOWED_HOSTS, DATABASE_URL, RABBITMQ_URL
# or REDIS_URL, EMAIL_URL, and behind a proxy TRUSTED_PROXIES=1; on the internet, the
# third line needs a proxy in front. `docker stop` kills after 10 seconds; --stop-timeout
# gives the worker's tasks longer to finish. Without --init, a SIGTERM that comes while a
# process starts is lost: the kernel keeps it from the first process of a container.
#
# On Dokku and the like, the commands come from the Procfile. EXPOSE is left out on
# purpose: with it Dokku publishes that port instead of 80; without it, Dokku sets PORT.

ARG BASE=python:3.13-slim

FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Dependency groups need pip 25.1; a new venv has the pip its Python was released with.
RUN python -m venv /venv && /venv/bin/pip install --quiet --upgrade pip

# Dependencies come first, so that a code change does not install them again.
WORKDIR /build
COPY pyproject.toml ./
# Another Celery: --build-arg CELERY="celery[redis]==5.4.*"
ARG CELERY="celery[redis]"
RUN /venv/bin/pip install --quiet --group project "${CELERY}"
COPY LICENSE README.md ./
COPY prodserver_celery5 prodserver_celery5
RUN /venv/bin/pip install --quiet . "${CELERY}"


FROM ${BASE}

ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/data

# Without DATABASE_URL or a broker URL the data is in /data, for a volume. Everything else
# belongs to root and is read-only to the processes.
RUN useradd --system --user-group --uid 1000 --home-dir /data --shell /usr/sbin/nologin app \
    && install --directory --owner app --group app /data
COPY --from=build /venv /venv

WORKDIR /app
COPY manage.py Procfile ./
COPY prayer_room_api prayer_room_api
# The key is needed only to start Django, and does not leave this step.
RUN SECRET_KEY=collectstatic DATA_DIR=/tmp/data python manage.py collectstatic --noinput \
    && rm -r /tmp/data

# The worker and beat report here. A web process has no such file: whatever routes to it
# asks it over HTTP. A start may take a minute before the check counts.
ENV HEARTBEAT_FOLDER=/tmp
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD set -- /tmp/*.heartbeat; test ! -e "$1" || exec python -m prodserver_celery5.probe "$1"

USER app

# Lists, not strings: a shell in between would keep SIGTERM to itself. SIGTERM must reach
# the main process alone, and `docker stop` sends it there.
STOPSIGNAL SIGTERM
CMD ["python", "manage.py", "prodserver", "web"]
