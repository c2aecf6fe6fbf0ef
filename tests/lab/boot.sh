#!/bin/bash
# Becomes the systemd of a machine: bash boot.sh ROOT NAMESPACE GROUP
#
# ROOT is a root of a Debian, the machine's own; NAMESPACE the network namespace in which it is; GROUP a control group that
# is made for it. The control groups are as the kernel of this machine has them: all in one tree,
# or, where that has memory and pids in trees of their own, those beside it.
set -euo pipefail

# hierarchy NAME TYPE OPTIONS: mounts it afresh, wherever else it is mounted
hierarchy() {
  mkdir -p "/sys/fs/cgroup$1"
  mount -t "$2" -o "$3" cgroup "/sys/fs/cgroup$1"
}

hierarchies() {
  if awk '$1 == "memory" && $2 != 0 { found = 1 } END { exit !found }' /proc/cgroups; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    hierarchy /unified cgroup2 rw
    hierarchy /systemd cgroup none,name=systemd
    hierarchy /memory cgroup memory
    hierarchy /pids cgroup pids
    trees="/unified /systemd /memory /pids"
  else
    hierarchy "" cgroup2 rw
    trees=/
  fi
}

# In namespaces of its own for mounts: its own control group, then all other namespaces.
outer() {
  local tree trees
  hierarchies
  for tree in $trees; do
    mkdir -p "/sys/fs/cgroup$tree/$group"
    echo 0 >"/sys/fs/cgroup$tree/$group/cgroup.procs"
  done
  exec nsenter --net="/run/netns/$namespace" \
    unshare --cgroup --uts --ipc --mount --pid --fork --kill-child /bin/bash "$0" inner "$root" "$namespace" "$group"
}

# The first process of the machine.
inner() {
  local device
  mount --make-rprivate /
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount -t tmpfs tmpfs "$root/run"
  mount -t tmpfs tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mkdir "$root/dev/shm" "$root/dev/pts"
  for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m666 "$root/dev/${device%:*}" c 1 "${device#*:}"; done
  # without these, systemd cannot make the sandbox of a unit
  mknod -m666 "$root/dev/tty" c 5 0
  mknod -m600 "$root/dev/console" c 1 3
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  cd "$root"
  mkdir -p .old
  pivot_root . .old
  hierarchies
  umount -l /.old
  rmdir /.old
  mount --make-rshared /
  exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
}

if [ "$1" = inner ]; then shift; step=inner; else step=outer; fi
root=$1 namespace=$2 group=$3
$step
