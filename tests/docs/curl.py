"""The few options of curl that the pages use, for machines without it."""

from __future__ import annotations

import argparse
import sys
import urllib.parse
import urllib.request
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("-s", action="store_true")
parser.add_argument("--data-urlencode")
parser.add_argument("--data-binary")
given = parser.parse_args()

body = None
if given.data_urlencode:
    name, _, value = given.data_urlencode.partition("=")
    body = urllib.parse.urlencode({name: value}).encode()
elif given.data_binary:
    body = Path(given.data_binary.removeprefix("@")).read_bytes()
with urllib.request.urlopen(given.url, body) as reply:
    sys.stdout.write(reply.read().decode())
