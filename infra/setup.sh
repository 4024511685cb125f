#!/usr/bin/env bash
# .venv and var/kafka-jars are what the lock files say. Quick when they already are; an interrupted run is repaired by
# the next one, because each folder is stamped, with what it was made from, only when it is whole.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }

# The stamp of the virtual environment: its scripts hold absolute paths, so the folder counts too.
environment() { pwd && sha256sum requirements/uv.txt requirements/all.txt pyproject.toml; }

make_environment() {
    local stamp=.venv/complete python=$1 wanted
    wanted=$(environment)
    [[ -f $stamp && "$(<"$stamp")" == "$wanted" ]] && return
    if [[ ! -f $stamp || "$(head -n 1 "$stamp")" != "$PWD" ]]; then
        say "new virtual environment .venv ($("$python" --version))"
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/uv.txt
    fi
    rm -f "$stamp"
    say "packages of requirements/all.txt (the first time several GB are downloaded)"
    .venv/bin/uv pip sync --require-hashes --python .venv/bin/python requirements/all.txt 2>&1 | sed -u '/^ [-+~] /d'
    .venv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --python .venv/bin/python --editable .
    echo "$wanted" >"$stamp"
}

main() {
    local python
    python=$(sh infra/prerequisites.sh)
    mkdir -p var/tmp 2>/dev/null && [[ -w . && -w var ]] || {
        echo "setup: $PWD cannot be written by $(id -un); run as its owner ($(stat -c %U .))" >&2
        exit 1
    }
    exec 9>var/setup.lock
    flock --nonblock 9 || { say "waiting for another setup of this checkout" && flock 9; }
    make_environment "$python"
    infra/kafka/fetch.sh
}

main
