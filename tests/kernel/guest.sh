#!/bin/sh
# The first process of the guest that tests/kernel/boot.py starts: makes of a bare root what a Debian 12 offers to the
# tests, runs build/command-PART, which boot.py has written, and switches the machine off. The last line that it writes to the
# serial console is `guest: exit STATUS`.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME=/root LANG=C.UTF-8 CI=true

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
ln -sf /proc/self/fd /dev/fd
ip link set lo up
# What the installer of Debian writes, and what systemd gives to a service.
printf '127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n::1\t\tlocalhost ip6-localhost ip6-loopback\n' > /etc/hosts
echo debian > /proc/sys/kernel/hostname
ulimit -Hn 524288
ulimit -Sn 1024
trap '' INT HUP

echo "guest: Linux $(uname -r), $(grep MemTotal /proc/meminfo | tr -s ' '), huge pages $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
cd /sluice || status=1
setsid -w sh "build/command-$SLUICE_TEST_PART" </dev/null 2>&1
status=$?
echo "guest: exit $status"
sync
echo o > /proc/sysrq-trigger
sleep 60
