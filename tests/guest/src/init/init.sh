#!/bin/busybox sh
# The first process of a test guest: loads drivers, then runs what the host says, line by line.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin LD_LIBRARY_PATH=/lib
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
while read -r module; do
    insmod "/modules/$module" || echo "init: cannot load $module"
done </modules/order

# The console stays the kernel's; a port of its own is the host's way in.
# The first number in its name is the console's place among all virtio devices. Its node appears a moment before it can be opened.
until port=$(ls /dev/vport*p1 2>/dev/null) && (: <>"$port") 2>/dev/null; do
    usleep 10000
done
exec <>"$port" >&0 2>&0
echo "@ready"
while read -r number command; do
    sh -c "$command" </dev/null
    printf '\n@done %s %s\n' "$number" "$?"
done
