"""What full measurements found, kept beside the document as JSON: a run of some rows replaces those, and the document is
written from all. A row is measured in alternation within one run, so its ratios hold whatever other rows were measured on
another day; each names its run.

    {"runs": [{fact: text}], "proxies": {"MODE NAME": {...}}, "missing": {name: program},
     "rows": {"NETWORK/CONGESTION/PERCENT": {row: {"run": index, "samples": {label: [...]}, "failures": {label: why}}}}}

Results are {(network, congestion, percent of the load or 0): {row: ({label: samples}, {label: why it has none})}}."""
import json
import pathlib


def make_record(run, results, proxies, missing):
    """Of one run; `run`: its facts, in the order in which the document has them."""
    rows = {"/".join(map(str, key)): {name: {"run": 0, "samples": samples, "failures": failures}
                                      for name, (samples, failures) in found.items()}
            for key, found in results.items()}
    return {"runs": [run], "proxies": proxies, "missing": missing, "rows": rows}


def merge(old, new):
    """Rows of the new one instead of those of the old one; runs of which nothing is left are dropped."""
    offset = len(old["runs"])
    rows = {key: dict(found) for key, found in old["rows"].items()}
    for key, found in new["rows"].items():
        rows.setdefault(key, {}).update({name: {**one, "run": one["run"] + offset} for name, one in found.items()})
    runs = old["runs"] + new["runs"]
    used = sorted({one["run"] for found in rows.values() for one in found.values()})
    for found in rows.values():
        found.update({name: {**one, "run": used.index(one["run"])} for name, one in found.items()})
    missing = {name: program for name, program in {**old["missing"], **new["missing"]}.items()
               if not any(key.split(" ", 1)[1] == name for key in new["proxies"])}
    return {"runs": [runs[index] for index in used], "proxies": {**old["proxies"], **new["proxies"]}, "missing": missing, "rows": rows}


def read(path):
    """None: there is none yet."""
    path = pathlib.Path(path)
    return json.loads(path.read_text()) if path.exists() else None


def write(path, record):
    """A line for each contestant of a row, so that a difference can be read."""
    lines = []
    for key, found in sorted(record["rows"].items()):
        of_rows = []
        for name, one in found.items():
            samples = ",\n".join(f"    {json.dumps(label)}: {json.dumps(taken)}" for label, taken in one["samples"].items())
            of_rows.append(f'   {json.dumps(name)}: {{"run": {one["run"]}, "failures": {json.dumps(one["failures"])}, "samples": {{\n{samples}}}}}')
        lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(of_rows) + "}")
    head = ",\n".join(f" {json.dumps(name)}: {json.dumps(record[name])}" for name in ("runs", "proxies", "missing"))
    pathlib.Path(path).write_text("{\n" + head + ',\n "rows": {\n' + ",\n".join(lines) + "}\n}\n")


def results_of(record):
    """As they came from the run, and {(network, congestion, percent, row): index of its run}."""
    results, runs = {}, {}
    for text, found in record["rows"].items():
        network, congestion, percent = text.split("/")
        key = network, congestion, int(percent)
        results[key] = {name: (one["samples"], one["failures"]) for name, one in found.items()}
        runs.update({(*key, name): one["run"] for name, one in found.items()})
    return results, runs
