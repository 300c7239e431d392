"""Runs PostgreSQL with pgvector in the folder of the first argument, prints its address, and stops it at the end of stdin."""

import sys

import pgserver

with pgserver.get_server(sys.argv[1], cleanup_mode="stop") as server:
    print(server.get_uri(), flush=True)
    sys.stdin.read()
