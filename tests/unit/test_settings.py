"""Typed settings: every error names key, value and what is allowed; values survive a round trip; hashes are stable."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from pydantic.errors import PydanticUserError

from geoloc.settings import (
    FROM_TEXT,
    Name,
    Number,
    Settings,
    SettingsError,
    Text,
    WholeNumber,
    changes,
    parse,
    replace,
    setting,
    settings_hash,
    to_dict,
    used,
)


class Inner(Settings):
    count: int = setting(3, minimum=1, maximum=9)
    name: Literal["a", "b"] = setting("a")


class Outer(Settings):
    ratio: Number = setting(0.5, minimum=0.0, maximum=1.0, help="a share")
    on: bool = setting(False)
    text: str = setting("")
    maybe: int | None = setting(None, minimum=2)
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = setting((1, 2))
    crops: Annotated[Literal[1, 5], WholeNumber] = setting(1)
    shares: dict[Text, Number] = setting(factory=dict)
    inner: Inner = setting(Inner())
    inners: tuple[Inner, ...] = setting(())
    optional: Inner | None = setting(None)

    def check(self, key: str) -> None:
        if self.on and self.ratio == 0:
            raise SettingsError(f"{key}.ratio must not be 0 when {key}.on is true")


class Needs(Settings):
    path: str = setting(help="where it is")


class TestParse:
    def test_defaults(self):
        assert parse(Outer, None) == parse(Outer, {}) == Outer()

    def test_every_kind_of_value(self):
        made = parse(
            Outer,
            {
                "ratio": 1, "on": True, "text": "x", "maybe": 2, "sizes": [4, 5], "crops": 5,
                "shares": {"train": 0.75, 5: 1}, "inner": {"count": 9}, "inners": [{"name": "b"}, {}],
                "optional": {"count": 1},
            },
        )  # fmt: skip
        assert made == Outer(
            ratio=1.0,
            on=True,
            text="x",
            maybe=2,
            sizes=(4, 5),
            crops=5,
            shares={"train": 0.75, "5": 1.0},
            inner=Inner(count=9),
            inners=(Inner(name="b"), Inner()),
            optional=Inner(count=1),
        )
        assert type(made.ratio) is float
        assert type(made.shares["5"]) is float

    def test_made_settings_are_taken_as_they_are(self):
        assert parse(Outer, {"inner": Inner(count=5)}).inner == Inner(count=5)

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
            ({"crops": True}, "top.crops must be a whole number, got True"),
            ({"crops": 3}, "top.crops must be one of 1, 5; got 3"),
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

    def test_types_that_yaml_cannot_give_are_the_programmers_error(self):
        with pytest.raises(PydanticUserError):

            class Odd(Settings):
                array: np.ndarray = setting(None)

    def test_rules_of_nested_settings_name_their_key(self):
        class Top(Settings):
            outers: dict[str, Outer] = setting(factory=dict)

        with pytest.raises(
            SettingsError, match=r"^x\.outers\.a\.ratio must not be 0 when x\.outers\.a\.on is true$"
        ):
            parse(Top, {"outers": {"a": {"on": True, "ratio": 0}}}, "x")

    def test_the_first_error_is_that_of_the_first_field(self):
        with pytest.raises(SettingsError, match=r"^inner\.count must be at least 1"):
            parse(Outer, {"optional": 3, "inner": {"count": 0}})

    def test_settings_cannot_be_changed_but_replaced(self):
        made = Outer(sizes=(3,))
        with pytest.raises(ValidationError, match="frozen"):
            made.ratio = 0.1
        assert replace(made, ratio=1).ratio == 1.0
        assert replace(made, ratio=1, inner=Inner(count=2)) == Outer(
            sizes=(3,), ratio=1.0, inner=Inner(count=2)
        )
        with pytest.raises(SettingsError, match=r"^inner\.count must be at most 9, got 10$"):
            replace(made, inner={"count": 10})
        with pytest.raises(SettingsError, match=r"^maybe must be a whole number, got True$"):
            replace(made, maybe=True)
        with pytest.raises(SettingsError, match=r"^size is unknown"):
            replace(made, size=1)


inners = st.builds(Inner, count=st.integers(1, 9), name=st.sampled_from(["a", "b"]))
outers = st.builds(
    Outer,
    ratio=st.floats(0, 1),
    on=st.just(False),
    text=st.sampled_from(["", "1e3", "null", "yes"])
    | st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=9),
    maybe=st.none() | st.integers(2),
    sizes=st.lists(st.integers(1), max_size=4).map(tuple),
    crops=st.sampled_from([1, 5]),
    shares=st.dictionaries(st.sampled_from(["train", "test", "1"]), st.floats(-1e9, 1e9)),
    inner=inners,
    inners=st.lists(inners, max_size=3).map(tuple),
    optional=st.none() | inners,
)


class TestRoundTrip:
    @given(outers)
    @hypothesis_settings(deadline=None)
    def test_to_dict_and_parse_are_inverse_through_yaml(self, made):
        plain = to_dict(made)
        assert parse(Outer, plain) == made
        assert parse(Outer, yaml.safe_load(yaml.safe_dump(plain))) == made

    def test_to_dict_is_plain(self):
        assert to_dict(Outer(inners=(Inner(),))) == {
            "ratio": 0.5, "on": False, "text": "", "maybe": None, "sizes": [1, 2], "crops": 1, "shares": {},
            "inner": {"count": 3, "name": "a"}, "inners": [{"count": 3, "name": "a"}], "optional": None,
        }  # fmt: skip
        assert to_dict({"a": (Path("b") / "c",)}) == {"a": ["b/c"]}


class TestHash:
    @given(outers, outers)
    @hypothesis_settings(deadline=None)
    def test_equal_settings_have_equal_hashes_and_others_others(self, one, other):
        assert settings_hash(one) == settings_hash(parse(Outer, to_dict(one)))
        assert (settings_hash(one) == settings_hash(other)) == (to_dict(one) == to_dict(other))

    def test_order_of_keys_does_not_count_and_order_of_settings_does(self):
        assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
        assert settings_hash(Inner(), Outer()) != settings_hash(Outer(), Inner())
        assert settings_hash(Inner()) != settings_hash(Inner(), Inner())

    def test_is_the_same_in_another_process(self):
        code = (
            "from geoloc.settings import FROM_TEXT, settings_hash\n"
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


class Named(Settings):
    inners: dict[Name, Inner] = setting(factory=lambda: {"first": Inner()})
    weights: dict[Name, Annotated[float, Field(ge=0.0), FROM_TEXT]] = setting(factory=dict)


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


class Part(Settings):
    how: Literal["fast", "good"] = setting("fast")
    most: int = setting(9, when=("wanted", (0,)))
    rounds: int = setting(5, when=("how", ("good",)))
    threads: int = setting(0, counts=False)


class Whole(Settings):
    wanted: int = setting(0, minimum=0)
    kinds: tuple[Literal["svm", "knn"], ...] = setting(())
    k: int = setting(10, when=("kinds", ("knn",)))
    part: Part = setting(Part())
    teacher: Part | None = setting(None, when=("kinds", ("svm", "knn")))
    weights: dict[Name, Number] = setting(factory=dict)
    parts: dict[Name, Part] = setting(factory=lambda: {"fine": Part()})
    seed: int = setting(0)


some = st.integers(0, 2)
parts = st.builds(Part, how=st.sampled_from(["fast", "good"]), most=some, rounds=some, threads=some)
names = st.permutations(["a", "b", "c"]).flatmap(lambda order: some.map(lambda n: order[:n]))
wholes = st.builds(
    Whole,
    wanted=some,
    kinds=st.sampled_from([(), ("svm",), ("svm", "knn")]),
    k=some,
    part=parts,
    teacher=st.none() | parts,
    weights=st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1)),
    parts=names.flatmap(
        lambda keys: st.tuples(*[parts] * len(keys)).map(lambda v: dict(zip(keys, v, strict=True)))
    ),
    seed=some,
)


class TestUsed:
    def test_only_what_can_change_a_result_now(self):
        part = {"how": "fast", "most": 9}
        assert used(Whole()) == {
            "wanted": 0, "kinds": [], "part": part, "weights": {}, "parts": [{"name": "fine", **part}], "seed": 0,
        }  # fmt: skip

    def test_a_setting_counts_where_its_sibling_or_one_above_has_one_of_the_values(self):
        good = Part(how="good", threads=3)
        found = used(Whole(kinds=("svm", "knn"), part=good, teacher=good, wanted=5))
        assert found["k"] == 10
        assert found["part"] == found["teacher"] == {"how": "good", "rounds": 5}
        assert used(good) == {"how": "good", "most": 9, "rounds": 5}  # alone: nothing above it

    @given(wholes)
    @hypothesis_settings(deadline=None)
    def test_what_is_left_out_cannot_matter_to_what_is_made_of_it(self, whole):
        plain = used(whole)
        plain["parts"] = {part.pop("name"): part for part in plain["parts"]}
        assert used(parse(Whole, plain)) == used(whole)


class TestChanges:
    @given(wholes, wholes, st.sampled_from(list(Whole.model_fields)))
    @hypothesis_settings(deadline=None)
    @pytest.mark.slow
    def test_none_if_and_only_if_what_is_used_is_equal(self, one, other, name):
        for a, b in (
            (one, other),
            (one, replace(one, **{name: getattr(other, name)})),
            (one.part, other.part),
        ):
            assert (changes(used(a), b) == []) == (used(a) == used(b))

    @pytest.mark.parametrize(
        ("values", "keys"),
        [
            ({}, []),
            ({"seed": 2}, ["seed"]),
            ({"part": {"threads": 4, "rounds": 7}}, []),
            ({"part": {"most": 1}}, ["part.most"]),
            ({"part": {"how": "good"}}, ["part.how"]),
            ({"part": {"how": "good", "rounds": 7}}, ["part.how", "part.rounds"]),
            ({"wanted": 3, "part": {"most": 1}}, ["wanted"]),
            ({"kinds": ["knn"]}, ["kinds"]),
            ({"kinds": ["svm"], "teacher": {}}, ["kinds", "teacher"]),
            ({"weights": {"a": 1.0}}, ["weights.a"]),
            ({"parts": {"fine": {}, "coarse": {}}}, ["parts.coarse"]),
            ({"parts": {"coarse": {}}}, ["parts.fine", "parts.coarse"]),
            ({"parts": {"fine": {"most": 1}}}, ["parts.fine.most"]),
        ],
    )
    def test_keys_are_dotted(self, values, keys):
        assert changes(used(Whole()), parse(Whole, values)) == keys

    def test_order_of_sections_counts_and_of_values_by_name_does_not(self):
        two = Whole(parts={"a": Part(), "b": Part()}, weights={"a": 1.0, "b": 2.0})
        turned = Whole(parts={"b": Part(), "a": Part()}, weights={"b": 2.0, "a": 1.0})
        assert changes(used(two), turned) == ["parts"]

    def test_a_key_that_the_record_lacks_was_the_default_and_one_that_only_it_has_is_gone(self):
        old = used(Whole())
        del old["seed"], old["part"]["how"], old["parts"][0]["most"], old["wanted"]
        old["colour"] = old["part"]["colour"] = "red"
        assert changes(old, Whole()) == []
        assert changes(old, Whole(seed=1)) == ["seed"]
        assert changes(old, Whole(part=Part(how="good", rounds=1))) == ["part.how", "part.rounds"]
        del old["part"]
        assert changes(old, Whole(part=Part(most=1))) == ["part.most"]
        assert changes({}, Needs(path="x")) == ["path"]

    def test_of_a_section_of_a_mapping_and_of_a_value(self):
        assert changes(3, 3, "seed") == []
        assert changes(3, 4, "seed") == ["seed"]
        assert changes(used(Part()), Part(most=1), "part") == ["part.most"]
        sections = {"a": Part(), "b": Part()}
        assert changes(used(sections), sections, "parts") == []
        assert changes(used(sections), {"a": Part(), "b": Part(most=1)}, "parts") == ["parts.b.most"]
        assert changes({"weights": {"a": 1.0, "b": 1.0}}, Whole(weights={"b": 1.0})) == ["weights.a"]
