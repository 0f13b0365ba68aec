#!/bin/sh
# Makes sure that there is an InfluxDB 1.x daemon to start, or a server to use (INFLUXDB_URL).
set -eu

if command -v influxd >/dev/null 2>&1 || [ -n "${INFLUXDB_URL:-}" ]; then
    exit 0
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if command -v apt-get >/dev/null 2>&1; then
    echo "Installing the Debian package influxdb ..."
    # RUNLEVEL=1 keeps Debian from starting it as a service: the demo and the tests start their own.
    if as_root apt-get update -qq && as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq influxdb >/dev/null; then
        exit 0
    fi
fi
echo "No influxd on PATH and it cannot be installed here:" >&2
echo "install InfluxDB 1.x (Debian: apt-get install influxdb), or set INFLUXDB_URL to a server that may be filled." >&2
exit 1
