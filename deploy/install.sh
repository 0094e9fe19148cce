#!/bin/sh
# Install Consilium into a virtual environment of its own, with every version that this release was tested with.
#   install.sh FOLDER [cpu|cuda]           from the package index
#   install.sh FOLDER offline              from wheels/ beside this script, without any network
# With EXTRAS=tracking (or more, with commas) in the environment those extras come too; the bundle holds tracking.
# PYTHON names the interpreter, where it is not python3.
# The environment holds no pip afterwards: nothing can be installed into it by whoever gets in.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
extras=${EXTRAS:+[$EXTRAS]}

refuse() {
  echo "install.sh: $1" >&2
  exit 2
}
case ${1:-} in
  "" | -*)
    sed -n 's/^# \{0,1\}//; 2,7p' "$0" >&2
    exit 2
    ;;
esac
folder=$1
variant=${2:-cpu}
case $variant in
  cpu | cuda | offline) ;;
  *) refuse "the second word is cpu, cuda or offline" ;;
esac
command -v "$python" >/dev/null || refuse "there is no $python; PYTHON=... names another interpreter"
if [ "$variant" = offline ]; then
  [ -d "$here/wheels" ] || refuse "there is no wheels/ beside this script; unpack the bundle and start the one in it"
  (cd "$here" && sha256sum --strict --quiet --check MANIFEST.sha256) >&2 ||
    refuse "files are not as MANIFEST.sha256 says; carry the bundle over again"
  # Wheels with compiled code are for one version of Python; this is one that no bundle is without.
  for wheel in "$here"/wheels/pydantic_core-*.whl; do
    built=$(echo "$wheel" | sed -n 's/.*-\(cp[0-9]*\)-cp[0-9]*-[^-]*$/\1/p')
    ours=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    if [ -n "$built" ] && [ "$built" != "$ours" ]; then
      refuse "the wheels are for Python $built and $python is $ours; PYTHON=... names another interpreter"
    fi
  done
fi
echo "Installing into $folder; this takes minutes and says nothing meanwhile ..."
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
echo "Installed. Read $folder/share/runbook.md; the first command is $folder/bin/consilium-site init, or consilium-server init."
