"""Runs a program where it can do no harm: what a fault makes of kill(), of a port or of a loop stays inside."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import run  # noqa: E402  tests/run.py

MEMORY_MAX = 4 << 30  # octets that a program may take before it is refused more
FILE_MAX = 1 << 30
# A network and processes of its own: the shell is their first, with which all of them end.
NAMESPACES = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
ALONE = (["unshare", *NAMESPACES, "sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh"] if os.geteuid() == 0 else
         ["unshare", "--user", "--map-current-user", "--keep-caps", *NAMESPACES, "sh", "-c",
          'ip link set lo up && setpriv --ambient-caps -all "$@"; exit $?', "sh"])


def check():
    if not run.usable(*ALONE):
        raise SystemExit("mutants: no namespaces here, and without them a fault in a call of kill() ends strangers")


def bound():
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_MAX, FILE_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)


def execute(command, folder, timeout, **environment):
    """(exit status, output), the status None if it was killed after `timeout` seconds. Runs in `folder`, its temporary
    files in a folder of their own."""
    scratch = tempfile.mkdtemp(prefix="m")
    os.chmod(scratch, 0o755)
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen([*ALONE, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=bound,
                                     env={**os.environ, "TMPDIR": scratch, **environment})
            try:
                status = child.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                child.wait()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        output.seek(0)
        return status, output.read().decode(errors="replace")
