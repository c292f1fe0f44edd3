#!/usr/bin/env python3
"""Builds and runs one project that uses the library as its users do.

run_consumer.py KIND --checkout DIR --build DIR --compiler CXX
KIND: fetch_content, add_subdirectory, find_package, absent_component, absent_eigen, pkg_config, meson_subproject,
meson_installed, compare_builds; of a build with the CUDA toolkit: cuda, nccl, meson_cuda. --build is a finished build of the library (what is installed comes from there).
Everything is made in a temporary folder. Ends with 77 (skipped) where a tool is missing.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


class Consumer:
    def __init__(self, options, work):
        self.checkout, self.build, self.compiler, self.work = options.checkout, options.build, options.compiler, work
        self.env = os.environ | {"CXX": options.compiler, "LC_ALL": "C"}

    def run(self, *command, good=True, **more):
        env = self.env | more.pop("env", {})
        done = subprocess.run([str(part) for part in command], env=env, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
        if (done.returncode == 0) != good:
            sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def cmake(self, project, *definitions):
        self.configure(project, *definitions)
        self.run("cmake", "--build", self.work / "build")
        self.run("ctest", "--test-dir", self.work / "build", "--output-on-failure", "--no-tests=error")

    def configure(self, project, *definitions, good=True):
        launcher = ["-D", "CMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        return self.run("cmake", "-G", "Ninja", "-S", HERE / project, "-B", self.work / "build", *launcher,
                        *[part for definition in definitions for part in ("-D", definition)], good=good)

    def install(self):
        prefix = self.work / "prefix"
        self.run("cmake", "--install", self.build, "--prefix", prefix)
        return prefix

    def pkg_config_path(self, prefix):
        return ":".join(str(folder) for folder in prefix.glob("**/pkgconfig"))

    # ---- the kinds ----
    def fetch_content(self):
        # options of backends that this version does not have, or whose component is not asked for, must not disturb it
        self.cmake("fetch_content", f"SHARDWISE_CHECKOUT={self.checkout}", "SHARDWISE_GLOO=ON", "SHARDWISE_MPI=ON")

    def add_subdirectory(self):
        self.cmake("add_subdirectory", f"SHARDWISE_CHECKOUT={self.checkout}", "SHARDWISE_EIGEN=OFF",
                   "SHARDWISE_DOCTEST=OFF")

    def find_package(self):
        self.cmake("find_package", f"CMAKE_PREFIX_PATH={self.install()}")

    def absent_component(self):
        prefix = self.install()
        output = self.configure("find_package", f"CMAKE_PREFIX_PATH={prefix}", "COMPONENTS=core;nccl", good=False)
        expect(output, "component 'nccl' is not part of this installation of shardwise")
        expect(output, "(it has: core, eigen, doctest")

    def absent_eigen(self):
        # a user's machine without Eigen: the core is found, the component says what is missing
        prefix = self.install()
        hidden = [f"CMAKE_PREFIX_PATH={prefix}", "CMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON"]
        output = self.configure("find_package", *hidden, "COMPONENTS=core;eigen", good=False)
        expect(output, "component 'eigen' of shardwise needs Eigen 3.4 or newer")
        shutil.rmtree(self.work / "build")
        self.configure("find_package", *hidden, "COMPONENTS=core")
        # the library's own configuration without third parties, and where they are insisted on
        shutil.rmtree(self.work / "build")
        alone = [f"CMAKE_DISABLE_FIND_PACKAGE_{package}=ON" for package in ("Eigen3", "doctest", "Gloo", "MPI")]
        output = self.configure(self.checkout, *alone)
        expect(output, "components: core\n")
        expect(output, "Debian: libeigen3-dev")
        expect(output, "Debian: doctest-dev")
        output = self.configure(self.checkout, *alone, "SHARDWISE_EIGEN=ON", good=False)
        expect(output, "SHARDWISE_EIGEN=ON asks for shardwise::eigen, but Eigen 3.4")

    def pkg_config(self):
        env = {"PKG_CONFIG_PATH": self.pkg_config_path(self.install())}
        for package, program in (("shardwise", "core"), ("shardwise-eigen", "eigen"), ("shardwise-doctest", "doctest")):
            flags = self.run("pkg-config", "--cflags", "--libs", package, env=env).split()
            self.run(self.compiler, *FLAGS, HERE / f"{program}_program.cpp", "-o", self.work / program, *flags)
            self.run(self.work / program)
        expect(self.run("pkg-config", "--modversion", "shardwise", env=env), "0.1.0")

    def component(self, name):
        """A component of GPUs: by CMake and by pkg-config; its program says what it could not do without a device."""
        prefix = self.install()
        self.cmake("find_package", f"CMAKE_PREFIX_PATH={prefix}", f"COMPONENTS={name}")
        env = {"PKG_CONFIG_PATH": self.pkg_config_path(prefix)}
        flags = self.run("pkg-config", "--cflags", "--libs", f"shardwise-{name}", env=env).split()
        folders = ":".join(flag[2:] for flag in flags if flag.startswith("-L"))
        self.run(self.compiler, *FLAGS, HERE / f"{name}_program.cpp", "-o", self.work / name, *flags)
        output = self.run(self.work / name, env={"LD_LIBRARY_PATH": folders})
        if "skipped: no CUDA device" not in output:
            expect(output, f"{name} program: good")
        print(output, end="")

    def cuda(self):
        self.component("cuda")

    def nccl(self):
        self.component("nccl")

    def meson_cuda(self):
        """Meson knows the components, installs the same headers and libraries, and gives pkg-config the same packages."""
        prefix, meson = self.install(), self.work / "meson"
        toolkit = pathlib.Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").parent
        setup = self.run("meson", "setup", meson, self.checkout, "-Dcuda=enabled", "-Dtests=disabled", "-Dmpi=disabled",
                         "-Dgloo=disabled", env={"PATH": f"{toolkit}:{self.env['PATH']}"})
        expect(setup, "nccl : True")
        installed = json.loads(self.run("meson", "introspect", meson, "--installed")).values()
        part = lambda paths: {"/".join(p.parts[p.parts.index("shardwise"):]) for p in map(pathlib.PurePath, paths)
                              if "/cuda/" in str(p) or "/device/" in str(p) or "/nccl" in str(p)}
        same("headers of GPUs", part(p for p in (prefix / "include").rglob("*.hpp")),
             part(p for p in installed if p.endswith(".hpp")))
        for name in ("libshardwise_cuda.a", "shardwise-cuda.pc", "shardwise-nccl.pc"):
            if not any(path.endswith("/" + name) for path in installed) or not list(prefix.rglob(name)):
                sys.exit(f"{name} is not installed by both builds")

    def meson_consumer(self, subproject, env):
        project = self.work / "project"
        project.mkdir()
        shutil.copy(HERE / "meson" / "meson.build", project)
        for program in HERE.glob("*_program.cpp"):
            shutil.copy(program, project)
        if subproject:
            (project / "subprojects").mkdir()
            (project / "subprojects" / "shardwise").symlink_to(self.checkout)
        self.run("meson", "setup", self.work / "build", project, "-Dwerror=true", "-Dwarning_level=2", env=env)
        self.run("meson", "test", "-C", self.work / "build", env=env)

    def meson_subproject(self):
        self.meson_consumer(True, {})

    def meson_installed(self):
        self.meson_consumer(False, {"PKG_CONFIG_PATH": self.pkg_config_path(self.install())})

    def compare_builds(self):
        """CMake and Meson install the same headers, know the same tests and compile the same sources for them."""
        prefix = self.install()
        meson = self.work / "meson"
        self.run("meson", "setup", meson, self.checkout, "--prefix", self.work / "meson_prefix")
        introspect = lambda what: json.loads(self.run("meson", "introspect", meson, "--" + what))
        installed = {path.split("/include/", 1)[1] for path in introspect("installed").values() if "/include/" in path}
        same("installed headers", {p.relative_to(prefix / "include").as_posix()
                                   for p in (prefix / "include").rglob("*") if p.is_file()}, installed)

        # read from a copy: ctest empties the log of the run in progress even where it only lists
        listed = self.work / "listed"
        for file in self.build.rglob("CTestTestfile.cmake"):
            (listed / file.relative_to(self.build)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, listed / file.relative_to(self.build))
        listing = json.loads(self.run("ctest", "--test-dir", listed, "--show-only=json-v1"))
        labels = lambda test: next((p["value"] for p in test["properties"] if p["name"] == "LABELS"), [])
        known = {test["name"] for test in listing["tests"] if not {"projects", "compile", "examples"} & set(labels(test))}
        same("tests", known, {test["name"] for test in introspect("tests")})

        tests = self.checkout / "tests"
        inside = lambda paths: {pathlib.Path(p).resolve().relative_to(tests).as_posix() for p in paths
                                if pathlib.Path(p).resolve().is_relative_to(tests)}
        commands = json.loads((self.build / "compile_commands.json").read_text())
        # a unit of several test files (tests/together.cmake) includes them by their names
        together = [tests / name for command in commands if pathlib.Path(command["file"]).parent.name == "together"
                    for name in re.findall(r'^#include "(\S+_test\.cpp)"$', pathlib.Path(command["file"]).read_text(), re.M)]
        sources = {source for target in introspect("targets") for group in target["target_sources"]
                   for source in group.get("sources", []) if source.endswith(".cpp")}
        same("sources of tests", inside([command["file"] for command in commands] + together), inside(sources))
        # one of the tests, built and run by Meson
        self.run("meson", "test", "-C", meson, "base", "layers")


def same(what, cmake, meson):
    if cmake != meson or not cmake:
        sys.exit(f"{what}: only CMake: {sorted(cmake - meson)}; only Meson: {sorted(meson - cmake)}")
    print(f"{what}: {len(cmake)} the same")


def expect(output, words):
    if words not in " ".join(output.split()) and words not in output:
        sys.exit(f"expected '{words}' in:\n{output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind")
    parser.add_argument("--checkout", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--compiler", required=True)
    options = parser.parse_args()
    tools = ["cmake", "ninja"] + {"pkg_config": ["pkg-config"], "meson_subproject": ["meson"], "compare_builds": ["meson"],
                                  "meson_installed": ["meson", "pkg-config"], "meson_cuda": ["meson"],
                                  "cuda": ["pkg-config"], "nccl": ["pkg-config"]}.get(options.kind, [])
    for tool in tools:
        if not shutil.which(tool):
            print(f"SKIPPED: {tool} is not installed")
            return 77
    options.checkout = options.checkout.resolve()
    with tempfile.TemporaryDirectory() as work:
        getattr(Consumer(options, pathlib.Path(work)), options.kind)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
