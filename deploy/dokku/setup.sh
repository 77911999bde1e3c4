#!/bin/sh
# Run once for each app, on the Dokku host. app.json goes beside the Procfile in the
# app's repository; its formation sets what `ps:scale` would set.
set -eu
app=${1:-prayer-room}

# During a deploy the old container keeps running for 60 seconds beside the new one. Of two
# beats, one leads (LEADER_LOCK in the settings), so you need not disable any checks.

# A worker ends when its tasks are done; `docker stop` kills it after this many seconds.
dokku ps:set "$app" stop-timeout-seconds 60
# 5 s less: acks_late tasks must be back in the queue before the kill.
dokku config:set --no-restart "$app" WORKER_GRACE_SECONDS=55

# Dokku's nginx is the one proxy in front.
dokku config:set --no-restart "$app" TRUSTED_PROXIES=1

# The plugins for PostgreSQL, Redis or RabbitMQ set DATABASE_URL and the broker URL when
# you link them. Set ALLOWED_HOSTS yourself.
if ! dokku config:get "$app" SECRET_KEY >/dev/null; then
    dokku config:set --no-restart "$app" SECRET_KEY="$(openssl rand -hex 32)"
fi
