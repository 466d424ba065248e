"""From a remote's `cloud:` to its provider."""

from __future__ import annotations

import pytest

from orchestrator.clouds.power import Power
from orchestrator.clouds.provider import PROVIDERS, open_provider
from orchestrator.errors import CloudRefused, ConfigError
from orchestrator.settings.spec import CloudSpec, Remote

NAMES = {"subscription": "1-2", "resource_group": "exam", "vm": "gpu-1"}


def remote(provider: str, **options: str) -> Remote:
    return Remote("k80", "host", cloud=CloudSpec(provider, tuple(sorted(options.items()))))


def test_every_provider_is_opened_without_asking_a_cloud() -> None:
    remotes = [
        remote("azure", **NAMES),
        remote("aws", region="eu-central-1", instance="i-1", profile="exam"),
        remote("gcp", project="exam-1", zone="europe-west4-a", instance="gpu-1"),
        remote("command", start="a", stop="b", status="echo running", stop_itself="c"),
        remote("none"),
    ]
    assert [one.cloud.provider for one in remotes if one.cloud] == list(PROVIDERS)

    for one in remotes:
        provider = open_provider(one)
        assert provider is not None
        assert Power.RUNNING in provider.tariff.billed
        assert Power.STOPPED_FREE not in provider.tariff.billed
    assert open_provider(Remote("k80", "host")) is None


@pytest.mark.parametrize(
    ("cloud", "words", "fix"),
    [
        (remote("asure", **NAMES), "no provider 'asure'; is 'azure' meant?", "azure, aws"),
        (remote("azure", **NAMES, resourcegroup="x"), "is 'resource_group' meant?", "its options"),
        (remote("azure", vm="a"), "needs subscription, resource_group as well", "vm: gpu-1"),
        (remote("aws", region="eu-central-1"), "needs instance as well", "i-0123"),
        (remote("none", start="x"), "none has no option 'start'", "leave it out"),
        (remote("azure", **{**NAMES, "vm": "../x"}), "no name that azure gives", "vm: gpu-1"),
        (remote("gcp", project="a?b", zone="z", instance="i"), "no name that gcp", "exam-123"),
        (remote("aws", region="x", instance="i", profile="--x"), "no name", "profile"),
    ],
)
def test_wrong_options_are_named_with_what_is_right(cloud: Remote, words: str, fix: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        open_provider(cloud)

    assert str(wrong.value).startswith("cloud of the remote k80: ")
    assert words in str(wrong.value)
    assert fix in wrong.value.fix


def test_an_endpoint_that_could_be_listened_to_is_refused() -> None:
    with pytest.raises(CloudRefused, match="Azure cannot be asked at http"):
        open_provider(remote("azure", **NAMES, endpoint="http://management.azure.com"))
