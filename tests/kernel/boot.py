#!/usr/bin/env python3
"""Runs the tests on the kernels that Debian 12 ships, in a virtual machine.

    boot.py [--build DIR] [--kernel release|backports]... [--accel auto|kvm|tcg] [--cpus N] [--memory MIB]
            [--guests N] [--only FILE]... [STEP...]

The guest's root is a Debian 12 made by mmdebstrap, with both kernels, and kept in BUILD/kernel until the list of
packages changes; this checkout, with what was built, is copied into it. No initramfs is needed: the cloud kernel has NVMe
and ext4 built in. The guest has the product's defaults: huge pages `always`, Debian's /etc/hosts, 3 GiB. It runs
tests/run.py and writes to the serial console, which is read here; the last line is `N passed, N failed, N skipped` over
all kernels. Needs root, for the root file system's owners and devices.

One emulated CPU keeps one of this machine's busy. With --guests N so many guests run at a time, and each takes the next part
of the work, until all is done: unit programs, seeds, some end to end files.

Without a working KVM the guest is emulated, by default with one CPU whose clock follows the instructions that it executes
(-icount): so the guest does not notice how busy this machine is. More CPUs are emulated on threads and have this machine's
clock; with -icount QEMU 7.2 never comes to run the second one while the first is busy. An emulated CPU is slower by its own
clock, too, so the tests wait longer (SLUICE_TEST_SLOW)."""
import argparse
import concurrent.futures
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))
import run  # noqa: E402  tests/run.py, which knows the end to end files
GUEST_PACKAGES = [
    # what the programs are linked with
    "libc-ares2", "liburing2", "liblua5.4-0", "libtre5", "libdeflate0", "libmicrohttpd12", "libjansson4",
    "libgnutls30", "libidn2-0", "libsqlite3-0", "libhiredis0.14", "libcmocka0",
    # what a bare root lacks and the tests take for granted
    "netbase", "kmod", "procps", "lua5.4",
]
ANSWER = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped\s*$", re.MULTILINE)
BOOT_SECONDS = 25  # a guest that works has long ended by then
# No AVX: with `-cpu max` the simulator ran half as many seeds in the same time of the guest. No cmpxchg16b: what it leaves in
# the flags in QEMU 7.2 is garbage when they were set just before, and Linux 6.12 dies of that in kmem_cache_alloc().
EMULATED = "Nehalem,-cx16"
RUN_SECONDS = {"kvm": 1800, "tcg": 4 * 3600}


def fail(message):
    print(f"test-kernel: {message}", file=sys.stderr)
    print("0 passed, 1 failed, 0 skipped")
    sys.exit(1)


# --- the root file system ---

def guest_packages():
    """With those of the end to end tests, which keep a list of their own."""
    with open(os.path.join(ROOT, "tests", "e2e", "packages.txt"), encoding="ascii") as listing:
        words = [word for line in listing if not line.startswith("#") for word in line.split()]
    return sorted(set(GUEST_PACKAGES + words))


def debian_mirror():
    """The mirror that this machine's own apt uses."""
    answer = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                             "Codename: bookworm", "Component: main"], capture_output=True, text=True, check=False)
    sites = sorted(set(answer.stdout.split()), key=len)
    if not sites:
        fail("apt knows no mirror of Debian 12 (bookworm): look at /etc/apt/sources.list")
    return sites[0].rstrip("/")


def make_root(folder, packages):
    """mmdebstrap with both kernels: the release's with its security updates first, then the one of backports."""
    mirror = debian_mirror()
    backports = (f'echo "deb {mirror} bookworm-backports main" > "$1/etc/apt/sources.list.d/backports.list"; '
                 'chroot "$1" apt-get update -q; '
                 'chroot "$1" apt-get install -q -y --no-install-recommends -t bookworm-backports linux-image-cloud-amd64')
    fresh = f"{folder}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    print(f"making a Debian 12 in {folder}: some minutes", flush=True)
    log = os.path.join(os.path.dirname(folder), "mmdebstrap.log")
    with open(log, "w", encoding="utf-8") as output:
        done = subprocess.run(["mmdebstrap", "--mode=root", "--variant=minbase", "--components=main",
                               "--dpkgopt=force-unsafe-io",  # what a crash leaves is made anew: no waiting for the disk
                               f"--include={','.join([*packages, 'linux-image-cloud-amd64'])}",
                               f"--customize-hook={backports}", "bookworm", fresh,
                               f"deb {mirror} bookworm main", f"deb {mirror}-security bookworm-security main"],
                              stdout=output, stderr=output, check=False)
    if done.returncode:
        fail(f"mmdebstrap could not make the root file system: {log} says why")
    os.rename(fresh, folder)


def root_folder(build):
    """Kept until the packages change."""
    packages = guest_packages()
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    os.makedirs(build, exist_ok=True)
    folder = os.path.join(build, f"root-{key}")
    if not os.path.isdir(folder):
        for old in glob.glob(os.path.join(build, "root-*")):
            shutil.rmtree(old)
        make_root(folder, packages)
    return folder


def copy_tree(options, folder):
    """The checkout and the programs of its release flavour, nothing of the sanitizers'."""
    target = os.path.join(folder, "sluice")
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if os.path.exists(os.path.join(ROOT, name)):
            os.makedirs(os.path.join(target, os.path.dirname(name)), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), os.path.join(target, name))
    os.makedirs(os.path.join(target, "build"))
    for name in ["sluice", "sim", "tests", "e2e"]:
        source = os.path.join(options.build, name)
        if os.path.isdir(source):
            shutil.copytree(source, os.path.join(target, "build", name), symlinks=True)
        elif os.path.exists(source):
            shutil.copy2(source, os.path.join(target, "build", name))
    for number, command in enumerate(guest_commands(options)):
        with open(os.path.join(target, "build", f"command-{number}"), "w", encoding="utf-8") as script:
            script.write(command + "\n")


def guest_commands(options):
    """One for each part of the work. In files: of the words on its command line the kernel passes 32 to init, and no quotes."""
    if options.command:
        return [options.command]
    return ["exec python3 tests/run.py --build build --first 1 --count 5000 "
            + "".join(f"--only {name} " for name in files) + " ".join(steps) for steps, files in parts(options)]


def parts(options):
    """[(steps, end to end files)]. Several guests at a time: more parts than guests, so that all of them end at about the
    same time, but few, because each part costs a boot. The files that take longest are the first of run.e2e_files()."""
    if options.guests == 1:
        return [(options.step, options.only)]
    files = (options.only or run.e2e_files()) if "e2e" in options.step else []
    count = min(len(files), 3 * options.guests)
    return [*(([step], []) for step in options.step if step != "e2e"), *((["e2e"], files[i::count]) for i in range(count))]


def make_image(folder, image):
    """An ext4 with room to spare; mke2fs fills it without a mount."""
    used = int(subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0])
    if os.path.exists(image):
        os.remove(image)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", folder, image, f"{used * 5 // 4 + 1024}M"], check=True)


def kernel_images(folder):
    """{"release": path, "backports": path}"""
    found = sorted(glob.glob(os.path.join(folder, "boot", "vmlinuz-*")))
    return {"backports" if "-6.1." not in path else "release": path for path in found}


# --- the machine ---

def machine(options, accel):
    """The guest's processors and clock. The clock of an emulated one runs on while it is idle: else the guest's time would
    run away whenever it waits for its disk."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host", "-smp", str(options.cpus or len(os.sched_getaffinity(0)))]
    if (options.cpus or 1) == 1:
        return ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-cpu", EMULATED, "-smp", "1"]
    return ["-accel", "tcg,thread=multi", "-cpu", EMULATED, "-smp", str(options.cpus)]


def slowness(options, accel):
    """How many times longer the tests may wait: by its own clock one emulated CPU does 10^9 instructions a second."""
    if options.slow:
        return options.slow
    return 1 if accel == "kvm" else 4 if (options.cpus or 1) == 1 else 8


def qemu(options, accel, kernel, image, init, part=0):
    quick = " mitigations=off" if accel == "tcg" else ""
    # The kernel puts these into the environment of init.
    slow = f"SLUICE_TEST_SLOW={slowness(options, accel)} SLUICE_TEST_PART={part}"
    return ["qemu-system-x86_64", *machine(options, accel), "-m", str(options.memory), "-nodefaults", "-display", "none",
            "-no-reboot", "-serial", "stdio", "-kernel", kernel,
            "-drive", f"file={image},format=raw,if=none,id=disk,snapshot=on,cache=unsafe",
            "-device", "nvme,drive=disk,serial=sluice", "-device", "virtio-rng-pci", "-nic", "none",
            "-append", f"console=ttyS0 root=/dev/nvme0n1 rw quiet panic=-1{quick} {slow} init={init}"]


def kvm_works(options, kernel, image):
    """Some machines have /dev/kvm and guests that hang: only one that has run tells. init=/bin/true ends in a panic."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        done = subprocess.run(qemu(options, "kvm", kernel, image, "/bin/true"), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=BOOT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"Kernel panic" in done.stdout


def run_guest(options, accel, name, kernel, image, part):
    """Shows the console as it comes; (passed, failed, skipped)."""
    label = name if options.guests == 1 else f"{name} {part}"
    log = os.path.join(options.build, "kernel", f"console-{label.replace(' ', '-')}.log")
    begin, text = time.monotonic(), ""
    with open(log, "w", encoding="utf-8") as console, subprocess.Popen(
            qemu(options, accel, kernel, image, "/sluice/tests/kernel/guest.sh", part), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as guest:
        clock = threading.Timer(RUN_SECONDS[accel], guest.kill)  # also of a guest that says nothing any more
        clock.start()
        try:
            for line in guest.stdout:
                console.write(line)
                console.flush()
                text += line
                print(f"{label} | {line.rstrip()}", flush=True)
        finally:
            clock.cancel()
            guest.kill()
    ended = re.search(r"^guest: exit (\d+)\s*$", text, re.MULTILINE)
    answers = ANSWER.findall(text)
    print(f"== {label}: {time.monotonic() - begin:.0f} s; the console is in {log}", flush=True)
    if not ended or not answers:
        return 0, 1, 0
    passed, failed, skipped = map(int, answers[-1])
    return passed, max(failed, 1) if ended[1] != "0" else failed, skipped


def run_kernel(options, accel, name, kernel, image):
    """All parts of the work; (passed, failed, skipped)."""
    print(f"== {name}: {os.path.basename(kernel)}, {accel}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.guests) as guests:
        counts = guests.map(lambda part: run_guest(options, accel, name, kernel, image, part),
                            range(len(guest_commands(options))))
        return tuple(map(sum, zip(*counts)))


def main():
    parser = argparse.ArgumentParser(description="runs the tests on Debian 12's kernels")
    parser.add_argument("--build", default="build")
    parser.add_argument("--kernel", action="append", choices=["release", "backports"])
    parser.add_argument("--accel", default="auto", choices=["auto", "kvm", "tcg"])
    parser.add_argument("--cpus", type=int, default=0, help="0: all with KVM, else one")
    parser.add_argument("--guests", type=int, default=1, help="at a time, each with a part of the work")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="end to end: this file of tests/e2e")
    parser.add_argument("--memory", type=int, default=3072, help="MiB")
    parser.add_argument("--slow", type=int, default=0, help="how many times longer tests may wait; 0: what the machine needs")
    parser.add_argument("--command", help="run this in the guest instead of tests/run.py")
    parser.add_argument("step", nargs="*", default=["unit", "sim", "e2e"])
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    if options.guests < 1:
        fail("--guests takes a number from 1 on")
    if os.geteuid() != 0:
        fail("needs root to make the guest's file system: sudo make test-kernel")
    folder = root_folder(os.path.join(options.build, "kernel"))
    copy_tree(options, folder)
    totals = (0, 0, 0)
    with tempfile.TemporaryDirectory(dir=os.path.join(options.build, "kernel")) as scratch:
        image = os.path.join(scratch, "root.ext4")
        make_image(folder, image)
        kernels = kernel_images(folder)
        accel = options.accel
        if accel == "auto":
            accel = "kvm" if kvm_works(options, kernels["release"], image) else "tcg"
        for name in options.kernel or ["release", "backports"]:
            totals = tuple(map(sum, zip(totals, run_kernel(options, accel, name, kernels[name], image))))
    print("{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        fail("interrupted")
    except (OSError, subprocess.CalledProcessError) as trouble:
        fail(trouble)
