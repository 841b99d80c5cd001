"""Builds of the programs in build/languages, with generated code that is new in each run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
BUILD = ROOT / "build/languages"
LIMIT_S = 240
Command = list[str]
JARS = [
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite"),
    *("grpc-stub", "netty-*", "perfmark-*", "guava", "protobuf", "protobuf-util", "gson"),
    *("proto-google-common-protos", "geronimo-annotation-1.3-spec"),
]


def run(*command: str | Path, text: str | None = None, **variables: str) -> str:
    """Return what a program prints; fail with its output if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


def generate(*outputs: str, protos: tuple[str, ...] = ("pooling/v1/pooling.proto",)) -> None:
    """Generate code with protoc; `outputs` are its options."""
    for option in outputs:
        if "_out=" in option:
            Path(option.split("=", 1)[1]).mkdir(parents=True, exist_ok=True)
    run("/usr/bin/protoc", "-Iprotos", "-Iclient/node", *outputs, *protos)


def build_cpp() -> tuple[Command, Command]:
    """Return the example of the README and the replayer of vectors."""
    readme = (ROOT / "client/cpp/README.md").read_text()
    (example,) = re.findall(r"^```cpp\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    folder = BUILD / "cpp"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "example.cc"
    if not source.exists() or source.read_text() != example:
        source.write_text(example)
    run(
        *("cmake", "-S", "client/cpp", "-B", folder, "-DPOOLING_BUILD_TESTS=ON"),
        *(f"-DPOOLING_EXAMPLE={source}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"),
    )
    run("cmake", "--build", folder, "--parallel", "2")
    return [str(folder / "pooling_example")], [str(folder / "pooling_vectors")]


def build_go() -> tuple[Command, Command]:
    """Return the example and the replayer, built in GOPATH mode as Debian 12 does."""
    folder = BUILD / "go"
    generate(f"--go_out={folder}/src", f"--go-grpc_out={folder}/src")
    programs = []
    for source in (ROOT / "examples/go/pool.go", HERE / "replay.go"):
        program = folder / source.stem
        path = f"{folder}:/usr/share/gocode"
        cache = str(folder / "cache")
        run(
            *("/usr/bin/go", "build", "-o", program, source),
            GO111MODULE="off",
            GOPATH=path,
            GOCACHE=cache,
        )
        programs.append([str(program)])
    return programs[0], programs[1]


def build_java() -> tuple[Command, Command]:
    """Return the example and the replayer, compiled with Debian's jars."""
    folder = BUILD / "java"
    generate(
        f"--java_out={folder}/src",
        f"--grpc-java_out={folder}/src",
        "--plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin",
        protos=("pooling/v1/pooling.proto", "status.proto"),
    )
    sources = [
        ROOT / "examples/java/Pool.java",
        HERE / "Replay.java",
        *folder.rglob("src/**/*.java"),
    ]
    classes = folder / "classes"
    jars = ":".join(
        str(jar) for name in JARS for jar in Path("/usr/share/java").glob(f"{name}.jar")
    )
    run("javac", "-nowarn", "-cp", jars, "-d", classes, *sources)
    command = ["java", "-cp", f"{classes}:{jars}"]
    return [*command, "Pool"], [*command, "Replay"]


def build_ruby() -> tuple[Command, Command]:
    """Return the example and the replayer, with generated code on their path."""
    folder = BUILD / "ruby"
    plugin = "--plugin=protoc-gen-grpc=/usr/bin/grpc_ruby_plugin"
    generate(f"--ruby_out={folder}", f"--grpc_out={folder}", plugin)
    command = ["/usr/bin/ruby", "-I", str(folder)]
    return [*command, "examples/ruby/pool.rb"], [*command, str(HERE / "replay.rb")]
