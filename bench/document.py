"""docs/benchmarks.md has several writers: the full run, which writes the document, and others that have a section of
their own between two lines, which the full run keeps.

    <!-- kept: NAME -->
    ...
    <!-- end: NAME -->
"""
import re

SECTION = re.compile(r"^<!-- kept: (\S+) -->\n.*?^<!-- end: \1 -->\n", re.M | re.S)


def keep_sections(old, new):
    """The new document, with the sections behind it that the old one has and it has not."""
    there = {match.group(1) for match in SECTION.finditer(new)}
    kept = [match.group(0) for match in SECTION.finditer(old) if match.group(1) not in there]
    return "\n".join([new.rstrip("\n") + "\n", *kept])


def put_section(old, name, body):
    """The old document with that section's body replaced, or with the section at its end."""
    section = f"<!-- kept: {name} -->\n{body.strip()}\n<!-- end: {name} -->\n"
    for match in SECTION.finditer(old):
        if match.group(1) == name:
            return old[:match.start()] + section + old[match.end():]
    return "\n".join([old.rstrip("\n") + "\n", section])
