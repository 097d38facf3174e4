#!/usr/bin/env python3
"""Flame graphs from stacks: what `perf script` or gdb prints becomes folded stacks, folded stacks become an SVG.

    perf script -F comm,tid,ip,sym,dso --no-inline | flamegraph.py fold > x.folded
    flamegraph.py fold --gdb < backtraces > x.folded
    flamegraph.py draw --title 'Native path' 'The process=x.folded' 'Lines of the script=y.folded' > x.svg

A folded stack is a line: frames from the outermost on, divided by `;`, a space, a number.
"""
import argparse
import collections
import html
import pathlib
import re
import sys
import zlib

WIDTH, MARGIN, ROW, TITLE = 1200, 10, 17, 44
CHARACTER = 6.3  # width of a letter of the font below, about
LEAST = 0.3      # narrower frames are left out
KINDS = {"kernel": (24, 78, 62), "ours": (208, 55, 66), "library": (140, 35, 66), "lua": (280, 45, 74), "base": (0, 0, 84)}
LEGEND = [("kernel", "kernel"), ("ours", "sluice"), ("library", "libraries"), ("lua", "Lua")]

# ---- Folding ----

FRAME = re.compile(r"^\s+[0-9a-f]+\s+(.*?)\s+\((.*)\)$")
GDB_FRAME = re.compile(r"^#\d+\s+(?:0x[0-9a-f]+ in )?([\w.@]+) \(.*?\)(?: at (\S+)| from (\S+))?")
THREAD_START = re.compile(r"(_start|__libc_start.*|_*clone3?|start_thread)( \[l\])?$")
COMPILER_SUFFIX = re.compile(r"(\.(lto_priv|isra|constprop|part|cold)(\.\d+)*)+$")


def frame_name(symbol, where):
    """`name [k]` of the kernel, `name [l]` of a library, a plain name of ours."""
    symbol = COMPILER_SUFFIX.sub("", symbol.split("+0x")[0]).replace(";", ",")
    if where.startswith("[kernel") or where.endswith((".ko", "[guest.kernel.kallsyms]")):
        return "[kernel]" if symbol == "[unknown]" else f"{symbol} [k]"
    if ".so" in where or where in ("[vdso]", "[unknown]"):
        return "[unknown]" if symbol == "[unknown]" else f"{symbol} [l]"
    return symbol


def without_repeats(frames):
    """Frames without a symbol say nothing twice, and what starts every thread says nothing at all."""
    while frames and THREAD_START.match(frames[0]):
        frames = frames[1:]
    return [frame for i, frame in enumerate(frames) if frame not in ("[unknown]", "[kernel]") or frame != frames[i - 1] or i == 0]


def fold_perf(lines):
    """Counter of stacks, each a tuple from the outermost frame on."""
    stacks, command, frames = collections.Counter(), None, []
    for line in [*lines, ""]:
        match = FRAME.match(line)
        if match:
            frames.append(frame_name(*match.groups()))
        elif line.strip():
            command = re.sub(r"\s+\d+(/\d+)?\s*.*$", "", line.strip())
        elif command is not None:
            stacks[(command, *without_repeats(frames[::-1]))] += 1
            command, frames = None, []
    return stacks


def fold_gdb(lines):
    """The same of backtraces; one ends where another begins, or at an empty line."""
    stacks, frames = collections.Counter(), []
    for line in [*lines, ""]:
        match = GDB_FRAME.match(line)
        if frames and (not match or line.startswith("#0 ")):
            stacks[("sluice", *without_repeats(frames[::-1]))] += 1
            frames = []
        if match:
            symbol, source, library = match.groups()
            frames.append(frame_name(symbol, library or source or ""))
    return stacks


def write_folded(stacks, out):
    for stack, count in sorted(stacks.items()):
        out.write(f"{';'.join(stack)} {count}\n")


def read_folded(lines):
    stacks = collections.Counter()
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        if not stack or not count.isdigit():
            raise SystemExit(f"flamegraph: this is no folded stack: {line.rstrip()}")
        stacks[tuple(stack.split(";"))] += int(count)
    return stacks


# ---- Names of Lua functions ----


def lua_names(path):
    """{line: name} of the functions that a source defines by name."""
    names = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.search(r"\bfunction\s+([\w.:]+)\s*\(|\b([\w.]+)\s*=\s*function\b", line)
        if match:
            names[number] = match.group(1) or match.group(2)
    return names


def name_functions(stacks, source):
    """A function without a name where it was called has one where it is defined; the folder of the file goes."""
    names = lua_names(source)

    def rename(frame):
        match = re.match(rf"(.*) \S*{re.escape(source.name)}:(\d+)$", frame)
        if not match:
            return frame
        name, line = match.groups()
        start = re.fullmatch(r"function at (\d+)", name)
        return f"{names.get(int(start.group(1)), name) if start else name} {source.name}:{line}"

    renamed = collections.Counter()
    for stack, count in stacks.items():
        renamed[tuple(map(rename, stack))] += count
    return renamed


# ---- Drawing ----


class Node:
    def __init__(self, name):
        self.name, self.count, self.children = name, 0, {}

    def add(self, stack, count):
        self.count += count
        if stack:
            self.children.setdefault(stack[0], Node(stack[0])).add(stack[1:], count)

    def depth(self, least):
        return 1 + max((child.depth(least) for child in self.children.values() if child.count >= least), default=0)


def kind_of(name):
    if name == "all" or name.startswith("("):
        return "base"
    if name.endswith("[k]") or name == "[kernel]":
        return "kernel"
    if name.endswith(" [C]") or re.search(r"\S:\d+$", name):
        return "lua"
    return "library" if name.endswith("[l]") or name == "[unknown]" else "ours"


def color_of(name):
    """Of one kind, shades that are the same for the same name."""
    hue, saturation, light = KINDS[kind_of(name)]
    shade = zlib.crc32(name.encode()) % 11 - 5
    return f"hsl({hue + shade},{saturation}%,{light + shade}%)"


def draw_frame(node, x, y, width, total, unit):
    label = node.name if len(node.name) * CHARACTER < width - 6 else node.name[:max(0, int((width - 6) / CHARACTER) - 1)] + "…"
    title = f"{node.name}: {node.count:,} {unit}, {node.count / total:.1%}"
    text = f'<text x="{x + 3:.1f}" y="{y + 12}">{html.escape(label)}</text>' if width > 24 else ""
    return (f'<g><title>{html.escape(title)}</title><rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.3):.1f}" height="{ROW - 1}"'
            f' fill="{color_of(node.name)}" rx="1"/>{text}</g>')


def draw_node(node, x, floor, scale, total, unit):
    """The frame and those above it, siblings by name."""
    yield draw_frame(node, x, floor - ROW, node.count * scale, total, unit)
    for name in sorted(node.children):
        child = node.children[name]
        if child.count * scale >= LEAST:
            yield from draw_node(child, x, floor - ROW, scale, total, unit)
        x += child.count * scale


def draw_panel(title, stacks, unit, top):
    """The panel's lines of SVG, and where it ends."""
    root = Node("all")
    for stack, count in stacks.items():
        root.add(stack, count)
    head = f'<text class="panel" x="{MARGIN}" y="{top + 16}">{html.escape(title)}</text>'
    if root.count == 0:
        return [head, f'<text x="{MARGIN}" y="{top + 40}">No samples.</text>'], top + 52
    scale = (WIDTH - 2 * MARGIN) / root.count
    floor = top + 26 + ROW * root.depth(LEAST / scale)
    return [head, '<g class="graph">', *draw_node(root, MARGIN, floor, scale, root.count, unit), "</g>"], floor + 16


def draw_legend():
    x = WIDTH - MARGIN - 320
    for kind, label in LEGEND:
        hue, saturation, light = KINDS[kind]
        yield (f'<rect x="{x}" y="12" width="12" height="12" fill="hsl({hue},{saturation}%,{light}%)"/>'
               f'<text x="{x + 17}" y="22">{label}</text>')
        x += 80


STYLE = """<style>
text { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: #1a1a1a; pointer-events: none }
text.head { font: bold 16px sans-serif } text.panel { font: bold 13px sans-serif }
.graph g:hover rect { stroke: #000; stroke-width: 1 }
</style>"""

# A click spreads a frame over the whole width, a click on `all` undoes it. Without scripts it is a picture.
ZOOM = """<script><![CDATA[
document.querySelectorAll(".graph").forEach(function (graph) {
    var frames = [].map.call(graph.querySelectorAll("g"), function (g) {
        var rect = g.querySelector("rect"), text = g.querySelector("text");
        return { g: g, rect: rect, text: text, full: text ? text.textContent : "",
                 x: +rect.getAttribute("x"), w: +rect.getAttribute("width") };
    });
    var all = frames[0];
    frames.forEach(function (chosen) {
        chosen.g.addEventListener("click", function () {
            var scale = all.w / chosen.w;
            frames.forEach(function (f) {
                var from = Math.max(f.x, chosen.x), to = Math.min(f.x + f.w, chosen.x + chosen.w);
                f.g.style.display = to - from > 0.1 ? "" : "none";
                f.rect.setAttribute("x", all.x + (from - chosen.x) * scale);
                f.rect.setAttribute("width", Math.max(0, to - from) * scale);
                if (!f.text) return;
                var name = f.g.querySelector("title").textContent.replace(/: [^:]*$/, "");
                var room = Math.floor((to - from) * scale / 6.3) - 1;
                f.text.setAttribute("x", all.x + (from - chosen.x) * scale + 3);
                f.text.textContent = chosen === all ? f.full : name.length <= room ? name : name.slice(0, Math.max(0, room - 1));
            });
        });
    });
});
]]></script>"""


def draw(title, panels):
    """SVG of panels: (title, stacks, unit) each, one below the other."""
    body, top = [], TITLE
    for name, stacks, unit in panels:
        lines, top = draw_panel(name, stacks, unit, top)
        body += lines
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">', STYLE,
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>',
        f'<text class="head" x="{MARGIN}" y="24">{html.escape(title)}</text>', *draw_legend(), *body, ZOOM, "</svg>", ""])


# ---- Main ----


def parse_arguments():
    parser = argparse.ArgumentParser(description="fold stacks, draw flame graphs")
    commands = parser.add_subparsers(dest="command", required=True)
    fold = commands.add_parser("fold", help="perf script on stdin, folded stacks on stdout")
    fold.add_argument("--gdb", action="store_true", help="backtraces of gdb instead")
    one = commands.add_parser("draw", help="folded stacks to SVG on stdout")
    one.add_argument("--title", default="Flame graph")
    one.add_argument("--unit", default="samples")
    one.add_argument("--source", help="Lua file whose functions get their names")
    one.add_argument("files", nargs="+", metavar="[TITLE=]FILE", help="one panel each")
    return parser.parse_args()


def panel_of(word, options):
    title, _, path = word.rpartition("=")
    with open(path, encoding="utf-8", errors="replace") as lines:
        stacks = read_folded(lines)
    if options.source:
        stacks = name_functions(stacks, pathlib.Path(options.source))
    return title or path, stacks, options.unit


def main():
    options = parse_arguments()
    if options.command == "fold":
        lines = (line.rstrip("\n") for line in sys.stdin)
        write_folded(fold_gdb(lines) if options.gdb else fold_perf(lines), sys.stdout)
    else:
        sys.stdout.write(draw(options.title, [panel_of(word, options) for word in options.files]))


if __name__ == "__main__":
    main()
