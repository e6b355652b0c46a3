#!/bin/sh
# Runs the official clients against a `locara serve` of its own; see README.md. The first argument is the binary.
set -eu
cd "$(dirname "$0")"
locara=$1

say() { printf 'clients: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=
have python3 && python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
have node && have npm || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
    say "installing:$missing"
    if have apt-get; then
        as_root apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    elif have dnf; then
        as_root dnf install -y -q python3 nodejs npm
    elif have brew; then
        brew install --quiet python node
    else
        say "install$missing by hand and run this again"; exit 1
    fi
fi

# Installed once for each set of versions.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/locara/clients/$(cat requirements.txt package.json | cksum | cut -d' ' -f1)
if [ ! -e "$cache/complete" ]; then
    say "installing the clients into $cache"
    rm -rf "$cache" && mkdir -p "$cache"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    cp package.json "$cache/"
    (cd "$cache" && npm install --silent --no-audit --no-fund)
    touch "$cache/complete"
fi
# Modules are looked for beside the script.
cp clients.mjs "$cache/"

home=$(mktemp -d)
server=
: >"$home/log"
clean() { [ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$home"; }
trap clean EXIT
LOCARA_HOME=$home "$locara" serve --listen 127.0.0.1:0 2>"$home/log" &
server=$!
base=
for _ in $(seq 600); do
    base=$(sed -n 's/.*listens on \(http:[^ ]*\).*/\1/p' "$home/log")
    [ -n "$base" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; say "the host did not start"; exit 1; }
    sleep 0.1
done
[ -n "$base" ] || { cat "$home/log" >&2; say "the host does not say where it listens"; exit 1; }

"$cache/venv/bin/python" clients.py "$base" | tee "$home/python" || true
node "$cache/clients.mjs" "$base" | tee "$home/node" || true
count() { cat "$home/python" "$home/node" | grep -c "^$1 " || true; }
passed=$(count ok) failed=$(count FAIL)
# A runner that died has not counted.
grep -q '^python: ' "$home/python" && grep -q '^node: ' "$home/node" || failed=$((failed + 1))

kill -TERM "$server"
if wait "$server"; then passed=$((passed + 1)); else cat "$home/log" >&2; say "the host did not end well"; failed=$((failed + 1)); fi
server=
: >"$home/log"
[ "$failed" = 0 ] || cat "$home/log" >&2
echo "figures: passed=$passed failed=$failed"
[ "$failed" = 0 ]
