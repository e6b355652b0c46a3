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

# A browser is a large download on some systems: where it is one package it is installed, elsewhere the check is skipped.
browser=
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    have "$name" && browser=$name && break
done
if [ -z "$browser" ] && have apt-get && [ -n "$(apt-cache search --names-only '^chromium-headless-shell$' 2>/dev/null)" ]; then
    say "installing: chromium-headless-shell"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell >&2
    browser=chromium-headless-shell
fi

home=$(mktemp -d)
# A port for the page that the owner allows.
page=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '[server]\nallowed_origins = ["http://allowed.internal:%s"]\n' "$page" >"$home/locara.toml"
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
if [ -n "$browser" ]; then
    python3 browser.py "$browser" "$base" "$page" | tee "$home/browser" || true
else
    echo "SKIPPED: no Chromium is installed and apt has none; pages of others were not tried" | tee "$home/browser"
    echo "browser: skipped" >>"$home/browser"
fi
# What the document promises holds for whatever it allows to be sent. Events never end and a pull goes out to a hub: these are
# left out. Who asks for a model that was just unloaded waits out its cool-down, 75 s at most; longer is a hang.
# It keeps what it found in the folder where it runs.
if (cd "$home" && "$cache/venv/bin/schemathesis" run "$base/openapi.json" --phases coverage,fuzzing --max-examples 8 --max-time 60 \
    --seed 1 --no-shrink --request-timeout 100 --warnings off --continue-on-failure \
    --checks status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /admin/events --exclude-path /api/pull) </dev/null >"$home/schema" 2>&1; then
    echo "ok    schema  what the OpenAPI document says holds" | tee "$home/schema"
else
    cat "$home/schema" >&2
    echo "FAIL  schema  what the OpenAPI document says holds" | tee "$home/schema"
fi
count() { cat "$home/python" "$home/node" "$home/browser" "$home/schema" | grep -c "^$1 " || true; }
passed=$(count ok) failed=$(count FAIL)
# A runner that died has not counted.
grep -q '^python: ' "$home/python" && grep -q '^node: ' "$home/node" && grep -q '^browser: ' "$home/browser" || failed=$((failed + 1))

kill -TERM "$server"
if wait "$server"; then passed=$((passed + 1)); else cat "$home/log" >&2; say "the host did not end well"; failed=$((failed + 1)); fi
server=
: >"$home/log"
[ "$failed" = 0 ] || cat "$home/log" >&2
echo "figures: passed=$passed failed=$failed"
[ "$failed" = 0 ]
