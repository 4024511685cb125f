#!/usr/bin/env bash
# var/kafka-jars holds the jars of pom.xml, each with the sum that jars.sha256 names. Nothing is done when it already
# does. `fetch.sh --lock`, after a change of pom.xml, writes jars.sha256 anew from what Maven brings.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=infra/kafka
jars=var/kafka-jars
fresh=var/kafka-jars.unfinished

download() {
    local line files=0
    rm -rf "$fresh"
    echo "setup: Kafka jars with Maven (about 43 MB the first time)"
    mvn --batch-mode -f "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$PWD/$fresh" 2>&1 |
        while read -r line; do
            case $line in
            *Downloaded*) ((++files % 25)) || echo "setup:   $files files downloaded" ;;
            *ERROR* | *BUILD\ FAILURE*) echo "$line" >&2 ;;
            esac
        done
}

is_locked() { # folder: it holds the jars of jars.sha256, whole, and no others
    (cd "$1" && sha256sum --check --quiet --strict) <"$here/jars.sha256" &&
        [[ $(find "$1" -name '*.jar' | wc -l) == $(wc -l <"$here/jars.sha256") ]]
}

wanted=$(sha256sum "$here/pom.xml" "$here/jars.sha256" 2>/dev/null) || true
if [[ "${1:-}" == --lock ]]; then
    download
    (cd "$fresh" && sha256sum ./*.jar | sed 's| \./| |') >"$here/jars.sha256"
    rm -rf "$fresh"
elif [[ ! -f $jars/complete || "$(<"$jars/complete")" != "$wanted" ]]; then
    download
    is_locked "$fresh" || {
        echo "setup: Maven brought other jars than $here/jars.sha256 names; if pom.xml was changed, run: make lock" >&2
        exit 1
    }
    rm -rf "$jars"
    mv "$fresh" "$jars"
    echo "$wanted" >"$jars/complete"
fi
