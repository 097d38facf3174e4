#!/usr/bin/env python3
"""Draws who includes whom by room, and fails when an arrow points the wrong way.

The rooms stand from the bottom to the top: each may include itself and those before it, but two that stand apart do not
include each other, and of some folders those above see a few headers only. core/main.c sees all and is included by
nobody. tests, fuzz and bench may look at everything. Some system headers have one room each.

Within a room, x.h and x.c are one module, and modules do not include each other in a circle either. The drawing names
them from the bottom to the top."""
import collections
import glob
import os
import re
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOMS = ["protocols", "core/io", "core/resolver", "core/session", "core/usage", "core/control", "core/process", "lua/engine",
         "lua/modules", "lua/socket", "lua/boot", "api", "core"]
APART = {"lua/modules", "lua/socket"}  # neither of them knows the other
FACES = {"lua": r"lua/engine/(engine|text|codec|digest|embedded)\.h"}  # what of a folder is for those above it
TOPS = ["protocols", "core", "lua", "api"]  # folders where they are
WATCHERS = ["tests", "fuzz", "bench"]
HOMES = {  # header: where it may be included besides tests, fuzz and bench
    "liburing.h": r"core/io/ring\.c",
    "ares.h": r"core/resolver/dns_channel\.c",
    "sqlite3.h": r"core/usage/store\.c",
    "idn2.h": r"core/io/idn\.c",
    "hiredis/hiredis.h": r"core/usage/redis\.c",
    "microhttpd.h": r"api/.*",
    "lua.h": r"lua/.*",
    "lualib.h": r"lua/.*",
    "lauxlib.h": r"lua/.*",
}
PURE = {"fcntl.h", "unistd.h", "sys/socket.h", "time.h", "sys/time.h", "pthread.h", "poll.h", "sys/uio.h"}


def room_of(path):
    """The innermost folder of the list that the file lies in."""
    folder = os.path.dirname(path)
    while folder and folder not in ROOMS + WATCHERS:
        folder = os.path.dirname(folder)
    return folder


def includes_of(path):
    """(line number, quoted or not, name) of each include."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if found:
                yield number, found.group(1) == '"', found.group(2)


def resolve(path, name):
    """The file that a quoted include means: named from the root, or, in tests/, fuzz/ and bench/, beside this one."""
    beside = [os.path.dirname(path)] if room_of(path) in WATCHERS else []
    for folder in ["", *beside]:
        candidate = os.path.normpath(os.path.join(folder, name))
        if os.path.exists(os.path.join(ROOT, candidate)):
            return candidate
    return None


def judge(path, quoted, name):
    """(room that is included or None, what is wrong or None)"""
    here = room_of(path)
    if not quoted:
        home = HOMES.get(name)
        if home and here not in WATCHERS and not re.fullmatch(home, path):
            return None, f"<{name}> has its place in {home}".replace("\\", "")
        if here == "protocols" and name in PURE:
            return None, f"<{name}>: protocols/ knows no descriptors, clocks or threads"
        return None, None
    target = resolve(path, name)
    if not target:
        return None, f'"{name}" is not there'
    there = room_of(target)
    if here in WATCHERS:
        return there, None
    if there in WATCHERS or ROOMS.index(there) > ROOMS.index(here):
        return there, f"{here} must not include {target}"
    if here != there and {here, there} <= APART:
        return there, f"{here} must not include {target}: the two stand apart"
    top = target.split("/")[0]
    if not path.startswith(f"{top}/") and top in FACES and not re.fullmatch(FACES[top], target):
        return there, f"{target} is for {top}/ alone"
    return there, None


def add_above(module, uses, seen, order):
    """Appends the module to order, behind all that it uses."""
    if module in seen:
        return
    seen.add(module)
    for lower in sorted(uses[module]):
        add_above(lower, uses, seen, order)
    order.append(module)


def order_modules(uses):
    """Modules from the bottom to the top."""
    seen, order = set(), []
    for module in sorted(uses):
        add_above(module, uses, seen, order)
    return order


def find_circles(uses):
    """One line for each module that includes itself by way of others."""
    for module in sorted(uses):
        seen = set()
        for lower in uses[module]:
            add_above(lower, uses, seen, [])
        if module in seen:
            yield f"{module} includes itself by way of others: {' '.join(sorted(uses[module]))}"


def main():
    uses = {}  # by module, others of its room
    arrows, files, faults = collections.defaultdict(set), collections.Counter(), []
    for top in TOPS + WATCHERS:
        for path in sorted(glob.glob(f"{top}/**/*.[ch]", root_dir=ROOT, recursive=True)):
            here = room_of(path)
            if not here:
                faults.append(f"{path}: lies in no room")
                continue
            files[here] += 1
            module = os.path.splitext(path)[0]
            uses.setdefault(module, set())
            for number, quoted, name in includes_of(path):
                there, fault = judge(path, quoted, name)
                if there == here and here not in WATCHERS:
                    uses[module].add(os.path.splitext(resolve(path, name))[0])
                if there and there != here:
                    arrows[here, there].add(os.path.basename(name))
                if fault:
                    faults.append(f"{path}:{number}: {fault}")
    for module in uses:
        uses[module].discard(module)
    faults += find_circles(uses)
    order = order_modules(uses)
    if "--quiet" not in sys.argv:
        for here in [*reversed(ROOMS), *WATCHERS]:
            if files[here]:
                print(f"{here} ({files[here]} files)")
            if here not in WATCHERS:
                modules = " ".join(os.path.basename(module) for module in order if os.path.dirname(module) == here)
                print(textwrap.fill(modules, 120, initial_indent="  ", subsequent_indent="  "))
            for there in reversed(ROOMS):
                if arrows[here, there]:
                    print(f"  --> {there:<13} {' '.join(sorted(arrows[here, there]))}")
    print("\n".join(faults) if faults else "every include points down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
