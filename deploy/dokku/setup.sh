#!/bin/sh
# Once for an app, on the Dokku host. app.json stands beside the Procfile in the
# repository of the app; its formation is what `ps:scale` would set.
set -eu
app=${1:-prayer-room}

# During a deploy the old container lives on for 60 seconds beside the new one. Of two beats
# one leads (LEADER_LOCK in the settings), so that nothing has to be switched off for them.

# A worker ends when its tasks have; `docker stop` kills after this many seconds.
dokku ps:set "$app" stop-timeout-seconds 60
# 5 s below: late tasks have to be back in the queue before the kill.
dokku config:set --no-restart "$app" WORKER_GRACE_SECONDS=55

# Dokku's nginx is the one proxy in front.
dokku config:set --no-restart "$app" TRUSTED_PROXIES=1

# The plugins for PostgreSQL, Redis or RabbitMQ set DATABASE_URL and the broker's URL when
# they are linked. ALLOWED_HOSTS is for you to set.
if ! dokku config:get "$app" SECRET_KEY >/dev/null; then
    dokku config:set --no-restart "$app" SECRET_KEY="$(openssl rand -hex 32)"
fi
