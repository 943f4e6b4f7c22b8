# Checks over SSH whether a host can start guests of a kind; changes nothing. What follows these functions is made from
# the tables in node-installer/requirements/; the installer makes the same checks on nodes. $1: the processors that are
# known, a line each: vendor, family, first and last model, TEE, name.
# shellcheck disable=SC2034 # What follows uses all of it.
set -eu
root=${ROOT:-}
generations=$1
failed=
found=

said=
# Each sentence once: several tables begin with the same checks.
say() {
  found=yes
  case $said in *"[$2]"*) return ;; esac
  said="${said}[$2]"
  printf '%s: %s\n' "$1" "$2" >&2
}
error() { failed=yes; say problem "$1"; }
warning() { say warning "$1"; }

content() { cat "$root$1" 2>/dev/null || true; }
exists() { [ -e "$root$1" ]; }

device() { exists "/dev/$1"; }
module() { exists "/sys/module/$1"; }

# $1: the name of a field. Of the first processor.
cpu() { content /proc/cpuinfo | sed -n "/^\$/q; s/[[:space:]]*\$//; s/^$1[[:space:]]*:[[:space:]]*//p" | head -n 1; }
cpu_vendor() {
  maker=$(cpu vendor_id)
  [ -n "$maker" ] || [ -z "$(cpu 'CPU implementer')" ] || maker=ARM
  printf '%s\n' "${maker:-unknown}"
}
cpu_number() {
  number=$(cpu "$1")
  case $number in '' | *[!0-9]*) echo 0 ;; *) echo "$number" ;; esac
}
vendor() { [ "$(cpu_vendor)" = "$1" ]; }
flag() { cpu flags | tr ' ' '\n' | grep -Fqx "$1"; }
# TEE and name, or nothing.
generation() {
  family=$(cpu_number 'cpu family')
  model=$(cpu_number model)
  echo "$generations" | while read -r maker of first last tee name; do
    if vendor "$maker" && [ "$family" -eq "$of" ] && [ "$model" -ge "$first" ] && [ "$model" -le "$last" ]; then
      echo "$tee $name"
      break
    fi
  done
}
no_generation_without() { case $(generation) in '' | "$1 "* | "some-$1 "*) return 0 ;; *) return 1 ;; esac; }
only_some_have() { case $(generation) in "some-$1 "*) return 0 ;; *) return 1 ;; esac; }
cpu_name() {
  known=$(generation)
  if [ -n "$known" ]; then echo "${known#* }"; else printf 'of vendor "%s"\n' "$(cpu_vendor)"; fi
}

kernel() { content /proc/sys/kernel/osrelease; }
booted_with() { content /proc/cmdline | tr -s '[:space:]' '\n' | grep -Eqx "$1"; }

# $1: MODULE.PARAMETER
parameter() { content "/sys/module/${1%.*}/parameters/${1#*.}"; }
present() { [ -n "$(parameter "$1")" ]; }
on() { case $(parameter "$1") in [Yy1]*) return 0 ;; *) return 1 ;; esac; }
reads_digit() { case $(parameter "$1") in 1*) return 0 ;; *) return 1 ;; esac; }

any_iommu() { [ -n "$(ls -A "$root/sys/class/iommu" 2>/dev/null)" ]; }
iommu_passes_through() { [ "$(content /sys/kernel/iommu_groups/0/type)" = identity ]; }

# In cgroup v1 the controller has its own directory.
keys_for() {
  capacity=$(content /sys/fs/cgroup/misc.capacity)
  [ -n "$capacity" ] || capacity=$(content /sys/fs/cgroup/misc/misc.capacity)
  ! printf '%s\n' "$capacity" | grep -Eqx "$1 0+"
}
quote_service() { exists /etc/qgs.conf || exists /run/tdx-qgs || exists /var/run/tdx-qgs; }
# $1: a path. Whether something is mounted right over it.
mounted() { content /proc/self/mountinfo | cut -d ' ' -f 5 | grep -Fqx "$1"; }
# $1: a path. The letter of an attribute that keeps even root from replacing it, if it has one, and if that can be asked.
fixing_attribute() {
  attributes=$(lsattr -d "$root$1" 2>/dev/null) || return 0
  case ${attributes%% *} in *i*) echo i ;; *a*) echo a ;; esac
}

# NVIDIA's, with or without a display output.
any_gpu() {
  for address in "$root"/sys/bus/pci/devices/*; do
    if grep -qx 0x10de "$address/vendor" 2>/dev/null && grep -Eq '^0x030[02]' "$address/class" 2>/dev/null; then return 0; fi
  done
  return 1
}
