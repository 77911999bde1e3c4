#!/usr/bin/env bash
# Run a command in Debian sid, in a copy of this folder that is gone afterwards:
#
#     tests/pythons/sid.sh python3.15,redis-server uv venv --python python3.15 /tmp/env
#
# The first word names sid's packages, the others the command. Sid is made by debootstrap,
# kept in the user's cache for thirty days, and entered by chroot: both need root. `uv`
# comes from PATH; its settings (UV_…), SSL_CERT_FILE and proxies go along.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=$1
shift

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/prodserver-celery5
root=$cache/sid-$(echo "$packages" | cat - tests/pythons/sid.sh | sha256sum | cut -c1-16)
mkdir -p "$cache"
make() {
    as_root rm -rf "$root"
    as_root find "$cache" -maxdepth 1 -name 'sid-*' -mtime +60 -exec rm -rf {} +
    command -v debootstrap >/dev/null || .ci/apt debootstrap
    as_root debootstrap --variant=minbase --include="$packages" sid "$root" \
        >"$cache/log" 2>&1 || { tail "$cache/log"; exit 1; }
    # Whole from here on.
    as_root mkdir "$root/project" "$root/made"
}
# Another run may be making it.
exec 9>"$cache/lock"
flock 9
[ -n "$(find "$root/made" -maxdepth 0 -mtime -30 2>/dev/null)" ] || make
flock --unlock 9

words=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/usr/sbin)
while IFS= read -r -d '' setting; do
    case $setting in
        UV_PYTHON=*) ;;  # nox's, outside
        CI=* | SSL_CERT_FILE=* | UV_* | *_proxy=* | *_PROXY=*) words+=("$setting") ;;
    esac
done < <(env -0)
words+=(UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy)
as_root install -D --no-target-directory "$(command -v uv)" "$root/usr/local/bin/uv"
for file in /etc/resolv.conf ${SSL_CERT_FILE:+"$SSL_CERT_FILE"}; do
    as_root install -D --mode=644 --no-target-directory "$file" "$root$file"
done

# All that is mounted here, and each process that is still there, goes with the command.
# The tests mount as well, which wants a root that is a mount point; and the shell reaps
# what they leave behind.
as_root unshare --mount --pid --fork --kill-child bash -euc '
    root=$1 project=$2
    shift 2
    mount --rbind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mkdir "$root/run/changes" "$root/run/work"
    mount -t overlay overlay "$root/project" \
        -o "lowerdir=$project,upperdir=$root/run/changes,workdir=$root/run/work"
    status=0
    chroot "$root" env --ignore-environment --chdir=/project "$@" || status=$?
    exit "$status"
' - "$root" "$PWD" "${words[@]}" "$@"
