"""docs/openapi.yaml against what the routes really answer, in both directions."""
import glob
import os
import pathlib
import re
import zlib

import pytest

import process
import scripts
import wire
from conftest import ROOT

yaml = pytest.importorskip("yaml", reason="apt-get install python3-yaml")
BOMB = scripts.bomb(80)
DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"
with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as text:
    DOCUMENT = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the same in C, at a tenth of the time
OPERATIONS = [(method, path) for path, operations in DOCUMENT["paths"].items() for method in operations]


def resolved(value):
    if "$ref" in value:
        *_, kind, name = value["$ref"].split("/")
        return DOCUMENT["components"][kind][name]
    return value


def statuses(method, path):
    return {int(status): resolved(answer) for status, answer in DOCUMENT["paths"][path][method]["responses"].items()}


def rows():
    with open(os.path.join(ROOT, "api", "endpoints.c"), encoding="utf-8") as source:
        return re.findall(r"\{\.path = [^}]*\}", source.read())


def head(method, path, fields=(), query=""):
    return "".join(line + "\r\n" for line in [f"{method.upper()} {path}{query} HTTP/1.1", "Connection: close", *fields, ""]).encode()


def probes(method, path):
    """(what, request): each is to be answered at once, with what the document lists."""
    kind = next(iter(DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {"text/plain": 0})))
    path = path.replace("{id}", "0-0-0")
    needed = {"/scripts": "?name=probe", "/profile": "?seconds=1"}.get(path, "") if method == "post" else ""
    more = ("&" if needed else "?")
    typed = [f"Content-Type: {kind}", "Host: localhost"]
    body = {"post": b"return {}", "put": b'{"connections": 1}'}.get(method, b"")

    def sized(data, *fields, query=needed):
        return head(method, path, [*typed, f"Content-Length: {len(data)}", *fields], query) + data

    if not process.SANITIZED or path == "/ruleset/invoke":  # it is inflated in one place for all
        yield "bomb", sized(BOMB, "Content-Encoding: deflate")
    yield from [("good", sized(body)), ("good again", sized(body)), ("deflated", sized(zlib.compress(body), "Content-Encoding: deflate")),
                ("unknown parameter", sized(body, query=f"{needed}{more}none=1")), ("wrong escape", sized(body, query=f"{needed}{more}q=%z")),
                ("parameters alone", sized(body, query="?module&format=x&limit=0&cursor=x&seconds=0&name=%2f")), ("bare", sized(body, query="")),
                ("two hosts", sized(body, "Host: localhost")), ("foreign host", head(method, path, ["Host: evil.test"])),
                ("foreign origin", sized(body, "Origin: http://evil.test")), ("no length", head(method, path, typed, needed)),
                ("too long", head(method, path, [*typed, "Content-Length: 4194305"], needed)),
                ("chunked", head(method, path, [*typed, "Transfer-Encoding: chunked"], needed)),
                ("expectation", sized(body, "Expect: magic")), ("coding", sized(body, "Content-Encoding: br")),
                ("garbage", sized(b"xyz", "Content-Encoding: gzip")),
                ("raises", sized(b"error('x')" if body else b"")), ("syntax", sized(b"(" if body else b"")),
                ("another type", head(method, path, ["Host: localhost", "Content-Length: 0"], needed)),
                ("waits", sized(b"await.sleep(99)" if body else b"", query=needed.replace("probe", "waiting")) if path == "/scripts" else sized(body)),
                ("taken", sized(b"await.sleep(99)" if body else b"", query=needed.replace("probe", "waiting")) if path == "/scripts" else sized(body))]


# What no single request brings about: the build without a page, a kernel without timers, a worker or the server that is busy.
RARE = {503, 504}
RARER = {("get", "/"): {404}, ("head", "/"): {404}, ("post", "/profile"): {409, 500}, ("delete", "/scripts/{id}"): {204},
         ("delete", "/sessions/{id}"): {204}, ("get", "/limits/{id}"): {200}, ("head", "/limits/{id}"): {200}, ("put", "/limits/{id}"): {409},
         ("delete", "/limits/{id}"): {204},
         # these need a group, see test_groups.py
         **{(method, "/upstreams"): {404} for method in ("get", "head")}, ("put", "/upstreams/{id}"): {200},
         # these need a file of users, see test_users.py
         **{(method, path): {200} for method in ("get", "head") for path in ("/users", "/users/{id}")}, ("put", "/users/{id}"): {200, 500},
         ("delete", "/users/{id}"): {204, 500},
         # and these lists, see test_lists.py
         **{(method, "/lists/{id}"): {200} for method in ("get", "head")}, ("post", "/lists/reload"): {200, 409}}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("reader read\nwriter\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("method,path", OPERATIONS)
def test_statuses(ruled, shared_ruled, tokens, tmp_path, method, path):
    known = statuses(method, path)
    seen = {}
    _, api = ruled(DIRECT, "-t", "5", "--state-dir", str(tmp_path))
    _, guarded = shared_ruled(DIRECT, "--api-token-file", tokens)
    requests = [(what, api, request) for what, request in probes(method, path)]
    needed = {"/scripts": "?name=probe", "/profile": "?seconds=1"}.get(path, "")
    for token in ["wrong", "reader"]:
        requests.append((token, guarded, head(method, path.replace("{id}", "0-0-0"),
                                              [f"Authorization: Bearer {token}", "Content-Length: 0"], needed)))
    if path.startswith("/ruleset"):
        _, bare = shared_ruled(None)
        requests.append(("no ruleset", bare, head(method, path, ["Content-Length: 0"])))
    for what, where, request in requests:
        client = wire.Client(where.address, timeout=20 * process.SLOW)
        client.send(request)
        answer = client.read_head().decode("latin-1")
        client.close()
        status = int(answer.split()[1])
        seen.setdefault(status, what)
        assert status in known, (what, status)
        content = known[status].get("content")
        if content and method != "head":
            said = re.search(r"^content-type: ([^;\r]+)", answer, re.IGNORECASE | re.MULTILINE).group(1)
            assert said in {name.split(";")[0] for name in content}, (what, status, said)
    rare = RARE | RARER.get((method, path), set())
    assert known.keys() - seen.keys() <= rare, ("documented, but never seen", known.keys() - seen.keys(), seen)


def test_methods_and_paths_that_are_not_listed(ruled):
    _, api = ruled(DIRECT)
    for path, operations in DOCUMENT["paths"].items():
        for method in ["get", "head", "post", "delete", "put", "options", "patch"]:
            if method not in operations:
                answer = api.ask(method.upper(), path.replace("{id}", "0-0-0"), "")
                assert answer.status == 405 and answer.headers["allow"].split(", ") == [
                    name.upper() for name in ["get", "head", "post", "delete", "put"] if name in operations], (method, path)
    assert api.get("/none").status == api.get("/stats/none").status == 404


def test_parameters(ruled):
    """A route that changes something knows the parameters that the document lists, and no others; and those that read do
    something with theirs."""
    checked = 0
    for row in rows():
        path = re.search(r'\.path = "([^"]+)"', row).group(1) + ("/{id}" if "takes_id" in row else "")
        parameters = re.search(r'\.parameters = "([^"]*)"', row)
        if not parameters:
            continue
        method = next(name for name in ("post", "put", "delete") if f"CALL_{name.upper()}" in row)
        listed = DOCUMENT["paths"][path][method].get("parameters", [])
        assert {one["name"] for one in listed if one["in"] == "query"} == set(parameters.group(1).split()), path
        checked += 1
    assert checked >= 8
    code = "".join(pathlib.Path(path).read_text(encoding="utf-8") for path in glob.glob(os.path.join(ROOT, "api", "*.c")))
    asked = set(re.findall(r'call_query\w*\(call, "(\w+)"', code))
    for names in re.findall(r'const char \*const names\[\] = \{([^}]*)\};[^}]*call_query_given\(call, names\[', code):
        asked |= set(re.findall(r'"(\w+)"', names))
    listed = {one["name"] for operations in DOCUMENT["paths"].values() for operation in operations.values()
              for one in operation.get("parameters", []) if one["in"] == "query"}
    assert asked | {"name"} == listed
