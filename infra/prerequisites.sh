#!/bin/sh
# Is everything on this machine that `make setup` does not bring itself? Names all that is missing at once, each with
# the Debian command that installs it, and ends with 1; else prints the Python 3.11 to use and ends with 0.
set -u

missing=""
packages=""

lacks() { # what it is, which Debian packages bring it
    missing="$missing
  $(printf '%-28s apt-get install %s' "$1" "$2")"
    packages="$packages $2"
}

python=""
for name in python3.11 python3; do
    if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
        python=$(command -v "$name")
        break
    fi
done
[ -n "$python" ] || lacks "python3.11 with venv" "python3.11 python3.11-venv"

java=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' 2>/dev/null)
if [ -z "$java" ]; then
    lacks "java 17 or newer" "openjdk-17-jre-headless"
elif [ "$java" -lt 17 ]; then
    lacks "java 17 or newer (found $java)" "openjdk-17-jre-headless"
fi

command -v mvn >/dev/null || lacks "mvn" "maven"
command -v make >/dev/null || lacks "make" "make"
setpriv --pdeathsig=keep true 2>/dev/null || lacks "setpriv with --pdeathsig" "util-linux"

if [ -n "$missing" ]; then
    printf 'Missing on this machine:%s\nAll at once, as root: apt-get update && apt-get install -y%s\n' \
        "$missing" "$packages" >&2
    exit 1
fi
echo "$python"
