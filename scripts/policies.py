"""Checks the Rego rules: format, strict check, tests with coverage, and the house rules of CONTRIBUTING.

House rules (after the Rego style guide): METADATA with title and description on top of each package, the
package is the folder (and the file, for rules of one view), and each rule file has its twin ``_test.rego``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bus.access.bundle import policy_files
from bus.access.rules.lint import CAPABILITIES, builtins_of, check_rules
from bus.infra.stack.fetch import Downloads
from bus.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "policies", ROOT / "bus" / "infra" / "stack")
LEAST_COVERAGE = 90.0
VIEWS = "bus.views"
"""Each view's own rules are a package of their own."""


def opa_binary() -> Path:
    """OPA from PATH, from the stack's folder, or built now."""
    return Downloads(Settings().home, progress=print).opa()


def run(opa: Path, *arguments: str) -> str:
    done = subprocess.run([opa, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"opa {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def misshaped(rule_file: Path, folder: Path) -> list[str]:
    """What the house rules find in one file."""
    text = rule_file.read_text()
    problems = []
    if not re.match(r"# METADATA\n(#.*\n)*# title: .+\n(#.*\n)*# description: .+", text):
        problems.append(f"{rule_file}: METADATA with title and description is missing on top")
    package = re.search(r"^package (\S+)", text, re.MULTILINE)
    expected = ".".join(rule_file.parent.relative_to(folder).parts)
    expected += f".{rule_file.stem}" if expected == VIEWS else ""
    if expected and (package is None or package.group(1) != expected):
        problems.append(f"{rule_file}: package should be {expected}, as its place")
    if not rule_file.with_name(f"{rule_file.stem}_test.rego").exists():
        problems.append(f"{rule_file}: the twin {rule_file.stem}_test.rego is missing")
    return problems


def main() -> None:
    opa = opa_binary()
    problems: list[str] = []
    only_these = ("--capabilities", str(ROOT / "policies" / CAPABILITIES))
    check_rules(policy_files(ROOT / "policies"), builtins_of(ROOT / "policies"))
    for folder in FOLDERS:
        rules = [path for path in sorted(folder.rglob("*.rego")) if not path.stem.endswith("_test")]
        for path in rules:
            problems += misshaped(path, folder)
        files = [str(path) for path in sorted(folder.rglob("*.rego"))]
        badly_formatted = run(opa, "fmt", "--list", *files).split()
        problems += [f"{path}: run `opa fmt --write {path}`" for path in badly_formatted]
        run(opa, "check", "--strict", *only_these, *files)
        coverage = json.loads(run(opa, "test", *only_these, "--coverage", "--format=json", *files))["coverage"]
        if coverage < LEAST_COVERAGE:
            problems.append(f"{folder}: tests cover {coverage:.0f} % of the lines, at least {LEAST_COVERAGE:.0f} %")
        sys.stdout.write(f"{folder.relative_to(ROOT)}: {len(rules)} rule files, coverage {coverage:.0f} %\n")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
