"""Short-lived small objects in pure Python: a source indexer.

Generates modules of a small language, tokenises and parses them into node objects, folds constants, sends summaries
through JSON, and keeps an index of every name. A burst of indexing is followed by a release of every other module, so
that the index's survivors are scattered over the memory that the burst needed, and by a quiet time of queries on what
is left. A catalogue of the oldest modules, small tuples that were made between all the rest, stays to the end.
"""

import argparse
import gc
import json
import random
import re

from pyalloc_mark import mark

TOKEN = re.compile(r"\s*(?:(?P<number>\d+)|(?P<name>[a-z_]\w*)|(?P<operator>[-+*/()=,:\[\]]))")
STEMS = (
    "alpha beta count data edge field group hash item join key limit map node order page query row size table".split()
)

CATALOGUE = {}  # of the oldest modules; stays to the end


class Token:
    __slots__ = ("kind", "text", "line")

    def __init__(self, kind, text, line):
        self.kind = kind
        self.text = text
        self.line = line


class Node:
    """An expression; ordinary objects with a `__dict__`, as most programs have."""

    def __init__(self, operator, children, line):
        self.operator = operator
        self.children = children
        self.line = line


def source(rng, functions):
    """The text of one module."""
    lines = []
    for index in range(functions):
        name = f"{rng.choice(STEMS)}_{rng.choice(STEMS)}_{index}"
        arguments = rng.sample(STEMS, 3)
        lines.append(f"def {name}({', '.join(arguments)}):")
        for _ in range(rng.randrange(3, 9)):
            terms = [rng.choice(arguments) if rng.random() < 0.5 else str(rng.randrange(1, 9999)) for _ in range(4)]
            lines.append(
                f"    {rng.choice(STEMS)}_{rng.randrange(50)} = ({terms[0]} + {terms[1]}) * {terms[2]} - {terms[3]}"
            )
        lines.append(f"    return {rng.choice(arguments)}")
    return "\n".join(lines)


def tokenise(line, number):
    tokens = []
    position = 0
    while match := TOKEN.match(line, position):
        tokens.append(Token(match.lastgroup, match.group(match.lastgroup), number))
        position = match.end()
    return tokens


def parse(tokens):
    """Precedence climbing over one expression."""
    position = 0

    def primary():
        nonlocal position
        token = tokens[position]
        position += 1
        if token.text == "(":
            inner = expression(0)
            position += 1
            return inner
        return Node(token.kind, [token.text], token.line)

    def expression(level):
        nonlocal position
        left = primary()
        while position < len(tokens):
            operator = tokens[position].text
            strength = {"+": 1, "-": 1, "*": 2, "/": 2}.get(operator, 0)
            if strength <= level:
                return left
            position += 1
            left = Node(operator, [left, expression(strength)], left.line)
        return left

    return expression(0)


def fold(node, names):
    """A tuple form of the tree with constants folded; notes the names that it meets."""
    if node.operator == "number":
        return int(node.children[0])
    if node.operator == "name":
        names.setdefault(node.children[0], []).append(node.line)
        return (node.children[0],)
    left, right = (fold(child, names) for child in node.children)
    if isinstance(left, int) and isinstance(right, int):
        return left + right if node.operator == "+" else left - right if node.operator == "-" else left * right
    return (node.operator, left, right)


def index_module(text):
    """What is kept of a module: its functions with their assignments and where each name is used, and its trees."""
    functions, trees = {}, []
    current = None
    for number, line in enumerate(text.split("\n"), 1):
        tokens = tokenise(line, number)
        if tokens[0].text == "def":
            current = {
                "line": number,
                "arguments": [t.text for t in tokens[3:-2] if t.text != ","],
                "body": [],
                "uses": {},
            }
            functions[tokens[1].text] = current
        elif tokens[0].text != "return":
            trees.append(parse(tokens[2:]))
            current["body"].append((tokens[0].text, fold(trees[-1], current["uses"])))
    return functions, trees


def summary(name, functions):
    """A round trip through JSON, as between two services."""
    sent = json.dumps({"module": name, "functions": [{"name": key, **value} for key, value in functions.items()]})
    received = json.loads(sent)
    return len(sent), sum(len(function["body"]) for function in received["functions"])


def burst(rng, index, modules, catalogued):
    """Index modules; the oldest are catalogued."""
    total = 0
    for number in range(modules):
        name = f"module_{number}"
        functions, _ = index[name] = index_module(source(rng, 40))
        if number < catalogued:
            for function, entry in functions.items():
                CATALOGUE[number, function] = (entry["line"], len(entry["body"]))
        size, statements = summary(name, functions)
        total += size + statements
    return total


def quiet(rng, index, rounds):
    """Queries on what is left."""
    total = 0
    for number in range(rounds):
        name = rng.choice(list(index))
        functions, _ = index[name]
        size, statements = summary(name, functions)
        words = " ".join(sorted(word for function in functions.values() for word in function["uses"])).split()
        counts = {}
        for word in words:
            counts[word] = counts.get(word, 0) + 1
        total += statements + len(counts) + number
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = random.Random(20260101)
    mark("steady")

    index = {}
    total = burst(rng, index, modules=int(50 * scale), catalogued=int(20 * scale))
    for name in list(index)[::2]:
        del index[name]
    total += quiet(rng, index, rounds=int(20 * scale))
    kept = sum(len(functions) + len(trees) for functions, trees in index.values())
    index.clear()
    gc.collect()  # empties the interpreter's free lists too
    mark("drained")
    total += sum(statements for _, statements in CATALOGUE.values())
    print(f"small_objects {kept} entries, checksum {total}")


if __name__ == "__main__":
    main()
