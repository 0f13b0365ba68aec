#!/bin/sh
# Makes the virtual environment with the exact versions of constraints.txt. Usage: venv.sh FOLDER
set -eu
venv=$1

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "${python:-}" ]; then
    echo "No Python 3.11 to 3.14 found: install one, or name it with PYTHON=/path/to/python." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "Installing python3-venv (Debian splits it from python3) ..."
    as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv >/dev/null || {
        echo "The Python module venv is missing: install the package python3-venv." >&2
        exit 1
    }
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing the packages of constraints.txt into $venv (once; a few minutes) ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --group dev --editable '.[s3]'
