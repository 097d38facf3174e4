#!/usr/bin/env python3
"""Draws who includes whom by folder, and fails when an arrow points the wrong way.

The layers from the top: core/main.c (sees all, included by nobody), api, lua, core, protocols. tests, fuzz and bench may
look at everything. Some system headers have one room each."""
import collections
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAYERS = ["protocols", "core", "lua", "api", "main"]  # a layer includes itself and those before it
WATCHERS = ["tests", "fuzz", "bench"]
ROOMS = {  # header: where it may be included besides tests, fuzz and bench
    "liburing.h": r"core/io/ring\.c",
    "ares.h": r"core/resolver/dns_channel\.c",
    "microhttpd.h": r"api/.*",
    "lua.h": r"lua/.*",
    "lualib.h": r"lua/.*",
    "lauxlib.h": r"lua/.*",
}
PURE = {"fcntl.h", "unistd.h", "sys/socket.h", "time.h", "sys/time.h", "pthread.h", "poll.h", "sys/uio.h"}


def layer_of(path):
    return "main" if path == "core/main.c" else path.split("/")[0]


def includes_of(path):
    """(line number, quoted or not, name) of each include."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if found:
                yield number, found.group(1) == '"', found.group(2)


def resolve(path, name):
    """The file that a quoted include means: named from the root, or, in tests/, fuzz/ and bench/, beside this one."""
    beside = [os.path.dirname(path)] if layer_of(path) in WATCHERS else []
    for folder in ["", *beside]:
        candidate = os.path.normpath(os.path.join(folder, name))
        if os.path.exists(os.path.join(ROOT, candidate)):
            return candidate
    return None


def judge(path, quoted, name):
    """(layer that is included or None, what is wrong or None)"""
    here = layer_of(path)
    if not quoted:
        room = ROOMS.get(name)
        if room and here not in WATCHERS and not re.fullmatch(room, path):
            return None, f"<{name}> has its place in {room}".replace("\\", "")
        if here == "protocols" and name in PURE:
            return None, f"<{name}>: protocols/ knows no descriptors, clocks or threads"
        return None, None
    target = resolve(path, name)
    if not target:
        return None, f'"{name}" is not there'
    there = layer_of(target)
    if here in WATCHERS:
        return there, None
    if there in WATCHERS or LAYERS.index(there) > LAYERS.index(here):
        return there, f"{here} must not include {target}"
    return there, None


def main():
    arrows, files, faults = collections.defaultdict(set), collections.Counter(), []
    for folder in LAYERS[:-1] + WATCHERS:
        for path in sorted(glob.glob(f"{folder}/**/*.[ch]", root_dir=ROOT, recursive=True)):
            files[layer_of(path)] += 1
            for number, quoted, name in includes_of(path):
                there, fault = judge(path, quoted, name)
                if there and there != layer_of(path):
                    arrows[layer_of(path), there].add(os.path.basename(name))
                if fault:
                    faults.append(f"{path}:{number}: {fault}")
    if "--quiet" not in sys.argv:
        for layer in [*reversed(LAYERS), *WATCHERS]:
            if files[layer]:
                print(f"{layer} ({files[layer]} files)")
            for there in reversed(LAYERS):
                if arrows[layer, there]:
                    print(f"  --> {there:<10} {' '.join(sorted(arrows[layer, there]))}")
    print("\n".join(faults) if faults else "every include points down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
