#!/usr/bin/env bash
# The packages of a SLURM cluster, for root on Debian or Ubuntu; says so and stops where they cannot be had.
set -euo pipefail
packages=(slurm-wlm slurmdbd munge mariadb-server)
for program in slurmctld slurmd slurmdbd munged mariadbd; do
  PATH=$PATH:/usr/sbin command -v "$program" > /dev/null || missing=yes
done
if [ "$(id -u)" != 0 ]; then
  echo "error: the tests of SLURM start its daemons, which takes root. Run them in a container, as root." >&2
  exit 1
fi
[ "${missing:-no}" = yes ] || exit 0
if ! command -v apt-get > /dev/null; then
  echo "error: SLURM is missing, and apt-get too: install ${packages[*]} by the means of your system." >&2
  exit 1
fi
echo "Installing ${packages[*]} ..."
apt-get update -qq
# Where another installation is going on, wait for it.
DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 -y -qq --no-install-recommends "${packages[@]}" > /dev/null
