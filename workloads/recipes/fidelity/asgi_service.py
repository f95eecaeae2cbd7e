"""An ASGI service under load: uvicorn on uvloop and httptools serves a Starlette application over loopback.

The client is a process of its own, so that its memory is not the service's. Eight connections send a seeded list of
requests in lock step: pages are read, orders posted, reports of some hundred KiB asked for. Sessions and a cache of
rendered reports stay; both are dropped at the end. The order in which connections are served is the scheduler's.
"""

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading

CONNECTIONS = 8
SESSIONS = 3000
REPORTS = 60


def client(port, requests):
    """The load: each connection takes its own share of the requests, one after the other."""

    def connection(number):
        rng = random.Random(20260203 + number)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(requests // CONNECTIONS):
            chance, user = rng.random(), rng.randrange(SESSIONS * 2)
            if chance < 0.55:
                link.request("GET", f"/page/{user}?words={rng.randrange(20, 400)}")
            elif chance < 0.9:
                lines = [{"item": rng.randrange(5000), "count": rng.randrange(1, 9)} for _ in range(rng.randrange(1, 60))]
                link.request("POST", f"/order/{user}", json.dumps({"lines": lines, "note": "x" * rng.randrange(300)}))
            else:
                link.request("GET", f"/report/{rng.randrange(REPORTS * 2)}")
            answer = link.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        link.close()

    threads = [threading.Thread(target=connection, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class State:
    """What the service remembers between requests."""

    def __init__(self):
        self.sessions, self.reports, self.served = {}, {}, 0

    def session(self, user):
        """A user's session, the oldest one leaving when there are too many."""
        found = self.sessions.pop(user, None) or {"user": user, "seen": [], "orders": []}
        self.sessions[user] = found
        if len(self.sessions) > SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.served += 1
        return found


def application(state):
    """The routes."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    async def page(request):
        session = state.session(request.path_params["user"])
        words = int(request.query_params["words"])
        session["seen"] = [*session["seen"][-20:], f"page of {words} words"]
        items = "".join(f"<li>word {number} of {session['user']}</li>" for number in range(words))
        return HTMLResponse(f"<html><h1>{session['user']}</h1><ul>{items}</ul></html>")

    async def order(request):
        session = state.session(request.path_params["user"])
        body = await request.json()
        priced = [{**line, "price": line["item"] * 7 % 1000, "sum": line["count"] * 3} for line in body["lines"]]
        session["orders"] = [*session["orders"][-5:], {"lines": priced, "note": body["note"]}]
        await asyncio.sleep(0)
        return JSONResponse({"accepted": len(priced), "open": len(session["orders"])})

    async def report(request):
        number = request.path_params["number"]
        found = state.reports.pop(number, None)
        if found is None:
            rng = random.Random(number)
            rows = [{"id": row, "name": f"row {row}", "value": rng.random()} for row in range(600 + number * 12)]
            found = json.dumps({"rows": rows}).encode()
        state.reports[number] = found
        if len(state.reports) > REPORTS:
            del state.reports[next(iter(state.reports))]
        return Response(found, media_type="application/json", headers={"etag": hashlib.md5(found).hexdigest()})

    return Starlette(
        routes=[
            Route("/page/{user:int}", page),
            Route("/order/{user:int}", order, methods=["POST"]),
            Route("/report/{number:int}", report),
        ]
    )


async def serve(server, listener, requests):
    """Runs the server until the client has had all its answers."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    port = listener.getsockname()[1]
    command = [sys.executable, os.path.abspath(__file__), "--client", str(port), "--requests", str(requests)]
    load = await asyncio.create_subprocess_exec(*command, env=environment)
    code = await load.wait()
    server.should_exit = True
    await serving
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    parser.add_argument("--client", type=int, help="be the client, of the server on this port")
    parser.add_argument("--requests", type=int, default=3000, help="requests of the load, before --scale")
    options = parser.parse_args()
    if options.client:
        client(options.client, options.requests)
        return 0
    import uvicorn
    import uvloop

    from pyalloc_mark import mark

    state = State()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    config = uvicorn.Config(application(state), loop="uvloop", http="httptools", log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    mark("steady")
    requests = int(options.requests * options.scale)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(serve(server, listener, requests))
    state.sessions.clear()
    state.reports.clear()
    mark("drained")
    print(f"asgi_service {state.served} requests with a session, client ended with {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
