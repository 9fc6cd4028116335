"""Typed settings: every error names key, value and what is allowed; values survive a round trip; hashes are stable."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from geoloc.settings import SettingsError, parse, setting, settings_hash, to_dict


@dataclass(frozen=True)
class Inner:
    count: int = setting(3, minimum=1, maximum=9)
    name: str = setting("a", choices=("a", "b"))


@dataclass(frozen=True)
class Outer:
    ratio: float = setting(0.5, minimum=0.0, maximum=1.0, help="a share")
    on: bool = setting(False)
    text: str = setting("")
    maybe: int | None = setting(None, minimum=2)
    sizes: tuple[int, ...] = setting((1, 2), minimum=1)
    pair: tuple[int, str] = setting((1, "x"))
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    inner: Inner = setting(Inner())
    inners: tuple[Inner, ...] = setting(())
    optional: Inner | None = setting(None)

    def validate(self, key: str) -> None:
        if self.on and self.ratio == 0:
            raise SettingsError(f"{key}.ratio must not be 0 when {key}.on is true")


@dataclass(frozen=True)
class Needs:
    path: str = setting(help="where it is")


class TestParse:
    def test_defaults(self):
        assert parse(Outer, None) == parse(Outer, {}) == Outer()

    def test_every_kind_of_value(self):
        made = parse(
            Outer,
            {
                "ratio": 1, "on": True, "text": "x", "maybe": 2, "sizes": [4, 5], "pair": [7, "y"],
                "shares": {"train": 0.75, 5: 1}, "inner": {"count": 9}, "inners": [{"name": "b"}, {}],
                "optional": {"count": 1},
            },
        )  # fmt: skip
        assert made == Outer(
            1.0,
            True,
            "x",
            2,
            (4, 5),
            (7, "y"),
            {"train": 0.75, "5": 1.0},
            Inner(9),
            (Inner(3, "b"), Inner()),
            Inner(1),
        )
        assert type(made.ratio) is float
        assert type(made.shares["5"]) is float

    def test_made_settings_are_taken_as_they_are(self):
        assert parse(Outer, {"inner": Inner(5)}).inner == Inner(5)

    def test_yaml_numbers_in_scientific_notation_are_text_to_yaml_and_numbers_to_us(self):
        assert yaml.safe_load("ratio: 1e-3") == {"ratio": "1e-3"}
        assert parse(Outer, yaml.safe_load("ratio: 1e-3")).ratio == 0.001

    def test_null_is_absence_where_that_is_allowed(self):
        assert parse(Outer, {"maybe": None, "optional": None}) == Outer()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"ratio": 1.5}, "top.ratio must be at most 1.0, got 1.5"),
            ({"ratio": -0.1}, "top.ratio must be at least 0.0, got -0.1"),
            ({"ratio": "half"}, "top.ratio must be a number, got 'half'"),
            ({"ratio": True}, "top.ratio must be a finite number, got True"),
            ({"ratio": None}, "top.ratio must be a finite number, got None"),
            ({"ratio": float("nan")}, "top.ratio must be a finite number, got nan"),
            ({"ratio": "inf"}, "top.ratio must be a finite number, got inf"),
            ({"ratio": 10**400}, "top.ratio must be a finite number, got 1000"),
            ({"ratio": [0.5]}, "top.ratio must be a finite number, got [0.5]"),
            ({"on": 1}, "top.on must be true or false, got 1"),
            ({"on": "yes"}, "top.on must be true or false, got 'yes'"),
            ({"text": 5}, "top.text must be text, got 5"),
            ({"text": None}, "top.text must be text, got None"),
            ({"maybe": 1}, "top.maybe must be at least 2, got 1"),
            ({"maybe": 2.0}, "top.maybe must be a whole number, got 2.0"),
            ({"sizes": [3, 0]}, "top.sizes[1] must be at least 1, got 0"),
            ({"sizes": 3}, "top.sizes must be a list, got 3"),
            ({"sizes": "12"}, "top.sizes must be a list, got '12'"),
            ({"sizes": [True]}, "top.sizes[0] must be a whole number, got True"),
            ({"pair": [1]}, "top.pair must be a list of 2, got [1]"),
            ({"pair": [1, "x", "y"]}, "top.pair must be a list of 2, got [1, 'x', 'y']"),
            ({"pair": [1, 2]}, "top.pair[1] must be text, got 2"),
            ({"shares": {"test": "many"}}, "top.shares.test must be a number, got 'many'"),
            ({"shares": [1]}, "top.shares must be a mapping, got [1]"),
            ({"inner": {"count": 0}}, "top.inner.count must be at least 1, got 0"),
            ({"inner": {"count": 10}}, "top.inner.count must be at most 9, got 10"),
            ({"inner": {"name": "c"}}, "top.inner.name must be one of a, b; got 'c'"),
            ({"inner": {"size": 1}}, "top.inner.size is unknown; allowed here: count, name"),
            ({"inner": 5}, "top.inner must be a mapping, got 5"),
            ({"inners": [{}, {"count": 0}]}, "top.inners[1].count must be at least 1, got 0"),
            ({"optional": {"count": 0}}, "top.optional.count must be at least 1, got 0"),
            ({"on": True, "ratio": 0}, "top.ratio must not be 0 when top.on is true"),
            ([], "top must be a mapping, got []"),
        ],
    )
    def test_errors_name_key_value_and_what_is_allowed(self, values, message):
        with pytest.raises(SettingsError) as raised:
            parse(Outer, values, "top")
        assert str(raised.value).startswith(message)

    def test_without_a_key_the_field_alone_is_named(self):
        with pytest.raises(SettingsError, match=r"^ratio must be at most 1.0, got 2\.0$"):
            parse(Outer, {"ratio": 2})
        with pytest.raises(SettingsError, match=r"^settings must be a mapping, got 3$"):
            parse(Outer, 3)

    def test_limits_are_inclusive(self):
        assert parse(Inner, {"count": 1}).count == 1
        assert parse(Inner, {"count": 9}).count == 9

    def test_what_has_no_default_must_be_given(self):
        with pytest.raises(SettingsError, match=r"^a\.path must be given: where it is$"):
            parse(Needs, {}, "a")
        assert parse(Needs, {"path": "x"}).path == "x"

    def test_a_settings_error_is_a_value_error(self):
        assert issubclass(SettingsError, ValueError)

    @pytest.mark.parametrize("default", [[], {}, set()])
    def test_a_default_that_can_change_is_refused(self, default):
        with pytest.raises(TypeError, match="immutable"):
            setting(default)

    def test_types_that_are_not_supported_are_the_programmers_error(self):
        @dataclass(frozen=True)
        class Odd:
            either: int | str = setting(1)
            raw: bytes = setting(b"")

        for values in ({"either": "x"}, {"raw": b"x"}):
            with pytest.raises(TypeError, match="not supported"):
                parse(Odd, values)


inners = st.builds(Inner, st.integers(1, 9), st.sampled_from(["a", "b"]))
outers = st.builds(
    Outer,
    ratio=st.floats(0, 1),
    on=st.just(False),
    text=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=9),
    maybe=st.none() | st.integers(2),
    sizes=st.lists(st.integers(1), max_size=4).map(tuple),
    pair=st.tuples(st.integers(), st.sampled_from(["", "1e3", "null", "yes"])),
    shares=st.dictionaries(st.sampled_from(["train", "test", "1"]), st.floats(-1e9, 1e9)),
    inner=inners,
    inners=st.lists(inners, max_size=3).map(tuple),
    optional=st.none() | inners,
)


class TestRoundTrip:
    @given(outers)
    @hypothesis_settings(max_examples=100, deadline=None)
    def test_to_dict_and_parse_are_inverse_through_yaml(self, made):
        plain = to_dict(made)
        assert parse(Outer, plain) == made
        assert parse(Outer, yaml.safe_load(yaml.safe_dump(plain))) == made

    def test_to_dict_is_plain(self):
        assert to_dict(Outer(inners=(Inner(),))) == {
            "ratio": 0.5, "on": False, "text": "", "maybe": None, "sizes": [1, 2], "pair": [1, "x"], "shares": {},
            "inner": {"count": 3, "name": "a"}, "inners": [{"count": 3, "name": "a"}], "optional": None,
        }  # fmt: skip
        assert to_dict({"a": (Path("b") / "c",)}) == {"a": ["b/c"]}


class TestHash:
    @given(outers, outers)
    @hypothesis_settings(max_examples=100, deadline=None)
    def test_equal_settings_have_equal_hashes_and_others_others(self, one, other):
        assert settings_hash(one) == settings_hash(parse(Outer, to_dict(one)))
        assert (settings_hash(one) == settings_hash(other)) == (to_dict(one) == to_dict(other))

    def test_order_of_keys_does_not_count_and_order_of_settings_does(self):
        assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
        assert settings_hash(Inner(), Outer()) != settings_hash(Outer(), Inner())
        assert settings_hash(Inner()) != settings_hash(Inner(), Inner())

    def test_is_the_same_in_another_process(self):
        code = (
            "from geoloc.settings import settings_hash\n"
            "print(settings_hash({'x': [1, 2.5, 'ü', None], 'a': {'k': 1}}))"
        )
        made = {
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                text=True,
                env={"PYTHONHASHSEED": seed},
            ).stdout.strip()
            for seed in ("1", "2")
        }
        assert made == {settings_hash({"a": {"k": 1}, "x": [1, 2.5, "ü", None]})}
        assert len(made.pop()) == 64


@dataclasses.dataclass(frozen=True)
class Named:
    inners: dict[str, Inner] = setting(factory=lambda: {"first": Inner()}, names=True)
    weights: dict[str, float] = setting(factory=dict, minimum=0.0, names=True)


class TestMappingsFromNames:
    def test_values_are_settings_of_their_own_in_the_order_given(self):
        made = parse(Named, {"inners": {"second": {"count": 3}, "first": None}, "weights": {"second": 2}})
        assert list(made.inners.items()) == [("second", Inner(count=3)), ("first", Inner())]
        assert made.weights == {"second": 2.0}
        assert parse(Named, to_dict(made)) == made
        assert parse(Named, {}).inners == {"first": Inner()}

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"inners": {"fine": {"count": 0}}}, r"top\.inners\.fine\.count must be at least 1, got 0"),
            ({"inners": {"fine": {"cuont": 2}}}, r"top\.inners\.fine\.cuont is unknown"),
            ({"inners": {"Fine": {}}}, r"top\.inners must have lower-case words .* got 'Fine'"),
            ({"inners": {"../x": {}}}, r"top\.inners must have lower-case words .* got '\.\./x'"),
            ({"inners": {1: {}}}, r"top\.inners must have lower-case words .* got 1"),
            ({"inners": []}, r"top\.inners must be a mapping, got \[\]"),
            ({"weights": {"fine": -1}}, r"top\.weights\.fine must be at least 0\.0, got -1"),
        ],
    )
    def test_errors_name_the_whole_key(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(Named, values, "top")
