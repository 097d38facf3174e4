"""Small faults for C sources: where they can be planted, and which of them a seed takes.

Works on tokens, without a parser: what does not compile is found by the compiler. A change adds and takes no lines, so that
everything else remains where it is. Left alone are what no test can or should see: assertions, what is logged, attributes,
sizes of local arrays."""
import bisect
import collections
import hashlib
import itertools
import os
import re

TOKEN = re.compile(r"""
    (?P<comment>/\*.*?\*/|//[^\n]*)
  | (?P<directive>(?<![^\n])[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<number>(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)[uUlLfF]*)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<mark><<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[^\s\w])
""", re.VERBOSE | re.DOTALL)

UNSEEN_CALLS = re.compile(r"(LOG[A-Z]?|LOG_\w+|assert|static_assert|_Static_assert|\w+_log|__attribute__|__builtin_\w+|"
                          r"sizeof)$")
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "do", "else", "case", "default", "goto", "break",
            "continue"}
BEFORE_TYPES = {"struct", "enum", "const", "unsigned", "static", "{", "}", ";", "(", ","}
COMPARISONS = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
ARITHMETIC = {"+": "-", "-": "+", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "<<": ">>", ">>": "<<",
              "|": "&", "&": "|", "|=": "&=", "&=": "|=", "*": "/", "/": "*", "%": "/"}
BINARY_ONLY = {"+", "-", "*", "&"}  # of these there is another kind with one operand
KINDS = ["comparison", "call", "arguments", "constant", "condition", "return", "logic", "arithmetic", "assignment", "define"]

Token = collections.namedtuple("Token", "kind text start end")


class Change:
    """One fault: the octets from `start` to `end` of a file become `text`. `places`: who executes one of them, as (line,
    column), may notice it."""

    def __init__(self, source, kind, start, end, text, places=None):
        text += "\n" * (source.content.count("\n", start, end) - text.count("\n"))
        self.path, self.kind, self.start, self.end, self.text = source.path, kind, start, end, text
        self.line = source.line_at(start)
        self.places = places or [source.place_of(start)]
        self.before, self.after = source.around(start, end, text)
        self.rank = ""

    def apply(self, content):
        return content[:self.start] + self.text + content[self.end:]

    @property
    def name(self):
        return f"{self.path}:{self.line} {self.kind} - {self.before} + {self.after}"


class Source:
    def __init__(self, path, content):
        self.path, self.content = path, content
        self.starts = [0] + [found.end() for found in re.finditer("\n", content)]
        everything = [Token(found.lastgroup, found.group(), *found.span()) for found in TOKEN.finditer(content)]
        self.directives = [token for token in everything if token.kind == "directive"]
        self.tokens = [token for token in everything if token.kind not in ("comment", "directive")]
        self.partner = self.match_brackets()

    def line_at(self, offset):
        return bisect.bisect_right(self.starts, offset)

    def place_of(self, offset):
        line = self.line_at(offset)
        return line, offset - self.starts[line - 1] + 1

    def around(self, start, end, text):
        """The lines that contain start to end, in one, before and after."""
        first = self.starts[self.line_at(start) - 1]
        last = self.content.find("\n", end)
        last = len(self.content) if last < 0 else last
        before, after = self.content[first:last], self.content[first:start] + text + self.content[end:last]
        return " ".join(before.split()), " ".join(after.split())

    def match_brackets(self):
        partner, opened = {}, []
        for i, token in enumerate(self.tokens):
            if token.kind == "mark" and token.text in "([{":
                opened.append(i)
            elif token.kind == "mark" and token.text in ")]}" and opened:
                other = opened.pop()
                partner[other], partner[i] = i, other
        return partner

    def text(self, i):
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def functions(self):
        """(index of the opening brace, of the closing one, whether it returns void)."""
        i, begin = 0, 0
        while i < len(self.tokens):
            text = self.text(i)
            if text == "{":
                end = self.partner.get(i, len(self.tokens) - 1)
                if self.text(i - 1) == ")":
                    words = [token.text for token in self.tokens[begin:self.partner[i - 1] - 1]]
                    yield i, end, [word for word in words if word not in ("static", "inline")] == ["void"]
                i = end
                begin = end + 1
            elif text == ";":
                begin = i + 1
            i += 1

    def unseen(self, begin, end):
        """Indices of tokens that belong to calls which no test sees."""
        taken = set()
        for i in range(begin, end):
            if self.tokens[i].kind == "word" and UNSEEN_CALLS.match(self.text(i)) and self.text(i + 1) == "(":
                taken.update(range(i, self.partner[i + 1] + 1))
            if self.text(i) == "if" and self.text(i + 1) == "(" and self.is_about_logging(i + 1):
                taken.update(j for j in range(i, self.partner[i + 1] + 1) if not self.is_called(j))
        return taken

    def is_about_logging(self, i):
        """A condition of LOG_ON, or of nothing but a log line."""
        behind = self.partner[i] + 1
        return self.text(i + 1) == "LOG_ON" or (re.match(r"LOG[A-Z]?$", self.text(behind)) is not None
                                                and self.text(self.partner[behind + 1] + 2) != "else")

    def is_called(self, i):
        """What a condition calls may do more than answer."""
        return self.tokens[i].kind == "word" and self.text(i) not in KEYWORDS and self.text(i + 1) == "("

    def begins_statement(self, i):
        before = self.text(i - 1)
        if before in (";", "{", "}", "else", "do"):
            return True
        if before == ")":
            return self.text(self.partner[i - 1] - 1) in ("if", "for", "while", "switch")
        return before == ":" and any(self.text(j) in ("case", "default") for j in range(max(0, i - 6), i - 1))

    def is_binary(self, i):
        before = self.tokens[i - 1]
        if before.kind == "word":
            return before.text not in KEYWORDS and not self.is_declaration(i)
        return before.kind in ("number", "string") or before.text in (")", "]") and not self.is_cast(i - 1)

    def is_declaration(self, i):
        """Whether the star at i is part of `struct x *y` or `char *y`, as far as one sees without knowing types."""
        star, behind = self.tokens[i], self.tokens[i + 1]
        return (star.text == "*" and self.text(i - 2) in BEFORE_TYPES and behind.kind == "word"
                and star.end == behind.start)

    def is_cast(self, i):
        begin = self.partner[i]
        words = [token.text for token in self.tokens[begin + 1:i]]
        if self.tokens[begin - 1].kind == "word" and self.text(begin - 1) not in KEYWORDS:
            return False
        return bool(words) and all(re.fullmatch(r"const|struct|unsigned|\*|void|char|int|long|\w+_t|size_t|lua_\w+|double", word)
                                   or words[0] in ("struct", "enum", "const") for word in words)

    # --- the kinds of faults ---

    def changes(self):
        for begin, end, is_void in self.functions():
            taken = self.unseen(begin, end)
            for i in range(begin + 1, end):
                if i in taken:
                    continue
                for kind, start, stop, text in self.changes_at(i, is_void):
                    yield Change(self, kind, self.tokens[start].start, self.tokens[stop].end, text)
        yield from self.defines()

    def changes_at(self, i, is_void):
        """(kind, first token, last token, what stands there instead)."""
        token = self.tokens[i]
        if token.kind == "mark":
            yield from self.marks(i, token)
        elif token.kind == "number":
            yield from self.numbers(i, token)
        elif token.text in ("true", "false"):
            yield "constant", i, i, "false" if token.text == "true" else "true"
        elif token.text == "if" and self.text(i + 1) == "(":
            stop = self.partner[i + 1]
            condition = self.content[self.tokens[i + 1].start:self.tokens[stop].end]
            yield "condition", i + 1, stop, f"(!{condition})"
        if token.kind == "word":
            yield from self.calls(i)
            yield from self.arguments(i)
        if self.begins_statement(i):
            if token.kind == "word" and token.text not in ("case", "default", "else", "return", "while"):
                yield "return", i, i, ("return; " if is_void else "return 0; ") + token.text
            yield from self.assignments(i)

    def marks(self, i, token):
        if token.text in COMPARISONS:
            yield "comparison", i, i, COMPARISONS[token.text]
        elif token.text in ("&&", "||"):
            yield "logic", i, i, "||" if token.text == "&&" else "&&"
        elif token.text == "!":
            yield "logic", i, i, "!!"
        elif token.text in ARITHMETIC and (token.text not in BINARY_ONLY or self.is_binary(i)):
            yield "arithmetic", i, i, ARITHMETIC[token.text]

    def numbers(self, i, token):
        found = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", token.text)
        if not found or (self.text(i - 1) == "{" and self.text(i + 1) == "}"):
            return  # floating point; {0}
        if (self.text(i - 1) == "[" and self.text(i + 1) == "]"
                and self.tokens[i - 3].kind == "word" and self.tokens[i - 2].kind == "word"):
            return  # the size of a local array
        written = found.group(1)
        hexadecimal, octal = written[:2] in ("0x", "0X"), written[0] == "0" and written.isdigit() and len(written) > 1
        value = int(written, 8 if octal else 0)
        for other in ([value + 1] if value == 0 else [value - 1, value + 1]):
            digits = f"{other:#x}" if hexadecimal else f"0{other:o}" if octal else f"{other}"
            yield "constant", i, i, digits + found.group(2)

    def calls(self, i):
        """A call that is a statement by itself, its result ignored."""
        cast = self.text(i - 3) == "(" and self.text(i - 2) == "void" and self.text(i - 1) == ")"
        if not self.begins_statement(i - 3 if cast else i) or self.text(i) in KEYWORDS:
            return
        j = i + 1
        while self.text(j) in (".", "->", "["):
            j = self.partner[j] + 1 if self.text(j) == "[" else j + 2
        if self.text(j) == "(" and self.text(self.partner[j] + 1) == ";" and self.tokens[j - 1].kind == "word":
            yield "call", i, self.partner[j], "(void)0"

    def arguments(self, i):
        """Two neighbours in the list of a call change places."""
        if self.text(i + 1) != "(" or self.text(i) in KEYWORDS:
            return
        begin, end, parts = i + 2, self.partner[i + 1], []
        j = begin
        while j < end:
            if self.text(j) in "([{" and self.tokens[j].kind == "mark":
                j = self.partner[j]
            elif self.text(j) == ",":
                parts.append((begin, j - 1))
                begin = j + 1
            j += 1
        parts.append((begin, end - 1))
        for (a, b), (c, d) in zip(parts, parts[1:]):
            first, second = (self.content[self.tokens[x].start:self.tokens[y].end] for x, y in ((a, b), (c, d)))
            if first != second:
                yield "arguments", a, d, f"{second}, {first}"

    def assignments(self, i):
        """`x->y = z;` and the like, without a declaration, are left out."""
        j = i
        if self.text(j) == "*":
            j += 1
        if self.tokens[j].kind != "word" or self.text(j) in KEYWORDS:
            return
        j += 1
        while self.text(j) in (".", "->", "["):
            j = self.partner[j] + 1 if self.text(j) == "[" else j + 2
        if re.fullmatch(r"([-+*/%&|^]|<<|>>)?=|\+\+|--", self.text(j)):
            while self.text(j) not in (";", ")", "}", ""):
                j = self.partner[j] + 1 if self.text(j) in ("(", "[", "{") else j + 1
            if self.text(j) == ";":
                yield "assignment", i, j - 1, "(void)0"

    def defines(self):
        """Numbers in macros, noticed where the macro's name is used."""
        for directive in self.directives:
            found = re.match(r"[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+[^\n]*?(?<![\w.])(\d+)(?![\w.])", directive.text)
            if not found:
                continue
            places = [self.place_of(token.start) for token in self.tokens if token.text == found.group(1)]
            start, end = (directive.start + offset for offset in found.span(2))
            for other in (int(found.group(2)) + 1, int(found.group(2)) - 1):
                if places and other >= 0:
                    yield Change(self, "define", start, end, str(other), places)


def sources(root, chosen):
    """C files of the product, from the root, below the folders or with the names in `chosen`."""
    for name in chosen:
        whole = os.path.join(root, name)
        if os.path.isfile(whole):
            yield name
        elif not os.path.isdir(whole):
            raise SystemExit(f"{name}: no such file or folder")
        for folder, _, files in sorted(os.walk(whole)):
            yield from (os.path.relpath(os.path.join(folder, file), root) for file in sorted(files) if file.endswith(".c"))


def left_out(path):
    """{(file, line before, line after): reason} of a list that was written by hand."""
    listed, head, before = {}, None, None
    with open(path, encoding="utf-8") as text:
        for line in text:
            if line.startswith("- "):
                before = line[2:].strip()
            elif line.startswith("+ ") and head and before:
                listed[head[0], before, line[2:].strip()] = head[1]
            elif ": " in line and not line.startswith("#"):
                head = tuple(part.strip() for part in line.split(": ", 1))
    return listed


def ranked(root, chosen, seed):
    """All changes, in the order in which this seed takes them: the kinds in turn, so that none drowns in a frequent one. The
    rank of a change depends on nothing but itself, so that an edit elsewhere moves few others."""
    by_kind = {kind: [] for kind in KINDS}
    for path in sources(root, chosen):
        with open(os.path.join(root, path), encoding="utf-8") as text:
            content = text.read()
        seen = collections.Counter()
        for change in Source(path, content).changes():
            same = (change.path, change.kind, change.before, change.after)
            change.rank = hashlib.sha256(repr((seed, *same, seen[same])).encode()).hexdigest()
            seen[same] += 1
            by_kind[change.kind].append(change)
    rows = [sorted(changes, key=lambda change: change.rank) for changes in by_kind.values()]
    return [change for row in itertools.zip_longest(*rows) for change in row if change]
