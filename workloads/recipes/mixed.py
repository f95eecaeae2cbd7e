"""A web shop in one process: requests, JSON, templates, sessions, caches, a database and a log.

A WSGI application is called directly, as a server's worker would call it, so that neither a socket nor a clock takes
part: time is the number of the request. Traffic comes as a morning of light use, a rush that fills caches and
sessions, and an evening in which sessions expire.
"""

import argparse
import collections
import hashlib
import io
import json
import logging
import random
import re
import sqlite3
import urllib.parse

import jinja2

from pyalloc_mark import mark

SESSION_LIFE = 1200  # requests
CACHE_ENTRIES = 800
LAYOUT = """<!doctype html><title>{{ title }}</title><nav>
{% for name, link in menu %}<a href="{{ link }}">{{ name }}</a>{% endfor %}
</nav>{% block body %}{% endblock %}<footer>{{ visits }} visits</footer>"""
LISTING = """{% extends "layout" %}{% block body %}<h1>{{ title }}</h1><ul>{% for item in items %}
<li class="{{ loop.cycle('odd', 'even') }}"><a href="/item/{{ item.id }}">{{ item.name|e }}</a>
{{ "%.2f"|format(item.price) }} {% if item.stock < 5 %}<b>few left</b>{% endif %}</li>{% endfor %}</ul>{% endblock %}"""
ITEM = """{% extends "layout" %}{% block body %}<h1>{{ item.name|e }}</h1><p>{{ item.text|wordwrap(60)|e }}</p>
<dl>{% for key, value in facts.items() %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>{% endblock %}"""
WORDS = (
    "amber brass cedar delta ember frost grove haven indigo jade kelp linen maple onyx pearl quartz river stone tidal"
).split()


class RecentLines(logging.Handler):
    """Keeps the last formatted lines, as a log shipper's buffer does."""

    def __init__(self, lines):
        super().__init__()
        self.lines = collections.deque(maxlen=lines)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record):
        self.lines.append(self.format(record))


class Cache:
    """Least recently used, by key."""

    def __init__(self, entries):
        self.entries = collections.OrderedDict()
        self.limit = entries

    def get(self, key, make):
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key]
        value = self.entries[key] = make()
        if len(self.entries) > self.limit:
            self.entries.popitem(last=False)
        return value


class Shop:
    """The application: `shop(environ, start_response)`."""

    def __init__(self, rng, items):
        self.log = logging.getLogger("shop")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.lines = RecentLines(500)
        self.log.addHandler(self.lines)
        self.templates = jinja2.Environment(
            loader=jinja2.DictLoader({"layout": LAYOUT, "listing": LISTING, "item": ITEM})
        )
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.row_factory = sqlite3.Row
        self.database.execute(
            "create table item (id integer primary key, name text, shelf text, price real, stock int, text text)"
        )
        self.database.execute("create index by_shelf on item (shelf, price)")
        for number in range(items):
            name = " ".join(rng.sample(WORDS, 3))
            row = (
                number,
                name,
                rng.choice(WORDS),
                rng.randrange(100, 99999) / 100,
                rng.randrange(40),
                " ".join(rng.choices(WORDS, k=60)),
            )
            self.database.execute("insert into item values (?, ?, ?, ?, ?, ?)", row)
        self.sessions = {}
        self.cache = Cache(CACHE_ENTRIES)
        self.now = 0
        self.routes = [
            ("GET", re.compile(r"/$"), self.home),
            ("GET", re.compile(r"/shelf/(?P<shelf>\w+)$"), self.shelf),
            ("GET", re.compile(r"/item/(?P<id>\d+)$"), self.item),
            ("GET", re.compile(r"/api/search$"), self.search),
            ("POST", re.compile(r"/api/basket$"), self.basket),
            ("POST", re.compile(r"/api/order$"), self.order),
        ]

    def __call__(self, environ, start_response):
        self.now += 1
        session = self.session(environ)
        for method, pattern, handler in self.routes:
            match = pattern.match(environ["PATH_INFO"])
            if match and method == environ["REQUEST_METHOD"]:
                status, kind, body = handler(environ, session, **match.groupdict())
                break
        else:
            status, kind, body = "404 Not Found", "text/plain", "no such page"
        payload = body.encode()
        tag = hashlib.sha256(payload).hexdigest()[:16]
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(payload))), ("ETag", tag)])
        self.log.info("%s %s %s %d %s", environ["REQUEST_METHOD"], environ["PATH_INFO"], status[:3], len(payload), tag)
        return [payload]

    def session(self, environ):
        cookies = dict(part.split("=", 1) for part in environ.get("HTTP_COOKIE", "").split("; ") if "=" in part)
        session = self.sessions.setdefault(cookies.get("id", "anonymous"), {"basket": {}, "seen": [], "visits": 0})
        session["visits"] += 1
        session["last"] = self.now
        if self.now % 100 == 0:
            self.sessions = {key: kept for key, kept in self.sessions.items() if self.now - kept["last"] < SESSION_LIFE}
        return session

    def rows(self, query, *values):
        return [dict(row) for row in self.database.execute(query, values)]

    def page(self, template, session, **values):
        menu = [(word.title(), f"/shelf/{word}") for word in WORDS[:8]]
        return self.templates.get_template(template).render(menu=menu, visits=session["visits"], **values)

    def home(self, environ, session):
        items = self.cache.get("home", lambda: self.rows("select * from item where stock > 30 order by price limit 12"))
        return "200 OK", "text/html", self.page("listing", session, title="Today", items=items)

    def shelf(self, environ, session, shelf):
        query = urllib.parse.parse_qs(environ["QUERY_STRING"])
        limit = int(query.get("limit", ["10"])[0])
        items = self.cache.get(
            ("shelf", shelf, limit),
            lambda: self.rows("select * from item where shelf = ? order by price limit ?", shelf, limit),
        )
        return "200 OK", "text/html", self.page("listing", session, title=shelf.title(), items=items)

    def item(self, environ, session, id):
        rows = self.rows("select * from item where id = ?", int(id))
        if not rows:
            return "404 Not Found", "text/plain", "no such item"
        session["seen"] = [*session["seen"][-9:], rows[0]["name"]]
        facts = {"shelf": rows[0]["shelf"], "stock": rows[0]["stock"], "seen": ", ".join(session["seen"])}
        text = self.cache.get(
            ("item", id), lambda: self.page("item", session, title=rows[0]["name"], item=rows[0], facts=facts)
        )
        return "200 OK", "text/html", text

    def search(self, environ, session):
        query = urllib.parse.parse_qs(environ["QUERY_STRING"])
        pattern = f"%{query['q'][0]}%"
        found = self.rows("select id, name, price, stock from item where name like ? limit 25", pattern)
        return "200 OK", "application/json", json.dumps({"query": query, "count": len(found), "items": found})

    def basket(self, environ, session):
        wanted = json.load(environ["wsgi.input"])
        for line in wanted["lines"]:
            key = str(line["id"])
            session["basket"][key] = session["basket"].get(key, 0) + line["count"]
        return (
            "200 OK",
            "application/json",
            json.dumps({"basket": session["basket"], "note": wanted.get("note", "")}, indent=1),
        )

    def order(self, environ, session):
        total, lines = 0.0, []
        for key, count in session["basket"].items():
            for row in self.rows("select name, price from item where id = ?", int(key)):
                lines.append({"name": row["name"], "count": count, "price": row["price"]})
                total += count * row["price"]
        session["basket"] = {}
        return "201 Created", "application/json", json.dumps({"total": round(total, 2), "lines": lines})


def request(rng, visitors, items):
    """A WSGI environment such as a browser of one of these visitors would cause."""
    environ = {
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "HTTP_COOKIE": f"id=v{rng.randrange(visitors)}; theme=dark",
        "wsgi.input": io.BytesIO(),
    }
    environ["HTTP_USER_AGENT"] = f"Browser/{rng.randrange(90, 120)}.0 (Compatible; {rng.choice(WORDS)})"
    draw = rng.random()
    if draw < 0.1:
        environ["PATH_INFO"] = "/"
    elif draw < 0.35:
        environ["PATH_INFO"] = f"/shelf/{rng.choice(WORDS)}"
        environ["QUERY_STRING"] = f"limit={rng.choice((10, 20, 30))}"
    elif draw < 0.65:
        environ["PATH_INFO"] = f"/item/{int(rng.triangular(0, items, items / 5))}"
    elif draw < 0.8:
        environ["PATH_INFO"] = "/api/search"
        environ["QUERY_STRING"] = urllib.parse.urlencode({"q": rng.choice(WORDS)[:3], "page": rng.randrange(3)})
    else:
        lines = [{"id": rng.randrange(items), "count": rng.randrange(1, 5)} for _ in range(rng.randrange(1, 12))]
        body = json.dumps({"lines": lines, "note": " ".join(rng.choices(WORDS, k=10))}).encode()
        environ |= {"REQUEST_METHOD": "POST", "PATH_INFO": "/api/order" if draw > 0.95 else "/api/basket"}
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    return environ


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = random.Random(20260104)
    items = 3000
    shop = Shop(rng, items)
    for page in ("listing", "item"):
        shop.templates.get_template(page)
    mark("steady")

    total, statuses = 0, collections.Counter()

    def start_response(status, headers):
        statuses[status[:3]] += 1

    for requests, visitors in ((600, 60), (2100, 2500), (600, 60)):
        for _ in range(int(requests * scale)):
            total += sum(map(len, shop(request(rng, visitors, items), start_response)))
    sessions = len(shop.sessions)
    shop.sessions.clear()
    shop.cache.entries.clear()
    shop.lines.lines.clear()
    shop.database.close()
    mark("drained")
    print(f"mixed {dict(statuses)} replies, {sessions} sessions, checksum {total}")


if __name__ == "__main__":
    main()
