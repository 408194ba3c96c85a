"""Settings as an operator meets them: every mistake at once, named with its variable; nothing secret on a screen."""

import re
from pathlib import Path

import pytest

from streamer.errors import SettingsError
from streamer.events import KINDS
from streamer.settings import Settings, load, units, unknown_variables

HIDDEN = "hush"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"STREAMER_{name.upper()}", raising=False)


def test_every_setting_has_a_unit_and_a_reason_for_its_default() -> None:
    assert set(units()) == set(Settings.model_fields)
    assert all(units().values())
    assert all(field.description for field in Settings.model_fields.values())


def test_durations_and_sizes_carry_their_unit_in_the_name() -> None:
    suffixes = {"ms": "_ms", "bytes": "_bytes", "MiB": "_mb"}
    assert [name for name, unit in units().items() if not name.endswith(suffixes.get(unit, ""))] == []


def test_defaults_are_valid_and_need_no_environment() -> None:
    assert load().brokers == "localhost:9092"


def test_environment_wins_over_the_default_and_an_option_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_PARTITIONS", "6")
    assert load().partitions == 6
    assert load(partitions=3).partitions == 3


def test_an_option_that_was_not_given_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_BROKERS", "kafka:9092")
    assert load(brokers=None).brokers == "kafka:9092"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_PARTITIONS", "")
    assert load().partitions == 12


def test_all_mistakes_are_reported_at_once_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_PARTITIONS", "many")
    monkeypatch.setenv("STREAMER_CHECKPOINT_MS", "0")
    monkeypatch.setenv("STREAMER_BROKERS", "kafka")
    with pytest.raises(SettingsError) as caught:
        load()
    for mistake in ("STREAMER_PARTITIONS='many'", "STREAMER_CHECKPOINT_MS='0'", "STREAMER_BROKERS='kafka'"):
        assert mistake in str(caught.value)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"interest_enter": 0.01, "interest_leave": 0.02}, "lower STREAMER_INTEREST_LEAVE"),
        ({"half_life_ms": 1000, "recent_half_life_ms": 2000}, "lower STREAMER_RECENT_HALF_LIFE_MS"),
        ({"cache_users": 1000, "batch_records": 5000}, "raise STREAMER_CACHE_USERS"),
        ({"security_protocol": "SASL_SSL"}, "needs STREAMER_SASL_USERNAME and STREAMER_SASL_PASSWORD"),
    ],
)
def test_settings_that_fight_are_refused_with_a_remedy(options: dict[str, object], remedy: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(remedy)):
        load(**options)


def test_all_users_of_a_batch_have_to_fit_into_the_cache() -> None:
    most = len(KINDS) * 1000  # a batch has so many records of each kind
    assert load(cache_users=most, batch_records=1000).cache_users == most
    with pytest.raises(SettingsError, match=f"cache_users must be at least {most}"):
        load(cache_users=most - 1, batch_records=1000)


@pytest.mark.parametrize("brokers", ["kafka:9092", "a:1,b:2", "10.0.0.1:9092, [::1]:9092"])
def test_brokers_are_hosts_with_ports(brokers: str) -> None:
    assert load(brokers=brokers).brokers == brokers


@pytest.mark.parametrize("brokers", ["kafka", "http://kafka:9092", "a:1,,b:2", "a:1 b:2"])
def test_brokers_of_another_form_are_refused_with_the_form_that_is_meant(brokers: str) -> None:
    with pytest.raises(SettingsError, match="is not host:port"):
        load(brokers=brokers)


def test_a_password_is_in_no_representation_of_the_settings() -> None:
    settings = load(sasl_username="u", sasl_password=HIDDEN, http_token=HIDDEN)
    assert HIDDEN not in repr(settings) + str(settings.model_dump(mode="json")) + settings.model_dump_json()
    assert settings.sasl_password.get_secret_value() == HIDDEN


def test_an_unknown_variable_is_named_and_a_known_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_BROKER", "kafka:9092")
    monkeypatch.setenv("STREAMER_PARTITIONS", "6")
    assert unknown_variables() == ["STREAMER_BROKER"]


def test_settings_cannot_be_changed_after_they_were_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().data_dir = tmp_path


@pytest.mark.parametrize("name", ["", "..", ".shop", "shöp", "a/b", "x" * 101])
def test_a_name_is_one_that_topics_and_directories_can_have(name: str) -> None:
    with pytest.raises(SettingsError, match="STREAMER_APP_ID"):
        load(app_id=name)


def test_the_prefix_stands_before_every_topic_of_ours() -> None:
    settings = load(topic_prefix="eu.", app_id="shop")
    names = (settings.topic("clicks"), settings.signals_topic, settings.models_topic, settings.changelog_topic)
    assert names == ("eu.clicks", "eu.item-signals", "eu.item-models", "eu.shop-changelog")
