"""Evil rules are not published (A16): found by the lint before signing, by OPA's capabilities, and by golden tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from opa_process import POLICIES

from bus.access.bundle import policy_files
from bus.access.rules.lint import CAPABILITIES, builtins_of, check_rules
from bus.errors import InvalidDeclaration, SetupError

BUILTINS = builtins_of(POLICIES)
HEAD = "package bus.views.business\n"
GOOD = HEAD + 'allow if input.channel == "lookup"\ninclude if allow\n'
FORBIDDEN = (
    "http.send",
    "net.lookup_ip_addr",
    "opa.runtime",
    "rego.parse_module",
    "trace",
    "io.jwt.encode_sign",
    "crypto.hmac.sha256",
    "crypto.x509.parse_keypair",
    "crypto.parse_private_keys",
    "walk",
    "numbers.range",
    "time.now_ns",
    "rand.intn",
    "uuid.rfc4122",
    "print",
)


def check(source: str, path: str = "bus/views/business.rego") -> None:
    check_rules({path: source.encode()}, BUILTINS)


def test_the_buss_own_rules_pass() -> None:
    """As they are in the repository, and so does a small rule of a view."""
    check_rules(policy_files(POLICIES), BUILTINS)
    check(GOOD)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("default include := true", "the default of `include` is false"),
        ("default allow = true", "the default of `allow` is false"),
        ("allow := true", "true without a condition"),
        ("allow_all := true", "true without a condition"),
        ("include", "true without a condition"),
        ("allow_all if { every tag in input.tags { tag == 1 } }", "true of an empty list"),
        ("allow_all if {\n\tevery g in input.grants { g.x }\n\tcount(input.tags) > 0\n}", "true of an empty list"),
        ('allow if http.send({"url": "http://x", "method": "get"})', "'http.send' may not be called"),
        ('allow if http["send"]({})', "'http.send' may not be called"),
        ('allow if http["se\\u006ed"]({})', "'http.send' may not be called"),
        ("allow if http[`send`]({})", "'http.send' may not be called"),
        ("allow if opa\n.runtime ()", "'opa.runtime' may not be called"),
        ("allow if { f := [1]; f[0](1) }", "not a name"),
        ('allow if $"{opa.runtime()}"', "'$' is not taken"),
        ("allow if data.bus.grants", "not `data`"),
        ("import data.system", "not `data`"),
        ('allow if input.x with input as {"x": 1}', "another input"),
        ("allow if input.名", "is not taken"),
        (r'allow if input.x == "\q"', "is no text"),
        ("package bus.access", "more than one package"),
    ],
)
def test_what_a_views_rule_may_not_say(rule: str, why: str) -> None:
    """Each is refused with its reason, wherever it stands."""
    for source in (GOOD + rule + "\n", GOOD + "\n# a comment\n" + rule):
        with pytest.raises(InvalidDeclaration, match=why.replace("$", r"\$").replace("`", ".")):
            check(source)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_functions_that_reach_outside(opa_binary: Path, tmp_path: Path, name: str) -> None:
    """No such function is in the capabilities: neither the lint nor OPA takes it."""
    source = GOOD + f"allow if {name}({{}})\n"
    with pytest.raises(InvalidDeclaration, match=f"'{name}' may not be called"):
        check(source)
    with pytest.raises(InvalidDeclaration, match=f"'{name}' may not be called"):
        check(source.replace("bus.views.business", "bus.access"), "bus/access/more.rego")
    file = tmp_path / "rule.rego"
    file.write_text(source)
    command = [opa_binary, "check", "--capabilities", POLICIES / CAPABILITIES, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "undefined function" in done.stderr + done.stdout


@pytest.mark.parametrize(
    "rule",
    [
        "allow_all if {\n\tcount(input.tags) > 0\n\tevery tag in input.tags { tag == 1 }\n}",
        'allow_all if every x in ["a"] { x == input.channel }',
        'own(x) if x == "a"\n\nallow_all if own(input.channel)',
        "default allow := false",
        "allow := input.officer",
        'hint := sprintf("%v", [input.view])',
        "include if {\n\tnot input.subject.officer\n\tinput.row.ward in {1, 2}\n} else := false",
    ],
)
def test_what_it_may_say(rule: str) -> None:
    """The lint is no stricter than it must be."""
    check(GOOD + rule + "\n")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("bus/views/business.rego", GOOD.replace("bus.views.business", "bus.access")),
        ("bus/views/business.rego", GOOD.replace("bus.views.business", "bus.views.other")),
        ("bus/views/deep/business.rego", GOOD),
        ("bus/views/Business.rego", GOOD),
        ("system/authz.rego", GOOD.replace("bus.views.business", "system.authz")),
        ("bus/access/more.rego", GOOD),
        ("bus/views/business.rego", ""),
        ("bus/views/business.rego", HEAD),
        ("bus/views/business.rego", GOOD + "#" * 70_000),
    ],
)
def test_a_file_stays_in_its_place(path: str, source: str) -> None:
    """A view's file cannot say anything for the grants' rules or for another view, nor be empty."""
    with pytest.raises(InvalidDeclaration):
        check(source, path)


def test_without_capabilities_nothing_is_checked(tmp_path: Path) -> None:
    """A folder without the file is an error, not a folder where everything may be called."""
    with pytest.raises(SetupError, match="capabilities"):
        builtins_of(tmp_path)


@pytest.mark.parametrize(
    "rule", ["allow if 1 == 1", "include if not input.forbidden", 'allow_all if input.channel == "stream"']
)
def test_golden_tests_catch_what_the_lint_cannot_read(opa_binary: Path, tmp_path: Path, rule: str) -> None:
    """A rule that is true of no request passes the lint, and not the tests that each view's rules must pass."""
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES, policies)
    file = policies / "bus" / "views" / "business.rego"
    command = [opa_binary, "test", "--run", "golden", *sorted(policies.rglob("*.rego")), file]
    file.write_text(GOOD)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    file.write_text(GOOD + rule + "\n")
    check(file.read_text())
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
