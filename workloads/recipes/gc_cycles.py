"""Cyclic garbage: objects that only the collector can free, in bursts, around a long-lived set.

Documents are built as trees with parent links, edited, and dropped; a scheduler keeps doubly linked lists; callbacks
close over themselves; failures are kept with their tracebacks. Nothing calls the collector while the work runs: its
own thresholds decide, as in a program that never thought about it. A registry of objects that refer to one another
stays alive.
"""

import argparse
import collections
import gc
import random

from pyalloc_mark import mark


class Element:
    """A document node that knows its parent."""

    def __init__(self, tag, parent):
        self.tag = tag
        self.parent = parent
        self.children = []
        self.attributes = {"class": tag}
        if parent is not None:
            parent.children.append(self)


class Link:
    """An entry of a doubly linked list."""

    __slots__ = ("before", "after", "job")

    def __init__(self, job):
        self.before = self.after = self
        self.job = job


class Service:
    """A member of the long-lived set: knows its peers, is known by them."""

    def __init__(self, name):
        self.name = name
        self.peers = {}
        self.log = []


def document(rng, depth, parent=None):
    node = Element(f"tag{rng.randrange(12)}", parent)
    if depth:
        for _ in range(rng.randrange(2, 5)):
            document(rng, depth - 1, node)
    return node


def edit(rng, root):
    """Walk down at random, cut a branch off and graft a fresh one: the branch is now garbage that refers to itself."""
    node = root
    while node.children and rng.random() < 0.7:
        node = rng.choice(node.children)
    parent = node.parent
    if parent is not None:
        parent.children.remove(node)
        document(rng, 2, parent)
    return len(root.children)


def linked_list(rng, length):
    head = Link(None)
    for number in range(length):
        link = Link({"job": number, "cost": rng.random(), "tags": [number % 3, number % 5]})
        link.before, link.after = head.before, head
        head.before.after = link
        head.before = link
    return sum(1 for _ in walk(head))


def walk(head):
    link = head.after
    while link is not head:
        yield link.job
        link = link.after


def callback(number):
    """A closure that refers to itself, as retrying callbacks do."""

    def retry(times):
        return number if times == 0 else retry(times - 1)

    return retry


def failure(number, depth=6):
    if depth:
        return failure(number, depth - 1)
    values = [number, number * 2]
    raise LookupError(f"no entry {number} in {values}")


def failures(count):
    """Errors that are kept: error, traceback, frames, and the frame's own reference to the list."""
    kept = []
    for number in range(count):
        try:
            failure(number)
        except LookupError as error:
            kept.append(error)
    kept.append(kept)
    return len(kept)


def registry(rng, count):
    """The long-lived set: densely connected, survives every collection."""
    services = [Service(f"service-{number}") for number in range(count)]
    for service in services:
        for peer in rng.sample(services, 6):
            service.peers[peer.name] = peer
            peer.peers[service.name] = service
    return services


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = random.Random(20260102)
    mark("steady")

    services = registry(rng, 10000)
    recent = collections.deque(maxlen=12)  # documents still open
    total = 0
    for step in range(int(190 * scale)):
        root = document(rng, 5)
        recent.append(root)
        for _ in range(30):
            total += edit(rng, root)
        total += linked_list(rng, 400)
        total += sum(callback(number)(3) for number in range(200))
        total += failures(60)
        service = services[step % len(services)]
        service.log.append((step, root.tag, len(root.children)))
    alive = sum(len(service.peers) for service in services)
    del services, service, root, recent
    gc.collect()
    mark("drained")
    print(f"gc_cycles {alive} links, checksum {total}")


if __name__ == "__main__":
    main()
