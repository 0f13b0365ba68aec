"""Calls the command line that warm.py holds ready: ``call.py SOCKET ARGUMENTS...``."""

from __future__ import annotations

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    call = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    socket.send_fds(connection, [json.dumps(call).encode()], [0, 1, 2])
    answer = connection.recv(1)
sys.exit(answer[0] if answer else 70)
