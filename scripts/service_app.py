"""The web application that `scripts/service` records: work for every request, and state that is replaced in turn."""

import json
import os
import urllib.parse

SEEN = {}


def app(environ, start_response):
    """WSGI entry point."""
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
    number = int(query.get("n", ["0"])[0])
    SEEN[number % 500] = {"n": number, "words": [f"word-{number}-{part}" for part in range(20)]}
    rows = [{"id": index, "square": index * index, "name": f"row {index} of {number}"} for index in range(100)]
    body = json.dumps({"worker": os.getpid(), "rows": rows, "seen": len(SEEN)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
