#!/bin/sh
# Install Consilium into a virtual environment of its own, with every version that this release was tested with.
#   install.sh FOLDER [cpu|cuda]           from the package index
#   install.sh FOLDER offline              from wheels/ beside this script, without any network
# With EXTRAS=tracking (or more, with commas) in the environment those extras come too; the bundle holds tracking.
# The environment holds no pip afterwards: nothing can be installed into it by whoever gets in.
set -eu
folder=$1
variant=${2:-cpu}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
extras=${EXTRAS:+[$EXTRAS]}
case $variant in
  cpu | cuda | offline) ;;
  *)
    echo "install.sh: the second word is cpu, cuda or offline" >&2
    exit 2
    ;;
esac
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

"$python" -m venv --without-pip "$folder"
"$python" -m venv "$tools/venv"
pip() { "$tools/venv/bin/pip" --python "$folder/bin/python" --disable-pip-version-check "$@"; }

case $variant in
  offline)
    where="--no-index --find-links $here/wheels"
    constraints=$here/constraints.txt
    what=consilium$extras
    ;;
  cpu | cuda)
    where=
    constraints=$here/../constraints.txt
    what=$here/..$extras
    # The index's own torch is the one for CUDA; without it the image is five times smaller.
    if [ "$variant" = cpu ]; then
      pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu -c "$constraints" torch
    fi
    ;;
esac
# shellcheck disable=SC2086 # two words
pip install --quiet $where --no-cache-dir -c "$constraints" "$what"
# The same OpenCV without windows: the other needs graphics libraries that a server does not have.
# shellcheck disable=SC2086
pip install --quiet $where --no-cache-dir --no-deps --force-reinstall -c "$constraints" opencv-python-headless
mkdir -p "$folder/share"
for file in "$here/no.key" "$here/runbook.md" "$here/../docs/runbook.md"; do
  if [ -f "$file" ]; then cp "$file" "$folder/share/"; fi
done
