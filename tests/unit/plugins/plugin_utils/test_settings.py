# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of settings, what values it takes, and that the roles say the same."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import time
import typing as t

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import (
    ArchConfig,
    load_directory,
    parse_conf,
    SystemMismatch,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import (
    CONF_NAMES,
    resolve,
    ROLES,
    SettingError,
    SETTINGS,
    Settings,
    unknown,
    unknown_in_conf,
)

COLLECTION = pathlib.Path(__file__).resolve().parents[4]


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_the_table(role: str) -> None:
    text = (COLLECTION / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    options = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    expected = {}
    for name, setting in SETTINGS.items():
        if role not in setting.roles:
            continue
        spec = {
            "description": list(setting.description),
            "type": setting.kind.ansible,
            "elements": setting.kind.elements,
            "choices": setting.kind.choices and list(setting.kind.choices),
            "default": None if role in setting.required else setting.written,
            "required": role in setting.required or None,
            "no_log": setting.secret or None,
        }
        expected[name] = {key: value for key, value in spec.items() if value is not None}
    assert options == expected
    assert list(options) == list(expected)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_each_setting_is_documented(setting: t.Any) -> None:
    assert re.fullmatch(r"portbuild_[a-z][a-z0-9_]*", setting.name)
    assert setting.roles and set(setting.required) <= set(setting.roles) <= set(ROLES)
    for text in setting.description:
        assert text.endswith("."), text
        assert text[0].isupper()
        for name in re.findall(r"O\((\w+)", text):
            assert name in SETTINGS
    if setting.per_package:
        assert setting.scope != "controller"


def test_every_name_in_conf_means_one_setting() -> None:
    assert sum(len(setting.conf_names) for setting in SETTINGS.values()) == len(CONF_NAMES)


def test_types_of_the_dataclass_are_those_of_the_values() -> None:
    types = t.get_type_hints(Settings)
    for setting in SETTINGS.values():
        assert isinstance(setting.default, t.get_origin(types[setting.field]) or types[setting.field]), setting.name


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("maxjobs", "3", 3),
        ("maxjobs", 3, 3),
        ("maxjobs", "", 1),
        ("maxjobs", None, 1),
        ("noclean", "true", True),
        ("noclean", "Yes", True),
        ("noclean", "1", True),
        ("noclean", 1, True),
        ("noclean", "on", True),
        ("noclean", "off", False),
        ("noclean", "0", False),
        ("noclean", "False", False),
        ("timeout", "8h", 28800),
        ("timeout", "90m", 5400),
        ("timeout", "1h30m", 5400),
        ("timeout", "1H 30M", 5400),
        ("timeout", "2d", 172800),
        ("timeout", 3600, 3600),
        ("timeout", "3600", 3600),
        ("disk_limit", "512M", 512 << 20),
        ("disk_limit", "2GiB", 2 << 30),
        ("disk_limit", "2 gb", 2 << 30),
        ("disk_limit", 0, 0),
        ("disk_limit", "1048576", 1 << 20),
        ("check", True, "on"),
        ("check", False, "off"),
        ("check", "first", "first"),
        ("keep_workdir", False, "no"),
        ("build_options", "nocheck, parallel=2", ("nocheck", "parallel=2")),
        ("build_options", ["nocheck"], ("nocheck",)),
        ("build_options", [], ()),
        ("scratchdir", "//x/./y/", "/x/y"),
        ("branch", 14, "14"),
        ("branch", 14.1, "14.1"),
        ("package", "hello=2:1.0-1", "hello=2:1.0-1"),
        ("sudo_cmd", "", ""),
        ("sudo_cmd", " /usr/local/bin/doas  -n", "/usr/local/bin/doas -n"),
        ("mail_to", "a@example.org,root", ("a@example.org", "root")),
        ("mail_events", {"plist": []}, {"plist": ()}),
        ("mail_events", '{"plist": ["a@b"]}', {"plist": ("a@b",)}),
        ("mail_events", "", {}),
        ("package_settings", '{"a": {"timeout": "1h"}}', {"a": {"timeout": "1h"}}),
        ("targets", "hello\r\nlibx=1.0-1\n  @/srv/list\n", ("hello", "libx=1.0-1", "@/srv/list")),
        ("version_suffix", "~bpo12+1", "~bpo12+1"),
    ],
)
def test_good_values(name: str, value: t.Any, expected: t.Any) -> None:
    found = getattr(resolve({f"portbuild_{name}": value}, None), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxjobs", "many"),
        ("maxjobs", -1),
        ("maxjobs", 2.5),
        ("maxjobs", True),
        ("maxjobs", "\uff11"),
        ("maxjobs", [3]),
        ("noclean", "maybe"),
        ("noclean", 2),
        ("noclean", [True]),
        ("timeout", "8x"),
        ("timeout", "h"),
        ("timeout", "1h30"),
        ("timeout", "-1h"),
        ("timeout", "0"),
        ("timeout", "31d"),
        ("poll_interval", 61),
        ("disk_limit", "1.5G"),
        ("disk_limit", "G"),
        ("disk_limit", "1P"),
        ("disk_limit", "1G2M"),
        ("check", "sometimes"),
        ("keep_workdir", True),
        ("system", "rpm"),
        ("build_options", "no$(x)"),
        ("build_options", [["nocheck"]]),
        ("build_options", {"nocheck": 1}),
        ("scratchdir", "x/y"),
        ("scratchdir", "/x/../y"),
        ("scratchdir", "/x\ny"),
        ("root", "{{ nowhere }}"),
        ("arch", "../x"),
        ("branch", "a b"),
        ("package", "../x"),
        ("package", "-rf"),
        ("package", "a\nb"),
        ("package", "x" * 300),
        ("package", "héllo"),
        ("package", "hello="),
        ("package", "hello=1 2"),
        ("sudo_cmd", "su -c"),
        ("sudo_cmd", "sudo; reboot"),
        ("http_proxy", "proxy:3128"),
        ("http_proxy", "http://x/$(y)"),
        ("client_user", "a b"),
        ("mail_from", "a@b\nBcc: x@y"),
        ("mail_to", ["a b@c"]),
        ("mail_events", {"explosion": []}),
        ("mail_events", []),
        ("mail_events", "[]"),
        ("mail_events", "plist=a@b"),
        ("package_settings", "[" * 100_000),
        ("package_settings", {"a": 3}),
        ("package_settings", {"a": {"timeuot": "1h"}}),
        ("package_settings", {"a": {"maxjobs": 2}}),
        ("authorized_key", "key\nother key"),
        ("version_suffix", "-1"),
    ],
)
def test_bad_values(name: str, value: t.Any) -> None:
    with pytest.raises(SettingError) as error:
        resolve({f"portbuild_{name}": value}, None)
    message = str(error.value)
    assert f"portbuild_{name}" in message
    assert "expected" in message
    assert repr(value)[:40] in message


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingError) as error:
        resolve({"portbuild_maxjobs": "x", "portbuild_timeout": "y"}, None)
    assert len(error.value.details["problems"]) == 2


def test_a_password_is_not_shown() -> None:
    with pytest.raises(SettingError) as error:
        resolve({"portbuild_mail_password": "secret\x01"}, None)
    assert "secret" not in str(error.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), ANYTHING)
def test_no_value_crashes(name: str, value: t.Any) -> None:
    try:
        found = resolve({name: value}, None)
    except SettingError as error:
        assert name in str(error)
    else:
        hash(found.maxjobs)


# -- where values come from ----------------------------------------------------------------------------------------------


def config_of(tmp_path: pathlib.Path, **files: str) -> ArchConfig:
    directory = tmp_path / "amd64"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / ("mlist" if name == "mlist" else f"portbuild.{name}")).write_text(text)
    return load_directory(str(tmp_path), "amd64")


def test_precedence(tmp_path: pathlib.Path) -> None:
    config = config_of(tmp_path, conf="maxjobs=2\ntimeout=2h\nplistcheck=1\n", b1="maxjobs=3\n")
    assert resolve({}, None).maxjobs == 1
    assert resolve({}, config).maxjobs == 2
    assert resolve({}, config, machine="b1").maxjobs == 3
    assert resolve({}, config, machine="b2").maxjobs == 2
    assert resolve({}, config, machine="b1").plistcheck is True
    assert resolve({"portbuild_maxjobs": 4}, config, machine="b1").maxjobs == 4
    assert (
        resolve({"portbuild_maxjobs": 4}, config, machine="b1", machine_variables={"portbuild_maxjobs": "5"}).maxjobs
        == 5
    )
    assert resolve({}, config, machine_variables={"portbuild_plistcheck": False}).plistcheck is True
    by_package = {"portbuild_timeout": "3h", "portbuild_package_settings": {"x": {"timeout": "4h"}}}
    assert resolve(by_package, config).timeout == 10800
    assert resolve(by_package, config, package="x").timeout == 14400
    assert resolve({**by_package, "portbuild_package": "x=1.0"}, config).timeout == 14400
    assert resolve(by_package, config, package="y").timeout == 10800


def test_package_settings_by_pattern() -> None:
    entries = {"gcc": {"timeout": "3h"}, "g*": {"timeout": "1h", "portbuild_make_jobs": 2}, "*c": {"timeout": "2h"}}
    found = resolve({"portbuild_package_settings": entries}, None, package="gcc")
    assert (found.timeout, found.make_jobs) == (10800, 2)
    assert resolve({"portbuild_package_settings": entries}, None, package="glibc").timeout == 7200
    with pytest.raises(SettingError, match=r"portbuild_timeout is 'x' \(for a in portbuild_package_settings\)"):
        resolve({"portbuild_package_settings": {"a": {"timeout": "x"}}}, None, package="a")


def test_originals_names(tmp_path: pathlib.Path) -> None:
    config = config_of(tmp_path, conf="mailto=a@b.c\nmd_size=11g\nNOCLEAN=1\nsystem=ports\nsudo_cmd=\n")
    found = resolve({}, config)
    assert (found.mail_to, found.tmpfs_size, found.noclean, found.sudo_cmd) == (("a@b.c",), 11 << 30, True, "")
    assert resolve({"portbuild_noclean": False}, config).noclean is False


def test_errors_name_the_place(tmp_path: pathlib.Path) -> None:
    config = config_of(tmp_path, conf="\nmaxjobs=many\n", b1="maxjobs=2", b2="maxjobs=$(nproc)")
    with pytest.raises(
        SettingError,
        match=r"portbuild_maxjobs is 'many' \(maxjobs= in .*/amd64/portbuild.conf:2\); expected a whole number",
    ):
        resolve({}, config)
    assert resolve({}, config, machine="b1").maxjobs == 2
    with pytest.raises(
        SettingError, match=r"portbuild_maxjobs could not be read: .*portbuild.b2:1: A command substitution"
    ):
        resolve({}, config, machine="b2")
    assert resolve({"portbuild_maxjobs": 1}, config, machine="b2").maxjobs == 1


def test_client_user(tmp_path: pathlib.Path) -> None:
    assert resolve({}, None).client_user == "root"
    assert resolve({"ansible_user": "ports"}, None).client_user == "ports"
    assert resolve({}, None, machine_variables={"ansible_user": "ports"}).client_user == "ports"
    assert resolve({"ansible_user": "ports", "portbuild_client_user": "other"}, None).client_user == "other"
    assert resolve({"ansible_user": "ports"}, config_of(tmp_path, conf="client_user=third")).client_user == "third"


def test_one_package_system_per_arch(tmp_path: pathlib.Path) -> None:
    config = config_of(tmp_path, conf="system=debian\n")
    assert resolve({}, config).system == "debian"
    with pytest.raises(SystemMismatch, match="'ports', but this arch serves 'debian'"):
        resolve({"portbuild_system": "ports"}, config)


def test_package_name_and_version() -> None:
    found = resolve({"portbuild_package": "hello=2.10-3"}, None)
    assert (found.package_name, found.package_version) == ("hello", "2.10-3")
    found = resolve({"portbuild_package": "hello"}, None)
    assert (found.package_name, found.package_version) == ("hello", "")


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve({}, None).maxjobs = 2  # type: ignore[misc]


def test_it_is_fast(tmp_path: pathlib.Path) -> None:
    config = config_of(tmp_path, conf="maxjobs=2\ntimeout=3h\n", b1="maxjobs=1\n")
    variables = {f"other_{number}": number for number in range(500)} | {"portbuild_disk_limit": "3G"}
    resolve(variables, config, machine="b1", package="x")
    started = time.perf_counter()
    for _round in range(50):
        resolve(variables, config, machine="b1", package="x")
    assert (time.perf_counter() - started) / 50 < 0.002


# -- what nobody knows ---------------------------------------------------------------------------------------------------


def test_unknown_variables() -> None:
    problems = [
        str(problem)
        for problem in unknown(["portbuild_max_jobs", "portbuild_maxjobs", "x", "portbuild_q9", "__portbuild_y"])
    ]
    assert problems == [
        "There is no setting portbuild_max_jobs. Did you mean portbuild_maxjobs?",
        "There is no setting portbuild_q9.",
    ]


def test_unknown_in_conf() -> None:
    conf = parse_conf("max_jobs=3\nmine=1\nscratchdir=$mine\nother=2\nuse_jail=1\n", "dir/portbuild.conf")
    assert [str(problem) for problem in unknown_in_conf(conf)] == [
        "dir/portbuild.conf: Without effect: max_jobs (did you mean maxjobs?), other."
    ]
    assert unknown_in_conf(parse_conf("maxjobs=1", "f")) == []
    assert "plistcheck (a machine has none of its own)" in str(
        unknown_in_conf(parse_conf("plistcheck=1", "f:1"), of_machine=True)[0]
    )
